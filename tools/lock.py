"""Pin every third-party dependency of every distribution, with hashes, in requirements.lock.

Reads: each pyproject.toml (dependencies, extras, the dev group). Writes: requirements.lock,
without any index address. Run by `make lock`.

    python tools/lock.py --for prism-merger     # prints the part of it that one distribution needs

An image installs that part: a version is pinned in one place. It follows the "# via" notes, which name for
each pin who asked for it, and keeps the environment markers. The standard library alone: an image's builder
has nothing else.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = "# Made by `make lock` from the pyproject.toml files. Do not edit.\n"
EXIT_USAGE = 2
_OURS = "prism-"
_PIN = re.compile(r"^([a-z0-9][a-z0-9-]*)==")
_VIA = re.compile(r"^ +# (?:via )? *([a-z0-9][a-z0-9-]*)$")
_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^]]*)\])?")


class NotInTheLock(Exception):
    """What was asked for is no distribution of ours and not pinned."""


def declared() -> list[str]:
    """Return what the distributions ask for, our own distributions left out."""
    wanted: set[str] = set()
    for content in _contents():
        project = content.get("project", {})
        wanted.update(project.get("dependencies", []))
        for extra in project.get("optional-dependencies", {}).values():
            wanted.update(extra)
        for group in content.get("dependency-groups", {}).values():
            wanted.update(group)
    return sorted(one for one in wanted if not one.startswith(_OURS))


def part(lock: str, *requirements: str) -> str:
    """Return the pins of `lock` that distributions of ours, or packages, need. Raises NotInTheLock."""
    pins = list(_pins(lock))
    asked_by: dict[str, set[str]] = {}
    for name, text in pins:
        for line in text.splitlines():
            if (via := _VIA.match(line)) is not None and via[1] != "via":
                asked_by.setdefault(via[1], set()).add(name)
    wanted: set[str] = set()
    waiting = {name for one in requirements for name in _third_party(one, set())}
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting |= asked_by.get(name, set()) - wanted
    if unknown := wanted - {name for name, _ in pins}:
        raise NotInTheLock(f"{', '.join(sorted(unknown))}: not in {LOCK.name}; run make lock")
    return "".join(text for name, text in pins if name in wanted)


def _pins(lock: str) -> Iterator[tuple[str, str]]:
    """Yield each pin's name and its lines. A name may come twice, under markers that exclude each other."""
    name, lines = "", ""
    for line in lock.splitlines(keepends=True):
        if (pin := _PIN.match(line)) is not None:
            if name:
                yield name, lines
            name, lines = pin[1], ""
        if name:
            lines += line
    if name:
        yield name, lines


def _third_party(requirement: str, seen: set[str]) -> set[str]:
    """Return the names that a requirement asks for, through our own distributions. `seen`: those passed."""
    match = _REQUIREMENT.match(requirement)
    if match is None:
        raise NotInTheLock(f"{requirement!r} is no requirement")
    name, extras = _normal(match[1]), [one.strip() for one in (match[2] or "").split(",") if one.strip()]
    if not name.startswith(_OURS):
        return {name}
    key = f"{name}[{','.join(sorted(extras))}]"
    if key in seen:
        return set()
    seen.add(key)
    wanted: set[str] = set()
    for one in _dependencies(name, extras):
        wanted |= _third_party(one, seen)
    return wanted


def _dependencies(name: str, extras: list[str]) -> list[str]:
    projects = {_normal(one["project"]["name"]): one["project"] for one in _contents() if "project" in one}
    if name not in projects:
        raise NotInTheLock(f"no pyproject.toml of {name} below {ROOT}")
    found: list[str] = list(projects[name].get("dependencies", []))
    offered = projects[name].get("optional-dependencies", {})
    for extra in extras:
        if extra not in offered:
            raise NotInTheLock(f"{name} has no extra {extra!r}; it has: {', '.join(offered) or 'none'}")
        found += offered[extra]
    return found


def _contents() -> Iterator[dict[str, Any]]:
    for path in sorted(ROOT.glob("**/pyproject.toml")):
        if ".venv" not in path.parts:
            yield tomllib.loads(path.read_text())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(arguments: list[str]) -> int:
    """Resolve and write; return the resolver's exit status."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "-", "--universal", "--generate-hashes",
        "--no-header", "--python-version", "3.11", "--native-tls", "--quiet", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, input="\n".join(declared()), capture_output=True, text=True)
    if done.returncode == 0:
        LOCK.write_text(HEADER + done.stdout)
    else:
        sys.stderr.write(done.stderr)
    return done.returncode


def main() -> int:
    """Write the lock, or print a part of it; return the exit status."""
    parser = argparse.ArgumentParser(description="Pin every dependency; other arguments go to uv.")
    parser.add_argument(
        "--for", dest="requirements", nargs="+", metavar="NAME", help="print what these need: prism-merger …"
    )
    options, others = parser.parse_known_args()
    if options.requirements is None:
        return resolve(others)
    try:
        sys.stdout.write(part(LOCK.read_text(), *options.requirements))
    except NotInTheLock as error:
        sys.stderr.write(f"lock: {error}\n")
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
