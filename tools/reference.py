"""Write what is generated: pages and schemas in docs, .env.example, dashboards and rules in deploy.

`make schemas` runs it; a test runs `pages()` and compares, so that what is committed is current.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from prism.messages import ALL_MESSAGES
from prism.messages.access import Grant, Names, Resource, Role, grants
from prism.service.settings import ServiceSettings, describe
from prism_ingestor.settings import IngestorSettings
from prism_merger.settings import MergerSettings
from prism_model_worker.settings import WorkerSettings
from tools.dashboards import dashboard_files
from tools.env_example import env_example
from tools.job_reference import job_schema, jobs_page
from tools.metrics_reference import metrics_page
from tools.rules import prometheus_rule

ROOT = Path(__file__).resolve().parent.parent
SERVICES: tuple[tuple[str, type[ServiceSettings]], ...] = (
    ("prism-ingestor", IngestorSettings),
    ("prism-model-worker", WorkerSettings),
    ("prism-merger", MergerSettings),
)
_RIGHTS = "<!-- the table: tools/reference.py writes what is between these lines -->"
_END_OF_RIGHTS = "<!-- end of the table -->"
_INTRODUCTION = """# Settings

Made by `make schemas` from the services' settings classes; do not edit. Every setting is an environment
variable (or a line of `.env`). A wrong one stops the service at once, with its name, its value and what is
allowed. Any librdkafka property passes through as `KAFKA_…`: `KAFKA_SASL_PASSWORD` is `sasl.password`.

A secret `NAME`, each `KAFKA_…` and each key that `models.json` names (`api_key_env`) may come as a file:
`NAME_FILE=/run/secrets/name`. The value is the file's text without the line break at its end.
"""


def pages() -> dict[Path, str]:
    """Return the content of every generated file by its path."""
    found = {
        ROOT / "docs" / "settings.md": settings_page(),
        ROOT / "docs" / "jobs.md": jobs_page(),
        ROOT / "docs" / "security.md": security_page(),
        ROOT / "docs" / "metrics.md": metrics_page(),
        ROOT / ".env.example": env_example(SERVICES),
        ROOT / "docs" / "schemas" / "job.schema.json": job_schema(),
        **dashboard_files(),
        **prometheus_rule(),
    }
    for message in ALL_MESSAGES:
        schema = json.dumps(message.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
        found[ROOT / "docs" / "schemas" / f"{message.__name__}.json"] = schema
    return found


def settings_page() -> str:
    """Return the table of settings, the common ones first."""
    common = {row.name for row in describe(ServiceSettings)}
    lines = [_INTRODUCTION, "## All services\n", *_table(ServiceSettings, lambda name: name != "PORT")]
    for service, settings in SERVICES:
        lines += [f"\n## {service}\n", *_table(settings, lambda name: name == "PORT" or name not in common)]
    return "\n".join(lines) + "\n"


def security_page() -> str:
    """Return the page on security with the table of rights as `access.py` has it."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition(_RIGHTS)
    _, end, after = rest.partition(_END_OF_RIGHTS)
    lines = ["| role | topics | groups, cluster |", "|---|---|---|"]
    for role in Role:
        given = grants(role, Names())
        topics = _rights(one for one in given if one.resource is Resource.TOPIC)
        others = _rights(one for one in given if one.resource is not Resource.TOPIC)
        lines.append(f"| `{role}` | {topics} | {others} |")
    return "\n".join([before + begin, *lines, end + after])


def _rights(given: Iterable[Grant]) -> str:
    """Return grants as `Read, Write` name, name; those that say the same together."""
    names: dict[str, list[str]] = {}
    for one in given:
        shown = f"`{one.name}{'…' if one.prefixed else ''}`"
        names.setdefault(", ".join(one.operations), []).append(shown)
    return "; ".join(f"{operations}: {', '.join(found)}" for operations, found in names.items())


def _table(settings: type[ServiceSettings], wanted: Callable[[str], bool]) -> list[str]:
    rows = [row for row in describe(settings) if wanted(row.name)]
    head = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    return head + [
        f"| `{row.name}` | {_cell(row.type)} | {_default(row.default)} | {_cell(row.description)} |"
        for row in rows
    ]


def _default(text: str) -> str:
    return "required" if text == "required" else f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write every page."""
    for path, content in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
