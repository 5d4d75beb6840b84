"""What a run will take: foretold from a small sample, in lines for a screen."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from prism.runs.forecast import Interval
from prism_cli import job_forecast
from prism_cli.console import count, duration, printable
from prism_cli.job_spec import JobSpec
from prism_cli.prediction import Prediction, warnings

SAMPLE = 5
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What was foretold: name and text of each fact, and what to be warned of."""

    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, str]:
        """Return the facts by name."""
        return dict(self.facts)


class Skipped(Exception):
    """Nobody waits for the sample any more; `tell` raises it."""


def foretell(spec: JobSpec, options: Namespace, tell: Tell) -> Outlook:
    """Ask a small sample and return what follows. Raises CommandFailed, and what `tell` raises."""
    _, place, found = job_forecast.foretell(spec, options, tell, notice=lambda _: None)
    one = found[0]
    return Outlook(tuple(_facts(one, place.workers)), tuple(warnings(one)))


def _facts(one: Prediction, workers: int) -> list[tuple[str, str]]:
    survey, forecast = one.survey, one.forecast
    rows = f"{count(survey.rows)}"
    rows += f", {count(survey.reused)} of them need no call: others say the same" if survey.reused else ""
    facts = [("rows", rows), ("calls", _many(forecast.calls.interval()))]
    facts.append(("tokens", _many(forecast.tokens.interval())))
    facts.append(("time", f"{_time(one, workers)} with {workers} worker{'' if workers == 1 else 's'}"))
    facts.append(("cost", _cost(one)))
    failed = one.rows_failed
    facts.append(("failed rows", _failures(failed)))
    asked = sum(taken.rows for taken in one.outcome.taken)
    facts.append(("sample", _sample(one, asked)))
    return facts


def _failures(failed: Interval) -> str:
    if round(failed.high) == 0:
        return "none expected"
    return f"none of the sample; {count(round(failed.high))} at most" if failed.point < 1 else _many(failed)


def _sample(one: Prediction, asked: int) -> str:
    reasons = ", ".join(f"{printable(name)} {number}" for name, number in sorted(one.outcome.failed.items()))
    return f"{count(asked)} rows asked" + (f", failed: {reasons}" if reasons else ", all answered")


def _time(one: Prediction, workers: int) -> str:
    interval = one.seconds(workers)
    if interval.point < 1:
        return "about a second"
    low, high = duration(interval.low), duration(interval.high)
    return f"about {duration(interval.point)}" + (f" ({low} to {high})" if low != high else "")


def _cost(one: Prediction) -> str:
    if one.cost is None or one.price is None:
        return "no price in models.json"
    interval = one.cost.interval()
    told = f"{_amount(interval.point)} {one.price.currency}"
    same = _amount(interval.low) == _amount(interval.high)
    return told if same else f"{told} ({_amount(interval.low)} to {_amount(interval.high)})"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _many(interval: Interval) -> str:
    point, low, high = (count(round(value)) for value in (interval.point, interval.low, interval.high))
    return point if low == high else f"about {point} ({low} to {high})"
