"""How many requests a user may send: a bucket of tokens each."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """`burst` requests at once, then `per_second`, for each user. For one thread.

    A user is an email address; white space around it and its case make no other user.
    Of at most `users` users something is remembered. Who is forgotten first has been silent longest, and
    starts again with a full bucket, which after that long is mostly what it would hold.
    """

    def __init__(self, per_second: float, burst: int, users: int = 10_000) -> None:
        if per_second <= 0 or burst < 1 or users < 1:
            raise ValueError("a rate limit needs a rate above 0, a burst and users of at least 1")
        self._per_second = per_second
        self._burst = burst
        self._users = users
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, user: str, now_s: float) -> float:
        """Take a token at `now_s`, by a monotonic clock; return 0, or the seconds until there is one."""
        user = user.strip().casefold()
        bucket = self._buckets.setdefault(user, _Bucket(self._burst, now_s))
        self._buckets.move_to_end(user)
        if len(self._buckets) > self._users:
            self._buckets.popitem(last=False)
        gained = (now_s - bucket.filled_at) * self._per_second
        bucket.tokens = min(self._burst, bucket.tokens + gained)
        bucket.filled_at = now_s
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self._per_second
        bucket.tokens -= 1
        return 0.0
