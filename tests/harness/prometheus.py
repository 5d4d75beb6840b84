"""A real Prometheus that scrapes processes on the loopback, with the rules as they are deployed.

Both programs come in Debian's package `prometheus`. Without them tests are skipped, in CI they fail.
"""

import json
import os
import shutil
import subprocess
import urllib.parse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from prism_embedded import child
from prism_embedded.loopback import HOST, free_port
from tests.harness.process import await_true, get_json

ROOT = Path(__file__).resolve().parents[2]
DEPLOYED = ROOT / "deploy" / "prometheus"
# What a scrape and a round of rules take here is milliseconds; deployed, both are every 15 s.
EVERY = "1s"


def tool(name: str) -> str:
    """Return the path of `prometheus` or `promtool`."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed: apt-get install prometheus"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def promtool(*words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run promtool to its end."""
    command = [tool("promtool"), *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120)


class Prometheus:
    """Start with `with`. targets: ports on the loopback by job."""

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[int]]) -> None:
        self._program = tool("prometheus")
        self._folder = folder
        self._targets = targets
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config()), encoding="utf-8")
        command = [
            self._program, f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={HOST}:{self._port}", "--log.level=warn",
        ]  # fmt: skip
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = child.spawn(command, log, dict(os.environ), self._folder)
        await_true(lambda: self.up() == self._expected(), 30.0, self._complaint)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(10.0)

    def _config(self) -> dict[str, Any]:
        """Return the deployed configuration with other targets, and faster."""
        config: dict[str, Any] = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": EVERY, "evaluation_interval": EVERY}
        config["rule_files"] = [str(DEPLOYED / "rules" / "*.yml")]
        for job in config["scrape_configs"]:
            del job["dns_sd_configs"]
            places = [f"{HOST}:{port}" for port in self._targets[job["job_name"]]]
            job["static_configs"] = [{"targets": places}]
        return config

    def _expected(self) -> int:
        return sum(len(ports) for ports in self._targets.values())

    def _complaint(self) -> str:
        log = (self._folder / "prometheus.log").read_text(errors="replace")
        return f"{self.up()} of {self._expected()} targets are up: {log[-500:]}"

    def up(self) -> int:
        """Return how many targets are scraped."""
        with suppress(AssertionError, ValueError):  # until it has started it says so in words
            return len(self.query("up == 1"))
        return 0

    def get(self, path: str, **parameters: str) -> Any:
        """Return what its API says."""
        address = f"http://{HOST}:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        status, body = get_json(address, 10.0)
        assert status == 200, f"{status} {json.dumps(body)[:300]}"
        return body["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the samples of an expression now, as `{"metric": …, "value": [time, text]}`."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found
