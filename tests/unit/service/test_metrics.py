"""The registry that every service has, and the two kinds of metrics that the client library lacks."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest

from prism.service.metrics import KEPT_S, OTHER, BoundedLabel, LiveGauge, ServiceRegistry


def text(registry: ServiceRegistry) -> list[str]:
    return generate_latest(registry).decode().splitlines()


@pytest.fixture
def registry() -> ServiceRegistry:
    return ServiceRegistry("merger")


def test_a_live_gauge_shows_what_is_so_now_and_forgets_what_was(registry: ServiceRegistry) -> None:
    state: dict[tuple[str, ...], float] = {("a",): 1.0, ("b",): 2.0}
    LiveGauge("prism_things", "Things.", ["name"], registry=registry).read(lambda: state)
    assert 'prism_things{name="a"} 1.0' in text(registry)
    del state[("a",)]
    shown = [line for line in text(registry) if line.startswith("prism_things")]
    assert shown == ['prism_things{name="b"} 2.0']


def test_a_gauge_that_cannot_be_read_takes_no_other_with_it(
    registry: ServiceRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> dict[tuple[str, ...], float]:
        raise RuntimeError("gone")

    LiveGauge("prism_things", "Things.", registry=registry).read(broken)
    assert not [line for line in text(registry) if line.startswith("prism_things")]
    assert [line for line in text(registry) if line.startswith("prism_build_info{")]


def test_a_name_is_declared_once(registry: ServiceRegistry) -> None:
    LiveGauge("prism_things", "Things.", registry=registry)
    with pytest.raises(ValueError, match="prism_things"):
        LiveGauge("prism_things", "Other things.", registry=registry)


def test_a_label_from_outside_has_an_end() -> None:
    label = BoundedLabel(2)
    assert [label(one) for one in ("a", "b", "a", "c", "b", "d")] == ["a", "b", "a", OTHER, "b", OTHER]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([0.0, KEPT_S / 3, KEPT_S]))))
def test_a_label_that_forgets_has_an_end_too_and_room_for_what_is_used(
    asked: list[tuple[str, float]],
) -> None:
    now = 0.0
    counter = Counter("things", "Things.", ["name", "kind"], registry=CollectorRegistry())
    label = BoundedLabel(3, lambda value: counter.remove_by_labels({"name": value}), lambda: now)
    used: dict[str, float] = {}
    for value, pause in asked:
        now += pause
        recent = {one for one, at in used.items() if now - at < KEPT_S}
        told = label(value)
        assert told == value or (told == OTHER and len(recent) == 3), "a place is free, or nobody's any more"
        assert told == value or value not in recent, "what was used lately keeps its name"
        if told == value:
            used[value] = now
        for kind in ("x", "y"):
            counter.labels(told, kind).inc()
        shown = {one.labels["name"] for family in counter.collect() for one in family.samples} - {OTHER}
        assert recent <= shown
        assert len(shown) <= 3


def test_readiness_and_the_disk_are_shown(registry: ServiceRegistry, tmp_path: Path) -> None:
    ready = [True]
    registry.show_ready(lambda: ready[0])
    registry.show_disk(tmp_path / "not there yet")
    assert 'prism_service_ready{component="merger"} 1.0' in text(registry)
    assert not [line for line in text(registry) if line.startswith("prism_service_disk")]
    ready[0] = False
    registry.show_disk(tmp_path)
    assert 'prism_service_ready{component="merger"} 0.0' in text(registry)
    assert len([line for line in text(registry) if line.startswith("prism_service_disk")]) == 2
