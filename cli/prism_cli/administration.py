"""`prism admin`: topics made, compared and changed; the ACLs of every part of a fleet."""

import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import replace

from confluent_kafka.admin import AdminClient

from prism.kafka import acls
from prism.kafka.admin import ensure_topics
from prism.kafka.clients import first_contact
from prism.kafka.topic_admin import TopicState, change_settings, grow, topic_states
from prism.messages.access import Grant, Names, Role, grants
from prism.service.settings import load
from prism_cli import connection as connections
from prism_cli.connection import CONTACT_S, Connection
from prism_cli.console import output, say, table, write_json, write_line
from prism_cli.exits import BAD_INPUT, DONE, USAGE, CommandFailed
from prism_cli.topic_audit import (
    MISSING,
    Difference,
    Wanted,
    differences,
    settings_to_change,
    topics_to_grow,
    wanted_topics,
)
from prism_ingestor.settings import IngestorSettings
from prism_model_worker.settings import WorkerSettings, request_topics

_SHOWN = ("cleanup.policy", "retention.ms", "segment.ms", "max.message.bytes")
# A change is confirmed by the controller; the broker that is asked applies it a moment later.
_SHOWN_S = 10.0
# Of a broker that is only printed, and was named by nobody.
_SOME_BROKER = "localhost:9092"


def run(options: Namespace) -> int:
    """Do what the action says."""
    return _topics(options) if options.action == "topics" else _acls(options)


def _topics(options: Namespace) -> int:
    connection = connections.find(options)
    first_contact(connection.kafka, max(options.wait or 0.0, CONTACT_S))
    wanted = _wanted(options, connection)
    admin = connection.kafka.admin()
    made, changed = _change(admin, wanted, options)
    there, found = _compare(admin, wanted, made, changed)
    _show(wanted, there, found, made, changed, options.json)
    return BAD_INPUT if found else DONE


def _compare(
    admin: AdminClient, wanted: Sequence[Wanted], made: Sequence[str], changed: Sequence[Difference]
) -> tuple[dict[str, TopicState], list[Difference]]:
    """Return the topics and what is not as wanted, once the broker shows what it has just confirmed."""
    confirmed = {(name, MISSING) for name in made} | {(one.topic, one.what) for one in changed}
    deadline = time.monotonic() + _SHOWN_S
    while True:
        there = topic_states(admin, [one.spec.name for one in wanted])
        found = differences(wanted, there)
        if time.monotonic() > deadline or not confirmed & {(one.topic, one.what) for one in found}:
            return there, found
        time.sleep(0.1)


def _wanted(options: Namespace, connection: Connection) -> list[Wanted]:
    settings = _worker_settings(connection.bootstrap)
    partitions = options.partitions or settings.topic_partitions
    topics, requests = connection.topics, request_topics(settings)
    return wanted_topics(topics, requests, partitions, options.replication, bool(options.partitions))


def _worker_settings(bootstrap: str) -> WorkerSettings:
    return load(WorkerSettings, {**connections.environment(), "BOOTSTRAP_SERVER": bootstrap})


def _change(
    admin: AdminClient, wanted: Sequence[Wanted], options: Namespace
) -> tuple[list[str], list[Difference]]:
    """Make and change what was asked for; return the new topics and what was changed of the others."""
    names = [one.spec.name for one in wanted]
    found = differences(wanted, topic_states(admin, names))
    made: list[str] = []
    if options.create:
        absent = {one.topic for one in found if one.what == MISSING}
        specs = [replace(one.spec, partitions=one.partitions) for one in wanted if one.spec.name in absent]
        made = ensure_topics(admin, specs, 1, options.replication or -1)
    if not options.apply:
        return made, []
    for topic, settings in settings_to_change(found).items():
        change_settings(admin, topic, settings)
    for topic, partitions in topics_to_grow(found).items():
        grow(admin, topic, partitions)
    return made, [one for one in found if one.what != MISSING and not one.advice]


def _show(
    wanted: Sequence[Wanted],
    there: dict[str, TopicState],
    found: Sequence[Difference],
    made: list[str],
    changed: Sequence[Difference],
    as_json: bool,
) -> None:
    if as_json:
        write_json(
            {
                "topics": [_as_json(one, there.get(one.spec.name), found) for one in wanted],
                "created": made,
                "changed": [str(one) for one in changed],
                "as_wanted": not found,
            }
        )
    else:
        columns = [("topic", "left"), ("partitions", "right"), ("replication", "right")]
        columns += [(name, "right") for name in _SHOWN] + [("", "left")]
        output().print(table(columns, (_row(one, there.get(one.spec.name), found) for one in wanted)))
    for name in made:
        say(f"made {name}")
    for one in changed:
        say(f"changed {one.topic}: {one.what} from {one.is_} to {one.wanted}")
    for one in found:
        say(str(one))


def _row(wanted: Wanted, state: TopicState | None, found: Iterable[Difference]) -> list[str]:
    name = wanted.spec.name
    wrong = {one.what for one in found if one.topic == name}
    if state is None:
        return [name, "", "", *("" for _ in _SHOWN), "missing"]
    shown = [state.config.get(key, "") for key in _SHOWN]
    return [
        name,
        str(state.partitions),
        str(state.replication),
        *shown,
        ", ".join(sorted(wrong)) or "as wanted",
    ]


def _as_json(wanted: Wanted, state: TopicState | None, found: Iterable[Difference]) -> dict[str, object]:
    return {
        "name": wanted.spec.name,
        "there": state is not None,
        "partitions": state.partitions if state else 0,
        "replication": state.replication if state else 0,
        "config": {key: state.config.get(key) for key in _SHOWN} if state else {},
        "differs": [
            {"what": one.what, "is": one.is_, "wanted": one.wanted, "advice": one.advice}
            for one in found
            if one.topic == wanted.spec.name
        ],
    }


def _acls(options: Namespace) -> int:
    principals = _principals(options.principal)
    connection = connections.find(options) if options.apply else None
    environ = connections.environment()
    bootstrap = options.bootstrap or environ.get("BOOTSTRAP_SERVER") or _SOME_BROKER
    names = _names(connection.bootstrap if connection else bootstrap)
    if connection is not None:
        names = replace(names, topics=connection.topics)
    given = {role: grants(role, names) for role in principals}
    if options.json:
        write_json({"acls": [_acl(principals[role], one) for role, found in given.items() for one in found]})
    elif connection is None:
        for role, found in given.items():
            write_line(f"# {role}")
            for one in found:
                write_line(acls.command(bootstrap, principals[role], one, options.host))
    if connection is not None:
        first_contact(connection.kafka, CONTACT_S)
        admin = connection.kafka.admin()
        wanted = [
            binding
            for role, found in given.items()
            for binding in acls.bindings(principals[role], found, options.host)
        ]
        acls.create(admin, wanted)
        say(f"{len(wanted)} ACLs of {', '.join(principals.values())} are there")
    return DONE


def _names(bootstrap: str) -> Names:
    environ = {**connections.environment(), "BOOTSTRAP_SERVER": bootstrap}
    return replace(load(WorkerSettings, environ).names, ingestor_group=load(IngestorSettings, environ).group)


def _principals(given: Sequence[str]) -> dict[Role, str]:
    """Return the principals of the roles that were named, of all roles where none was."""
    if not given:
        return {role: f"User:{role}" for role in Role}
    found: dict[Role, str] = {}
    for text in given:
        role, _, principal = text.partition("=")
        if role not in list(Role):
            raise CommandFailed(
                USAGE, f"{role!r} is no role", "--principal", f"name one of {', '.join(Role)}"
            )
        found[Role(role)] = principal if ":" in principal else f"User:{principal or role}"
    return found


def _acl(principal: str, grant: Grant) -> dict[str, object]:
    return {
        "principal": principal,
        "resource": grant.resource.value,
        "name": grant.name,
        "pattern": "prefixed" if grant.prefixed else "literal",
        "operations": [one.value for one in grant.operations],
    }
