"""Which broker a command talks to: the flag, the environment, or the fleet of this folder."""

import os
import re
import socket
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from prism.kafka.clients import KafkaSettings, first_contact
from prism.messages import Topics
from prism.service.secret_files import SecretEnvironment
from prism.service.settings import ServiceSettings, load
from prism_cli import fleet_file
from prism_cli.exits import BROKER_AWAY, CommandFailed

DEFAULT_DATA_DIR = Path("prism-data")
CONTACT_S = 5.0
# What a client says about the broker is told in the command's own words.
_QUIET = {"log_level": "0"}
_SECURITY = re.compile(r"KAFKA_(SECURITY|SASL|SSL)_.*")


@dataclass(frozen=True, slots=True)
class Connection:
    """A broker, the topics' names, and what is known of the fleet on this machine."""

    kafka: KafkaSettings
    topics: Topics
    origin: str
    data_dir: Path
    fleet: fleet_file.FleetFile | None

    @property
    def bootstrap(self) -> str:
        """The broker's address."""
        return self.kafka.bootstrap


def environment() -> Mapping[str, str]:
    """Return the environment with `./.env` below it and secrets from files, as the services see it."""
    from_file = {name: value for name, value in dotenv_values(".env", interpolate=False).items() if value}
    return SecretEnvironment({**from_file, **os.environ})


def without_security(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for an embedded broker, which speaks plain text on the loopback.

    Emptied, not removed: a service reads `.env` too, and an empty variable goes before it.
    """
    return {name: "" if _SECURITY.fullmatch(name) else value for name, value in environ.items()}


def data_dir(options: Namespace, environ: Mapping[str, str]) -> Path:
    """Return the data folder: the flag, PRISM_DATA_DIR, or ./prism-data."""
    chosen = options.data_dir or environ.get("PRISM_DATA_DIR") or DEFAULT_DATA_DIR
    return Path(chosen).expanduser()


def find(options: Namespace) -> Connection:
    """Return the broker that the options, the environment or the folder's fleet name.

    Raises CommandFailed (4) when none is named, or the folder's fleet is gone.
    """
    environ = environment()
    folder = data_dir(options, environ)
    fleet = fleet_file.read(folder)
    living = fleet if fleet is not None and fleet_file.alive(folder) else None
    if options.bootstrap:
        return _connection(environ, options.bootstrap, "--bootstrap", folder, living)
    if environ.get("BOOTSTRAP_SERVER"):
        return _connection(environ, environ["BOOTSTRAP_SERVER"], "BOOTSTRAP_SERVER", folder, living)
    if living is not None:
        return _connection(environ, living.bootstrap, str(folder / fleet_file.FILE), folder, living)
    if fleet is not None:
        raise CommandFailed(
            BROKER_AWAY,
            "the fleet of this folder is gone",
            str(folder / fleet_file.FILE),
            "start it: prism up",
        )
    raise CommandFailed(
        BROKER_AWAY,
        "no broker is known",
        f"no --bootstrap, no BOOTSTRAP_SERVER, no fleet in {folder}",
        "start one here: prism up",
    )


def connect(options: Namespace) -> Connection:
    """Return the broker to talk to, after it has answered. Raises CommandFailed or BrokerAway."""
    found = find(options)
    check_answer(found.kafka, found.origin)
    return found


def check_answer(kafka: KafkaSettings, origin: str, timeout_s: float = CONTACT_S) -> str:
    """Return the cluster's id; raise CommandFailed (4) or BrokerAway when nobody answers."""
    if not any(_listens(server, timeout_s) for server in kafka.bootstrap.split(",")):
        raise CommandFailed(
            BROKER_AWAY,
            f"no Kafka broker answers at {kafka.bootstrap}",
            f"from {origin}",
            "start it, correct the address, or run prism doctor",
        )
    return first_contact(kafka, timeout_s)


def _connection(
    environ: Mapping[str, str],
    bootstrap: str,
    origin: str,
    folder: Path,
    living: fleet_file.FleetFile | None,
) -> Connection:
    fleet = living if living is not None and living.bootstrap == bootstrap else None
    if fleet is not None and fleet.embedded_broker:
        environ = without_security(environ)
    settings = load(ServiceSettings, {**environ, "BOOTSTRAP_SERVER": bootstrap})
    properties = {**_QUIET, **settings.kafka_properties()}
    return Connection(
        kafka=KafkaSettings(settings.bootstrap_server, "prism-cli", properties),
        topics=Topics(fleet.topic_prefix if fleet else settings.topic_prefix),
        origin=origin,
        data_dir=fleet.data_dir if fleet else folder,
        fleet=fleet,
    )


def _listens(server: str, timeout_s: float) -> bool:
    host, _, port = server.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except OSError:
        return False
    return True
