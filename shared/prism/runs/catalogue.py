"""`models.json` beside the job files: which models there are, where they answer, and what they cost.

The lists and their first fields are those of PRISM v6 (seeds/prism-v6-local.md, "Model Configuration"),
the others are ours. Unknown fields are ignored. A model that is not listed has an entry all the same: it
is the default server's.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from prism.annotation.strict_json import NotStrictJson, load_strictly
from prism.runs.naming import full_model_name

FILE_NAME = "models.json"
MAX_CATALOGUE_BYTES = 256_000
BackendKind: TypeAlias = Literal["ollama", "openai"]
_MILLION = Decimal(1_000_000)
_KEY_NAME = r"^[A-Z][A-Z0-9_]*(KEY|TOKEN)$"
# What somebody may have put there is not repeated in an error.
_MAY_HOLD_A_SECRET = ("api_key_env", "base_url")
_MESSAGES = {"tuple_type": "must be a list", "model_type": "must be an object"}
_URL = re.compile(r"(?:https?://)?(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?(?:/[^\s@?#]*)?")
# What a run's record is read with: see `entry_of`.
_RECORDED = {"recorded": True}


class CatalogueRefused(ValueError):
    """A `models.json`, or a run's entry of it, that cannot be used: one line with key and what is allowed."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Price(_Part):
    """Money per million tokens, of the prompt and of the completion."""

    prompt: Decimal = Field(ge=0, le=1_000_000, description="money per million tokens of the prompt")
    completion: Decimal = Field(ge=0, le=1_000_000, description="money per million tokens of the reply")
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="as ISO 4217 has it")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """Return the exact price of so many tokens, in `currency`."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / _MILLION


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ModelEntry(_Part):
    """One model.

    id: stands in generated run ids. backend: a BackendKind; that of a run's record may be a newer one.
    base_url: one or several servers; none: the default server.
    api_key_env: the environment variable that holds the key; the key itself never stands in the file.
    context_length: tokens that the server gives the model, where it does not refuse longer prompts itself.
    supports_schema: whether replies are held to a schema; "json_object": to JSON of any kind.
    """

    id: str | None = Field(None, pattern=r"^[A-Za-z0-9]{1,10}$", description="letters and digits")
    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f]+$")
    description: str = Field("", max_length=1000)
    recommended_for: str = Field("", max_length=200)
    backend: str = "ollama"
    base_url: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field((), max_length=64)
    api_key_env: str | None = Field(None, pattern=_KEY_NAME, max_length=100)
    price: Price | None = None
    context_length: int | None = Field(None, ge=1, le=1_000_000_000)
    supports_schema: Literal[True, False, "json_object"] | None = None
    supports_images: bool | None = None

    @field_validator("backend")
    @classmethod
    def _known(cls, backend: str, info: ValidationInfo) -> str:
        if backend not in get_args(BackendKind) and not info.context:
            raise ValueError(f"must be {' or '.join(map(repr, get_args(BackendKind)))}")
        return backend

    @field_validator("base_url")
    @classmethod
    def _plain(cls, urls: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not all(map(_is_address, urls)) and not info.context:
            raise ValueError(
                "must be http(s)://host[:port][/path], a port up to 65535, without user, password and query"
            )
        return urls

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.backend == "openai" and not self.base_url:
            raise ValueError("a model of backend openai needs a base_url")
        return self

    def cost(self, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        """Return what so many tokens cost, in the price's currency; None without a price."""
        return self.price.cost(prompt_tokens, completion_tokens) if self.price else None


class BatchSize(_Part):
    """A batch size to choose, for people."""

    size: int = Field(ge=1, le=200, description="rows per model call")
    description: str = Field("", max_length=1000)
    speed_multiplier: Decimal = Field(Decimal(1), gt=0, le=1000)


class Catalogue(_Part):
    """What `models.json` says."""

    available_models: tuple[ModelEntry, ...] = Field((), max_length=1000)
    batch_sizes: tuple[BatchSize, ...] = Field((), max_length=100)

    @model_validator(mode="after")
    def _unambiguous(self) -> Self:
        _refuse_twice("name", (full_model_name(entry.name) for entry in self.available_models))
        _refuse_twice("id", (entry.id for entry in self.available_models if entry.id is not None))
        return self

    def entry(self, name: str) -> ModelEntry:
        """Return the entry of a model (a name without a tag means `latest`); a plain one if it has none."""
        return self._by_name.get(full_model_name(name)) or ModelEntry.model_construct(name=name)

    @cached_property
    def ids(self) -> dict[str, str]:
        """The ids of the models that have one, by name."""
        return {entry.name: entry.id for entry in self.available_models if entry.id is not None}

    @cached_property
    def _by_name(self) -> Mapping[str, ModelEntry]:
        return {full_model_name(entry.name): entry for entry in self.available_models}


def entry_of(fields: Mapping[str, Any], model: str | None) -> ModelEntry:
    """Return the entry that a run's record carries; a plain one for a run without.

    A version of PRISM beside this one may have written it, and a job may name any model: name, backend and
    addresses are taken as they are, for whoever connects to judge. Raises CatalogueRefused for the rest.
    """
    try:
        entry = ModelEntry.model_validate({**fields, "name": "-"}, context=_RECORDED)
    except ValidationError as error:
        raise CatalogueRefused(f"model_entry: {_first_problem(error)}") from None
    return entry.model_copy(update={"name": str(fields.get("name") or model or "-")})


def read_catalogue(folder: Path) -> Catalogue:
    """Return what `models.json` in the folder of the job files says; an empty catalogue without one.

    Raises CatalogueRefused.
    """
    try:
        with (folder / FILE_NAME).open("rb") as stream:
            source = stream.read(MAX_CATALOGUE_BYTES + 1)
    except FileNotFoundError:
        return Catalogue()
    except OSError as error:
        raise CatalogueRefused(f"{FILE_NAME}: cannot be read: {error.strerror}") from None
    return parse_catalogue(source, FILE_NAME)


def parse_catalogue(source: bytes, where: str = FILE_NAME) -> Catalogue:
    """Return the catalogue in JSON; raise CatalogueRefused with the first wrong key."""
    if len(source) > MAX_CATALOGUE_BYTES:
        raise CatalogueRefused(f"{where}: more than {MAX_CATALOGUE_BYTES} bytes: no such file is so long")
    try:
        fields = load_strictly(source.decode("utf-8-sig"))
    except (UnicodeDecodeError, NotStrictJson) as error:
        raise CatalogueRefused(f"{where}: not JSON in UTF-8: {_one_line(str(error))}") from None
    if not isinstance(fields, dict):
        raise CatalogueRefused(f"{where}: must be an object with available_models and batch_sizes")
    try:
        return Catalogue.model_validate(fields)
    except ValidationError as error:
        raise CatalogueRefused(f"{where}: {_first_problem(error)}") from None


def _is_address(url: str) -> bool:
    match = _URL.fullmatch(url)
    if match is None:
        return False
    try:
        IPv6Address(match[1] or "::")
    except ValueError:
        return False
    return int(match[2] or 0) <= 65535


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(step) for step in first["loc"])
    message = _MESSAGES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    shown = isinstance(first["input"], str | bool) and first["loc"][-1] not in _MAY_HOLD_A_SECRET
    value = f" (it is {first['input']!r:.80})" if shown else ""
    return _one_line(f"{key}: {message}{value}" if key else message)


def _refuse_twice(what: str, values: Iterable[str]) -> None:
    twice = [value for value, number in Counter(values).items() if number > 1]
    if twice:
        raise ValueError(f"available_models: the {what} {twice[0]} stands there twice; give each its own")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
