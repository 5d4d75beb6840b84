"""When to come back, as servers have been seen to say it."""

from datetime import UTC, datetime

import pytest

from prism.modelserver.waits import LONGEST_S, seconds_to_wait

NOW = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("you've reached your hourly usage limit, it resets in 3h 12m", 3 * 3600 + 12 * 60),
        ("weekly usage limit, resets in 2 days and 4 hours", 2 * 86_400 + 4 * 3600),
        ("Please try again in 6m0s. Visit the console", 360),
        ("Rate limit reached. Please try again in 320ms.", 0.32),
        ("Please retry in 25.3s.", 25.3),
        ("have exceeded the token rate limit. Please retry after 6 seconds.", 6),
        ("please wait 2 minutes", 120),
        ("Your budget will reset in 42 minutes.", 2520),
        ("resets in 1h, 5m", 3900),
        ("RESETS IN 1 WEEK", 7 * 86_400),
        ("try again at 2026-11-21T12:30:00Z", 9000),
        ("try again at 2026-11-21 12:30 UTC", 9000),
        ("resets at 2026-11-21T13:30:00+01:00", 9000),
        ("resets on 2026-11-22", 14 * 3600),
        ("resets at 2026-11-21T12:30:00.123Z", 9000),
        ("resets at 2020-01-01", 0),
        ("resets in 999 weeks", LONGEST_S),
    ],
)
def test_what_a_text_says(text: str, seconds: float) -> None:
    assert seconds_to_wait(None, text, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "too many requests",
        "please wait or upgrade to continue",
        "Limit 30000, Used 29000, Requested 2000 tokens per min",
        "resets in 3 months",
        "try again at 2026-13-45T99:00:00Z",
        "the model took 3 minutes",
    ],
)
def test_what_says_nothing(text: str) -> None:
    assert seconds_to_wait(None, text, NOW) is None


def test_a_hostile_text_is_read_in_one_pass() -> None:
    assert seconds_to_wait(None, "retry in " + "1h " * 100_000, NOW) == LONGEST_S
    assert seconds_to_wait(None, "again " * 50_000 + "9" * 50_000, NOW) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 3600.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("9" * 400, LONGEST_S),
        ("soon", 60.0),
        ("-1", 60.0),
        ("", 60.0),
    ],
)
def test_the_header_goes_first_if_it_is_one(header: str, seconds: float) -> None:
    assert seconds_to_wait(header, "try again in 1 minute", NOW) == seconds
