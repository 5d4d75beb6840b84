"""What a job and a prompt file for a table could be, judged by its columns' names and first rows. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prism.annotation.column import clean_value, fold, fold_key, is_blank
from prism.tables.reader import DELIMITERS
from prism_cli.peek import Sample

STARTING_COLUMNS = ("Topic", "Sentiment", "Urgency", "Key_Point")
# What a label list may be made of: a column with so many different, short values.
_MOST_LABELS = 12
_MOST_LABEL_CHARACTERS = 40
_MOSTLY = 0.8
_PATH_OF_PHOTO = re.compile(
    r"(file://|data:image/)|.*\.(jpe?g|png|gif|webp|bmp|tiff?|heic|avif)$", re.I | re.S
)
_URL = re.compile(r"https?://\S+$", re.I)
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,:/ -]*$")
_SEVERAL_WORDS = re.compile(r"\S+\s+\S")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_A-Za-z]+|[0-9]+")
_MESSAGE_WORD = re.compile(
    "messages?|texts?|comments?|reviews?|feedback|contents?|body|verbatims?|opinions?|responses?|answers?|"
    "descriptions?|tweets?|posts?|notes?|remarks?|complaints?|mentions?|utterances?|questions?|transcripts?|"
    "captions?|nachricht|kommentar|bewertung|beschreibung|commentaires?|avis|mensajes?|texto|comentarios?|messaggio"
)
# `comment_id` and `review_date` are no messages.
_OTHER_WORD = re.compile(
    "ids?|uuid|date|time|timestamp|url|link|count|number|no|nr|type|lang|language|author|user|status|scores?|"
    "ratings?|length|source"
)
_ROW_IDS = ("rowid", "id", "uuid", "guid", "key", "index", "number", "nr", "no", "#")
_TITLES = ("title", "subject", "headline", "betreff", "titel", "titre", "asunto")
_SAME_MEANING = {"topic": ("topic", "category", "theme"), "urgency": ("urgency", "priority")}
_LABELS = {
    "topic": ("Product", "Support", "Billing", "Shipping", "Account", "Other"),
    "sentiment": ("Positive", "Negative", "Neutral", "Mixed"),
    "urgency": ("High", "Medium", "Low"),
}
_MEANINGS = {
    "topic": "what the message is mainly about",
    "sentiment": "the tone of the message as a whole",
    "urgency": "how soon somebody has to act",
    "keypoint": "the heart of the message, in one short sentence",
}
_NOT_APPLICABLE = ("other", "neutral", "low", "none")


@dataclass(frozen=True)
class Profile:
    """What the first cells of a column say of it."""

    name: str
    cells: list[str]

    @cached_property
    def filled(self) -> list[str]:
        """The cells that are not blank."""
        return [cell for cell in self.cells if cell.strip()]

    @cached_property
    def characters(self) -> float:
        """Of a cell that is not blank, on average."""
        return sum(map(len, self.filled)) / len(self.filled) if self.filled else 0.0

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of the name."""
        return frozenset(word.casefold() for word in _WORD.findall(self.name))

    @cached_property
    def is_called_message(self) -> bool:
        """Whether the name is one for what people wrote."""
        return any(map(_MESSAGE_WORD.fullmatch, self.words)) and not self.is_called_otherwise

    @cached_property
    def is_called_otherwise(self) -> bool:
        """Whether the name is one for what is known about it."""
        return any(map(_OTHER_WORD.fullmatch, self.words))

    @cached_property
    def is_prose(self) -> bool:
        """Whether the cells have several words."""
        return self._mostly(_SEVERAL_WORDS)

    @cached_property
    def is_key(self) -> bool:
        """Whether every cell has a value of its own."""
        return bool(self.cells) and len(set(self.filled)) == len(self.cells)

    @cached_property
    def is_photo(self) -> bool:
        """Whether the cells name photos in the way that PRISM takes them."""
        return self._mostly(_PATH_OF_PHOTO) and not self.is_url

    @cached_property
    def is_url(self) -> bool:
        """Whether the cells are web addresses."""
        return self._mostly(_URL)

    @cached_property
    def is_text(self) -> bool:
        """Whether the cells may be what people wrote."""
        return bool(self.filled) and not (self.is_photo or self.is_url or self._mostly(_NUMBER))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The column's values, if they are a list of labels; else none."""
        values: dict[str, str] = {}
        for cell in self.filled:
            values.setdefault(fold(cell), clean_value(cell))
            if len(values) > _MOST_LABELS:
                return ()
        found = [value for value in values.values() if not is_blank(value)]
        short = all(len(value) <= _MOST_LABEL_CHARACTERS and value.isprintable() for value in found)
        return tuple(found) if short and 2 <= len(found) < len(self.filled) else ()

    def _mostly(self, pattern: re.Pattern[str]) -> bool:
        matches = sum(pattern.match(cell.strip()) is not None for cell in self.filled)
        return bool(matches) and matches >= _MOSTLY * len(self.filled)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What somebody has said. path and label: of the input, as the job says them; columns: to code."""

    project: str
    path: str
    label: str
    model: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is proposed.

    job: what is decided of a job file; prompt: a prompt file; notes: what a person should know of it.
    The names are columns of the table; None where it has none of that kind.
    """

    project: str
    job: dict[str, Any]
    prompt: dict[str, Any]
    message: str | None
    row_id: str | None
    title: str | None
    sentiment: str | None
    image: str | None
    labels: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def project_name(stem: str) -> str:
    """Return a project's name for a file's."""
    return re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_")[:64].strip("_") or "project"


def propose(sample: Sample, wishes: Wishes) -> Proposal:
    """Return a job and a prompt file for a table."""
    profiles = [Profile(name, sample.cells(index)) for index, name in enumerate(sample.columns)]
    columns = wishes.columns or STARTING_COLUMNS
    image = _image(profiles, columns)
    row_id = _row_id(profiles)
    taken = {one for one in (image, row_id) if one is not None}
    # A job cannot say a column without a name.
    message = _message([one for one in profiles if one.name and one.name not in taken], bool(image))
    title = _named([one for one in profiles if one.name != message], "Title", _TITLES)
    sentiment = _named(profiles, "Sentiment", ("sentiment",))
    labels = {name: _labels_for(name, profiles) for name in columns}
    called = {"RowID": row_id, "Message": message, "Title": title, "Sentiment": sentiment}
    return Proposal(
        project=wishes.project,
        job=_job(sample, wishes, {name: one for name, one in called.items() if one not in (None, name)}),
        prompt=_prompt(columns, labels, image),
        message=message,
        row_id=row_id,
        title=title,
        sentiment=sentiment,
        image=image,
        labels={name: found for name, found in labels.items() if found},
        notes=tuple(_notes(sample, profiles, message, row_id)),
    )


def _message(profiles: list[Profile], optional: bool) -> str | None:
    """Return the column that is asked about. optional: photos are asked about, and a text may be missing."""
    if any(one.name == "Message" for one in profiles):
        return "Message"
    texts = [one for one in profiles if one.is_text]
    named = [one for one in profiles if one.is_called_message and (one.is_text or not texts)]
    rest = [one for one in texts if not one.is_called_otherwise] or texts or profiles
    candidates = named or ([one for one in rest if one.is_prose] if optional else rest)
    return max(candidates, key=lambda one: one.characters).name if candidates else None


def _row_id(profiles: list[Profile]) -> str | None:
    """Return the column that names each row."""
    if any(one.name == "RowID" for one in profiles):
        return "RowID"
    if len(profiles) == 1:
        return None
    keys = [one for one in profiles if one.is_key]
    for wanted in _ROW_IDS:
        for one in keys:
            if fold_key(one.name) == wanted:
                return one.name
    return next((one.name for one in keys if one.words & {"id", "uuid", "guid"}), None)


def _named(profiles: list[Profile], exact: str, names: tuple[str, ...]) -> str | None:
    there = [one.name for one in profiles]
    if exact in there:
        return exact
    return next((one for wanted in names for one in there if one.casefold() == wanted), None)


def _image(profiles: list[Profile], coded: tuple[str, ...]) -> str | None:
    """Return the column that names photos; not one whose name a prompt file cannot say."""
    reserved = {"message", "title", "sentiment", "rowid", *map(fold_key, coded)}
    for one in profiles:
        plain = one.name == one.name.strip() and one.name.isprintable() and 0 < len(one.name) <= 200
        if one.is_photo and plain and fold_key(one.name) not in reserved:
            return one.name
    return None


def _labels_for(name: str, profiles: list[Profile]) -> tuple[str, ...]:
    """Return the labels to start with: those of the table's own column of that meaning, or the usual ones."""
    meaning = fold_key(name)
    usual = _LABELS.get(meaning, ())
    for wanted in _SAME_MEANING.get(meaning, (meaning,)):
        for one in profiles:
            if fold_key(one.name) == wanted and one.labels:
                return _with_usual(one.labels, usual)
    return usual


def _with_usual(found: tuple[str, ...], usual: tuple[str, ...]) -> tuple[str, ...]:
    """Complete values that are all usual ones: few rows without a mixed sentiment mean little."""
    known = {fold(one) for one in usual}
    if not all(fold(one) in known for one in found):
        return found
    there = {fold(one) for one in found}
    missing = [one for one in usual if fold(one) not in there]
    lower, upper = all(map(str.islower, found)), all(map(str.isupper, found))
    return (*found, *(one.lower() if lower else one.upper() if upper else one for one in missing))


def _job(sample: Sample, wishes: Wishes, called: Mapping[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    if sample.kind == "tsv":
        table["format"] = "tsv" if sample.delimiter == "\t" else "csv"
    if sample.delimiter != "," and table.get("format") != "tsv":
        table["delimiter"] = sample.delimiter
    if called:
        table["columns"] = dict(called)
    return {
        "project": {"name": wishes.project, "version": "v1"},
        "model": {"name": wishes.model},
        "input_queue": [{"path": wishes.path, "label": wishes.label}],
        "prompts": {"config_file": f"prompts/{wishes.project}_prompt.json"},
        "table": table,
    }


def _prompt(
    columns: tuple[str, ...], labels: Mapping[str, tuple[str, ...]], image: str | None
) -> dict[str, Any]:
    prompt: dict[str, Any] = {
        "_about": "Edit the instructions, the columns and their labels; docs/prompt-files.md has all keys.",
        "system_prompt": _instructions(columns),
        "columns_to_code": list(columns),
        "validation_rules": {
            f"valid_{name.casefold()}": list(found) for name, found in labels.items() if found
        },
        "not_applicable_defaults": {name: _default(labels[name]) for name in columns},
    }
    return {**prompt, "image_column": image} if image else prompt


def _instructions(columns: tuple[str, ...]) -> str:
    lines = [
        f"- {name}: {_MEANINGS.get(fold_key(name), 'write here what belongs there')}." for name in columns
    ]
    return (
        "You read what people write. They write in many languages and with typos.\n\n"
        "Fill in these columns for every message:\n" + "\n".join(lines) + "\n\n"
        f"If a message says nothing that can be judged, set {columns[0]} to NOT_APPLICABLE."
    )


def _default(labels: tuple[str, ...]) -> str:
    folded = {fold(one): one for one in labels}
    return next((folded[one] for one in _NOT_APPLICABLE if one in folded), "-")


def _notes(sample: Sample, profiles: list[Profile], message: str | None, row_id: str | None) -> Iterable[str]:
    by_name = {one.name: one for one in profiles}
    if not sample.rows:
        yield "the file has no row to look at: the columns are guessed by their names alone"
    elif message is not None and not by_name[message].is_text:
        yield f"{message}: does not look like text; name another under table.columns"
    if sample.left_out:
        yield f"{sample.left_out} of the first rows have too few or many cells, or are too long: they fail"
    if row_id is not None and sample.rows and not by_name[row_id].is_key:
        yield f"{row_id}: some rows share one, or have none; a file with a RowID twice is refused"
    for one in profiles:
        if one.is_url and any(_PATH_OF_PHOTO.match(cell) for cell in one.filled[:20]):
            yield f"{one.name}: photos on the web are not fetched; save them, and name their files"


def said_delimiter(sample: Sample) -> str:
    """Return how a table is written, for people."""
    if sample.kind in ("jsonl", "parquet"):
        return {"jsonl": "JSON lines", "parquet": "Parquet"}[sample.kind]
    return f"CSV, {DELIMITERS.get(sample.delimiter, sample.delimiter)} between cells"
