"""Secrets from files: each secret setting, and what is said of a file that cannot be used."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from prism.service.secret_files import SecretEnvironment
from prism.service.settings import ServiceSettings, load

BASE = {"BOOTSTRAP_SERVER": "broker:9092"}


class Settings(ServiceSettings):
    token: SecretStr | None = Field(
        default=None, min_length=5, validation_alias="PRISM_FILES_TOKEN", description="A token."
    )


def written(path: Path, value: bytes) -> str:
    path.write_bytes(value)
    return str(path)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_every_secret_may_come_as_a_file(tmp_path: Path, end: bytes) -> None:
    token = written(tmp_path / "token", b"t0ken " + end)
    password = written(tmp_path / "password", "pä$$\nword".encode() + end)
    environ = {**BASE, "PRISM_FILES_TOKEN_FILE": token, "KAFKA_SASL_PASSWORD_FILE": password}
    settings = load(Settings, environ)
    assert settings.token is not None
    assert settings.token.get_secret_value() == "t0ken "
    assert settings.kafka_properties() == {"sasl.password": "pä$$\nword"}


def test_only_secrets_come_as_files(tmp_path: Path) -> None:
    level = written(tmp_path / "level", b"DEBUG")
    assert load(Settings, {**BASE, "LOG_LEVEL_FILE": level, "ANY_FILE": "/nowhere"}).log_level == "INFO"


def test_librdkafkas_own_names_of_files_stay_what_they_are(tmp_path: Path) -> None:
    key = written(tmp_path / "key.pem", b"not the value")
    environ = {
        **BASE,
        "KAFKA_SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE": key,
        "KAFKA_SASL_OAUTHBEARER_ASSERTION_FILE": "/run/written/later",
        "KAFKA_SASL_OAUTHBEARER_ASSERTION_JWT_TEMPLATE_FILE": "/run/template",
    }
    assert load(Settings, environ).kafka_properties() == {
        "sasl.oauthbearer.assertion.private.key.file": key,
        "sasl.oauthbearer.assertion.file": "/run/written/later",
        "sasl.oauthbearer.assertion.jwt.template.file": "/run/template",
    }


def test_a_file_named_by_nothing_is_none() -> None:
    settings = load(Settings, {**BASE, "PRISM_FILES_TOKEN_FILE": "", "KAFKA_SASL_PASSWORD_FILE": ""})
    assert settings.token is None
    assert settings.kafka_properties() == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"x" * 70_000, "it is larger than 64 KiB"),
        (b"\xff\xfe", "it is no text in UTF-8"),
    ],
)
def test_what_cannot_be_used_is_said_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, why: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        load(Settings, {**BASE, "PRISM_FILES_TOKEN_FILE": str(path)})
    assert stop.value.code == 3
    assert capsys.readouterr().err == (
        f"PRISM_FILES_TOKEN_FILE: '{path}' cannot be used: {why}; "
        "allowed: a file that holds the value of PRISM_FILES_TOKEN\n"
    )


def test_a_wrong_secret_of_a_file_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "token", b"abc")
    with pytest.raises(SystemExit):
        load(Settings, {**BASE, "PRISM_FILES_TOKEN_FILE": path})
    said = capsys.readouterr().err
    assert said.startswith("PRISM_FILES_TOKEN: the value (hidden) is wrong")
    assert "abc" not in said


def test_a_value_beside_its_file_must_be_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "token", b"secret-one\n")
    same = {**BASE, "PRISM_FILES_TOKEN_FILE": path, "PRISM_FILES_TOKEN": "secret-one"}
    assert load(Settings, same).token == SecretStr("secret-one")
    with pytest.raises(SystemExit):
        load(Settings, {**same, "PRISM_FILES_TOKEN": "secret-two"})
    said = capsys.readouterr().err
    assert said.startswith("PRISM_FILES_TOKEN_FILE: PRISM_FILES_TOKEN is set, too")
    assert "secret" not in said


def test_a_name_is_looked_up_in_its_file(tmp_path: Path) -> None:
    environ = SecretEnvironment(
        {
            "VLLM_KEY_FILE": written(tmp_path / "key", b"k1\n"),
            "SET_KEY": "s",
            "SET_KEY_FILE": written(tmp_path / "other", b"o"),
            "GONE_KEY_FILE": str(tmp_path / "gone"),
            "EMPTY": "",
        }
    )
    assert environ.get("VLLM_KEY") == "k1"
    assert environ["SET_KEY"] == "s"
    assert environ["EMPTY"] == ""
    assert environ.get("GONE_KEY") is None
    assert environ.get("NEVER") is None
    assert set(environ) == {"VLLM_KEY_FILE", "SET_KEY", "SET_KEY_FILE", "GONE_KEY_FILE", "EMPTY"}
    written(tmp_path / "key", b"k2\n")
    assert environ["VLLM_KEY"] == "k2", "a key that was changed is the new one"


def test_an_environment_can_be_copied_whatever_its_files_are(tmp_path: Path) -> None:
    gone = {"OWN_KEY": "", "OWN_KEY_FILE": str(tmp_path / "gone")}
    assert {**SecretEnvironment(gone)} == gone
