"""Where a published file lies on this machine."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from prism.messages import OutputFile


def local_path(output: OutputFile, data_dir: Path | None = None) -> str:
    """Return the file's path here if it is here, else the address that the merger gave."""
    for candidate in _candidates(output, data_dir):
        if candidate.is_file():
            return str(candidate)
    return output.uri or output.path


def _candidates(output: OutputFile, data_dir: Path | None) -> list[Path]:
    found = []
    if data_dir is not None:
        found.append((data_dir / output.path).absolute())
    if output.uri.startswith("file://"):
        found.append(Path(unquote(urlsplit(output.uri).path)))
    return found
