from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from prism.service import settings as settings_module
from prism.service.settings import ServiceSettings, describe, load, port_field


class WorkerSettings(ServiceSettings):
    port: int = port_field(8082)
    api_key: SecretStr | None = Field(
        default=None,
        validation_alias="OLLAMA_API_KEY",
        description="A key.",
        json_schema_extra={"allowed": "ascii"},
    )
    limit: SecretStr | None = Field(
        default=None, min_length=5, validation_alias="PRISM_SECRET", description="Another secret."
    )


BASE = {"BOOTSTRAP_SERVER": "broker:9092"}


def refused(capsys: pytest.CaptureFixture[str], **environ: str) -> list[str]:
    with pytest.raises(SystemExit) as stop:
        load(WorkerSettings, {**BASE, **environ})
    assert stop.value.code == 3
    return capsys.readouterr().err.splitlines()


def test_the_promised_defaults() -> None:
    settings = load(ServiceSettings, BASE)
    assert settings.model_dump() == {
        "bootstrap_server": "broker:9092",
        "data_dir": Path("prism-data"),
        "jobs_dir": Path("jobs"),
        "topic_prefix": "prism.",
        "create_topics": True,
        "topic_partitions": 16,
        "log_level": "INFO",
        "log_format": "auto",
        "port": 0,
        "http_host": "0.0.0.0",
        "kafka": {},
    }
    assert load(WorkerSettings, BASE).port == 8082


def test_values_come_from_the_environment() -> None:
    environ = {
        "PORT": "0",
        "LOG_LEVEL": "debug",
        "PRISM_CREATE_TOPICS": "false",
        "PRISM_TOPIC_PREFIX": "",
        "X": "y",
    }
    settings = load(WorkerSettings, {**BASE, **environ})
    assert (settings.port, settings.log_level) == (0, "DEBUG")
    assert (settings.create_topics, settings.topic_prefix) == (False, "")


def test_set_to_nothing_is_not_set() -> None:
    assert load(WorkerSettings, {**BASE, "PORT": "", "OLLAMA_API_KEY": " "}).port == 8082


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("BOOTSTRAP_SERVER=file:1\nPORT=7000\nKAFKA_SASL_PASSWORD=a$b{c}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOTSTRAP_SERVER", "environment:2")
    settings = load(WorkerSettings)
    assert (settings.bootstrap_server, settings.port) == ("environment:2", 7000)
    assert settings.kafka_properties()["sasl.password"] == "a$b{c}"


def test_constructing_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1234")
    assert WorkerSettings(bootstrap_server="b:1").port == 8082


def test_a_missing_setting_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, BOOTSTRAP_SERVER="") == [
        "BOOTSTRAP_SERVER: missing; allowed: host:port[,host:port]"
    ]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "70000", "0 to 65535"),
        ("PORT", "http", "0 to 65535"),
        ("BOOTSTRAP_SERVER", "broker", "host:port[,host:port]"),
        ("BOOTSTRAP_SERVER", "broker:99999", "host:port[,host:port]"),
        ("BOOTSTRAP_SERVER", "a:1,,b:2", "host:port[,host:port]"),
        ("LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING or ERROR"),
        ("PRISM_LOG_FORMAT", "xml", "auto, text or json"),
        ("PRISM_TOPIC_PREFIX", "a/b", "at most 100 of letters, digits, `.`, `_`, `-`"),
        ("PRISM_TOPIC_PARTITIONS", "0", "1 to 1000"),
        ("PRISM_CREATE_TOPICS", "perhaps", "true or false"),
    ],
)
def test_a_wrong_setting_is_one_line(
    capsys: pytest.CaptureFixture[str], name: str, value: str, allowed: str
) -> None:
    assert refused(capsys, **{name: value}) == [f"{name}: '{value}' is wrong; allowed: {allowed}"]


def test_every_wrong_setting_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(refused(capsys, PORT="x", LOG_LEVEL="x", PRISM_TOPIC_PARTITIONS="x")) == 3


def test_a_value_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(refused(capsys, PORT="1\nPORT: fine")) == 1


def test_a_wrong_secret_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = refused(capsys, PRISM_SECRET="abcd")
    assert line.startswith("PRISM_SECRET: the value (hidden) is wrong; allowed: ")
    assert "abcd" not in line


def test_an_unreadable_env_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "env").write_bytes(b"A=\xff\xfe")
    with pytest.raises(SystemExit):
        load(ServiceSettings, BASE, tmp_path / "env")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_kafka_variables_become_librdkafka_properties_and_stay_secret() -> None:
    environ = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_PASSWORD": "hunter2"}
    settings = load(ServiceSettings, {**BASE, **environ})
    assert settings.kafka_properties() == {"security.protocol": "SASL_SSL", "sasl.password": "hunter2"}
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    "name",
    [
        "KAFKA_PORT",
        "KAFKA_SERVICE_HOST",
        "KAFKA_SERVICE_PORT_CLIENT",
        "KAFKA_PORT_9092_TCP_ADDR",
        "KAFKA_BROKER_SERVICE_PORT",
        "KAFKA_BROKER_PORT_9092_TCP",
        "KAFKA_HOME",
        "KAFKA_HEAP_OPTS",
    ],
)
def test_what_kubernetes_and_kafka_set_themselves_is_left_out(name: str) -> None:
    assert load(ServiceSettings, {**BASE, name: "tcp://10.0.0.1:9092"}).kafka_properties() == {}


def test_the_table_has_every_setting_and_no_secret_default() -> None:
    rows = {row.name: row for row in describe(WorkerSettings)}
    assert (rows["BOOTSTRAP_SERVER"].default, rows["PORT"].default) == ("required", "8082")
    assert rows["LOG_LEVEL"].type == "DEBUG | INFO | WARNING | ERROR"
    assert (rows["OLLAMA_API_KEY"].type, rows["KAFKA_…"].type) == ("secret", "secret")
    assert all(row.description and row.type for row in rows.values())


def test_every_field_names_its_environment_variable() -> None:
    class Forgetful(ServiceSettings):
        size: int = 1

    with pytest.raises(TypeError, match=r"Forgetful\.size"):
        describe(Forgetful)
    assert settings_module.EXIT_BAD_SETTINGS == 3
