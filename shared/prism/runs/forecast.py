"""What all of a file will take, foretold from a random sample of its batches.

The units are the batches that have rows to ask. They are drawn by simple random sampling without
replacement (`Reservoir`), and a total is estimated by a ratio: what the sampled units took, by what is known
of every unit without asking a model, times that of the whole file. The better the two are proportional, the
narrower the interval; so calls go by units, prompt tokens by the characters that are shown, completion
tokens and seconds by the rows that are asked.

An interval speaks of the draw alone: of which batches the sample could have been. What the sample met
nowhere, such as a retry that one batch in a hundred needs, no interval of a total can show.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Generic, TypeVar

T = TypeVar("T")

# Share of samples whose interval has the truth in it.
LEVEL = 0.9
# So little skewness bends nothing, and would be divided by.
_STRAIGHT = 1e-9


class Reservoir(Generic[T]):
    """A simple random sample of `size` items of a stream whose length nobody knows, in constant memory.

    Source: Algorithm R (Waterman), in Knuth, The Art of Computer Programming 2, section 3.4.2.
    """

    def __init__(self, size: int, rng: random.Random) -> None:
        self.items: list[T] = []
        self.offered = 0
        self._size = size
        self._rng = rng

    def offer(self, item: T) -> None:
        """Take an item into the sample, or leave it out."""
        self.offered += 1
        if len(self.items) < self._size:
            self.items.append(item)
        elif (place := self._rng.randrange(self.offered)) < self._size:
            self.items[place] = item


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and between what it lies with the confidence `LEVEL`."""

    point: float
    low: float
    high: float

    def times(self, factor: float, more: float = 0.0) -> "Interval":
        """Return the interval of `factor` times this, and `more`. factor: not negative."""
        return Interval(*(more + factor * value for value in (self.point, self.low, self.high)))


@dataclass(frozen=True, slots=True)
class Total:
    """An estimated total over a file's units.

    least: what the sampled units took, and all others take for certain. units: in the file.
    residuals: what each sampled unit took beyond its share, in the measure of one unit of the file.
    """

    point: float
    least: float
    residuals: tuple[float, ...]
    units: int

    def __add__(self, other: "Total") -> "Total":
        """Return the total of both, estimated by the same sample."""
        both = tuple(mine + its for mine, its in zip(self.residuals, other.residuals, strict=True))
        return Total(self.point + other.point, self.least + other.least, both, self.units)

    def times(self, factor: float) -> "Total":
        """Return the total of `factor` times what is counted. factor: not negative."""
        residuals = tuple(factor * one for one in self.residuals)
        return Total(factor * self.point, factor * self.least, residuals, self.units)

    @property
    def error(self) -> float:
        """Standard error: units · sqrt((1 − n ÷ units) · s² ÷ n), s² of the n residuals.

        0 for a sample of all units. Raises ValueError for one of several units, which shows no spread.
        """
        sampled = len(self.residuals)
        if sampled == self.units:
            return 0.0
        if sampled < 2:
            raise ValueError(f"a sample of {sampled} of {self.units} units shows no spread")
        spread = sum(one * one for one in self.residuals) / (sampled - 1)
        return self.units * math.sqrt((1 - sampled / self.units) * spread / sampled)

    @property
    def skewness(self) -> float:
        """Skewness of the residuals, adjusted for their number; 0 for fewer than three."""
        n = len(self.residuals)
        square = sum(one * one for one in self.residuals) / max(1, n)
        if n < 3 or square <= 0:
            return 0.0
        standardised = [one / math.sqrt(square) for one in self.residuals]
        cube = sum(one * one * one for one in standardised) / n
        return cube * math.sqrt(n * (n - 1)) / (n - 2)

    @property
    def quantile(self) -> float:
        """Student's t for an interval of `LEVEL`, by the sample's size."""
        return t_quantile((1 + LEVEL) / 2, max(1, len(self.residuals) - 1))

    def interval(self) -> Interval:
        """Return the interval, from below no less than `least`.

        Point ± t · standard error, but t bent by the skewness, for a few batches take far more than most:
        from a sample of ten, t alone keeps 8 of 10 such totals. Source: Hall, On the removal of skewness by
        transformation, Journal of the Royal Statistical Society B 54 (1992), 221 – 228.
        """
        low = self.point - self.error * self._bent(self.quantile)
        high = self.point - self.error * self._bent(-self.quantile)
        return Interval(self.point, min(self.point, max(self.least, low)), max(self.point, high))

    def _bent(self, t: float) -> float:
        """Return the inverse of Hall's g(T) = T + c · T² + c² · T³ ÷ 3 + c ÷ 2, c = skewness ÷ (3 · √n)."""
        c = self.skewness / (3 * math.sqrt(max(1, len(self.residuals))))
        if abs(c) < _STRAIGHT:
            return t
        return (math.cbrt(1 + 3 * c * (t - c / 2)) - 1) / c


def ratio_total(
    taken: Sequence[float], sizes: Sequence[float], units: int, size: float, least: float = 0.0
) -> Total:
    """Return the total of `units` units of `size` in all, when sampled ones of `sizes` took `taken`.

    sizes: above 0. least: what each unit takes for certain. The estimate is r · size, r = Σ taken ÷
    Σ sizes, and its variance that of the residuals, taken − r · size of the unit. Source: Cochran, Sampling
    Techniques (3rd edition, 1977), chapter 6. The residuals are weighted by mean size of all ÷ mean size of
    the sampled, which makes up for a sample of large or small units: Särndal, Swensson and Wretman, Model
    Assisted Survey Sampling (1992), the g weights of chapter 6.
    """
    if not sizes:
        return Total(0.0, 0.0, (), units)
    seen, sampled_size = sum(taken), sum(sizes)
    ratio = seen / sampled_size
    weight = (size / units) / (sampled_size / len(sizes))
    residuals = tuple(weight * (one - ratio * of) for one, of in zip(taken, sizes, strict=True))
    # Divided first: for a sample of all units the factor is 1, and nothing is rounded.
    return Total(seen * (size / sampled_size), seen + least * (units - len(taken)), residuals, units)


def share(events: Total, cases_sampled: float, cases: float) -> Interval:
    """Return the share of `cases` that are events, by Wilson's interval, which knows that 0 seen is not 0.

    events: the total of the events, estimated by the ratio to the cases. cases_sampled, cases: of the
    sample and of the file, above 0. Cases of one batch are alike, so they count as the number of independent
    cases that have the same standard error, p · (1 − p) ÷ error²; where none or all were events no error
    shows, and they count as they are. Student's t stands for the normal quantile, for the batches are few.
    Where the interval of the total reaches higher, so does this one.
    Source: Wilson, Journal of the American Statistical Association 22 (1927), 209 – 212; for samples of
    clusters as in `svyciprop(method = "wilson")` of R's package survey, after Korn and Graubard (1998).
    """
    point = min(1.0, events.point / cases)
    if len(events.residuals) == events.units:
        return Interval(point, point, point)
    error = events.error / cases
    independent = cases_sampled / (1 - min(cases_sampled / cases, 1 - 1e-12))
    if 0 < point < 1 and error > 0:
        independent = min(independent, point * (1 - point) / error**2)
    square = events.quantile**2
    middle = (point + square / (2 * independent)) / (1 + square / independent)
    reach = math.sqrt(point * (1 - point) / independent + square / (4 * independent**2))
    reach *= events.quantile / (1 + square / independent)
    # What was seen, good and bad, is there for certain.
    least, most = events.least / cases, 1 - (cases_sampled - events.least) / cases
    low = max(least, middle - reach)
    high = min(most, max(middle + reach, events.interval().high / cases))
    return Interval(point, min(point, low), max(point, high))


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t. degrees: of freedom, 1 or more. probability: 0.5 to 0.99.

    Exact for 1 and 2 degrees; else to 0.002 by Abramowitz and Stegun, Handbook of Mathematical Functions
    (1964), 26.7.5.
    """
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + sum(term / float(degrees) ** power for power, term in enumerate(terms, 1))


@dataclass(frozen=True, slots=True)
class Population:
    """What is known of a file without asking a model.

    units: batches with rows to ask. rows: to ask. characters: that the model is shown in all.
    least_calls: that each unit takes for certain.
    """

    units: int
    rows: int
    characters: int
    least_calls: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What one sampled unit took. rows, characters: as in `Population`; failed: rows without an answer.

    seconds: of its calls, loading a model left out.
    """

    rows: int
    characters: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    failed: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What all of a file takes. seconds: with one call at a time. failed_share: of the rows to ask."""

    calls: Total
    prompt_tokens: Total
    completion_tokens: Total
    seconds: Total
    failed_share: Interval

    @property
    def tokens(self) -> Total:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


def forecast(sample: Sequence[Taken], whole: Population) -> Forecast:
    """Return what a file takes. Raises ValueError for a sample of one of several units."""
    rows = [one.rows for one in sample]
    by_unit = partial(ratio_total, sizes=[1.0] * len(sample), units=whole.units, size=whole.units)
    by_row = partial(ratio_total, sizes=rows, units=whole.units, size=whole.rows)
    shown = [one.characters for one in sample]
    by_character = partial(ratio_total, sizes=shown, units=whole.units, size=whole.characters)
    failed = by_row([one.failed for one in sample])
    return Forecast(
        calls=by_unit([one.calls for one in sample], least=whole.least_calls),
        prompt_tokens=by_character([one.prompt_tokens for one in sample]),
        completion_tokens=by_row([one.completion_tokens for one in sample]),
        seconds=by_row([one.seconds for one in sample]),
        failed_share=share(failed, sum(rows), whole.rows) if rows else Interval(0.0, 0.0, 0.0),
    )
