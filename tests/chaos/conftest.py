"""What the chaos tests share: the mark, and the one line that each prints of what it counted."""

from collections.abc import Callable
from pathlib import Path

import pytest

Tell = Callable[..., None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.chaos)


@pytest.fixture
def tell(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Tell:
    """Return what prints a scenario's line past pytest's capture."""

    def line(**counted: object) -> None:
        shown = " ".join(
            f"{name}={value:.1f}" if isinstance(value, float) else f"{name}={value}"
            for name, value in counted.items()
        )
        with capsys.disabled():
            print(f"\n[chaos] {request.node.name}: {shown}")  # noqa: T201

    return line
