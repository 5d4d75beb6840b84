"""A Dockerfile read, and its builder stage run below a folder, without an engine.

What runs is what is written: each RUN line by `sh`, each COPY with the files that `.dockerignore` lets
through. Three things are not as in a build: the folders of the image (/src, /opt, /wheels, /data, /outputs)
lie below the given one, `python` is this machine's and not the base image's, and the installers' caches are
the user's.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "opt", "wheels", "data", "outputs")
_OURS = re.compile(rf"(?<![\w./-])/({'|'.join(FOLDERS)})(?![\w-])")
_ABSOLUTE = re.compile(r"(?<![\w./:-])/[a-z]\S*")
_FLAG = re.compile(r"--[a-z]+(=\S+)?\s+")
# This interpreter has pip, and installs with it; what is installed runs on one that any user may start.
_SHIM = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then exec '{base}' "$@"; fi
exec '{pip}' "$@"
"""
TIMEOUT_S = 280


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its keyword, its flags (`--from=builder`) and the rest, continued lines joined."""

    keyword: str
    flags: tuple[str, ...]
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next."""

    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, keyword: str) -> list[Instruction]:
        """Return the instructions of a kind."""
        return [one for one in self.instructions if one.keyword == keyword]

    def only(self, keyword: str) -> Instruction:
        """Return the one instruction of a kind."""
        (found,) = self.of(keyword)
        return found


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A file's stages, and its arguments before the first one."""

    path: Path
    arguments: dict[str, str]
    stages: list[Stage]

    @property
    def final(self) -> Stage:
        return self.stages[-1]

    def stage(self, name: str) -> Stage:
        """Return a stage by its name."""
        return next(one for one in self.stages if one.name == name)


def read(path: Path) -> Dockerfile:
    """Read a Dockerfile."""
    made = Dockerfile(path, {}, [])
    for one in _instructions(path.read_text()):
        if one.keyword == "FROM":
            image, _, name = one.text.partition(" AS ")
            made.stages.append(Stage(image, name))
        elif made.stages:
            made.stages[-1].instructions.append(one)
        else:
            name, _, value = one.text.partition("=")
            made.arguments[name] = value
    return made


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for whole in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, rest = whole.strip().partition(" ")
        flags = []
        while keyword in ("RUN", "COPY") and (flag := _FLAG.match(rest := rest.lstrip())) is not None:
            flags.append(flag[0].strip())
            rest = rest[flag.end() :]
        yield Instruction(keyword, tuple(flags), rest.strip())


@cache
def context() -> frozenset[str]:
    """Return the files of the checkout that a build sees, as paths from its root."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    seen: set[str] = set()
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [one for one in folders if one not in (".venv", ".git")]
        here = Path(folder).relative_to(ROOT)
        seen.update(str(here / name) for name in files if not ignored(str(here / name), rules))
    return frozenset(seen)


def ignored(path: str, rules: list[str]) -> bool:
    """Return whether a build does not see a path. A rule holds for what is below it; the last one wins."""
    parts = Path(path).parts
    above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    out = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        if any(_matches(one, pattern) for one in above):
            out = not rule.startswith("!")
    return out


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return re.fullmatch(translate(pattern[3:]), path.rpartition("/")[2]) is not None
    left, right = path.split("/"), pattern.split("/")
    return len(left) == len(right) and all(
        re.fullmatch(translate(one), name) for one, name in zip(right, left, strict=True)
    )


def copied(instruction: Instruction) -> list[tuple[str, str]]:
    """Return what a COPY brings, as (path in the context, path in the image)."""
    *sources, target = instruction.words
    found = []
    for source in sources:
        for path in sorted(context()):
            if path == source:
                into = f"{target.rstrip('/')}/{Path(path).name}" if target.endswith("/") else target
                found.append((path, into))
            elif path.startswith(f"{source}/"):
                found.append((path, f"{target.rstrip('/')}/{path[len(source) + 1 :]}"))
    return found


@dataclass(frozen=True, slots=True)
class Image:
    """What a Dockerfile makes, below `root`."""

    dockerfile: Dockerfile
    root: Path

    @property
    def python(self) -> Path:
        return self.root / "opt" / "prism" / "bin" / "python"

    def place(self, text: str) -> str:
        """Return a text with the image's folders at their places below `root`."""
        return _OURS.sub(lambda match: f"{self.root}/{match[1]}", text)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what a container's process sees: the final stage's ENV and `more`, nothing of ours."""
        found = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        for one in self.dockerfile.final.of("ENV"):
            for word in one.words:
                name, _, value = word.partition("=")
                found[name] = self.place(value.replace("$PATH", found["PATH"]))
        return {**found, **(more or {})}

    def command(self, words: list[str]) -> list[str]:
        """Return a command as a container starts it: its program is found in the image's PATH."""
        program = shutil.which(words[0], path=self.environment()["PATH"])
        assert program is not None, f"{words[0]} is not in the image"
        assert Path(program).is_relative_to(self.root), f"{program} is not of the image"
        return [program, *words[1:]]

    def run(
        self, words: list[str], more: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command as in a container of the image, to its end."""
        return subprocess.run(
            self.command(words), env=self.environment(more), cwd=self.root, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip


@cache
def interpreter() -> str:
    """Return a Python of this version that every user may start, as a base image's; else this one."""
    here = os.path.realpath(sys.executable)
    other = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/local/bin:/usr/bin:/bin")
    return next((one for one in (here, other) if one and for_everybody(one)), here)


def for_everybody(program: str) -> bool:
    """Return whether a user without rights can reach and start a program."""
    path = Path(program).resolve()
    return all(one.stat().st_mode & 0o001 for one in (path, *path.parents))


def build(path: Path, root: Path) -> Image:
    """Run the builder stage of a Dockerfile below `root`. Raise AssertionError with what a RUN said."""
    image = Image(read(path), root)
    stage = image.dockerfile.stage("builder")
    shims, home = root / "shims", root / "src"
    shims.mkdir(parents=True)
    (shims / "python").write_text(_SHIM.format(pip=sys.executable, base=interpreter()))
    (shims / "python").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PATH": f"{shims}:/usr/local/bin:/usr/bin:/bin"}
    for one in stage.instructions:
        match one.keyword:
            case "WORKDIR":
                home = Path(image.place(one.text))
                home.mkdir(parents=True, exist_ok=True)
            case "ENV" | "ARG":
                environment.update(word.partition("=")[::2] for word in one.words)
            case "COPY":
                _copy(one, home)
            case "RUN":
                _run(image, one, home, environment)
            case other:
                raise AssertionError(f"{path}: nobody here knows {other}")
    return image


def _copy(instruction: Instruction, home: Path) -> None:
    files = copied(instruction)
    assert files, f"COPY {instruction.text}: nothing of it is in the build's context"
    for source, target in files:
        (home / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / source, home / target)


def _run(image: Image, instruction: Instruction, home: Path, environment: Mapping[str, str]) -> None:
    elsewhere = [one for one in _ABSOLUTE.findall(instruction.text) if not _OURS.match(one)]
    assert not elsewhere, f"RUN would reach {elsewhere}, which is not below the test's folder"
    done = subprocess.run(
        ["/bin/sh", "-c", image.place(instruction.text)], cwd=home, env=environment, capture_output=True,
        text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, f"RUN {instruction.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
