"""NetworkPolicies evaluated as the API's documentation has them, on pods and addresses that a test names.

A pod that no policy selects for a direction is open in it; one that is selected may do what any of them
allows. A connection needs the leave of both ends. An address block holds pods' addresses too: no more is
promised than by the most generous network. What is not understood raises AssertionError.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.deploy.kubernetes import Manifest, of_kind, selects


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: a pod with its labels, its namespace's, and ports' names; or an address."""

    name: str
    address: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)


def allowed(policies: Sequence[Manifest], source: End, target: End, protocol: str, port: int) -> bool:
    """Return whether a connection from `source` to a port of `target` gets through."""
    out = _leave(policies, "Egress", source, target, target, protocol, port)
    return out and _leave(policies, "Ingress", target, source, target, protocol, port)


def policies_of(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return the policies among manifests."""
    return of_kind(manifests, "NetworkPolicy")


def _leave(
    policies: Sequence[Manifest],
    direction: str,
    own: End,
    other: End,
    target: End,
    protocol: str,
    port: int,
) -> bool:
    mine = [one for one in policies if direction in _types(one) and _is_about(one, own)]
    if not mine:
        return True
    return any(
        _knows(rule, direction, policy, other) and _opens(rule, target, protocol, port)
        for policy in mine
        for rule in policy["spec"].get(direction.lower(), [])
    )


def _types(policy: Manifest) -> list[str]:
    spec = policy["spec"]
    assert spec.keys() <= {"podSelector", "policyTypes", "ingress", "egress"}, spec
    assert "policyTypes" in spec, "say it: what holds without it depends on what else stands there"
    return list(spec["policyTypes"])


def _is_about(policy: Manifest, end: End) -> bool:
    return end.namespace == policy["metadata"]["namespace"] and selects(
        policy["spec"]["podSelector"], end.labels
    )


def _knows(rule: Mapping[str, Any], direction: str, policy: Manifest, other: End) -> bool:
    key = "to" if direction == "Egress" else "from"
    assert rule.keys() <= {key, "ports"}, rule
    # No peers at all are everybody.
    return not rule.get(key) or any(_is_peer(peer, policy, other) for peer in rule[key])


def _is_peer(peer: Mapping[str, Any], policy: Manifest, other: End) -> bool:
    assert peer.keys() <= {"podSelector", "namespaceSelector", "ipBlock"}, peer
    if "ipBlock" in peer:
        assert len(peer) == 1, peer
        return _is_in(peer["ipBlock"], other.address)
    if not other.namespace:
        return False
    if "namespaceSelector" not in peer:
        here = other.namespace == policy["metadata"]["namespace"]
    else:
        here = selects(peer["namespaceSelector"], other.namespace_labels)
    return here and selects(peer.get("podSelector"), other.labels)


def _is_in(block: Mapping[str, Any], address: str) -> bool:
    assert block.keys() <= {"cidr", "except"}, block
    place = ipaddress.ip_address(address)
    return place in ipaddress.ip_network(block["cidr"]) and not any(
        place in ipaddress.ip_network(one) for one in block.get("except", [])
    )


def _opens(rule: Mapping[str, Any], target: End, protocol: str, port: int) -> bool:
    # No ports at all are all of them.
    return not rule.get("ports") or any(
        one.get("protocol", "TCP") == protocol and _number(one, target) in (None, port)
        for one in rule["ports"]
    )


def _number(port: Mapping[str, Any], target: End) -> int | None:
    assert port.keys() <= {"protocol", "port"}, port
    given = port.get("port")
    # A name that the pod does not know opens nothing.
    return target.ports.get(given, -1) if isinstance(given, str) else given
