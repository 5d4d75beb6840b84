"""ACLs made of grants: as the broker takes them, and as `kafka-acls.sh` does."""

import shlex
from collections.abc import Sequence

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from prism.kafka.errors import failure
from prism.messages.access import Grant, Resource

_TYPES = {
    Resource.TOPIC: ResourceType.TOPIC,
    Resource.GROUP: ResourceType.GROUP,
    Resource.CLUSTER: ResourceType.BROKER,
}
_TIMEOUT_S = 20.0


def bindings(principal: str, grants: Sequence[Grant], host: str = "*") -> list[AclBinding]:
    """Return the ACLs that give a principal (`User:ingestor`) what the grants say."""
    return [
        AclBinding(
            _TYPES[one.resource],
            one.name,
            ResourcePatternType.PREFIXED if one.prefixed else ResourcePatternType.LITERAL,
            principal,
            host,
            AclOperation[operation.name],
            AclPermissionType.ALLOW,
        )
        for one in grants
        for operation in one.operations
    ]


def create(admin: AdminClient, wanted: Sequence[AclBinding]) -> None:
    """Make ACLs; one that is there stays. Raises BrokerAway or BrokerRefused."""
    for binding, answer in admin.create_acls(list(wanted), request_timeout=_TIMEOUT_S).items():
        try:
            answer.result()
        except KafkaException as error:
            raise failure(f"make the ACL of {binding.principal} on {binding.name}", error.args[0]) from None


def command(bootstrap: str, principal: str, grant: Grant, host: str = "*") -> str:
    """Return the `kafka-acls.sh` command that makes one grant."""
    words = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--command-config", "admin.properties"]
    words += ["--add", "--allow-principal", principal]
    words += ["--allow-host", host] if host != "*" else []
    for operation in grant.operations:
        words += ["--operation", operation.value]
    words += ["--cluster"] if grant.resource is Resource.CLUSTER else [f"--{grant.resource}", grant.name]
    words += ["--resource-pattern-type", "prefixed"] if grant.prefixed else []
    return shlex.join(words)
