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


class Network:
    """What some policies make of it. Ends are told apart by their names."""

    def __init__(self, policies: Sequence[Manifest]) -> None:
        self._policies = policies
        self._known: dict[tuple[str, str, str], list[Mapping[str, Any]] | None] = {}

    def allows(self, source: End, target: End, protocol: str, port: int) -> bool:
        """Return whether a connection from `source` to a port of `target` gets through."""
        return all(
            rules is None or any(_opens(rule, target, protocol, port) for rule in rules)
            for rules in (self._rules("Egress", source, target), self._rules("Ingress", target, source))
        )

    def _rules(self, direction: str, own: End, other: End) -> list[Mapping[str, Any]] | None:
        """Return the rules that let `own` deal with `other` on some port; None where all is open."""
        key = (direction, own.name, other.name)
        if key not in self._known:
            self._known[key] = self._look(direction, own, other)
        return self._known[key]

    def _look(self, direction: str, own: End, other: End) -> list[Mapping[str, Any]] | None:
        mine = [one for one in self._policies if direction in _types(one) and _is_about(one, own)]
        if not mine:
            return None
        return [
            rule
            for policy in mine
            for rule in policy["spec"].get(direction.lower(), [])
            if _knows(rule, direction, policy, other)
        ]


def policies_of(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return the policies among manifests."""
    return of_kind(manifests, "NetworkPolicy")


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
