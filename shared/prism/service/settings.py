"""The settings that every service has; a service adds its own in a subclass.

The environment and `.env` are read once, by `load`. Constructing a settings class reads nothing, so that
a test says all it means. A wrong setting stops the service at once with its name, value and what is allowed.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from prism.service.logs import LogFormat, LogLevel
from prism.service.secret_files import SUFFIX, SecretUnreadable, read_secret

EXIT_BAD_SETTINGS = 3

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,100}")
# What Kubernetes sets for a Service called `kafka…`, and Kafka's own scripts: not librdkafka's.
# A group's name is one service's setting, never every client's.
_NOT_LIBRDKAFKA = re.compile(
    r"KAFKA_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.+)?)?)"
    r"|KAFKA_(GROUP_ID|HOME|VERSION|OPTS|LOG_DIR|DEBUG|CLUSTER_ID|(HEAP|GC_LOG|LOG4J|JMX|JVM_PERFORMANCE)_OPTS)"
)
# These properties of librdkafka's are names of files themselves, which it reads anew.
_FILE_PROPERTIES = re.compile(r"KAFKA_SASL_OAUTHBEARER_ASSERTION_((PRIVATE_KEY|JWT_TEMPLATE)_)?FILE")

Upper = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


def port_field(default: int) -> Any:
    """Declare `port` with a service's own default: `port: int = port_field(8081)`."""
    return Field(
        default=default,
        ge=0,
        le=65535,
        validation_alias="PORT",
        description="TCP port of `/health`, `/ready` and `/metrics`. 0 takes a free port and logs it.",
        json_schema_extra={"allowed": "0 to 65535"},
    )


def _as_schemes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return frozenset(one.strip().lower() for one in value.split(",") if one.strip())


def _check_schemes(schemes: frozenset[str]) -> frozenset[str]:
    for one in schemes:
        if not re.fullmatch("[a-z][a-z0-9+.-]*", one):
            raise ValueError(f"{one!r} is no URI scheme: write s3, gs, …")
    return schemes


Schemes = Annotated[frozenset[str], NoDecode, BeforeValidator(_as_schemes), AfterValidator(_check_schemes)]


def schemes_field() -> Any:
    """Declare the schemes that a job's `output.directory` may have: `output_schemes: Schemes = …`."""
    return Field(
        default=frozenset(),
        validation_alias="PRISM_OUTPUT_SCHEMES",
        description="Schemes of URIs that a job may name as its output directory, by commas. Default: none, "
        "since a job comes from outside and credentials are the merger's. Set it for ingestor and merger.",
        json_schema_extra={"allowed": "s3, gs, abfs, … as fsspec has them"},
    )


class ServiceSettings(BaseSettings):
    """What ingestor, model worker and merger have in common."""

    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, populate_by_name=True, validate_default=True, hide_input_in_errors=True
    )

    bootstrap_server: str = Field(
        validation_alias="BOOTSTRAP_SERVER",
        description="Kafka brokers to ask first. No default: a service must not join a cluster by accident.",
        json_schema_extra={"allowed": "host:port[,host:port]"},
    )
    data_dir: Path = Field(
        default=Path("prism-data"),
        validation_alias="PRISM_DATA_DIR",
        description="Folder of runs, parts, outputs and state; a volume in a cluster. Relative, so that a "
        "laptop needs no root.",
        json_schema_extra={"allowed": "a path"},
    )
    jobs_dir: Path = Field(
        default=Path("jobs"),
        validation_alias="PRISM_JOBS_DIR",
        description="Folder of the job files (`NAME.yaml`) that a dropped CSV may name.",
        json_schema_extra={"allowed": "a path"},
    )
    topic_prefix: str = Field(
        default="prism.",
        validation_alias="PRISM_TOPIC_PREFIX",
        description="Put before each of PRISM's topics, so that two fleets share a cluster. May be empty.",
        json_schema_extra={"allowed": "at most 100 of letters, digits, `.`, `_`, `-`", "may_be_empty": True},
    )
    create_topics: bool = Field(
        default=True,
        validation_alias="PRISM_CREATE_TOPICS",
        description="Create missing topics at start. Off where only operators may; missing is then fatal, "
        "but for those of requests.",
        json_schema_extra={"allowed": "true or false"},
    )
    topic_partitions: int = Field(
        default=16,
        ge=1,
        le=1000,
        validation_alias="PRISM_TOPIC_PARTITIONS",
        description="Partitions of a topic that is created: the most workers that share one topic. "
        "16 costs a broker nothing and serves 16 pods.",
        json_schema_extra={"allowed": "1 to 1000"},
    )
    log_level: Annotated[LogLevel, Upper] = Field(
        default="INFO",
        validation_alias="LOG_LEVEL",
        description="The least severe line that is logged. DEBUG adds tracebacks.",
        json_schema_extra={"allowed": "DEBUG, INFO, WARNING or ERROR"},
    )
    log_format: Annotated[LogFormat, Lower] = Field(
        default="auto",
        validation_alias="PRISM_LOG_FORMAT",
        description="`auto`: text on a terminal, else one JSON object a line.",
        json_schema_extra={"allowed": "auto, text or json"},
    )
    port: int = port_field(0)
    http_host: str = Field(
        default="0.0.0.0",
        min_length=1,
        validation_alias="PRISM_HTTP_HOST",
        description="Address that the HTTP port binds. All of them, because probes and scrapes come from "
        "outside the pod; `127.0.0.1` keeps it to this machine.",
        json_schema_extra={"allowed": "an address or a host name of this machine"},
    )
    kafka: dict[str, SecretStr] = Field(
        default_factory=dict,
        repr=False,
        validation_alias="KAFKA_…",
        description="Any librdkafka property: `KAFKA_SASL_PASSWORD` is `sasl.password`. Treated as secrets; "
        "`KAFKA_SASL_PASSWORD_FILE` names a file that holds one.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is passed and nothing else: `load` alone reads the environment."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator("bootstrap_server")
    @classmethod
    def _check_servers(cls, value: str) -> str:
        servers = [server.strip() for server in value.split(",")]
        for server in servers:
            match = _SERVER.fullmatch(server)
            if match is None or not 0 < int(match[2]) < 65536:
                raise ValueError("not host:port")
        return ",".join(servers)

    @field_validator("topic_prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        if _PREFIX.fullmatch(value) is None:
            raise ValueError("not fit for a topic name")
        return value

    @field_validator("data_dir", "jobs_dir")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser()

    def kafka_properties(self) -> dict[str, str]:
        """Return the librdkafka properties given as `KAFKA_X_Y`, under the name `x.y`, secrets in clear."""
        return {name: value.get_secret_value() for name, value in self.kafka.items()}


AnySettings = TypeVar("AnySettings", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of the table of settings."""

    name: str
    type: str
    default: str
    description: str


def load(
    settings: type[AnySettings], environ: Mapping[str, str] | None = None, env_file: Path | None = None
) -> AnySettings:
    """Read settings from `environ` and, below it, `env_file`; by default from the environment and `./.env`.

    Wrong ones are printed to stderr, a line each. Raises SystemExit(3) then.
    """
    if environ is None:
        environ, env_file = os.environ, env_file or Path(".env")
    try:
        values = _values(settings, environ, env_file)
        return settings(**values)
    except ValidationError as error:
        lines = list(dict.fromkeys(_complaints(settings, error, values)))
    except _WrongFile as error:
        lines = [str(error)]
    except (OSError, UnicodeDecodeError) as error:
        lines = [f"{env_file}: cannot be read ({error}); repair or remove it"]
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    raise SystemExit(EXIT_BAD_SETTINGS)


def describe(settings: type[ServiceSettings]) -> list[SettingRow]:
    """Return a row per setting, for the generated table."""
    return [
        SettingRow(name, _type_name(field), _default(field), field.description or "")
        for name, field in _named_fields(settings)
    ]


def _values(
    settings: type[ServiceSettings], environ: Mapping[str, str], env_file: Path | None
) -> dict[str, Any]:
    """Return what was set, by environment name. Set to nothing counts as not set (compose files do that)."""
    from_file = (
        dotenv_values(env_file, interpolate=False) if env_file is not None and env_file.is_file() else {}
    )
    given = {name: value for name, value in {**from_file, **environ}.items() if value is not None}
    given |= _from_secret_files(settings, given)
    values: dict[str, Any] = {
        name: given[name]
        for name, field in _named_fields(settings)
        if name in given and (given[name].strip() or _extra(field, "may_be_empty"))
    }
    values["KAFKA_…"] = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in given.items()
        if _is_property(name) and value and not _names_a_secret(name)
    }
    return values


def _is_property(name: str) -> bool:
    return name.startswith("KAFKA_") and not _NOT_LIBRDKAFKA.fullmatch(name)


def _names_a_secret(name: str) -> bool:
    return name.endswith(SUFFIX) and not _FILE_PROPERTIES.fullmatch(name)


def _from_secret_files(settings: type[ServiceSettings], given: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets that `NAME_FILE` names files of. Raises _WrongFile."""
    secret = {name for name, field in _named_fields(settings) if _is_secret(field.annotation)}
    found: dict[str, str] = {}
    for file_name, path in given.items():
        name = file_name.removesuffix(SUFFIX)
        wanted = _names_a_secret(file_name) and (name in secret or _is_property(name))
        if not wanted or not path.strip():
            continue
        try:
            found[name] = read_secret(path.strip())
        except SecretUnreadable as error:
            allowed = f"allowed: a file that holds the value of {name}"
            raise _WrongFile(f"{file_name}: {path!a} cannot be used: {error}; {allowed}") from None
        if given.get(name, "") not in ("", found[name]):
            raise _WrongFile(f"{file_name}: {name} is set, too, to something else; allowed: one of the two")
    return found


class _WrongFile(Exception):
    """A complaint about a secret's file, in one line."""


def _complaints(
    settings: type[ServiceSettings], error: ValidationError, values: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a line per wrong setting: its name, its value unless that is secret, what is allowed."""
    fields = dict(_named_fields(settings))
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        field = fields.get(name)
        allowed = (_extra(field, "allowed") if field else None) or problem["msg"]
        if name not in values:
            yield f"{name}: {'missing' if field else problem['msg']}; allowed: {allowed}"
        else:
            yield f"{name}: {_shown(field, values[name])} is wrong; allowed: {allowed}"


def _shown(field: FieldInfo | None, value: object) -> str:
    if field is None or _is_secret(field.annotation):
        return "the value (hidden)"
    text = str(value)
    return ascii(text if len(text) <= 100 else text[:100] + "…")


def _named_fields(settings: type[ServiceSettings]) -> Iterator[tuple[str, FieldInfo]]:
    for attribute, field in settings.model_fields.items():
        if not isinstance(field.validation_alias, str):
            raise TypeError(f"{settings.__name__}.{attribute} needs a validation_alias: its environment name")
        yield field.validation_alias, field


def _extra(field: FieldInfo, key: str) -> Any:
    extra = field.json_schema_extra
    return extra.get(key) if isinstance(extra, dict) else None


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(_is_secret(part) for part in get_args(annotation))


def _type_name(field: FieldInfo) -> str:
    annotation = field.annotation
    if _is_secret(annotation):
        return "secret"
    if get_origin(annotation) is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=False)
    return "" if value in (None, PydanticUndefined) or _is_secret(field.annotation) else str(value)
