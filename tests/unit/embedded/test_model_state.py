"""Settings, statistics and slots of the model server."""

import asyncio
from typing import Any

import pytest

from prism_embedded.errors import EmbeddedError
from prism_embedded.model_state import Behaviour, Busy, Slots, Stats


@pytest.mark.parametrize(
    "changes",
    [
        {"latency_ms": -1},
        {"latency_ms": float("nan")},
        {"slots": "two"},
        {"slots": True},
        {"down": 1},
        {"faults": "nonsense=1"},
        {"colour": "red"},
    ],
)
def test_a_wrong_setting_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EmbeddedError):
        Behaviour().changed(changes)


def test_settings_change_one_by_one() -> None:
    behaviour = Behaviour(slots=3).changed({"latency_ms": 5, "seed": -1})
    assert (behaviour.slots, behaviour.latency_ms, behaviour.seed) == (3, 5, -1)


def test_latency_adds_up_and_jitter_is_reproducible() -> None:
    behaviour = Behaviour(latency_ms=100, latency_per_row_ms=10, jitter_ms=50, seed=1)
    delay = behaviour.delay_s(10, "content", 0)
    assert 0.2 <= delay < 0.25
    assert delay == behaviour.delay_s(10, "content", 0) != behaviour.delay_s(10, "content", 1)


def test_stats_know_the_largest_number_at_once() -> None:
    stats = Stats()
    with stats.serving(), stats.serving():
        pass
    assert (stats.in_flight, stats.max_in_flight) == (0, 2)
    stats.reset()
    assert stats.max_in_flight == 0


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_slots_serve_in_order_and_refuse_over_the_queue() -> None:
    async def scenario() -> None:
        slots = Slots()
        slots.set(1, queue=2)
        served: list[int] = []

        async def call(number: int) -> None:
            await slots.take()
            served.append(number)

        calls = [asyncio.create_task(call(number)) for number in range(3)]
        await settle()
        assert (served, slots.waiting) == ([0], 2)
        with pytest.raises(Busy):
            await slots.take()
        calls[1].cancel()  # who goes away leaves the queue
        await settle()
        slots.give_back(0.0)
        await settle()
        assert (served, slots.waiting) == ([0, 2], 0)

    asyncio.run(scenario())


def test_more_slots_wake_who_waits() -> None:
    async def scenario() -> None:
        slots = Slots()
        slots.set(1, queue=10)
        calls = [asyncio.create_task(slots.take()) for _ in range(4)]
        await settle()
        assert slots.waiting == 3
        slots.set(0, queue=10)
        await asyncio.gather(*calls)

    asyncio.run(scenario())


def test_a_slot_given_to_a_cancelled_call_is_not_lost() -> None:
    async def scenario() -> None:
        slots = Slots()
        slots.set(1, queue=10)
        await slots.take()
        waiting = asyncio.create_task(slots.take())
        await settle()
        slots.give_back(0.0)  # its turn has come, but it has not run yet
        waiting.cancel()
        await settle()
        await asyncio.wait_for(slots.take(), 1)

    asyncio.run(scenario())
