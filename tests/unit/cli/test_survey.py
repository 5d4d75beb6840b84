"""What a dry run finds in a file before any call: pass 1's verdict, counts, and the sample."""

import gzip
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism.annotation import build_prompt
from prism.messages import RunFile, RunRecord, RunState, UriSource
from prism.tables import render_line
from prism_cli import survey as module
from prism_cli.exits import CommandFailed
from prism_cli.survey import Survey, check, survey
from prism_ingestor.checking import Checked, table_format
from prism_ingestor.sources import Sources
from prism_model_worker.contexts import RunContext
from prism_model_worker.endpoints import ServerGroup
from prism_model_worker.sharing import SharedAnswers
from tests.unit.worker.world import PROMPT

LARGE = 10**9


def written(folder: Path, messages: Sequence[str], name: str = "t.csv") -> Path:
    path = folder / name
    lines = [render_line(["RowID", "Message"]), *(render_line([str(n), m]) for n, m in enumerate(messages))]
    path.write_text("".join(lines), encoding="utf-8", newline="")
    return path


def record(path: Path, job: dict[str, Any], prompt: dict[str, Any]) -> RunRecord:
    source = UriSource(uri=path.resolve().as_uri(), encoding="gzip" if path.suffix == ".gz" else None)
    return RunRecord(
        run_id="dry-run",
        epoch=1,
        state=RunState.RUNNING,
        job=job,
        prompt=prompt,
        files=[RunFile(label="l", source=source)],
    )


def checked(
    path: Path, folder: Path, job: dict[str, Any], prompt: dict[str, Any], most: int = LARGE
) -> Checked:
    scratch = folder / "work"
    scratch.mkdir()
    return check(record(path, job, prompt), path, folder, most, scratch)


def surveyed(
    path: Path,
    folder: Path,
    wanted: int = 10,
    memories: Sequence[SharedAnswers] = (),
    prompt: dict[str, Any] = PROMPT,
    seed: int = 0,
    **job: Any,
) -> tuple[Survey, RunContext]:
    found = checked(path, folder, job, prompt)
    assert found.plains
    run = record(path, job, prompt).model_copy(update={"files": [found.files[0]]})
    context = RunContext.of(run, "m", lambda _: ServerGroup([]))
    fmt = table_format(context.job, prompt, found.files[0])
    some = tuple(memories) or (SharedAnswers(),)
    return survey(found.plains[0], fmt, context, wanted, some, random.Random(seed)), context


# Pass 1


def test_an_accepted_file_is_counted_as_the_ingestor_counts_it(tmp_path: Path) -> None:
    found = checked(written(tmp_path, ["a"] * 25), tmp_path, {}, PROMPT)
    assert (found.files[0].rows, found.files[0].batches, found.files[0].columns) == (
        25,
        3,
        ["RowID", "Message"],
    )
    assert list((tmp_path / "work").rglob("check-*")) == []


def test_a_packed_file_is_unpacked_into_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(written(tmp_path, ["a", "b"]).read_bytes()))
    found = checked(path, tmp_path, {}, PROMPT)
    assert found.files[0].rows == 2
    assert found.plains
    assert found.plains[0].path.is_relative_to(tmp_path / "work")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("RowID,Text\n1,a\n", "missing_column: line 1"),
        ("RowID,Message\n1,a\n1,b\n", "duplicate_row_id: line 3, column 1"),
        ('RowID,Message\n1,"a', "unclosed_quote: line 2, column 3"),
    ],
)
def test_a_refusal_is_exit_3_with_reason_line_and_column(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(CommandFailed, match=says) as refused:
        checked(path, tmp_path, {}, PROMPT)
    assert refused.value.code == 3
    assert refused.value.where == str(path)


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="too_large: "):
        checked(written(tmp_path, ["a"]), tmp_path, {}, PROMPT, most=5)


def test_a_prompt_file_that_cannot_be_used_is_named_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text("{")
    with pytest.raises(CommandFailed, match=r"bad_prompt: prompt\.json") as refused:
        checked(written(tmp_path, ["a"]), tmp_path, {}, {})
    assert (refused.value.code, refused.value.where) == (3, str(tmp_path))


def test_what_cannot_be_read_now_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Sources, "bring", fail)
    with pytest.raises(CommandFailed, match="cannot be read now") as refused:
        checked(written(tmp_path, ["a"]), tmp_path, {}, PROMPT)
    assert refused.value.code == 3


def test_a_bug_in_pass_1_ends_the_command_instead_of_hanging_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Sources, "bring", break_down)
    with pytest.raises(ZeroDivisionError):
        checked(written(tmp_path, ["a"]), tmp_path, {}, PROMPT)


# What it holds


def test_every_row_is_rejected_reused_or_asked(tmp_path: Path) -> None:
    # Batches of three: a b a | b " " c | a b c | d.
    path = written(tmp_path, ["a", "b", "a", "b", " ", "c", "a", "b", "c", "d"])
    found, context = surveyed(path, tmp_path, model={"batch_size": "3"})
    assert (found.rows, found.rejected, found.reused, found.asked) == (10, 1, 5, 4)
    assert [(one.batch.sequence, one.asked) for one in found.sample] == [(0, (0, 1)), (1, (2,)), (3, (0,))]
    prompts = [
        build_prompt(context.prompt_file, context.prompt_rows(one.batch, one.asked)) for one in found.sample
    ]
    assert [one.characters for one in found.sample] == [len(one.system) + len(one.user) for one in prompts]
    assert found.population.units == 3
    assert found.population.rows == 4
    assert found.population.characters == sum(one.characters for one in found.sample)


def test_without_dedupe_every_row_is_asked(tmp_path: Path) -> None:
    found, _ = surveyed(written(tmp_path, ["a"] * 20), tmp_path, dedupe="false")
    assert (found.reused, found.asked, found.units) == (0, 20, 2)


def test_a_worker_remembers_so_many_answers_and_no_more(tmp_path: Path) -> None:
    path = written(tmp_path, ["a", "b", "a", "b"])
    one_row = {"batch_size": "1"}
    assert surveyed(path, tmp_path, model=one_row)[0].reused == 2
    (tmp_path / "work").rename(tmp_path / "before")
    assert surveyed(path, tmp_path, memories=[SharedAnswers(1)], model=one_row)[0].reused == 0


def test_each_worker_remembers_for_itself(tmp_path: Path) -> None:
    memories = [SharedAnswers() for _ in range(3)]
    found, _ = surveyed(written(tmp_path, ["a"] * 1000), tmp_path, memories=memories)
    assert (found.asked, found.reused) == (3, 997)


def test_of_photos_each_row_is_a_call(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("RowID,Photo\n" + "".join(f"{n},{n}.jpg\n" for n in range(12)) + '12,\n13," "\n14,\n')
    prompt = PROMPT | {"image_column": "Photo"}
    found, _ = surveyed(path, tmp_path, prompt=prompt)
    assert (found.units, found.asked, found.population.least_calls) == (12, 12, 0)
    assert [one.asked for one in found.sample] == [(0,)] * 10
    # Without a photo each fails for itself: none is answered as another.
    assert (found.rows, found.rejected, found.reused) == (15, 3, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    messages=st.lists(st.sampled_from(["", "a", "b", "c", "d", "e f"]), max_size=60),
    size=st.integers(1, 7),
    wanted=st.integers(2, 9),
    seed=st.integers(),
)
def test_the_rows_add_up_and_the_sample_is_of_batches_that_are_asked(
    tmp_path_factory: pytest.TempPathFactory, messages: list[str], size: int, wanted: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("survey")
    path = written(folder, messages)
    found, _ = surveyed(path, folder, wanted, seed=seed, model={"batch_size": str(size)})
    open_rows = [one for one in messages if one.strip()]
    assert found.rows == len(messages) == found.rejected + found.reused + found.asked
    assert found.rejected == len(messages) - len(open_rows)
    assert found.asked == len(set(open_rows))
    sequences = [one.batch.sequence for one in found.sample]
    assert len(sequences) == min(wanted, found.units)
    assert sequences == sorted(set(sequences))
    assert all(one.asked for one in found.sample)


def test_the_sample_is_of_the_whole_file_and_the_same_again(tmp_path: Path) -> None:
    path = written(tmp_path, [str(n) for n in range(1000)])

    def sequences(seed: int) -> list[int]:
        folder = tmp_path / f"{seed}-{random.random()}"
        folder.mkdir()
        return [one.batch.sequence for one in surveyed(path, folder, seed=seed)[0].sample]

    assert sequences(1) == sequences(1) == sorted(sequences(1))
    met = {one for seed in range(30) for one in sequences(seed)}
    assert len(met) > 80
    assert min(met) < 5
    assert max(met) > 95


def test_a_file_that_is_changed_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, ["a"] * 30)
    whole = module._cuts

    def touched(*of: Any) -> Any:
        for cut in whole(*of):
            path.write_text("RowID,Message\n")
            yield cut

    monkeypatch.setattr(module, "_cuts", touched)
    with pytest.raises(CommandFailed, match="changed while it was read") as refused:
        surveyed(path, tmp_path)
    assert refused.value.code == 3
