"""Pin every third-party dependency of every distribution, with hashes, in requirements.lock.

Reads: each pyproject.toml (dependencies, extras, the dev group). Writes: requirements.lock,
without any index address. Run by `make lock`.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = "# Made by `make lock` from the pyproject.toml files. Do not edit.\n"


def declared() -> list[str]:
    """Return what the distributions ask for, our own distributions left out."""
    wanted: set[str] = set()
    for path in sorted(ROOT.glob("**/pyproject.toml")):
        if ".venv" in path.parts:
            continue
        content = tomllib.loads(path.read_text())
        project = content.get("project", {})
        wanted.update(project.get("dependencies", []))
        for extra in project.get("optional-dependencies", {}).values():
            wanted.update(extra)
        for group in content.get("dependency-groups", {}).values():
            wanted.update(group)
    return sorted(one for one in wanted if not one.startswith("prism-"))


def main() -> int:
    """Resolve and write; return the resolver's exit status."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "-", "--universal", "--generate-hashes",
        "--no-header", "--python-version", "3.11", "--native-tls", "--quiet", *sys.argv[1:],
    ]  # fmt: skip
    done = subprocess.run(command, input="\n".join(declared()), capture_output=True, text=True)
    if done.returncode == 0:
        LOCK.write_text(HEADER + done.stdout)
    else:
        sys.stderr.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
