"""How far a screen is behind what was told: the arithmetic of `python -m benchmarks dashboard`."""

import pytest

from benchmarks.dashboard import as_drawn, glances

TOLD = [(10.0, 100), (10.5, 150), (11.0, 200)]


def test_a_count_is_behind_from_when_a_newer_one_was_told_until_one_is_drawn() -> None:
    behind = glances(TOLD, [(10.2, 100), (11.4, 200), (13.0, 200)], every_s=0.1)
    assert max(behind) == pytest.approx(0.8, abs=0.11)
    assert behind[:3] == [0.0, 0.0, 0.0]
    assert behind[-5:] == [0.0] * 5


def test_a_picture_is_behind_by_what_was_told_before_it_was_drawn() -> None:
    assert as_drawn(TOLD, [(10.2, 100), (10.9, 100), (11.4, 200)]) == pytest.approx([0.0, 0.4, 0.0])
    assert as_drawn(TOLD, [(10.2, 0)]) == pytest.approx([0.2])
