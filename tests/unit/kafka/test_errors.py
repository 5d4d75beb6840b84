"""What a Kafka error asks for: a broker that is away is waited for, one that refuses is not."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from prism.kafka import admin
from prism.kafka.errors import BrokerAway, BrokerFatal, BrokerRefused, failure, raise_if_fatal, refused, said

# As librdkafka 2.16 says them.
_SSL = "ssl://127.0.0.1:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::"
EXPIRED = (
    _SSL + "certificate verify failed: broker certificate could not be verified: certificate has expired"
)
UNKNOWN = (
    _SSL + "certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location "
    "is correctly configured or root CA certificates are installed (install ca-certificates package) "
    "(after 9ms in state SSL_HANDSHAKE)"
)


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    ],
)
def test_what_is_not_allowed_says_what_to_grant(code: int) -> None:
    told = failure("make topic prism.runs", KafkaError(code))
    assert isinstance(told, BrokerRefused)
    assert str(told).startswith("make topic prism.runs: the broker does not allow it (")
    assert str(told).endswith("grant it: prism admin acls says what is needed")
    with pytest.raises(BrokerFatal):
        raise_if_fatal(KafkaError(code))


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (EXPIRED, "renew the broker's certificate, or set the clock"),
        (UNKNOWN, "name its authority's file: KAFKA_SSL_CA_LOCATION"),
        (_SSL + "certificate verify failed: IP address mismatch", "name the broker as its certificate does"),
        (
            _SSL.replace("0A000086", "0A00010B") + "wrong version number",
            "does it speak TLS there? KAFKA_SECURITY_PROTOCOL",
        ),
    ],
)
def test_a_handshake_that_fails_says_what_to_do(text: str, advice: str) -> None:
    told = refused("Kafka client", KafkaError(KafkaError._SSL, text))
    assert told is not None
    assert str(told).startswith("no TLS connection to the broker (")
    assert str(told).endswith(f"; {advice}")
    assert "\n" not in str(told)
    assert "(after" not in str(told)


@pytest.mark.parametrize("alert", ["certificate required", "bad certificate", "unknown ca"])
def test_a_certificate_that_is_not_taken_is_no_outage(alert: str) -> None:
    text = (
        f"ssl://b:1/bootstrap: Receive failed: error:0A00045C:SSL routines::tlsv13 alert {alert}: SSL alert 1"
    )
    told = str(refused("x", KafkaError(KafkaError._TRANSPORT, text)))
    assert told.startswith("the broker does not take our certificate (")
    assert "0A00045C" not in told


# That no password is told is shown where there is one: tests/integration/test_security.py.
@pytest.mark.parametrize(
    "code",
    [
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    ],
)
def test_a_login_that_is_not_taken_says_why_and_names_the_settings(code: int) -> None:
    why = (
        "sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed during authentication "
        "due to invalid credentials with SASL mechanism SCRAM-SHA-512"
    )
    told = refused(
        "x", KafkaError(code, f"{why} (after 321ms in state AUTH_REQ, 5 identical error(s) suppressed)")
    )
    assert str(told) == (
        f"the broker does not take our credentials ({why}); "
        "correct KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD or KAFKA_SASL_MECHANISM"
    )


def test_a_handshake_that_breaks_off_may_be_a_broker_that_stops() -> None:
    """So says librdkafka of a plain port; `first_contact` tells the advice once nobody has answered."""
    text = (
        "ssl://b:1/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: "
        "connecting to a PLAINTEXT broker listener? (after 3ms in state SSL_HANDSHAKE)"
    )
    error = KafkaError(KafkaError._TRANSPORT, text)
    assert refused("x", error) is None
    assert type(failure("x", error)) is BrokerAway


@pytest.mark.parametrize(
    "refusal",
    [BrokerRefused("not now"), KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))],
)
def test_a_rebalance_bears_a_refusal_for_a_moment(
    refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [refusal, refusal, None]

    def ask() -> str:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return "there"

    monkeypatch.setattr("time.sleep", lambda _: None)
    assert admin.patiently(ask) == "there"
    answers += [refusal]
    monkeypatch.setattr(admin, "_REFUSED_S", -1.0)
    with pytest.raises(BrokerRefused):
        admin.patiently(ask)


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError.NOT_COORDINATOR])
def test_what_passes_is_waited_for(code: int) -> None:
    assert refused("x", KafkaError(code)) is None
    assert type(failure("x", KafkaError(code))) is BrokerAway
    raise_if_fatal(KafkaError(code))


@pytest.mark.parametrize(
    "end",
    [
        "",
        " (after 0ms in state CONNECT)",
        " (after 12ms in state SSL_HANDSHAKE, 31 identical error(s) suppressed)",
        ", 4 identical error(s) suppressed",
    ],
)
def test_librdkafkas_words_are_told_without_its_times(end: str) -> None:
    words = "ssl://b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused"
    assert said(KafkaError(KafkaError._TRANSPORT, words + end)) == words
