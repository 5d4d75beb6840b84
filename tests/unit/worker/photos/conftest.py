"""One studio with a real decoder for all tests that do not harm it."""

from collections.abc import Iterator

import pytest

from prism_model_worker.photos.photo import PhotoLimits
from prism_model_worker.photos.studio import Studio


@pytest.fixture(scope="session")
def studio() -> Iterator[Studio]:
    """A studio with one decoder."""
    made = Studio(PhotoLimits())
    yield made
    made.close()
