"""The run's own numbers, from its manifest: how many, how long, how fast, how dear."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from prism_merger.reports.facts import Facts


@dataclass(frozen=True, slots=True)
class Figures:
    """What the manifest counts. Seconds and rates are None where nothing was measured.

    `inputs`: rows in. `rows`, `ok`, `failed`: the same rows, or, where each of several models does every row,
    the `answers` that were asked for: as many for each row as there are `models`.
    """

    inputs: int
    models: int
    rows: int
    ok: int
    failed: int
    reused: int
    calls: int
    extra_calls: int
    prompt_tokens: int
    completion_tokens: int
    model_seconds: float
    parts: int
    total_s: float | None
    working_s: float | None
    cost: str | None
    currency: str

    @property
    def side_by_side(self) -> bool:
        """Whether each of several models does every row."""
        return self.inputs < self.rows

    @property
    def counted(self) -> str:
        """What `rows` are, for people."""
        return "answer" if self.side_by_side else "row"

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def rows_per_s(self) -> float | None:
        return _ratio(self.rows, self.working_s)

    @property
    def tokens_per_s(self) -> float | None:
        return _ratio(self.tokens, self.working_s)

    @property
    def tokens_per_row(self) -> float | None:
        return _ratio(self.tokens, self.rows)


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure for tables: `name` for programs, `title` for people."""

    name: str
    title: str
    value: float | int | str
    unit: str


def figures(facts: Facts) -> Figures:
    """Return a run's figures. Raise ValueError unless rows in = ok + failed (promise 1)."""
    manifest = facts.manifest
    rows, tokens, times = manifest["rows"], manifest["tokens"], manifest["timings"]
    if rows["in"] != rows["ok"] + rows["failed"]:
        raise ValueError(f"{rows['in']} rows in, {rows['ok']} ok and {rows['failed']} failed")
    cost = manifest.get("cost") or {}
    return Figures(
        inputs=sum(one.rows for one in facts.files) if facts.models else rows["in"],
        models=len(facts.models) or len(manifest.get("by_model", ())) or 1,
        rows=rows["in"],
        ok=rows["ok"],
        failed=rows["failed"],
        reused=manifest["reused_rows"],
        calls=manifest["calls"],
        extra_calls=manifest["extra_calls"],
        prompt_tokens=tokens["prompt"],
        completion_tokens=tokens["completion"],
        model_seconds=manifest["model_seconds"],
        parts=sum(one["parts"] for one in manifest["files"]),
        total_s=_between(times, "accepted_at", "published_at"),
        working_s=_working(facts, times),
        cost=cost.get("amount"),
        currency=cost.get("currency", ""),
    )


def measures(found: Figures, complete: int | None = None) -> Iterator[Measure]:
    """Yield the figures that are known, in the order in which they are shown.

    `complete`: rows that each of several models has answered, where they were counted.
    """
    yield Measure("rows_total", "rows in", found.inputs, "rows")
    yield from _fared(found, complete)
    word = found.counted
    yield Measure("reused_rows", "rows answered as their equals", found.reused, "rows")
    yield Measure("total_api_calls", "model calls", found.calls, "calls")
    yield Measure("extra_api_calls", "extra calls, at most", found.extra_calls, "calls")
    yield Measure("checkpoint_count", "checkpoints", found.parts, "files")
    yield from _measured("duration", "from acceptance to publication", found.total_s, "s")
    yield from _measured("working_time", "from first to last result", found.working_s, "s")
    yield from _measured("rows_per_second", f"{word}s per second", found.rows_per_s, f"{word}s/s")
    yield from _measured("tokens_per_second", "tokens per second", found.tokens_per_s, "tokens/s")
    yield from _measured("avg_tokens_per_row", f"tokens per {word}", found.tokens_per_row, f"tokens/{word}")
    yield Measure("total_tokens", "tokens", found.tokens, "tokens")
    yield Measure("prompt_tokens", "tokens of prompts", found.prompt_tokens, "tokens")
    yield Measure("completion_tokens", "tokens of replies", found.completion_tokens, "tokens")
    yield Measure("model_seconds", "time in model calls, summed", found.model_seconds, "s")
    if found.cost is not None:
        yield Measure("cost", "cost", found.cost, found.currency)


def _fared(found: Figures, complete: int | None) -> Iterator[Measure]:
    if not found.side_by_side:
        yield Measure("rows_ok", "rows ok", found.ok, "rows")
        yield Measure("error_count", "rows failed", found.failed, "rows")
        return
    if complete is not None:
        yield Measure("rows_ok", "rows with every answer", complete, "rows")
        yield Measure("error_count", "rows without", found.inputs - complete, "rows")
    yield Measure("models", "models", found.models, "models")
    yield Measure("answers_total", "answers asked for", found.rows, "answers")
    yield Measure("answers_ok", "answers ok", found.ok, "answers")
    yield Measure("answers_failed", "answers failed", found.failed, "answers")


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What one of several models has done; seconds of calls for each row that it was asked for."""

    name: str
    ok: int
    failed: int
    calls: int
    tokens: int
    cost: str | None
    currency: str
    seconds_per_row: float | None

    @property
    def rows(self) -> int:
        return self.ok + self.failed


def model_figures(facts: Facts) -> list[ModelFigures]:
    """Return what each of several models has done; nothing for a run with one."""
    found: dict[str, Any] = facts.manifest.get("by_model", {})
    return [_model(name, one) for name, one in found.items()]


def _model(name: str, one: dict[str, Any]) -> ModelFigures:
    ok, failed, cost = one["rows"]["ok"], one["rows"]["failed"], one["cost"] or {}
    return ModelFigures(
        name=name,
        ok=ok,
        failed=failed,
        calls=one["calls"],
        tokens=one["tokens"]["prompt"] + one["tokens"]["completion"],
        cost=cost.get("amount"),
        currency=cost.get("currency", ""),
        seconds_per_row=one["model_seconds"] / (ok + failed) if ok + failed else None,
    )


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it went for some seconds from `start` on, counted from the first result."""

    start: float
    rows_per_s: float
    tokens_per_s: float


def paces(timeline: Sequence[tuple[float, int, int, int]]) -> Iterator[Pace]:
    """Yield the pace between each two moments."""
    for (before, rows, _, tokens), (after, more_rows, _, more_tokens) in pairwise(timeline):
        if after > before:
            took = after - before
            yield Pace(before, (more_rows - rows) / took, (more_tokens - tokens) / took)


def _measured(name: str, title: str, value: float | None, unit: str) -> Iterator[Measure]:
    if value is not None:
        yield Measure(name, title, round(value, 3), unit)


def _between(times: dict[str, Any], first: str, last: str) -> float | None:
    if not times.get(first) or not times.get(last):
        return None
    return max(
        0.0, (datetime.fromisoformat(times[last]) - datetime.fromisoformat(times[first])).total_seconds()
    )


def _working(facts: Facts, times: dict[str, Any]) -> float | None:
    """Return the time from first to last result, that of the retries besides."""
    own = _between(times, "first_result_at", "merged_at")
    return None if own is None else own + sum(one.working_s for one in facts.completed_by)


def _ratio(count: int, by: float | None) -> float | None:
    return count / by if by else None
