"""Writes what is only there to be looked at: status files and run logs, beside the loop that merges.

Argument. Nothing waits for these files, and nothing is decided by them. The loop hands over bytes and goes
on; a thread writes them. A slow disk makes it skip: of a file that is to be replaced the last content counts,
of lines the first thousand are kept. What cannot be written is said once in the log and forgotten; it is
said again only after it had gone well meanwhile.
"""

import os
import threading
from pathlib import Path

from prism.service.logs import get_logger
from prism_merger.volume import replace_file

log = get_logger(__name__)

MOST_LINES = 1000
# A log that is full makes room once: the older half becomes `NAME.1`.
MOST_LOG_BYTES = 10 << 20
_CLOSE_S = 3.0


class Scribe:
    """One thread; `replace` and `append` may be called by any, and never wait for the disk."""

    def __init__(self, most_log_bytes: int = MOST_LOG_BYTES) -> None:
        self._most_log_bytes = most_log_bytes // 2
        self._condition = threading.Condition()
        self._files: dict[Path, bytes] = {}
        self._lines: dict[Path, list[bytes]] = {}
        self._busy = False
        self._closed = False
        self._broken: set[Path] = set()
        self._thread = threading.Thread(target=self._run, name="scribe", daemon=True)
        self._thread.start()

    def replace(self, path: Path, content: bytes) -> None:
        """Let a file have this content, soon."""
        with self._condition:
            self._files[path] = content
            self._condition.notify_all()

    def append(self, path: Path, line: bytes) -> None:
        """Let a line, its end left out, be added to a file, soon."""
        with self._condition:
            lines = self._lines.setdefault(path, [])
            if len(lines) < MOST_LINES:
                lines.append(line + b"\n")
            self._condition.notify_all()

    def settle(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything was written, or could not be; return whether it came to that."""
        with self._condition:
            return self._condition.wait_for(self._is_idle, timeout_s)

    def close(self) -> None:
        """Write what is left, and end."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join(_CLOSE_S)

    def _is_idle(self) -> bool:
        return not (self._busy or self._files or self._lines)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._files or self._lines or self._closed)
                if not self._files and not self._lines:
                    return
                files, self._files = self._files, {}
                lines, self._lines = self._lines, {}
                self._busy = True
            for path, found in lines.items():
                self._write(path, b"".join(found), more=True)
            for path, content in files.items():
                self._write(path, content, more=False)

    def _write(self, path: Path, content: bytes, more: bool) -> None:
        try:
            if more:
                self._append(path, content)
            else:
                replace_file(path, [content])
        except Exception as error:
            # Whatever it is: a file to look at must not end the thread that writes the others.
            if path.parent not in self._broken and len(self._broken) < MOST_LINES:
                self._broken.add(path.parent)
                log.warning("file_skipped", path=path, error=error)
        else:
            self._broken.discard(path.parent)

    def _append(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if _is_torn(file.fileno()):
                content = b"\n" + content
            file.write(content)
            file.flush()
            full = file.tell() >= self._most_log_bytes
        if full:
            path.replace(path.with_name(f"{path.name}.1"))


def _is_torn(handle: int) -> bool:
    """Return whether a file ends in the middle of a line: a death, a disk that was full."""
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"
