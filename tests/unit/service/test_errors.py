from prism.service.errors import FatalError, RetryLater


def test_an_error_says_what_where_and_what_next() -> None:
    error = FatalError("disk full", "/data", "free space")
    assert str(error) == "disk full (/data); free space"
    assert (error.what, error.where, error.next) == ("disk full", "/data", "free space")


def test_the_parts_are_optional() -> None:
    assert str(FatalError("gone")) == "gone"
    assert RetryLater("away", after_s=5).after_s == 5
