"""The store: what it is the store of, and what it gives back."""

import os
from pathlib import Path

import pytest

from prism.service.errors import FatalError
from prism_merger.accounts import OutputMark, Stage
from prism_merger.rendering import FailedRow, RenderedBatch
from prism_merger.store import RowReader, Store, TopicIdentity


def batch(first_row: int, size: int = 10) -> RenderedBatch:
    return RenderedBatch(
        first_row, os.urandom(3000), b"1234" * size, (FailedRow(first_row, "x", "lost", ""),), size - 1
    )


def test_offsets_of_another_topic_are_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.identity() is None
    with store.transaction():
        store.set_identity(TopicIdentity("c", "t1"))
        store.set_offsets({0: 5, 3: 7})
    with store.transaction():
        store.set_identity(TopicIdentity("c", "t1"))
    assert store.offsets() == {0: 5, 3: 7}
    with store.transaction():
        store.set_identity(TopicIdentity("c", "t2"))
    assert store.offsets() == {}
    store.close()


def test_accounts_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.transaction():
        run = store.add_run("r1", ["a", "b"], "{}", Stage.MERGING)
        file = run.files["b"]
        file.merged.add(0, 0, 10)
        file.merged.add(5, 50, 60)
        file.outputs["csv"] = OutputMark("n.csv", "00", 1, 2, "because")
        file.outputs["parquet"] = OutputMark("n.parquet", "01", 1, 2, "", "s3://b/n.parquet", named=True)
        run.failed_by_reason["lost"] = 3
        run.models = ["m"]
        store.save_run(run)
    store.close()
    again = Store(tmp_path)
    assert again.load_run("r1") == run
    assert again.open_runs() == ["r1"]
    with again.transaction():
        run.stage = Stage.DONE
        again.save_run(run)
    assert again.open_runs() == []
    again.close()


def test_dropping_rows_gives_the_space_back_and_spares_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.transaction():
        for sequence in range(700):
            assert store.add_batch(1, sequence, batch(sequence * 10))
        assert store.add_batch(2, 0, batch(0))
        assert not store.add_batch(2, 0, batch(0))
    store.fold_in()
    before = store.path.stat().st_size
    gone = -1
    while gone:
        with store.transaction():
            gone = store.drop_rows(1, 300)
        store.vacuum_some(1000)
    store.fold_in()
    assert store.path.stat().st_size < before / 10
    reader = RowReader(store.path)
    assert [len(list(reader.batches(number))) for number in (1, 2)] == [0, 1]
    assert [len(list(reader.failures(number))) for number in (1, 2)] == [0, 1]
    reader.close()
    store.close()


def test_a_loss_is_counted_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.transaction():
        assert store.note_loss("s1", 10.0)
        assert not store.note_loss("s1", 11.0)
        store.forget_losses(before=10.5)
        assert store.note_loss("s1", 12.0)
    store.close()


@pytest.mark.promise(10)
def test_a_store_that_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(FatalError, match="move its folder away"):
        Store(tmp_path)
    (tmp_path / "store.sqlite").unlink()
    store = Store(tmp_path)
    with store.transaction():
        store.set_meta("schema_version", "99")
    store.close()
    with pytest.raises(FatalError, match="schema 99"):
        Store(tmp_path)
