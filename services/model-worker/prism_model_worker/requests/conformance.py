"""Whether a value meets a schema that `schema.py` has read. Values are those of `strict_json`."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from prism.annotation.column import quote, shorten
from prism.annotation.strict_json import NumberText
from prism_model_worker.requests.json_text import compact

Node = Mapping[str, Any]
_COUNTED = {"Length": "characters", "Items": "items", "Properties": "keys"}


def problem(value: Any, node: Node, path: str) -> str | None:
    """Return the first thing that is wrong with the value at `path`, in one line; None if nothing is."""
    return (
        _type_problem(value, node, path)
        or _choice_problem(value, node, path)
        or _inner_problem(value, node, path)
        or _any_of_problem(value, node, path)
    )


def _type_problem(value: Any, node: Node, path: str) -> str | None:
    kind = _kind(value)
    if kind == "number" and not math.isfinite(float(value)):
        return f"{path} is a number that is too large"
    wanted = node.get("type", kind)
    types = wanted if isinstance(wanted, list) else [wanted]
    if kind in types or (kind == "number" and "integer" in types and float(value).is_integer()):
        return None
    return f"{path} is {_article(kind)}, not {' or '.join(map(_article, types))}"


def _choice_problem(value: Any, node: Node, path: str) -> str | None:
    if "enum" in node and not any(_same(value, one) for one in node["enum"]):
        return f"{path} is not one of {shorten(compact(node['enum']), 200)}"
    if "const" in node and not _same(value, node["const"]):
        return f"{path} is not {shorten(compact(node['const']), 200)}"
    return None


def _inner_problem(value: Any, node: Node, path: str) -> str | None:
    if isinstance(value, dict):
        return _object_problem(value, node, path)
    if isinstance(value, list):
        return _array_problem(value, node, path)
    if isinstance(value, NumberText):
        return _size_problem(float(value), node, path)
    return _count_problem(len(value), node, "Length", path) if isinstance(value, str) else None


def _any_of_problem(value: Any, node: Node, path: str) -> str | None:
    found = [problem(value, part, path) for part in node.get("anyOf", ())]
    return found[0] if found and None not in found else None


def _object_problem(value: Mapping[str, Any], node: Node, path: str) -> str | None:
    missing = next((name for name in node.get("required", ()) if name not in value), None)
    if missing is not None:
        return f"{path} lacks {quote(shorten(missing, 40))}"
    if found := _count_problem(len(value), node, "Properties", path):
        return found
    properties, others = node.get("properties", {}), node.get("additionalProperties", True)
    for name, item in value.items():
        where = f"{path}.{shorten(name, 40)}"
        part = properties.get(name, others)
        if part is False:
            return f"{where} was not asked for"
        if found := problem(item, {} if part is True else part, where):
            return found
    return None


def _array_problem(value: list[Any], node: Node, path: str) -> str | None:
    if found := _count_problem(len(value), node, "Items", path):
        return found
    part = node.get("items", {})
    all_found = (problem(item, part, f"{path}[{number}]") for number, item in enumerate(value))
    return next((found for found in all_found if found), None)


def _count_problem(count: int, node: Node, what: str, path: str) -> str | None:
    least, most = node.get(f"min{what}", 0), node.get(f"max{what}", math.inf)
    if least <= count <= most:
        return None
    bound = f"fewer than {least}" if count < least else f"more than {most}"
    return f"{path} has {count} {_COUNTED[what]}, {bound}"


def _size_problem(number: float, node: Node, path: str) -> str | None:
    if number < node.get("minimum", -math.inf) or number <= node.get("exclusiveMinimum", -math.inf):
        return f"{path} is too small"
    if number > node.get("maximum", math.inf) or number >= node.get("exclusiveMaximum", math.inf):
        return f"{path} is too large"
    return None


def _kind(value: Any) -> str:
    if isinstance(value, NumberText):
        return "number"
    if value is None:
        return "null"
    return {bool: "boolean", dict: "object", list: "array", str: "string"}[type(value)]


def _article(kind: str) -> str:
    if kind == "null":
        return kind
    return f"{'an' if kind[0] in 'aoi' else 'a'} {'text' if kind == 'string' else kind}"


def _same(value: Any, wanted: Any) -> bool:
    """Whether a strictly parsed value is a plain one, as JSON sees it: 1 is 1.0, and neither is true."""
    if isinstance(value, NumberText):
        if isinstance(wanted, bool) or not isinstance(wanted, int | float):
            return False
        # A whole number beyond 2^53 is not its neighbour.
        return Decimal(value) == wanted if isinstance(wanted, int) else float(value) == wanted
    if isinstance(value, dict) and isinstance(wanted, dict):
        return value.keys() == wanted.keys() and all(_same(value[name], wanted[name]) for name in value)
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_same, value, wanted))
    return type(value) is type(wanted) and bool(value == wanted)
