"""Which model servers a sent run may name, where the operator says so."""

from pathlib import Path

import pytest

from prism.messages import FileReason, MessageSource, RunFile, RunRecord, RunState
from prism.runs.catalogue import Catalogue, ModelEntry
from prism.runs.job import JobRefused
from prism.service.settings import load
from prism_ingestor.checking import Checker
from prism_ingestor.model_servers import AllowedServers, origin_of
from prism_ingestor.settings import IngestorSettings
from prism_ingestor.sources import Sources

OWN = ModelEntry(name="big", backend="openai", base_url=("https://models.example/v1",), api_key_env="BIG_KEY")


def entry(url: str, **more: str) -> ModelEntry:
    fields = {"name": "m", "backend": "openai", "base_url": url, **more}
    return ModelEntry.model_validate(fields)


def servers(text: str | None) -> AllowedServers:
    environ = {"BOOTSTRAP_SERVER": "a:1"} | ({} if text is None else {"PRISM_MODEL_SERVERS": text})
    allowed = load(IngestorSettings, environ).model_servers
    return AllowedServers(allowed, lambda: Catalogue(available_models=(OWN,)))


@pytest.mark.parametrize(
    ("setting", "asked"),
    [
        (None, entry("http://10.0.0.1:6379")),
        ("any", entry("http://10.0.0.1:6379")),
        ("http://gpu:8000", entry("http://gpu:8000/v1")),
        ("https://GPU", entry("https://gpu:443/v1")),
        ("http://a:1, http://b:2", entry("http://b:2/v1")),
        ("", OWN),
        ("", ModelEntry.model_construct(name="llama3.2")),
    ],
)
def test_what_may_be_asked(setting: str | None, asked: ModelEntry) -> None:
    servers(setting).check([asked])


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("setting", "asked"),
    [
        ("", entry("http://10.0.0.1:6379")),
        ("http://gpu:8000", entry("http://gpu:8001/v1")),
        ("http://gpu:8000", entry("https://gpu:8000/v1")),
        ("http://gpu:8000", entry("http://gpu.evil.example:8000/v1")),
        # The fleet's own name, at another place, or its key, sent to where it does not belong.
        ("", OWN.model_copy(update={"base_url": ("https://evil.example/v1",)})),
        ("", ModelEntry(name="m", api_key_env="BIG_KEY")),
        ("", OWN.model_copy(update={"api_key_env": "OTHER_KEY"})),
    ],
)
def test_what_may_not(setting: str, asked: ModelEntry) -> None:
    with pytest.raises(JobRefused, match="PRISM_MODEL_SERVERS"):
        servers(setting).check([asked])


@pytest.mark.parametrize("wrong", ["gpu", "ftp://gpu:1", "http://gpu:99999999", "http://:1"])
def test_a_wrong_setting_stops_the_service(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        servers(wrong)
    assert "PRISM_MODEL_SERVERS" in capsys.readouterr().err


@pytest.mark.parametrize("odd", ["", "http://[::1", "mailto:x", "http://h:port"])
def test_what_is_no_address_has_no_origin(odd: str) -> None:
    assert origin_of(odd) == ""


def test_pass_1_refuses_such_a_run_and_a_run_that_was_accepted_goes_on(tmp_path: Path) -> None:
    sources = Sources(tmp_path / "spool", tmp_path, 1 << 20, lambda _, __: b"RowID,Message\n1,x\n")
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "prompt.json").write_text('{"system_prompt": "s", "columns_to_code": ["Mood"]}')
    checker = Checker(sources, jobs, tmp_path / "scratch", servers=servers(""))
    checker.start()
    file = RunFile(label="l", source=MessageSource(partition=0, offsets=[0]))
    found = {}
    for state in (RunState.ACCEPTED, RunState.RUNNING):
        elsewhere = entry("http://10.0.0.1:6379").model_dump(mode="json", exclude_defaults=True)
        columns = ["RowID", "Message"] if state is RunState.RUNNING else []
        files = [file.model_copy(update={"columns": columns})]
        checker.submit(RunRecord(run_id=state, epoch=1, state=state, files=files, model_entry=elsewhere))
        found[state] = checker.done.get(timeout=20)
    checker.close()
    assert found[RunState.ACCEPTED].reason is FileReason.BAD_JOB
    assert "PRISM_MODEL_SERVERS: none" in found[RunState.ACCEPTED].detail
    assert found[RunState.RUNNING].reason is None, found[RunState.RUNNING].detail
