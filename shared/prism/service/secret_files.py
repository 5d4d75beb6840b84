"""Secrets that come as files: `NAME_FILE=/run/secrets/x` in the place of `NAME=…`.

That is how Docker, Kubernetes and systemd hand them over; a file is in no list of processes, in no
`docker inspect` and in no crash report. The value is the file's text without the line break at its end.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

SUFFIX = "_FILE"
_MOST_BYTES = 64 * 1024


class SecretUnreadable(Exception):
    """A secret's file cannot be used; says why, never what is in it."""


def read_secret(path: str) -> str:
    """Return the secret in a file. Raises SecretUnreadable."""
    try:
        with Path(path).open("rb") as file:
            value = file.read(_MOST_BYTES + 1)
        text = value.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise SecretUnreadable(why) from None
    if not text or len(value) > _MOST_BYTES:
        raise SecretUnreadable("it is larger than 64 KiB" if text else "it is empty")
    return text


class SecretEnvironment(Mapping[str, str]):
    """An environment in which a name that is not set is looked up in the file that `NAME_FILE` names.

    Read anew at each question, so that a key that was changed is the new one. A file that cannot be read
    counts as not set: whoever needs the value says that it is missing.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        path = self._environ.get(name + SUFFIX, "")
        if self._environ.get(name) or not path:
            return self._environ[name]
        try:
            return read_secret(path)
        except SecretUnreadable:
            return self._environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)
