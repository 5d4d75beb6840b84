"""Errors of a service, split by what the caller must do: try again, or stop the service.

(What rejects one row is in `prism.annotation` and `prism.modelserver`.)
"""


class PrismError(Exception):
    """Says what happened, where, and what to do next, in one line."""

    def __init__(self, what: str, where: str = "", next: str = "") -> None:
        super().__init__(what, where, next)
        self.what = what
        self.where = where
        self.next = next

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f"; {self.next}" if self.next else ""
        return f"{self.what}{place}{advice}"


class RetryLater(PrismError):
    """It may work later without anybody's help: wait `after_s` seconds, then do it again."""

    def __init__(self, what: str, where: str = "", next: str = "", after_s: float = 1.0) -> None:
        super().__init__(what, where, next)
        self.after_s = after_s


class FatalError(PrismError):
    """It cannot work until somebody acts: the service stops with a non-zero exit code."""
