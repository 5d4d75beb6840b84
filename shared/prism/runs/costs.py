"""What a run's tokens cost, by the prices that were valid when it was accepted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from prism.runs.catalogue import ModelEntry


class Tokens(Protocol):
    """Tokens that were counted."""

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def completion_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Cost:
    """Money, exact."""

    amount: Decimal
    currency: str


def cost_of(entries: Sequence[ModelEntry], whole: Tokens, shares: Mapping[str, Tokens]) -> Cost | None:
    """Return what a run's tokens cost; None where a price is missing, or the prices have two currencies.

    `shares`: those of each of several models, by name; of a run with one model none.
    """
    parts = [(one, shares.get(one.name) if len(entries) > 1 else whole) for one in entries]
    currencies = {one.price.currency if one.price else None for one in entries}
    if len(currencies) != 1 or None in currencies:
        return None
    amount = sum((_amount(entry, tokens) for entry, tokens in parts), Decimal(0))
    return Cost(amount, next(one for one in currencies if one is not None))


def _amount(entry: ModelEntry, tokens: Tokens | None) -> Decimal:
    found = entry.cost(tokens.prompt_tokens, tokens.completion_tokens) if tokens is not None else None
    return found or Decimal(0)
