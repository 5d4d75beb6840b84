"""What a Kafka error asks of the caller: wait, or stop the process.

A broker that is away comes back by itself. One that refuses (who we are, or what we want) does not change
its mind until somebody acts, so a service that is refused ends with one line that says what to do.
"""

import re

from confluent_kafka import KafkaError

# librdkafka reported `_FATAL` with `fatal()` false (DESIGN.md section 7): test the code too.
_FATAL_CODES = {KafkaError._FATAL, KafkaError._FENCED}
_STALE_MEMBER_CODES = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._NO_OFFSET,
    KafkaError._STATE,
}
_NOT_ALLOWED_CODES = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_NOT_KNOWN_CODES = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
}
# What librdkafka and OpenSSL say of a handshake that failed → what to do about it.
_HANDSHAKES = (
    (re.compile("certificate has expired|not yet valid"), "renew the broker's certificate, or set the clock"),
    (re.compile("(hostname|IP address) mismatch"), "name the broker as its certificate does"),
    (re.compile("certificate verify failed"), "name its authority's file: KAFKA_SSL_CA_LOCATION"),
    (re.compile("wrong version"), "does it speak TLS there? KAFKA_SECURITY_PROTOCOL"),
)
# A broker that refuses a certificate says so after the handshake: to librdkafka the connection broke.
_ALERT = re.compile("alert (certificate|bad certificate|unknown ca|handshake failure)")

_SUPPRESSED = r", \d+ identical error\(s\) suppressed"
_TIMES = re.compile(rf" \(after \d+ms in state [A-Z0-9_]+({_SUPPRESSED})?.*?\)|{_SUPPRESSED}")


class BrokerFatal(Exception):
    """The client cannot go on: stop the process, its supervisor starts a new one."""


class BrokerRefused(BrokerFatal):
    """The broker does not know us, or does not allow what we want: waiting does not help."""


class BrokerAway(Exception):
    """The broker did not answer in time: try again later."""


class TopicAbsent(BrokerAway):
    """The broker answers and has no such topic: somebody has to make it."""


def is_fatal(error: KafkaError) -> bool:
    """Return whether a client that reported this error is beyond repair."""
    return bool(error.fatal()) or error.code() in _FATAL_CODES


def is_stale_member(error: KafkaError) -> bool:
    """Return whether a commit was refused because the partition moved on: routine, the new owner decides."""
    return error.code() in _STALE_MEMBER_CODES


def raise_if_fatal(error: KafkaError | None, what: str = "Kafka client") -> None:
    """Raise BrokerFatal for an error that only a new process can cure, BrokerRefused for a refusal."""
    if error is None:
        return
    refusal = refused(what, error)
    if refusal is not None:
        raise refusal
    if is_fatal(error):
        raise BrokerFatal(f"{what}: {error.str()}")


def failure(what: str, error: KafkaError) -> BrokerAway | BrokerRefused:
    """Return what to raise when a question got an error for an answer."""
    return refused(what, error) or BrokerAway(f"{what}: {error.str()}")


def refused(what: str, error: KafkaError) -> BrokerRefused | None:
    """Return the refusal that an error is; None for one that is none."""
    if error.code() in _NOT_ALLOWED_CODES:
        return BrokerRefused(
            f"{what}: the broker does not allow it ({error.str()}); "
            "grant it: prism admin acls says what is needed"
        )
    if error.code() in _NOT_KNOWN_CODES:
        return BrokerRefused(
            f"the broker does not take our credentials ({said(error)}); "
            "correct KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD or KAFKA_SASL_MECHANISM"
        )
    if error.code() == KafkaError._TRANSPORT and _ALERT.search(error.str()):
        return BrokerRefused(
            f"the broker does not take our certificate ({said(error)}); correct "
            "KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION, or KAFKA_SSL_KEYSTORE_LOCATION"
        )
    if error.code() == KafkaError._SSL:
        text = said(error)
        advice = next((advice for pattern, advice in _HANDSHAKES if pattern.search(text)), "see KAFKA_SSL_…")
        return BrokerRefused(f"no TLS connection to the broker ({text}); {advice}")
    return None


def said(error: KafkaError) -> str:
    """Return librdkafka's own words in a line, without its places in OpenSSL's source and its times."""
    text = re.sub(r"error:[0-9A-F]+:[^:]*:[^:]*:", "", " ".join(error.str().split()))
    return _TIMES.sub("", text)[:300]
