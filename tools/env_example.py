"""The text of `.env.example`: what docker-compose.yml is told, and every setting of every service.

Made by `make schemas`, like docs/settings.md, from the settings classes.
"""

import textwrap
from collections.abc import Iterator, Sequence

from prism.service.settings import ServiceSettings, SettingRow, describe

# What docker-compose.yml sets itself, with what: a line of `.env` does not change it there.
FIXED_IN_COMPOSE = {
    "BOOTSTRAP_SERVER": "kafka:9092",
    "PRISM_CREATE_TOPICS": "false: the one-shot `topics` makes them",
    "PRISM_DATA_DIR": "/data, a volume",
    "PRISM_JOBS_DIR": "/jobs, which is PRISM_JOBS",
    "PRISM_HTTP_HOST": "0.0.0.0, inside the container",
    "PRISM_LOG_FORMAT": "json",
    "PORT": "each service's default, inside the container",
    "PRISM_SOURCE_DIR": "/sources, which is PRISM_SOURCES",
    "PRISM_PHOTO_DIR": "/sources, which is PRISM_SOURCES",
    "PRISM_OUTPUT_ROOT": "/outputs, which is PRISM_OUTPUTS",
    "OLLAMA_HOST": "PRISM_OLLAMA_HOST",
}
# What docker-compose.yml does not set at all, and why.
LEFT_OUT_OF_COMPOSE = {
    "PRISM_WORKER_ID": "each worker needs a name of its own",
    "PRISM_INGESTOR_ID": "each ingestor needs a name of its own",
    "PRISM_MERGER_ORDINAL": "it has one merger",
    "PRISM_MERGER_REPLICAS": "it has one merger",
    "OLLAMA_API_KEY": "by OLLAMA_API_KEY_FILE alone",
    "PRISM_FILES_TOKEN": "by PRISM_FILES_TOKEN_FILE alone",
    "KAFKA_…": "its own broker needs none",
}
_HEAD = """\
# Made by `make schemas`; do not edit. Copy it to .env, and change that:
#
#   cp .env.example .env
#
# docker-compose.yml reads .env (docs/compose.md), and so does each service and `prism` that is started in
# this folder. A line that begins with # sets nothing: what stands there is the default. A variable of the
# shell goes before its line here. Keep no secret in it: write it into a file, and that file's path as
# NAME_FILE.

# ---------------------------------------------------------------------------- what docker-compose.yml is told

# One of cpu (Ollama without a GPU), gpu (NVIDIA's container toolkit is needed) and cloud (no Ollama here);
# behind a comma observability (Prometheus, Grafana). A --profile on the command line replaces all of them.
COMPOSE_PROFILES=cpu

# The model that answers jobs which name none; pulled at the first start. This one takes 2 GB of disk and 4 GB
# of memory, and answers on a laptop. With the profile cloud a name such as gpt-oss:20b-cloud.
OLLAMA_MODEL=llama3.2:3b

# A file with the key of Ollama's cloud, or of a model server that wants one. Readable for the user 65532.
# OLLAMA_API_KEY_FILE=./secrets/ollama_api_key

# A file with the token (16 characters or more) for `prism fetch`; without one the merger serves no files.
# PRISM_FILES_TOKEN_FILE=./secrets/files_token

# Where workers find model servers. Default: the Ollama of the profile. One on this machine, outside of
# Docker: http://host.docker.internal:11434
# PRISM_OLLAMA_HOST=http://ollama:11434

# Folder of the job files, with prompt files and models.json beside them.
# PRISM_JOBS=./examples/feedback

# Folder of large CSVs and of photos that are sent by reference; `docker compose run cli` starts in it.
# PRISM_SOURCES=./examples/feedback

# Where outputs go: a volume, or a folder of this machine that the user 65532 may write.
# PRISM_OUTPUTS=outputs

# Of Ollama: memory at most, calls at once, tokens of a call, models at once. OLLAMA_KEEP_ALIVE is below.
# OLLAMA_MEMORY=12g
# OLLAMA_NUM_PARALLEL=2
# OLLAMA_CONTEXT_LENGTH=8192
# OLLAMA_MAX_LOADED_MODELS=1

# Ports on this machine's loopback.
# KAFKA_HOST_PORT=19092
# MERGER_HOST_PORT=8083
# PROMETHEUS_HOST_PORT=9090
# GRAFANA_HOST_PORT=3000

# Of our images: the registry (with its slash) and the tag.
# PRISM_REGISTRY=
# PRISM_VERSION=0.1.0

# An OpenTelemetry collector (HTTP), where spans go: a container in the network `metrics` (docs/compose.md),
# since the ingestor reaches nothing else. Unset: nothing is traced.
# OTEL_EXPORTER_OTLP_ENDPOINT=

# Which traces are kept, as OpenTelemetry's SDK has it: parentbased_traceidratio with 0.1 keeps a tenth.
# OTEL_TRACES_SAMPLER=parentbased_always_on
# OTEL_TRACES_SAMPLER_ARG=
"""


def env_example(services: Sequence[tuple[str, type[ServiceSettings]]]) -> str:
    """Return the file's text. services: each one's name and its settings, the common ones included."""
    common = {row.name for row in describe(ServiceSettings)} - {"PORT"}
    readers: dict[str, list[tuple[str, SettingRow]]] = {}
    for service, settings in services:
        for row in describe(settings):
            if row.name not in common:
                readers.setdefault(row.name, []).append((service, row))
    lines = [_HEAD, _title("settings of all services")]
    for row in describe(ServiceSettings):
        if row.name in common:
            lines += _setting(row, row.default)
    seen: set[str] = set()
    for service, settings in services:
        lines.append(_title(f"settings of {service}"))
        for row in describe(settings):
            if row.name in readers and row.name not in seen:
                seen.add(row.name)
                lines += _setting(row, *_shared(readers[row.name]))
    return "\n".join(lines)


def _shared(readers: list[tuple[str, SettingRow]]) -> tuple[str, str]:
    """Return the default of a setting, and who else reads it."""
    (_, first), *others = readers
    if not others:
        return first.default, ""
    told = [name if row.default == first.default else f"{name} ({row.default})" for name, row in others]
    return first.default, f" Also of {', '.join(told)}."


def _title(text: str) -> str:
    return f"# {' ' + text:->108}\n"


def _setting(row: SettingRow, default: str, more: str = "") -> Iterator[str]:
    meaning = row.description.replace("`", "") + more
    if row.name in FIXED_IN_COMPOSE:
        meaning += f" In docker-compose.yml: {FIXED_IN_COMPOSE[row.name]}."
    elif row.name in LEFT_OUT_OF_COMPOSE:
        meaning += f" Not in docker-compose.yml: {LEFT_OUT_OF_COMPOSE[row.name]}."
    yield from textwrap.wrap(
        meaning, 108, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
    if row.name == "OLLAMA_MODEL":
        yield "# Set above.\n"
    else:
        yield f"# {row.name}={_value(default)}\n"


def _value(default: str) -> str:
    return "" if default in ("required", "frozenset()") else default
