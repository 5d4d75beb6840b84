"""What a run may cost: when the next batch would go beyond it, nothing more is fed.

What is fed and not merged yet is counted as dear as what is merged of its model on average, so a run ends
near its budget and not a window of batches beyond it, in whatever order a dear and a cheap model come.
Merged batches that took no call (their rows were rejected, or reused) say nothing of what one costs: until
one with a call is merged only a few batches of a model are risked, and no more where answers come without a
count of tokens, for then nobody knows what was spent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from prism.messages import ModelProgress, Progress, RunRecord
from prism.runs.catalogue import ModelEntry
from prism.runs.costs import Cost, Tokens, cost_of
from prism.runs.job import Budget, parse_job
from prism.runs.models import entries

# Batches at once while nobody knows what one costs.
FIRST_BATCHES = 8


@dataclass(frozen=True, slots=True)
class Fed:
    """How many batches of a model are fed: those that are merged, and the others."""

    merged: int = 0
    unmerged: int = 0


@dataclass(frozen=True, slots=True)
class Meter:
    """A run's budget and the prices of its models."""

    budget: Budget
    entries: tuple[ModelEntry, ...]

    @classmethod
    def of(cls, record: RunRecord) -> "Meter":
        """Return the meter of a run, with the prices that were valid when it was accepted."""
        job = parse_job(record.job, record.job_name)
        return cls(job.budget, entries(record, job))

    @property
    def bounded(self) -> bool:
        """Whether there is anything to keep to."""
        priced = self.budget.money is not None and cost_of(self.entries, Progress(run_id=""), {}) is not None
        return self.budget.tokens is not None or priced

    def allows(self, progress: Progress | None, fed: Mapping[str, Fed], model: str = "") -> bool:
        """Return whether one more batch of a model may be fed.

        fed: by the models' names; "" is the model of a run that has one.
        """
        if not self.bounded:
            return True
        known = progress or Progress(run_id="")
        return self._may_be_risked(known, fed.get(model, Fed()), model) and self._has_room(known, fed, model)

    @staticmethod
    def _may_be_risked(progress: Progress, fed: Fed, model: str) -> bool:
        own = _share(progress, model)
        if not (_called(own, fed) and (_tokens(own) or own.rows_ok)):
            return fed.unmerged < FIRST_BATCHES
        # Without a token: answers came, and what they cost will not be known.
        return bool(_tokens(own)) or fed.merged + fed.unmerged < FIRST_BATCHES

    def _has_room(self, progress: Progress, fed: Mapping[str, Fed], model: str) -> bool:
        tokens, money = Decimal(_tokens(progress)), Decimal(0)
        cost = self._cost(progress)
        for name, entry in zip(self._names, self.entries, strict=True):
            own, batches = _share(progress, name), fed.get(name, Fed())
            ahead = Decimal(batches.unmerged + (name == model)) / (_called(own, batches) or 1)
            tokens += _tokens(own) * ahead
            money += (entry.cost(own.prompt_tokens, own.completion_tokens) or 0) * ahead
        if self.budget.tokens is not None and tokens > self.budget.tokens:
            return False
        return self.budget.money is None or cost is None or cost.amount + money <= self.budget.money

    def reached(self, progress: Progress) -> str:
        """Return the reason of a run that stands still because of its budget."""
        silent = [
            one for one in map(partial(_share, progress), self._names) if one.calls and not _tokens(one)
        ]
        if silent:
            calls, advice = f"{silent[0].calls:,} calls", "cancel the run, or send the rest without a budget"
            return f"the model server told no tokens for {calls}, so the budget cannot be kept; {advice}"
        parts = []
        if self.budget.tokens is not None:
            parts.append(f"{_tokens(progress):,} of {self.budget.tokens:,} tokens")
        cost = self._cost(progress)
        if self.budget.money is not None and cost is not None:
            parts.append(f"{cost.amount:.4f} of {self.budget.money} {cost.currency}")
        return f"budget reached: {', '.join(parts)}; cancel the run, or send the rest under a larger budget"

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.entries) if len(self.entries) > 1 else ("",)

    def _cost(self, progress: Progress) -> Cost | None:
        return cost_of(self.entries, progress, progress.models)


def _share(progress: Progress, model: str) -> Progress | ModelProgress:
    return progress.models.get(model, ModelProgress()) if model else progress


def _called(own: Progress | ModelProgress, fed: Fed) -> int:
    """Return how many of the merged batches took a call at most, and so how dear those ahead are at most."""
    return min(fed.merged, own.calls)


def _tokens(progress: Tokens) -> int:
    return progress.prompt_tokens + progress.completion_tokens
