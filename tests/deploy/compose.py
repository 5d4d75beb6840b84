"""The real Compose parser, and what it makes of docker-compose.yml.

It is found by PRISM_TEST_DOCKER_COMPOSE, then ../shared/tools/docker-compose.xz, then on PATH. Without it
tests are skipped, in CI they fail. There is no engine: it parses, interpolates and validates.
"""

import json
import lzma
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"
PACKED = ROOT.parent / "shared" / "tools" / "docker-compose.xz"


@dataclass(frozen=True, slots=True)
class Compose:
    """The tool; it sees nothing of this process's environment."""

    tool: Path

    def run(
        self,
        *profiles: str,
        file: Path = FILE,
        env_file: Path = EXAMPLE,
        environ: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run `config`. Without profiles those of the environment or the env file count."""
        flags = [word for one in profiles for word in ("--profile", one)]
        command = [
            str(self.tool),
            "--project-directory",
            str(ROOT),
            "-f",
            str(file),
            "--env-file",
            str(env_file),
        ]
        return subprocess.run(
            [*command, *flags, "config", "--format", "json"], capture_output=True, text=True, timeout=60,
            cwd=ROOT, env={"PATH": os.environ["PATH"], "HOME": "/nowhere", **(environ or {})},
        )  # fmt: skip

    def config(self, *profiles: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what the file is with `.env.example`; it has to be accepted."""
        done = self.run(*profiles, environ=environ)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """Return what a rendered service's process sees: names without a value are not set."""
    return {name: value for name, value in service["environment"].items() if value is not None}


def words(test: Sequence[str]) -> list[str]:
    """Return a rendered healthcheck as a command."""
    kind, *command = test
    return list(command) if kind == "CMD" else ["/bin/sh", "-c", *command]


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Compose:
    named = os.environ.get("PRISM_TEST_DOCKER_COMPOSE") or None
    if named is None and PACKED.is_file():
        path = tmp_path_factory.mktemp("compose") / "docker-compose"
        with lzma.open(PACKED) as packed, path.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
        path.chmod(0o755)
        return Compose(path)
    found = named or shutil.which("docker-compose")
    if found and os.access(found, os.X_OK):
        return Compose(Path(found))
    message = f"no docker-compose: not in PRISM_TEST_DOCKER_COMPOSE ({named}), {PACKED} or PATH"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
