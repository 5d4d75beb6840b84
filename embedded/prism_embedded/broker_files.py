"""What a broker keeps in its data folder: settings, ports, the cluster's id, logs.

ports.json          the ports of the last start; the next start takes them again
cluster.id          written once, before the first format
formatted           written once the format is done
kafka/              Kafka's own log folder
server.properties   written at each start
log4j2.properties   written at each start
logs/broker.log     Kafka's log (WARN and worse, and start and stop), 10 MB × 3
logs/broker.out     what the JVM itself prints
logs/classes.lst    what it has loaded, until an archive is made of it (see `class_archive`)
logs/classes.out    what the making of that archive printed
security/           of a secured broker: certificates and passwords (see `broker_security`)
.lock               held while a broker of this folder is owned by a process
"""

import base64
import json
import re
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from prism_embedded.broker_security import BrokerSecurity
from prism_embedded.errors import EmbeddedError
from prism_embedded.loopback import HOST, becomes_free, free_port, is_free

_PREDECESSOR_S = 3.0  # the kernel closes a killed JVM's sockets a little after its parent is told
_TELLS_OF_AN_ERROR = re.compile(r"\b(ERROR|FATAL|[A-Za-z.]*(Exception|[Ee]rror)\b|cannot run)")
MESSAGE_MAX_BYTES = 17 * 1024 * 1024  # prism.intake takes 16 MiB, and a record has headers


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the broker listens, all on the loopback; `mutual`: a secured one, for certificates."""

    client: int
    controller: int
    mutual: int = 0


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """The paths in one broker's data folder."""

    folder: Path

    @property
    def kafka(self) -> Path:
        return self.folder / "kafka"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def log(self) -> Path:
        return self.logs / "broker.log"

    @property
    def out(self) -> Path:
        return self.logs / "broker.out"

    @property
    def classes(self) -> Path:
        return self.logs / "classes.lst"

    @property
    def classes_log(self) -> Path:
        return self.logs / "classes.out"

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def log4j(self) -> Path:
        return self.folder / "log4j2.properties"

    @property
    def lock(self) -> Path:
        return self.folder / ".lock"

    def write_settings(self, ports: Ports, security: BrokerSecurity | None = None) -> None:
        """Write `server.properties` and `log4j2.properties`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        # Key stores' passwords stand in it.
        self.properties.touch(mode=0o600)
        self.properties.write_text(server_properties(self.kafka, ports, security))
        self.log4j.write_text(_LOG4J.format(log=_escaped(self.log)))

    def take_ports(self, wanted: int | None, mutual: bool = False) -> Ports:
        """The ports to start with: those of the last start, or free ones.

        The controller's port is nobody's but the broker's own, so it may change when it is taken.

        :param wanted: the client port asked for; None: the last one, or any.
        :param mutual: whether a port for clients with certificates is wanted, too.
        :raises EmbeddedError: the client port is taken.
        """
        last = self._last_ports()
        client = wanted or (last.client if last else None) or free_port()
        known = last is not None and last.client == client
        if not becomes_free(client, _PREDECESSOR_S if known else 0.0):
            raise EmbeddedError(
                f"port {client} of {HOST} is taken by another program; "
                "stop it, or start the broker with another --port"
            )
        controller = last.controller if last and last.controller != client else 0
        if not controller or not is_free(controller):
            controller = free_port(frozenset({client}))
        second = (last.mutual if last else 0) if mutual else 0
        if mutual and (second in (0, client, controller) or not becomes_free(second, _PREDECESSOR_S)):
            second = free_port(frozenset({client, controller}))
        ports = Ports(client, controller, second)
        (self.folder / "ports.json").write_text(json.dumps(asdict(ports)))
        return ports

    def _last_ports(self) -> Ports | None:
        try:
            found = json.loads((self.folder / "ports.json").read_text())
            return Ports(int(found["client"]), int(found["controller"]), int(found.get("mutual", 0)))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def needs_format(self) -> bool:
        """Whether no broker has ever started here; clears what a format left half done."""
        if (self.folder / "formatted").exists() or self._has_metadata():
            return False
        shutil.rmtree(self.kafka, ignore_errors=True)
        return True

    def _has_metadata(self) -> bool:
        return any(self.kafka.glob("__cluster_metadata-0/*.log"))

    def cluster_id(self) -> str:
        """The cluster's id, made at the first call."""
        path = self.folder / "cluster.id"
        if not path.exists():
            draft = path.with_suffix(".new")
            draft.write_text(new_cluster_id())
            draft.replace(path)
        return path.read_text().strip()

    def mark_formatted(self) -> None:
        """Remember that the format is done."""
        (self.folder / "formatted").touch()

    def rotate_out(self) -> None:
        """Keep the last start's output of the JVM as `broker.out.1`."""
        if self.out.exists():
            self.out.replace(self.out.with_suffix(".out.1"))

    def cause(self) -> str:
        """The last error in the logs, with the line after it, for an error message of one line."""
        for path in (self.out, self.log):
            lines = _tail(path)
            for at in reversed(range(len(lines))):
                if _TELLS_OF_AN_ERROR.search(lines[at]):
                    return " ".join(line.strip()[:300] for line in lines[at : at + 2]).strip()
        return "no error in its logs"


def new_cluster_id() -> str:
    """A random id as Kafka writes it: a UUID in URL-safe base 64, without a leading "-" (an option)."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def server_properties(log_folder: Path, ports: Ports, security: BrokerSecurity | None = None) -> str:
    """The text of Kafka's `server.properties` for one node on the loopback."""
    client, controller = f"{HOST}:{ports.client}", f"{HOST}:{ports.controller}"
    lines = {
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"CLIENT://{client},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{client}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "log.dirs": _escaped(log_folder),
    }
    if security is not None:
        mutual = f"{HOST}:{ports.mutual}"
        lines |= {
            "listeners": f"CLIENT://{client},MUTUAL://{mutual},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENT://{client},MUTUAL://{mutual}",
            "listener.security.protocol.map": "CLIENT:SASL_SSL,MUTUAL:SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "MUTUAL",
            **{
                name: _escaped(Path(value)) if name.endswith(".location") else value
                for name, value in security.server_properties().items()
            },
        }
    return _FIXED + "".join(f"{name}={value}\n" for name, value in lines.items())


def _escaped(path: Path) -> str:
    """A path as a value of a Java properties file: backslashes doubled, what is not ASCII as \\uXXXX."""
    text = str(path.absolute()).replace("\\", "\\\\")
    units = text.encode("utf-16-be")
    codes = [units[at] << 8 | units[at + 1] for at in range(0, len(units), 2)]
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)


def _tail(path: Path, size: int = 64_000) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            return file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return []


_FIXED = f"""\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER

# One node: nothing can be replicated.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Few partitions of Kafka's own topics: a first commit does not wait for 50 folders.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=2
share.coordinator.state.topic.num.partitions=2
auto.create.topics.enable=false

# Groups: a first member does not wait for others; tests use short sessions.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.max.session.timeout.ms=1800000

# A node that was killed may register again at once: its own controller died with it.
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=1500

message.max.bytes={MESSAGE_MAX_BYTES}
replica.fetch.max.bytes={MESSAGE_MAX_BYTES}

# Disk: delete_records frees whole segments, so segments are small and go soon.
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
log.segment.delete.delay.ms=1000
log.retention.check.interval.ms=5000
log.initial.task.delay.ms=2000
metadata.log.segment.bytes=67108864

# Memory and threads for a laptop.
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.backoff.ms=15000
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=2
"""

_LOG4J = """\
status=error
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{{ISO8601}} %p %c{{1}}: %m%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=3
rootLogger.level=warn
rootLogger.appenderRef.file.ref=file
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
"""
