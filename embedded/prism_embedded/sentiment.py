"""Sentiment by VADER's lexicon."""

from functools import cache, lru_cache
from typing import Any, NamedTuple

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

MAX_CHARACTERS = 1000  # VADER's time grows with the square of the length: 0.05 ms for 120, 6 ms for 3500


class Sentiment(NamedTuple):
    """VADER's shares of positive and negative words (0 – 1), and the compound score (-1 – 1)."""

    positive: float
    negative: float
    compound: float

    @property
    def name(self) -> str:
        """Positive, Negative, Neutral or Mixed, by VADER's own thresholds."""
        if self.positive >= 0.12 and self.negative >= 0.12 and abs(self.compound) < 0.6:
            return "Mixed"
        if self.compound >= 0.05:
            return "Positive"
        return "Negative" if self.compound <= -0.05 else "Neutral"


@lru_cache(maxsize=20_000)
def sentiment(text: str) -> Sentiment:
    """The sentiment of a text, of its first 1000 characters."""
    scores = _analyzer().polarity_scores(text[:MAX_CHARACTERS])
    return Sentiment(scores["pos"], scores["neg"], scores["compound"])


@cache
def _analyzer() -> Any:
    return SentimentIntensityAnalyzer()
