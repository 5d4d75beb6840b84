"""A secured broker's settings: who is asked, who is trusted, and where no password may stand."""

import json
import stat
from pathlib import Path

import pytest

from prism_embedded.broker import _users
from prism_embedded.broker_files import BrokerFiles, Ports, server_properties
from prism_embedded.broker_security import BrokerSecurity, environment
from prism_embedded.errors import EmbeddedError

# None of them stands in anything else.
WORDS = {"root": "r00t-w0rd", "ingestor": "1ngest0r-w0rd", "key stores": "st0re-w0rd"}


@pytest.fixture
def security(tmp_path: Path) -> BrokerSecurity:
    made = BrokerSecurity(tmp_path / "security", ("root", "ingestor"))
    made.folder.mkdir()
    (made.folder / "passwords.json").write_text(json.dumps(WORDS))
    return made


def test_every_door_but_the_passwords_asks_for_a_certificate(security: BrokerSecurity) -> None:
    text = server_properties(Path("/x/kafka"), Ports(1, 2, 3), security)
    settings = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert settings["listeners"] == "CLIENT://127.0.0.1:1,MUTUAL://127.0.0.1:3,CONTROLLER://127.0.0.1:2"
    assert settings["listener.security.protocol.map"] == "CLIENT:SASL_SSL,MUTUAL:SSL,CONTROLLER:SSL"
    assert settings["listener.name.mutual.ssl.client.auth"] == "required"
    assert settings["listener.name.controller.ssl.client.auth"] == "required"
    assert settings["allow.everyone.if.no.acl.found"] == "false"
    assert settings["super.users"] == "User:prism-broker;User:root"
    assert "PLAINTEXT" not in text


def test_users_are_made_without_their_passwords_being_told(security: BrokerSecurity) -> None:
    options = security.scram_options()
    assert len(options) == 4
    assert options[3].startswith("SCRAM-SHA-512=[name=ingestor,iterations=8192,salt=")
    told = [word for word in WORDS.values() if any(word in option for option in options)]
    assert told == []
    assert options != security.scram_options(), "each time another salt"


def test_settings_are_for_their_owner_alone(security: BrokerSecurity, tmp_path: Path) -> None:
    for user in security.users:
        (security.folder / f"{user}.p12").touch()
    security.write_environments("127.0.0.1:1", "127.0.0.1:3")
    path = security.folder / "ingestor.env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
    assert lines["BOOTSTRAP_SERVER"] == "127.0.0.1:1"
    assert (lines["KAFKA_SASL_USERNAME"], lines["KAFKA_SASL_PASSWORD"]) == ("ingestor", WORDS["ingestor"])
    mutual = (security.folder / "ingestor.mtls.env").read_text()
    assert "BOOTSTRAP_SERVER=127.0.0.1:3\n" in mutual
    assert f"KAFKA_SSL_KEYSTORE_PASSWORD={WORDS['key stores']}\n" in mutual
    files = BrokerFiles(tmp_path)
    files.write_settings(Ports(1, 2, 3), security)
    assert stat.S_IMODE(files.properties.stat().st_mode) == 0o600


def test_whoever_waits_for_the_first_users_settings_has_all(
    security: BrokerSecurity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/security.md waits: a certificate takes seconds, and each user has one."""
    made: list[str] = []
    monkeypatch.setattr(
        "prism_embedded.broker_security._write_private", lambda path, _: made.append(path.name)
    )
    monkeypatch.setattr(BrokerSecurity, "_issue", lambda *words: made.append(words[2]))

    security.write_environments("127.0.0.1:1", "127.0.0.1:3")

    assert made[-1] == "root.env"
    assert sorted(made) == sorted(
        ["ingestor", "ingestor.env", "ingestor.mtls.env", "root", "root.env", "root.mtls.env"]
    )


def test_a_user_who_was_not_there_at_first_is_refused(security: BrokerSecurity) -> None:
    with pytest.raises(EmbeddedError, match="was made without merger"):
        BrokerSecurity(security.folder, ("root", "merger")).prepare()
    with pytest.raises(EmbeddedError, match="knows no user merger"):
        security.certificate("merger")


def test_properties_become_settings() -> None:
    assert environment({"sasl.password": "x"}) == {"KAFKA_SASL_PASSWORD": "x"}


@pytest.mark.parametrize("text", ["", "a,,b", "a b", "../x", "a,key stores"])
def test_names_of_users_are_fit_for_files(text: str) -> None:
    with pytest.raises(Exception, match="names of letters"):
        _users(text)
    assert _users("root, ingestor,root") == ("root", "ingestor")
