"""Exit codes of `prism`, and the error that carries one: one line with what, where and what next."""

from typing import Final

from prism.service.errors import PrismError

DONE: Final = 0
FAILED: Final = 1  # a part of the fleet stayed down, a wait timed out, a run was cancelled
USAGE: Final = 2
BAD_INPUT: Final = 3
BROKER_AWAY: Final = 4
MODEL_AWAY: Final = 5
FAILED_ROWS: Final = 6
QUOTA: Final = 7
INTERNAL: Final = 70
INTERRUPTED: Final = 130


class CommandFailed(PrismError):
    """A command cannot do what was asked; `main` prints it and exits with `code`."""

    def __init__(self, code: int, what: str, where: str = "", next: str = "") -> None:
        super().__init__(what, where, next)
        self.code = code
