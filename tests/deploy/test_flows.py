"""Who may connect to whom: the NetworkPolicies of each overlay, held against one table of flows.

The table is DESIGN.md's section 2 and what a cluster needs beside it. Every pair of ends is tried on every
port; what is in the table gets through, and nothing else does.
"""

import copy
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.kubernetes import (
    NAMESPACE,
    OVERLAYS,
    WORKLOADS,
    Manifest,
    compose,
    containers,
    named,
    of_kind,
    overlay,
)
from tests.deploy.network import End, Network, policies_of

# A port by the name that the table uses, with its protocol.
PORTS = {
    "dns": ("UDP", 53),
    "dns-tcp": ("TCP", 53),
    "https": ("TCP", 443),
    "http": ("TCP", 80),
    "kube-api": ("TCP", 6443),
    "worker-http": ("TCP", 5000),
    "ingestor-http": ("TCP", 8081),
    "merger-http": ("TCP", 8083),
    "strimzi-agent": ("TCP", 8443),
    "kafka-control": ("TCP", 9090),
    "kafka-replication": ("TCP", 9091),
    "kafka-plain": ("TCP", 9092),
    "kafka": ("TCP", 9093),
    "ollama": ("TCP", 11434),
}
SERVICES = ("ingestor", "model-worker", "merger")
FLEET = (*SERVICES, "model-pull", "merger-client", "stranger")
STRIMZI = ("kafka", "entity-operator")
INTERNET = ("internet", "internet-v6")
API_SERVERS = ("api-10", "api-172", "api-192")

Flow = tuple[str, str, str]

BASE: set[Flow] = {
    *product((*FLEET, *STRIMZI), ["dns-server"], ["dns", "dns-tcp"]),
    ("merger-client", "merger", "merger-http"),
}
PULL: set[Flow] = set(product(["model-pull"], INTERNET, ["https"]))
CLOUD: set[Flow] = set(product(["model-worker"], INTERNET, ["https"]))
BROKER: set[Flow] = {
    *product((*SERVICES, "sender"), ["kafka"], ["kafka"]),
    *product(["kafka"], ["kafka-2"], ["kafka-control", "kafka-replication"]),
    *product(["entity-operator"], ["kafka"], ["kafka-replication"]),
    *product(["strimzi-operator"], ["kafka"], ["kafka-control", "kafka-replication", "strimzi-agent"]),
    # The API server has no labels: any private address, on its two ports. Pods elsewhere have such addresses.
    *product(STRIMZI, (*API_SERVERS, "sender", "keda", "keda-other", "prometheus", "monitoring-other",
                       "strimzi-operator", "dns-server", "elsewhere"), ["https", "kube-api"]),
}  # fmt: skip
KEDA: set[Flow] = {("keda", "kafka", "kafka")}
METRICS: set[Flow] = {
    ("prometheus", "ingestor", "ingestor-http"),
    ("prometheus", "model-worker", "worker-http"),
    ("prometheus", "merger", "merger-http"),
}
TABLE = {
    "dev": BASE | PULL | BROKER,
    "production-gpu": BASE | PULL | BROKER | KEDA | METRICS,
    "production-cloud": BASE | CLOUD | BROKER | KEDA | METRICS,
}


def _pod(name: str, address: str, namespace: str, labels: dict[str, str], marks: tuple[str, ...] = ()) -> End:
    marked = {"kubernetes.io/metadata.name": namespace, **dict.fromkeys(marks, "true")}
    return End(name, address, namespace, labels, marked)


def _strimzi(component: str, kind: str = "Kafka") -> dict[str, str]:
    return {"strimzi.io/cluster": "prism", "strimzi.io/kind": kind, "strimzi.io/name": f"prism-{component}"}


# Those whom no manifest here makes, with the labels that they have there.
OTHERS = [
    _pod("kafka", "10.1.0.21", NAMESPACE, _strimzi("kafka")),
    _pod("kafka-2", "10.1.0.22", NAMESPACE, _strimzi("kafka")),
    _pod("entity-operator", "10.1.0.23", NAMESPACE, _strimzi("entity-operator")),
    _pod("merger-client", "10.1.0.24", NAMESPACE, {"prism-merger-client": "true"}),
    _pod("stranger", "10.1.0.25", NAMESPACE, {"app.kubernetes.io/name": "stranger"}),
    _pod("sender", "10.1.0.31", "shop", {"app": "shop"}, ("prism-kafka-client",)),
    _pod("elsewhere", "10.1.0.32", "default", {"app.kubernetes.io/name": "prism-ingestor"}),
    _pod("prometheus", "10.1.0.33", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
    _pod("monitoring-other", "10.1.0.34", "monitoring", {"app.kubernetes.io/name": "grafana"}),
    _pod("keda", "10.1.0.35", "keda", {"app.kubernetes.io/name": "keda-operator"}),
    _pod("keda-other", "10.1.0.36", "keda", {"app.kubernetes.io/name": "keda-metrics-apiserver"}),
    _pod("strimzi-operator", "10.1.0.37", "strimzi", {"strimzi.io/kind": "cluster-operator"}),
    _pod("dns-server", "10.1.0.38", "kube-system", {"k8s-app": "kube-dns"}),
    End("internet", "198.51.100.7"),
    End("internet-v6", "2001:db8::7"),
    End("api-10", "10.0.0.1"),
    End("api-172", "172.20.0.1"),
    End("api-192", "192.168.0.1"),
    End("carrier-host", "100.64.0.9"),
    End("metadata-service", "169.254.169.254"),
    End("intranet-v6", "fd00::9"),
    End("link-v6", "fe80::9"),
]


def _ends(manifests: list[Manifest]) -> list[End]:
    made = [
        End(
            workload["metadata"]["name"].removeprefix("prism-"),
            f"10.1.0.{number}",
            NAMESPACE,
            workload["spec"]["template"]["metadata"]["labels"],
            {"kubernetes.io/metadata.name": NAMESPACE},
            dict(_named_ports(workload)),
        )
        for number, workload in enumerate(of_kind(manifests, *WORKLOADS), 1)
    ]
    return [*made, *OTHERS]


def _named_ports(workload: Manifest) -> Iterator[tuple[str, int]]:
    for container in containers(workload):
        for port in container.get("ports", []):
            yield port["name"], port["containerPort"]


def _flows(policies: list[Manifest], ends: list[End]) -> set[Flow]:
    """Return every flow that gets through, but those that no policy here has a say in."""
    network = Network(policies)
    sources = [one for one in ends if one.namespace and one.name != "kafka-2"]
    return {
        (source.name, target.name, name)
        for source, target in product(sources, ends)
        if source is not target and NAMESPACE in (source.namespace, target.namespace)
        # A second node is there to be spoken to by the first.
        if target.name != "kafka-2" or source.name == "kafka"
        for name, (protocol, port) in PORTS.items()
        if network.allows(source, target, protocol, port)
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_exactly_the_flows_of_the_table_get_through(name: str) -> None:
    manifests = overlay(name)
    ends = _ends(manifests)

    flows = _flows(policies_of(manifests), ends)

    assert sorted(flows - TABLE[name]) == []
    there = {one.name for one in ends}
    assert sorted(flow for flow in TABLE[name] - flows if there.issuperset(flow[:2])) == []


def test_all_that_is_allowed_is_needed_and_all_that_is_denied_is_seen() -> None:
    """Each policy, rule, peer, exception, port and value left out changes what gets through."""
    manifests = overlay("production-gpu")
    leaving = named(overlay("production-cloud"), "NetworkPolicy", "to-model-servers")
    ends, policies = _ends(manifests), [*policies_of(manifests), leaving]
    names = {one["metadata"]["name"] for name in OVERLAYS for one in policies_of(overlay(name))}
    assert names == {one["metadata"]["name"] for one in policies}
    flows = _flows(policies, ends)

    idle = [what for what, fewer in _without_one_thing(policies) if _flows(fewer, ends) == flows]

    assert idle == []


def test_one_more_allow_is_seen() -> None:
    manifests = overlay("production-gpu")
    extra = copy.deepcopy(named(manifests, "NetworkPolicy", "model-pull"))
    extra["spec"]["podSelector"] = {"matchLabels": {"app.kubernetes.io/name": "prism-merger"}}

    flows = _flows([*policies_of(manifests), extra], _ends(manifests))

    assert flows - TABLE["production-gpu"] == set(product(["merger"], INTERNET, ["https"]))


@pytest.mark.parametrize("name", OVERLAYS)
def test_strimzis_own_policy_lets_the_same_ones_in(name: str) -> None:
    manifests = overlay(name)
    listeners = named(manifests, "Kafka", "prism")["spec"]["kafka"]["listeners"]

    peers = [
        peer
        for policy in policies_of(manifests)
        for rule in policy["spec"].get("ingress", [])
        if {"protocol": "TCP", "port": listeners[0]["port"]} in rule["ports"]
        for peer in rule["from"]
    ]

    assert [len(listeners), listeners[0]["networkPolicyPeers"]] == [1, peers]


def test_a_base_without_a_broker_reaches_none(tmp_path: Path) -> None:
    manifests = compose(tmp_path, "monitoring")

    flows = _flows(policies_of(manifests), _ends(manifests))

    assert flows == BASE | PULL | METRICS


class TestTheEvaluator:
    """What the API's documentation says of the cases on which it is easy to be wrong."""

    one = _pod("one", "10.1.0.1", NAMESPACE, {"app": "one"})
    two = _pod("two", "10.1.0.2", NAMESPACE, {"app": "two"})
    far = _pod("far", "10.1.0.3", "far", {"app": "two"})

    def test_without_a_policy_all_is_allowed(self) -> None:
        assert Network([]).allows(self.far, self.one, "TCP", 1)

    def test_a_selected_pod_is_closed_in_that_direction_alone(self) -> None:
        closed = [_policy({"app": "one"}, ["Ingress"])]

        assert not Network(closed).allows(self.two, self.one, "TCP", 1)
        assert Network(closed).allows(self.one, self.two, "TCP", 1)

    def test_both_ends_must_agree(self) -> None:
        out = _policy({"app": "one"}, ["Egress"], egress=[{}])

        assert Network([out]).allows(self.one, self.two, "TCP", 1)
        assert not Network([out, _policy({"app": "two"}, ["Ingress"])]).allows(self.one, self.two, "TCP", 1)

    def test_a_pod_selector_alone_means_the_policys_namespace(self) -> None:
        peer = {"podSelector": {"matchLabels": {"app": "two"}}}
        here = [_policy({"app": "one"}, ["Ingress"], ingress=[{"from": [peer]}])]

        assert Network(here).allows(self.two, self.one, "TCP", 1)
        assert not Network(here).allows(self.far, self.one, "TCP", 1)

    def test_two_selectors_in_one_peer_are_both_wanted_and_two_peers_are_not(self) -> None:
        pods = {"podSelector": {"matchLabels": {"app": "one"}}}
        space = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "far"}}}
        both = [_policy({"app": "one"}, ["Ingress"], ingress=[{"from": [{**pods, **space}]}])]
        either = [_policy({"app": "one"}, ["Ingress"], ingress=[{"from": [pods, space]}])]

        assert not Network(both).allows(self.far, self.one, "TCP", 1)
        assert Network(either).allows(self.far, self.one, "TCP", 1)

    def test_a_port_has_a_protocol(self) -> None:
        dns = [_policy({"app": "one"}, ["Egress"], egress=[{"ports": [{"protocol": "UDP", "port": 53}]}])]

        assert Network(dns).allows(self.one, self.two, "UDP", 53)
        assert not Network(dns).allows(self.one, self.two, "TCP", 53)


def _policy(labels: Mapping[str, str], types: list[str], **rules: Any) -> Manifest:
    spec = {"podSelector": {"matchLabels": labels}, "policyTypes": types, **rules}
    return {"kind": "NetworkPolicy", "metadata": {"name": "one", "namespace": NAMESPACE}, "spec": spec}


def _without_one_thing(policies: list[Manifest]) -> Iterator[tuple[str, list[Manifest]]]:
    for number, policy in enumerate(policies):
        name = policy["metadata"]["name"]
        yield name, [*policies[:number], *policies[number + 1 :]]
        for path in _paths(policy["spec"]):
            fewer = copy.deepcopy(policies)
            holder: Any = fewer[number]["spec"]
            for step in path[:-1]:
                holder = holder[step]
            if len(holder) == 1 and path[-2] != "except":
                continue  # an empty list means everybody: that is one more, not one fewer
            del holder[path[-1]]
            yield f"{name} {path}", fewer


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each element of each list: rules, peers, ports, exceptions, values of a selector."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield (*above, number)
            yield from _paths(one, (*above, number))
    elif isinstance(value, dict):
        for key, one in value.items():
            if key != "policyTypes":
                yield from _paths(one, (*above, key))
