import io
import json
import logging
import warnings
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from prism.service import logs
from prism.service.logs import get_logger

log = get_logger("prism.tests")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root, prism = logging.getLogger(), logging.getLogger("prism")
    handlers, levels = root.handlers[:], (root.level, prism.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    prism.setLevel(levels[1])
    logging.captureWarnings(False)


def as_json(level: logs.LogLevel = "INFO") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, service="ingestor", instance="i-1", stream=stream)
    return stream


def as_text(level: logs.LogLevel = "INFO") -> io.StringIO:
    stream = Terminal()
    logs.configure(level, service="ingestor", stream=stream)
    return stream


def only(stream: io.StringIO) -> dict[str, Any]:
    [line] = stream.getvalue().splitlines()
    value: dict[str, Any] = json.loads(line)
    return value


def test_a_json_line_has_its_fixed_fields_first() -> None:
    stream = as_json()
    log.bind(run_id="r").info("batch_done", rows=10, seconds=0.12345678, ok=True, none=None)
    line = only(stream)
    assert list(line)[:5] == ["ts", "level", "service", "instance", "action"]
    assert line.pop("ts")[10:11] == "T"
    assert line == {
        "level": "INFO",
        "service": "ingestor",
        "instance": "i-1",
        "action": "batch_done",
        "run_id": "r",
        "rows": 10,
        "seconds": 0.123457,
        "ok": True,
        "none": None,
    }


def test_an_extra_cannot_replace_a_fixed_field() -> None:
    stream = as_json()
    log.info("fine", ts="never", service="x")
    line = only(stream)
    assert (line["service"], line["service_"], line["ts_"]) == ("ingestor", "x", "never")


def test_a_text_line_reads_well() -> None:
    stream = as_text()
    log.info("batch_done", rows=10, label="a b", empty="", share=0.5, path=Path("/tmp/x"))
    _, _, rest = stream.getvalue().partition(" ")
    assert rest == 'INFO    ingestor batch_done rows=10 label="a b" empty="" share=0.5 path=/tmp/x\n'


def test_the_level_is_obeyed() -> None:
    stream = as_json("WARNING")
    log.info("quiet")
    log.warning("loud")
    assert only(stream)["action"] == "loud"


@pytest.mark.promise(8)
@given(st.text())
def test_no_value_can_forge_a_line(value: str) -> None:
    for form in (as_text, as_json):
        stream = form()
        log.info("row_seen", value=value, nested={value: [value]}, last="end")
        written = stream.getvalue()
        assert written.endswith("\n")
        assert written[:-1].isprintable()
        assert len(written.splitlines()) == 1


@pytest.mark.promise(8)
def test_a_text_value_cannot_look_like_another_field() -> None:
    stream = as_text()
    log.info("seen", value='x" level=ERROR y="', last=1)
    assert stream.getvalue().endswith('value="x\\" level=ERROR y=\\"" last=1\n')
    log.info("seen", equals="a=b", backslash="a\\nb", quote='"')
    assert stream.getvalue().endswith('equals="a=b" backslash="a\\\\nb" quote="\\""\n')


def failure() -> ValueError:
    try:
        raise ValueError("bad\nthing")
    except ValueError as error:
        return error


def test_an_exception_is_one_line_without_traceback() -> None:
    stream = as_text()
    log.error("failed", error=failure())
    assert stream.getvalue().endswith('failed error="ValueError: bad\\nthing"\n')
    assert "Traceback" not in stream.getvalue()


def test_the_traceback_comes_at_debug_as_one_escaped_field() -> None:
    stream = as_json("DEBUG")
    log.error("failed", error=failure())
    assert "in failure" in only(stream)["traceback"]
    text = as_text("DEBUG")
    log.error("failed", error=failure())
    assert len(text.getvalue().splitlines()) == 1


def test_odd_values_do_not_cost_the_line() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    class Colour(Enum):
        RED = 1

    stream = as_json()
    log.info("odd", broken=Broken(), enum=Colour.RED, nan=float("nan"), secret=SecretStr("x"), raw=b"\xff")
    line = only(stream)
    assert (line["broken"], line["nan"], line["secret"]) == ("<Broken: RuntimeError>", "nan", "**********")


def test_a_long_value_is_cut() -> None:
    stream = as_json()
    log.info("long", value="x" * 100_000)
    assert len(only(stream)["value"]) < 2_100


def test_libraries_are_heard_from_warning_up_in_the_same_form() -> None:
    stream = as_json("DEBUG")
    logging.getLogger("urllib3").info("chatty")
    logging.getLogger("waitress").warning("queue depth %d\nx", 3)
    line = only(stream)
    assert (line["action"], line["logger"], line["message"]) == ("library", "waitress", "queue depth 3\nx")


def test_a_librarys_traceback_is_not_printed() -> None:
    stream = as_text()
    try:
        raise failure()
    except ValueError:
        logging.getLogger("urllib3").exception("oh")
    assert len(stream.getvalue().splitlines()) == 1


def test_warnings_are_lines_too() -> None:
    stream = as_json()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", UserWarning, stacklevel=1)
    assert only(stream)["logger"] == "py.warnings"


def test_a_stream_that_is_gone_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    stream = as_json()
    stream.close()
    log.info("lost")
    assert capsys.readouterr().err == ""


def test_configuring_again_replaces_the_handler() -> None:
    first, second = as_json(), as_json()
    log.info("once")
    assert (first.getvalue(), only(second)["action"]) == ("", "once")
