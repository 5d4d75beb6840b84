"""The checker: are the promises of DESIGN.md section 1 kept by what a run has left behind?

It reads files and messages with the standard library's own CSV reader, not with the product's, and
collects every objection with the number of the promise that is broken.
"""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prism.messages import Progress, RowReason, RunRecord, RunState
from prism.runs.columns import META_COLUMNS
from prism.tables import neutralise
from tests.harness.watch import Announcement

_SHOWN = 5


class Objection(NamedTuple):
    """One promise that is not kept, and how that shows."""

    promise: int
    what: str


class PromisesBroken(AssertionError):
    """What the checker raises. `numbers` are those of the promises."""

    def __init__(self, run_id: str, objections: Sequence[Objection]) -> None:
        self.objections = list(objections)
        self.numbers = {one.promise for one in objections}
        lines = [f"  promise {one.promise}: {one.what}" for one in objections[:40]]
        super().__init__("\n".join([f"run {run_id} breaks {len(objections)} times:", *lines]))


@dataclass(frozen=True, slots=True)
class Calls:
    """How often the model was asked about each row, and how many extra times it may have been.

    A row may be asked about once more for each death (or outage) at which its batch was in flight.
    """

    asked: Mapping[str, int]
    allowed_extra: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a finished run has left behind.

    `failures` are the rows that must fail, with their reasons: no other row may. `undisturbed` is the
    output of the same input under the same run id without any disturbance. `order` is the expected order
    of the RowIDs where it is not the input's.
    """

    run_id: str
    label: str
    input_csv: Path
    data_dir: Path
    coded: tuple[str, ...]
    interval: int
    failures: Mapping[str, str]
    announcements: Sequence[Announcement]
    run: RunRecord | None = None
    progress: Progress | None = None
    calls: Calls | None = None
    undisturbed: bytes | None = None
    order: Sequence[str] | None = None

    @property
    def manifest_path(self) -> Path:
        return self.data_dir / "logs" / self.run_id / "run_manifest.json"

    @property
    def failed_ranges_path(self) -> Path:
        return self.data_dir / "logs" / self.run_id / "failed_ranges.json"

    @property
    def parts(self) -> list[Path]:
        """The part files in their order."""
        folder = self.data_dir / "checkpoints" / self.run_id
        return sorted(folder.glob(f"checkpoint_{self.run_id}_{self.label}_part*.csv"))


@dataclass(slots=True)
class _Read:
    """Input and output, read once."""

    header_in: list[str]
    rows_in: list[list[str]]
    output: Path
    data: bytes
    header_out: list[str] = field(default_factory=list)
    rows_out: list[list[str]] = field(default_factory=list)

    @property
    def width(self) -> int:
        return len(self.header_in)

    def key_in(self, row: list[str]) -> str:
        return row[self.header_in.index("RowID")]


@dataclass(frozen=True, slots=True)
class Account:
    """What was counted; `extra_rows` is None where the calls were not given."""

    rows: int
    ok: int
    failed: int
    extra_rows: int | None


def check(evidence: Evidence) -> Account:
    """Return what was counted. Raise PromisesBroken with everything that is wrong."""
    objections = list(_objections(evidence))
    if objections:
        raise PromisesBroken(evidence.run_id, objections)
    read = _read(evidence, _manifest(evidence))
    failed = sum(1 for row in read.rows_out if row[-1])
    extra = None
    if evidence.calls is not None:
        extra = sum(max(0, count - 1) for count in evidence.calls.asked.values())
    return Account(len(read.rows_out), len(read.rows_out) - failed, failed, extra)


def same_but_for_run_id(data: bytes, run_id: str, other: str) -> bytes:
    """Return an output's bytes as they would be under another run id."""
    return data.replace(run_id.encode(), other.encode())


def _objections(evidence: Evidence) -> Iterator[Objection]:
    try:
        manifest = _manifest(evidence)
        read = _read(evidence, manifest)
    except (OSError, ValueError, KeyError, IndexError, StopIteration) as error:
        yield Objection(3, f"manifest or output cannot be read: {type(error).__name__}: {error}")
        return
    yield from _file_as_told(evidence, manifest, read)
    try:
        read.header_out, *read.rows_out = _cells(read.data)
    except (csv.Error, ValueError) as error:
        yield Objection(1, f"the output is no CSV: {error}")
        return
    yield from _every_row_once(evidence, read)
    yield from _rows_are_whole(evidence, read)
    yield from _counts(evidence, manifest, read)
    yield from _failed_ranges(evidence, read)
    yield from _failed_rows(evidence, manifest, read)
    yield from _analytics(evidence, manifest, read)
    yield from _order(evidence, read)
    yield from _parts(evidence, manifest, read)
    yield from _published_once(evidence, read)
    yield from _input_untouched(evidence, read)
    yield from _only_expected_failures(evidence, read)
    yield from _calls(evidence)


def _manifest(evidence: Evidence) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(evidence.manifest_path.read_bytes())
    return found


def _read(evidence: Evidence, manifest: Mapping[str, Any]) -> _Read:
    header, *rows = _cells(evidence.input_csv.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    output = evidence.data_dir / str(_file(evidence, manifest)["merged_output"])
    data = output.read_bytes()
    read = _Read(header, [row for row in rows if row], output, data)
    with suppress(csv.Error, ValueError):  # what is wrong with it is said later
        read.header_out, *read.rows_out = _cells(data)
    return read


def _cells(data: bytes) -> list[list[str]]:
    csv.field_size_limit(1 << 30)
    return list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))


def _file(evidence: Evidence, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return next(one for one in manifest["files"] if one["label"] == evidence.label)


def _differs(promise: int, what: str, found: object, expected: object) -> Iterator[Objection]:
    if found != expected:
        yield Objection(promise, f"{what} is {found!r}, and should be {expected!r}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


# Promise 3: a published file is complete.


def _file_as_told(evidence: Evidence, manifest: Mapping[str, Any], read: _Read) -> Iterator[Objection]:
    digest, size = hashlib.sha256(read.data).hexdigest(), len(read.data)
    file = _file(evidence, manifest)
    yield from _differs(3, "the manifest's sha256", file["sha256"], digest)
    yield from _differs(3, "the manifest's bytes", file["bytes"], size)
    yield from _differs(3, "the manifest's rows_out", file["rows_out"], len(read.rows_out))
    yield from _differs(3, "the file's status", file["status"], "published")
    told = [(one.event.sha256, one.event.bytes, one.event.rows) for one in evidence.announcements]
    for one in evidence.progress.outputs if evidence.progress else ():
        if one.label == evidence.label:
            told.append((one.sha256, one.bytes, one.rows))
    for announced in told:
        yield from _differs(
            3, "an announced (sha256, bytes, rows)", announced, (digest, size, len(read.rows_out))
        )
    for folder in ("output", "checkpoints", f"logs/{evidence.run_id}"):
        for path in (evidence.data_dir / folder).rglob("*"):
            if path.name.startswith(".") or path.name.endswith(".tmp"):
                yield Objection(3, f"a temporary file is left: {path.relative_to(evidence.data_dir)}")


# Promise 1: every accepted row ends in exactly one record.


def _every_row_once(evidence: Evidence, read: _Read) -> Iterator[Objection]:
    wanted = [*read.header_in, *evidence.coded, *META_COLUMNS]
    named = [name.removeprefix("Validated_") for name in read.header_out]
    if named != [name.removeprefix("Validated_") for name in wanted]:
        yield Objection(1, f"the header is {read.header_out}")
    expected = Counter(read.key_in(row) for row in read.rows_in)
    found = Counter(row[read.header_in.index("RowID")] for row in read.rows_out)
    if missing := sorted((expected - found).elements()):
        yield Objection(1, f"rows missing: {_some(missing)}")
    if surplus := sorted((found - expected).elements()):
        yield Objection(1, f"rows twice, or never sent: {_some(surplus)}")


def _rows_are_whole(evidence: Evidence, read: _Read) -> Iterator[Objection]:
    reasons = {one.value for one in RowReason}
    run_at = len(read.header_out) - 2
    for row in read.rows_out:
        if len(row) != len(read.header_out):
            yield Objection(1, f"a row of {len(row)} cells under {len(read.header_out)} columns: {row[0]}")
            continue
        values, error = row[read.width : read.width + len(evidence.coded)], row[-1]
        if error and error not in reasons:
            yield Objection(1, f"row {row[0]} fails with {error!r}, which is no typed reason")
        if error and any(values):
            yield Objection(1, f"row {row[0]} has a reason and values")
        if not error and not all(values):
            yield Objection(1, f"row {row[0]} has neither values nor a reason")
        if row[run_at] != evidence.run_id:
            yield Objection(1, f"row {row[0]} belongs to run {row[run_at]!r}")


def _counts(evidence: Evidence, manifest: Mapping[str, Any], read: _Read) -> Iterator[Objection]:
    reasons = Counter(row[-1] for row in read.rows_out if row[-1])
    failed = sum(reasons.values())
    counted = (len(read.rows_in), len(read.rows_in) - failed, failed)
    rows, file = manifest["rows"], _file(evidence, manifest)
    yield from _differs(1, "the manifest's rows", (rows["in"], rows["ok"], rows["failed"]), counted)
    in_file = (file["rows_in"], file["rows_ok"], file["rows_failed"])
    yield from _differs(1, "the manifest's rows of the file", in_file, counted)
    yield from _differs(1, "rows_missing", file["rows_missing"], 0)
    yield from _differs(1, "failed_by_reason", manifest["failed_by_reason"], dict(reasons))
    for one in evidence.announcements:
        told = (one.event.rows, one.event.rows_ok, one.event.rows_failed)
        yield from _differs(1, "the announced rows", told, counted)
    if evidence.progress is not None:
        merged = (evidence.progress.rows_ok, evidence.progress.rows_failed)
        yield from _differs(1, "the progress's rows", merged, counted[1:])
    if evidence.run is not None:
        state = RunState.COMPLETED_WITH_FAILURES if failed else RunState.COMPLETED
        yield from _differs(1, "the run's state", evidence.run.state, state)
        yield from _differs(1, "the manifest's status", manifest["status"], state.value)


def _failed_ranges(evidence: Evidence, read: _Read) -> Iterator[Objection]:
    expected = {number: row[-1] for number, row in enumerate(read.rows_out, 1) if row[-1]}
    told: dict[int, str] = {}
    if evidence.failed_ranges_path.exists():
        for one in json.loads(evidence.failed_ranges_path.read_bytes()):
            if one["label"] == evidence.label:
                numbers = range(one["row_range"]["start"], one["row_range"]["end"] + 1)
                told.update(dict.fromkeys(numbers, one["reason"]))
                yield from _differs(1, "a failed range's count", one["count"], len(numbers))
    if evidence.order is None:
        yield from _differs(1, "failed_ranges.json", told, expected)


def _failed_rows(evidence: Evidence, manifest: Mapping[str, Any], read: _Read) -> Iterator[Objection]:
    """They are the input's rows, in its order, with its columns alone."""
    expected = [row[: read.width] for row in read.rows_out if row[-1]]
    name = _file(evidence, manifest)["failed_rows"]
    yield from _differs(1, "whether there are failed rows", name is not None, bool(expected))
    if name is not None and evidence.order is None:
        try:
            header, *rows = _cells((evidence.data_dir / name).read_bytes())
        except (OSError, ValueError, csv.Error) as error:
            yield Objection(1, f"{name} cannot be read: {error}")
            return
        yield from _differs(1, "the header of the failed rows", header, read.header_in)
        yield from _differs(1, "the failed rows", rows, expected)


def _analytics(evidence: Evidence, manifest: Mapping[str, Any], read: _Read) -> Iterator[Objection]:
    """What the analytics count is what there is, where they were written."""
    if manifest["reports"]["state"] != "written":
        return
    failed = sum(1 for row in read.rows_out if row[-1])
    expected = {
        "rows_total": len(read.rows_out),
        "rows_ok": len(read.rows_out) - failed,
        "error_count": failed,
    }
    for name in manifest["reports"]["files"]:
        path = evidence.data_dir / name
        if not path.exists():
            yield Objection(3, f"{name} is gone")
        elif path.suffix == ".csv":
            told = {row[1]: row[2] for row in _cells(path.read_bytes()) if row[0] == "performance"}
            for one, count in expected.items():
                yield from _differs(1, f"{one} in the analytics", told.get(one), str(count))


# Promise 2: output order is input order.


def _order(evidence: Evidence, read: _Read) -> Iterator[Objection]:
    at = read.header_in.index("RowID")
    expected = (
        list(evidence.order) if evidence.order is not None else [read.key_in(row) for row in read.rows_in]
    )
    found = [row[at] for row in read.rows_out]
    both = set(expected) & set(found)
    expected, found = [one for one in expected if one in both], [one for one in found if one in both]
    for number, (want, have) in enumerate(zip(expected, found, strict=False), 1):
        if want != have:
            yield Objection(2, f"row {number} is {have}, and should be {want}")
            return


def _parts(evidence: Evidence, manifest: Mapping[str, Any], read: _Read) -> Iterator[Objection]:
    yield from _differs(1, "the number of parts", len(evidence.parts), _file(evidence, manifest)["parts"])
    rows: list[list[str]] = []
    for number, path in enumerate(evidence.parts, 1):
        header, *some = _cells(path.read_bytes())
        yield from _differs(1, f"the header of part {number}", header, read.header_out)
        expected = min(evidence.interval, len(read.rows_in) - len(rows))
        yield from _differs(1, f"the rows of part {number}", len(some), expected)
        rows += some
    if evidence.order is None and rows != read.rows_out:
        promise = 2 if sorted(rows) == sorted(read.rows_out) else 1
        yield Objection(promise, "the parts together are not the output")


# Promise 5: published once, extra calls bounded.


def _published_once(evidence: Evidence, read: _Read) -> Iterator[Objection]:
    stem = f"{evidence.run_id}_{evidence.label}"
    files = sorted(path.name for path in read.output.parent.glob(f"{stem}*"))
    yield from _differs(5, "what is published", files, [read.output.name])
    if not evidence.announcements:
        yield Objection(5, "the output was never announced")
    ids = {one.ce_id for one in evidence.announcements}
    if len(ids) > 1 or "" in ids:
        yield Objection(5, f"announcements of one file under several ids: {sorted(ids)}")
    if len({one.event.to_bytes() for one in evidence.announcements}) > 1:
        yield Objection(5, "announcements of one file that differ")
    if evidence.undisturbed is not None and read.data != evidence.undisturbed:
        yield Objection(
            5, f"not the bytes of an undisturbed run: {_first_difference(read.data, evidence.undisturbed)}"
        )


def _first_difference(found: bytes, expected: bytes) -> str:
    pairs = zip(found.splitlines(), expected.splitlines(), strict=False)
    for number, (have, want) in enumerate(pairs, 1):
        if have != want:
            return f"line {number}: {have[:200]!r} instead of {want[:200]!r}"
    return f"{len(found)} bytes instead of {len(expected)}"


def _calls(evidence: Evidence) -> Iterator[Objection]:
    if evidence.calls is None:
        return
    asked, allowed = evidence.calls.asked, evidence.calls.allowed_extra
    over = [
        f"{row} {count} times, {1 + allowed.get(row, 0)} allowed"
        for row, count in sorted(asked.items())
        if count > 1 + allowed.get(row, 0)
    ]
    if over:
        yield Objection(5, f"the model was asked too often: {_some(over)}")
    never = [row for row, reason in evidence.failures.items() if reason in _NEVER_SENT and asked.get(row, 0)]
    if never:
        yield Objection(9, f"rows that were rejected have been sent to a model: {_some(never)}")


_NEVER_SENT = {RowReason.EMPTY_MESSAGE.value, RowReason.WRONG_CELL_COUNT.value, RowReason.NUL_CHARACTER.value}


# Promises 7, 8 and 9: no answer out of nothing; input cells as they came; nobody else's failure.


def _input_untouched(evidence: Evidence, read: _Read) -> Iterator[Objection]:
    at = read.header_in.index("RowID")
    sent = {read.key_in(row): row for row in read.rows_in}
    for row in read.rows_out:
        came = sent.get(row[at])
        if came is not None and row[: read.width] != (came + [""] * read.width)[: read.width]:
            yield Objection(8, f"the cells of {row[at]} are {row[: read.width]}, and came as {came}")
        values = row[read.width : read.width + len(evidence.coded)]
        if any(neutralise(value) != value for value in values):
            yield Objection(8, f"a cell of the model in {row[at]} starts a formula")
        asked = evidence.calls is None or evidence.calls.asked.get(row[at], 0) > 0
        if not row[-1] and not asked:
            yield Objection(7, f"row {row[at]} has an answer, and the model was never asked about it")


def _only_expected_failures(evidence: Evidence, read: _Read) -> Iterator[Objection]:
    at = read.header_in.index("RowID")
    failed = {row[at]: row[-1] for row in read.rows_out if row[-1]}
    wrong = [f"{row}: {why}" for row, why in failed.items() if evidence.failures.get(row) != why]
    if wrong:
        yield Objection(9, f"rows failed that should not, or for another reason: {_some(wrong)}")
    if spared := sorted(set(evidence.failures) - set(failed)):
        yield Objection(9, f"rows should have failed: {_some(spared)}")
