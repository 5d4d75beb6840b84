"""Numbers as a person reads them, in few characters."""

from decimal import Decimal

from prism_cli.console import count


def speed(number: float) -> str:
    """Return rows per second, with a decimal as long as it says something."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.1f}"


def whole(number: float | None) -> str:
    """Return a number without decimals, – for none."""
    return "–" if number is None else f"{number:,.0f}"


def large(number: int) -> str:
    """Return a count that stays within ten characters."""
    for unit, size in (("G", 10**9), ("M", 10**6)):
        if number >= 10 * size:
            return f"{number / size:,.1f} {unit}"
    return count(number)


def per_cent(part: int, whole: int) -> str:
    """Return a share as a person says it."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.1f} %" if 0.1 <= share < 10 else f"{share:.0f} %" if share >= 10 else "<0.1 %"


def money(amount: Decimal) -> str:
    """Return an amount: to the cent, of little money to a hundredth of it."""
    if 0 < amount < Decimal("0.0001"):
        return "<0.0001"
    return f"{amount:,.2f}" if amount >= 10 or amount == round(amount, 2) else f"{amount:.4f}"


def rounded_share(part: int, whole: int) -> str:
    """Return a share in at most five characters."""
    share = 100 * part / whole if whole else 0.0
    if 99 < share < 100:  # nearly all is not all
        return ">99 %"
    return "<1 %" if 0 < share < 1 else f"{share:.0f} %"


def short(seconds: float) -> str:
    """Return a duration in at most five characters."""
    whole = int(seconds)
    if whole < 100:
        return f"{whole} s"
    return f"{whole // 60} m" if whole < 6000 else f"{whole // 3600} h"


def plural(number: int, noun: str) -> str:
    """Return `1 batch` or `1,234 batches`."""
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count(number)} {noun}{ending}"
