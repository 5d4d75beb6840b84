"""Chooses one label of a list for a text: by VADER where the labels are sentiments, else by shared words."""

import re
from dataclasses import dataclass
from functools import lru_cache

from prism_embedded.sentiment import sentiment

NOT_APPLICABLE = "NOT_APPLICABLE"
_WORD = re.compile(r"[^\W_]+")
_SENTIMENTS = {"positive", "negative", "neutral", "mixed"}
_FALLBACKS = {"other", "others", "general", "none", "unknown", "misc", "miscellaneous"}
_ABOUT_RELEVANCE = {"relevant", "relevance", "applicable", "valid", "topic"}
_LEVELS = {"none": 0, "low": 1, "minor": 1, "medium": 2, "moderate": 2, "normal": 2}
_LEVELS |= {"high": 3, "major": 3, "urgent": 4, "critical": 4, "severe": 4}
_URGENT = re.compile(
    r"\b(urgent|urgently|asap|immediately|emergency|critical|unacceptable|outage|crash\w*|broken|"
    r"never|refund|lawyer|unsafe|dangerous)\b",
    re.IGNORECASE,
)
_SYNONYMS = {
    "account": "login log password username sign profile signup register locked email",
    "billing": "bill charge invoice payment paid pay card fee refund subscription credit price",
    "bug": "crash error broken freeze glitch fail issue fix",
    "delivery": "ship arrive late parcel package courier deliver delay box post tracking",
    "feature": "option setting add wish request support dark mode export integration",
    "food": "taste meal dish eat menu flavor flavour cold fresh",
    "hotel": "room bed stay breakfast check lobby reception",
    "performance": "slow fast speed lag load hang battery memory quick",
    "price": "expensive cheap cost money value worth overpriced discount euro dollar deal",
    "product": "quality item material size fit work broke build design feature durable",
    "quality": "broke break poor cheap sturdy durable defective material excellent",
    "return": "refund exchange send back replace",
    "service": "staff support agent rude friendly helpful wait answer customer team",
    "shipping": "delivery deliver late parcel package courier arrive arrived delay box post tracking ship",
    "software": "app update install version crash screen interface website",
    "support": "help agent service answer wait staff call chat response team reply rude",
    "technical": "crash error bug app login website broken update install",
    "usability": "easy confusing intuitive interface navigate difficult simple complicated screen",
    "question": "how what when where why can could",
    "complaint": "disappointed terrible awful worst bad angry refund unacceptable",
    "praise": "love great excellent amazing thank perfect best wonderful",
    "joy": "happy love great enjoy delighted",
    "anger": "angry furious unacceptable worst hate rude",
    "sadness": "sad disappointed unhappy sorry",
}


@lru_cache(maxsize=20_000)
def choose(labels: tuple[str, ...], name: str, text: str) -> str:
    """The label that the rules give to a text.

    :param labels: what is allowed, at least one.
    :param name: the column's name; it decides about yes and no.
    :param text: short (see `mentions.HEAD_CHARACTERS`), for it is kept in a cache.
    """
    if NOT_APPLICABLE in labels and not any(map(str.isalpha, text)):
        return NOT_APPLICABLE
    plan = _plan(labels)
    if plan.sentiments:
        return _by_sentiment(plan, text)
    if plan.yes and plan.no:
        return plan.yes if says_yes(name, text) else plan.no
    if plan.levels:
        return _by_level(plan.levels, text)
    return _by_words(plan, text)


def says_yes(name: str, text: str) -> bool:
    """Whether a column of yes and no says yes: its name is about relevance or in the text."""
    wanted = _words(name)
    return bool(wanted & (_ABOUT_RELEVANCE | _words(text)))


@dataclass(frozen=True, slots=True)
class _Plan:
    candidates: tuple[str, ...]
    sentiments: dict[str, str]
    yes: str | None
    no: str | None
    levels: dict[int, str]
    weights: tuple[dict[str, int], ...]
    fallback: str


@lru_cache(maxsize=2000)
def _plan(labels: tuple[str, ...]) -> _Plan:
    candidates = tuple(label for label in labels if label != NOT_APPLICABLE) or labels
    folded = {label.strip().lower(): label for label in candidates}
    sentiments = {name: folded[name] for name in _SENTIMENTS & folded.keys()}
    levels = {_LEVELS[name]: label for name, label in folded.items() if name in _LEVELS}
    return _Plan(
        candidates=candidates,
        sentiments=sentiments if {"positive", "negative"} <= sentiments.keys() else {},
        yes=folded.get("y") or folded.get("yes") or folded.get("true"),
        no=folded.get("n") or folded.get("no") or folded.get("false"),
        levels=levels if len(levels) == len(candidates) > 1 else {},
        weights=tuple(_weights(label) for label in candidates),
        fallback=next((folded[name] for name in folded if name in _FALLBACKS), candidates[-1]),
    )


def _weights(label: str) -> dict[str, int]:
    """How much each word of a text speaks for the label: 3 for its own words, 1 for their synonyms."""
    own = _words(label)
    synonyms = {_stem(word) for name in own for word in _SYNONYMS_OF.get(name, ())}
    return dict.fromkeys(synonyms, 1) | dict.fromkeys(own, 3)


def _by_sentiment(plan: _Plan, text: str) -> str:
    mood = sentiment(text)
    name = mood.name.lower()
    if name in plan.sentiments:
        return plan.sentiments[name]
    if name == "mixed" and "neutral" in plan.sentiments:
        return plan.sentiments["neutral"]
    return plan.sentiments["positive" if mood.compound >= 0 else "negative"]


def _by_level(levels: dict[int, str], text: str) -> str:
    compound = sentiment(text).compound
    wanted = 1 + (compound <= -0.05) + (compound <= -0.6) + bool(_URGENT.search(text))
    return levels[min(levels, key=lambda level: (abs(level - wanted), level))]


def _by_words(plan: _Plan, text: str) -> str:
    words = _words(text)
    scores = [sum(map(weights.__getitem__, words & weights.keys())) for weights in plan.weights]
    best = max(scores)
    return plan.candidates[scores.index(best)] if best else plan.fallback


@lru_cache(maxsize=20_000)
def _words(text: str) -> frozenset[str]:
    return frozenset(map(_stem, _WORD.findall(text.replace("_", " ").lower())))


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s", "e"):
        if len(word) > len(ending) + 2 and word.endswith(ending):
            return word[: -len(ending)]
    return word


_ABOUT_RELEVANCE = {_stem(word) for word in _ABOUT_RELEVANCE}
_SYNONYMS_OF = {_stem(name): words.split() for name, words in _SYNONYMS.items()}
