"""What a dry run says: one JSON object for scripts, a table for people, warnings about the budget."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from prism.runs.catalogue import Price
from prism.runs.forecast import LEVEL, Forecast, Interval, Total
from prism.runs.job import Job
from prism_cli.console import count, duration, printable, table
from prism_cli.survey import Survey
from prism_cli.trial import Outcome

# A whole number that was summed up is not quite one.
_ROUNDING = 1e-6
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Prediction:
    """All that a dry run found out. workers: of the fleet here; each remembers answers for itself."""

    filename: str
    job_name: str
    job: Job
    model: str
    server: str
    digest: str
    price: Price | None
    workers: int
    concurrency: int | None
    batches: int
    survey: Survey
    outcome: Outcome
    forecast: Forecast

    @property
    def cost(self) -> Total | None:
        """What the tokens cost, in the price's currency; None without a price."""
        if self.price is None:
            return None
        prompt = self.forecast.prompt_tokens.times(float(self.price.prompt) / 1e6)
        return prompt + self.forecast.completion_tokens.times(float(self.price.completion) / 1e6)

    @property
    def rows_failed(self) -> Interval:
        """Rows of the file that fail: those that no model sees, and of the others as many as of the sample.

        Rows that are reused fail as often as those that are asked.
        """
        survey = self.survey
        return self.forecast.failed_share.times(survey.rows - survey.rejected, survey.rejected)

    def seconds(self, calls_at_once: int = 1) -> Interval:
        """Return how long the calls take, if one takes no longer beside others."""
        return self.forecast.seconds.interval().times(1 / max(1, min(calls_at_once, self.survey.units)))

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        survey = self.survey
        return {
            "dry_run": True,
            "file": printable(self.filename),
            "job": self.job_name,
            "model": self.model,
            "server": self.server,
            "digest": self.digest or None,
            "rows": survey.rows,
            "rows_rejected": survey.rejected,
            "rows_reused": survey.reused,
            "rows_asked": survey.asked,
            "batches": self.batches,
            "workers": self.workers,
            "sample": self._sample(),
            "forecast": self._forecast(),
            "budget": self._budget(),
        }

    def _sample(self) -> dict[str, Any]:
        taken = self.outcome.taken
        calls = sum(one.calls for one in taken)
        seconds = sum(one.seconds for one in taken)
        return {
            "batches": len(taken),
            "rows": sum(one.rows for one in taken),
            "calls": calls,
            "prompt_tokens": sum(one.prompt_tokens for one in taken),
            "completion_tokens": sum(one.completion_tokens for one in taken),
            "seconds": round(seconds, 3),
            "seconds_per_call": round(seconds / calls, 3) if calls else None,
            "load_seconds": round(self.outcome.load_seconds, 3),
            "failed": dict(self.outcome.failed),
        }

    def _forecast(self) -> dict[str, Any]:
        found, cost, n = self.forecast, self.cost, self.concurrency
        rows = self.survey.rows
        return {
            "level": LEVEL,
            "calls": _whole(found.calls.interval()),
            "prompt_tokens": _whole(found.prompt_tokens.interval()),
            "completion_tokens": _whole(found.completion_tokens.interval()),
            "tokens": _whole(found.tokens.interval()),
            "cost": _rounded(cost.interval()) if cost else None,
            "currency": self.price.currency if self.price else None,
            "rows_failed": _whole(self.rows_failed),
            "failed_share": _rounded(self.rows_failed.times(1 / rows if rows else 0.0)),
            "seconds": _rounded(self.seconds()),
            "concurrency": n,
            "seconds_concurrent": _rounded(self.seconds(n)) if n else None,
        }

    def _budget(self) -> dict[str, Any] | None:
        budget = self.job.budget
        if budget.tokens is None and budget.money is None:
            return None
        money = f"{budget.money:f}" if budget.money is not None else None
        return {"tokens": budget.tokens, "money": money, "exceeded": _verdict(self)}


def _whole(interval: Interval) -> dict[str, int]:
    return {
        "point": round(interval.point),
        "low": math.floor(interval.low + _ROUNDING),
        "high": math.ceil(interval.high - _ROUNDING),
    }


def _rounded(interval: Interval) -> dict[str, float]:
    """Return an interval with so many significant digits: a cost may be a millionth."""
    named = {"point": interval.point, "low": interval.low, "high": interval.high}
    return {name: float(f"{value:.{_DIGITS}g}") for name, value in named.items()}


def _strains(prediction: Prediction) -> Iterator[tuple[str, Interval, Decimal]]:
    """Yield what the job limits and a prediction says something of: its name, the prediction, the limit."""
    budget, cost = prediction.job.budget, prediction.cost
    if budget.tokens is not None:
        yield "tokens", prediction.forecast.tokens.interval(), Decimal(budget.tokens)
    if budget.money is not None and cost is not None:
        yield "money", cost.interval(), budget.money


def _verdict(prediction: Prediction) -> str:
    strains = list(_strains(prediction))
    if any(found.point > limit for _, found, limit in strains):
        return "yes"
    return "maybe" if any(found.high > limit for _, found, limit in strains) else "no"


def warnings(prediction: Prediction) -> Iterator[str]:
    """Yield a line for each limit of the job's budget that the run may reach, or that does not hold."""
    for name, found, limit in _strains(prediction):
        if found.high > limit:
            how = "is expected to" if found.point > limit else "may"
            unit = prediction.price.currency if name == "money" and prediction.price else "tokens"
            yield (
                f"the run {how} reach its budget.{name} and stop there: {_amount(found.point)} {unit} "
                f"(up to {_amount(found.high)}) of {_amount(limit)}"
            )
    if prediction.job.budget.money is None:
        return
    if prediction.price is None:
        yield f"budget.money does not hold: models.json has no price for {printable(prediction.model)}"
    elif prediction.job.model.only is None:
        yield "budget.money does not hold: the job names no model, so its run has no price"


def _amount(value: float | Decimal) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{float(value):.4g}"


def screen(prediction: Prediction) -> RenderableType:
    """Return the prediction: what was seen, what follows, and on which assumptions."""
    lines = Text(overflow="fold")
    for name, fact in _facts(prediction):
        lines.append(f"{name:<9}", style="bold")
        lines.append(f"{fact}\n")
    columns = [("the whole file", "left"), ("expected", "right"), ("from", "right"), ("to", "right")]
    notes = [Text(line, style="dim", overflow="fold") for line in _notes(prediction)]
    return Group(lines, table(columns, _lines(prediction)), *([Text("")] if notes else []), *notes)


def _facts(prediction: Prediction) -> Iterator[tuple[str, str]]:
    survey, outcome = prediction.survey, prediction.outcome
    rows = f"{_several(survey.rows, 'row')} in {_several(prediction.batches, 'batch', 'batches')}"
    rows += f", {count(survey.rejected)} rejected" if survey.rejected else ""
    rows += f", {count(survey.reused)} need no call: others say the same" if survey.reused else ""
    yield "file", f"{printable(prediction.filename)}: {rows}"
    yield "job", printable(prediction.job_name)
    yield "model", printable(f"{prediction.model} at {prediction.server}")
    asked = sum(one.rows for one in outcome.taken)
    calls = sum(one.calls for one in outcome.taken)
    if not calls:
        yield "sample", "no call was made"
        return
    seconds = sum(one.seconds for one in outcome.taken) / calls
    yield (
        "sample",
        f"{_several(asked, 'row')} in {_several(calls, 'call')}, {seconds:.2f} s each, {_failures(outcome)}",
    )
    if outcome.load_seconds >= 1:
        yield "loading", f"{outcome.load_seconds:.1f} s before the first answer, not counted below"


def _failures(outcome: Outcome) -> str:
    reasons = ", ".join(f"{name} {count(number)}" for name, number in sorted(outcome.failed.items()))
    return f"{count(outcome.failed.total())} failed" + (f" ({reasons})" if reasons else "")


def _several(number: int, one: str, more: str = "") -> str:
    return f"{count(number)} {one if number == 1 else more or one + 's'}"


def _lines(prediction: Prediction) -> Iterator[list[str | Text]]:
    found, cost, n = prediction.forecast, prediction.cost, prediction.concurrency
    yield ["calls", *_counts(found.calls.interval())]
    yield ["prompt tokens", *_counts(found.prompt_tokens.interval())]
    yield ["completion tokens", *_counts(found.completion_tokens.interval())]
    if cost is not None and prediction.price is not None:
        interval = cost.interval()
        amounts = [_amount(value) for value in (interval.point, interval.low, interval.high)]
        yield [f"cost, {prediction.price.currency}", *amounts]
    yield ["failed rows", *_counts(prediction.rows_failed)]
    yield ["time, 1 call at once", *_times(prediction.seconds())]
    if n is not None:
        yield [f"time, {count(n)} calls at once", *_times(prediction.seconds(n))]


def _counts(interval: Interval) -> list[str]:
    return [count(number) for number in _whole(interval).values()]


def _times(interval: Interval) -> list[str]:
    return [
        duration(value) if value >= 10 else f"{value:.1f} s"
        for value in (interval.point, interval.low, interval.high)
    ]


def _notes(prediction: Prediction) -> Iterator[str]:
    asked, units = len(prediction.outcome.taken), prediction.survey.units
    if 0 < asked == units:
        yield "Every batch was asked: only the time is an estimate."
    elif units:
        yield (
            f"From … to: {LEVEL:.0%} confidence, by which batches were drawn. Trouble that is too rare for "
            "the sample is not in it."
        )
    if units and prediction.concurrency is not None:
        yield "Calls at once: as if each took no longer beside others."
    if prediction.survey.reused:
        workers = "1 worker" if prediction.workers == 1 else f"{prediction.workers} workers"
        yield f"Rows without a call: as of {workers}, each of which remembers its own answers."
