"""What a run may cost: when the next batch would go beyond it, nothing more is fed.

What is fed and not merged yet is counted as dear as what is merged on average, so a run ends near its
budget and not a window of batches beyond it. Merged batches that took no call (their rows were rejected, or
reused) say nothing of what one costs: until one with a call is merged only a few batches are risked, and no
more where answers come without a count of tokens, for then nobody knows what was spent.
"""

from dataclasses import dataclass
from decimal import Decimal

from prism.messages import Progress, RunRecord
from prism.runs.catalogue import ModelEntry
from prism.runs.costs import Cost, cost_of
from prism.runs.job import Budget, parse_job
from prism.runs.models import entries

# Batches at once while nobody knows what one costs.
FIRST_BATCHES = 8


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

    def allows(self, progress: Progress | None, merged: int, unmerged: int) -> bool:
        """Return whether one more batch may be fed. merged, unmerged: batches."""
        if not self._bounded:
            return True
        # So many took a call at most, and so dear are those ahead at most.
        called = min(merged, progress.calls) if progress is not None else 0
        tokens = _tokens(progress) if progress is not None else 0
        if progress is None or not called or not (tokens or progress.rows_ok):
            return unmerged < FIRST_BATCHES
        if not tokens:
            return merged + unmerged < FIRST_BATCHES  # answers came, and what they cost will not be known
        ahead = 1 + Decimal(unmerged + 1) / called
        if self.budget.tokens is not None and tokens * ahead > self.budget.tokens:
            return False
        cost = self._cost(progress)
        return self.budget.money is None or cost is None or cost.amount * ahead <= self.budget.money

    def reached(self, progress: Progress) -> str:
        """Return the reason of a run that stands still because of its budget."""
        if not _tokens(progress):
            calls, advice = f"{progress.calls:,} calls", "cancel the run, or send the rest without a budget"
            return f"the model server told no tokens for {calls}, so the budget cannot be kept; {advice}"
        parts = []
        if self.budget.tokens is not None:
            parts.append(f"{_tokens(progress):,} of {self.budget.tokens:,} tokens")
        cost = self._cost(progress)
        if self.budget.money is not None and cost is not None:
            parts.append(f"{cost.amount:.4f} of {self.budget.money} {cost.currency}")
        return f"budget reached: {', '.join(parts)}; cancel the run, or send the rest under a larger budget"

    @property
    def _bounded(self) -> bool:
        priced = self.budget.money is not None and cost_of(self.entries, Progress(run_id=""), {}) is not None
        return self.budget.tokens is not None or priced

    def _cost(self, progress: Progress) -> Cost | None:
        return cost_of(self.entries, progress, progress.models)


def _tokens(progress: Progress) -> int:
    return progress.prompt_tokens + progress.completion_tokens
