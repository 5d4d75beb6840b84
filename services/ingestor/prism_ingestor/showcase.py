"""Which runs have series of their own, and what those show.

Why runs are a label at all: whoever is on call at night is asked about one run, and a graph of the whole
fleet does not answer. Why that stays small: at most `MOST_RUNS` runs have series at once, the first ones;
others get theirs as places come free. A run's series end `LINGER_S` after the run, when a scrape has surely
seen its last counts, so what a process shows does not grow with the runs it has had. Only the active ingestor
shows any. A run that is over between two scrapes is never seen here: its manifest has the account.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from prism.messages import Progress
from prism_ingestor import metrics

MOST_RUNS = 16
LINGER_S = 60.0

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShownRun:
    """One run as its series show it. `until`: by the loop's clock, of a run that has ended."""

    run_id: str
    rows_in: int
    unmerged: int
    stalled: bool
    progress: Progress | None = None
    until: float | None = None


class Showcase:
    """Of the loop's thread; what scrapes read is replaced as a whole."""

    def __init__(self) -> None:
        self._runs: dict[str, ShownRun] = {}
        self._told: dict[str, Progress] = {}

    def start(self) -> None:
        """Let the metrics of single runs show what is here."""
        metrics.RUN_ROWS_IN.read(lambda: self._each(lambda one: {(): one.rows_in}))
        metrics.RUN_UNMERGED.read(lambda: self._each(lambda one: {(): one.unmerged}))
        metrics.RUN_STALLED.read(lambda: self._each(lambda one: {(): one.stalled}))
        metrics.RUN_ROWS.read(lambda: self._each(_rows))
        metrics.RUN_TOKENS.read(lambda: self._each(_tokens))

    def note(self, progress: Progress) -> None:
        """Remember what is merged of a run; its last word comes with its end."""
        self._told[progress.run_id] = progress

    def show(self, runs: Iterable[ShownRun], now: float) -> None:
        """Show the runs that are under way, and for a while those that have ended."""
        open_runs = {one.run_id: one for one in runs}
        shown: dict[str, ShownRun] = {}
        for run_id, before in self._runs.items():
            one = open_runs.pop(run_id, None) or _ended(before, now)
            if one.until is None or now < one.until:
                shown[run_id] = self._with_progress(one)
        for run_id, one in open_runs.items():
            if len(shown) < MOST_RUNS:
                shown[run_id] = self._with_progress(one)
        self._runs = shown
        self._told = {run_id: said for run_id, said in self._told.items() if run_id in shown}

    def clear(self) -> None:
        """Show nothing: another ingestor does."""
        self._runs, self._told = {}, {}

    def _with_progress(self, one: ShownRun) -> ShownRun:
        return replace(one, progress=self._told.get(one.run_id, one.progress))

    def _each(self, values: Callable[[ShownRun], Mapping[Labels, float]]) -> dict[Labels, float]:
        return {
            (run_id, *labels): float(value)
            for run_id, one in self._runs.items()
            for labels, value in values(one).items()
        }


def _ended(one: ShownRun, now: float) -> ShownRun:
    until = now + LINGER_S if one.until is None else one.until
    return replace(one, unmerged=0, stalled=False, until=until)


def _rows(one: ShownRun) -> dict[Labels, float]:
    said = one.progress or Progress(run_id=one.run_id)
    return {("ok",): said.rows_ok, ("failed",): said.rows_failed}


def _tokens(one: ShownRun) -> dict[Labels, float]:
    said = one.progress or Progress(run_id=one.run_id)
    return {("input",): said.prompt_tokens, ("output",): said.completion_tokens}
