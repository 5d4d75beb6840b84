"""What is generated from the code is committed as it would be generated now."""

from pathlib import Path

import pytest

from tools.reference import pages


@pytest.mark.parametrize(("path", "content"), pages().items(), ids=lambda value: getattr(value, "name", ""))
def test_committed_page_is_current(path: Path, content: str) -> None:
    assert path.read_text(encoding="utf-8") == content, "run `make schemas` and commit what it changes"
