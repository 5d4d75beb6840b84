"""YAML in which every scalar stays the text it is, and every key knows its line.

YAML's own ideas (`NO` = false, `1.10` = 1.1, `010` = 8) so cannot change a value; only a bare `~`, `null` or
nothing at all is None. What would have an effect that nobody sees is refused: a key that stands twice
(elsewhere the last one wins), a merge key, a tag, a line end that only YAML knows.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

# As YAML 1.2 writes "no value".
_NULLS = ("", "~", "null", "Null", "NULL")
_TAGS = {
    yaml.ScalarNode: "tag:yaml.org,2002:str",
    yaml.SequenceNode: "tag:yaml.org,2002:seq",
    yaml.MappingNode: "tag:yaml.org,2002:map",
}
# YAML 1.1 folds them to a space in the middle of a quoted text.
_HIDDEN_LINE_END = re.compile("[\x85\u2028\u2029]")
_SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}

MAX_NODES = 10_000
MAX_DEPTH = 20

Path = tuple[str | int, ...]


class YamlRefused(ValueError):
    """YAML that cannot be used: one line; `line` counts from 1, 0 where none can be named."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.line = line


@dataclass(slots=True)
class MarkedYaml:
    """What stands in a file, and in which line the key or item of each path stands (from 1)."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """Return the line of a path, or of what is nearest above it; 0 for none."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 0)


def load(text: str) -> MarkedYaml:
    """Return what a text holds: mappings, lists, texts and None. Raises YamlRefused."""
    hidden = _HIDDEN_LINE_END.search(text)
    if hidden is not None:
        what = f"the invisible character U+{ord(hidden[0]):04X} ends a line in YAML; take it out"
        raise YamlRefused(what, text.count("\n", 0, hidden.start()) + 1)
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlRefused(f"not YAML: {_problem(error)}", mark.line + 1 if mark is not None else 0) from None
    except (yaml.YAMLError, RecursionError, UnicodeEncodeError) as error:
        raise YamlRefused(f"not YAML: {' '.join(str(error).split())}") from None
    found = MarkedYaml()
    if node is not None:
        found.value = _Reader(found.lines).read(node, (), 0)
    return found


def quoted(text: str) -> str:
    """Return a text as a double-quoted scalar: `load` gives it back unchanged, as does any other YAML parser.

    Raises ValueError for half a surrogate pair, which YAML cannot hold.
    """
    text.encode()
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _problem(error: yaml.MarkedYAMLError) -> str:
    if "'\\t'" in (error.problem or ""):
        return "a tab stands where YAML takes spaces only"
    return " ".join(f"{error.context or ''} {error.problem or ''}".split())


class _Reader:
    """Counts what a file unfolds to: an alias of an alias of an alias makes gigabytes of a kilobyte."""

    def __init__(self, lines: dict[Path, int]) -> None:
        self._lines = lines
        self._nodes = 0

    def read(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            what = f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}"
            raise YamlRefused(what, _line(node))
        self._lines.setdefault(path, _line(node))
        if node.tag != _TAGS[type(node)]:
            name = str(node.tag).replace("tag:yaml.org,2002:", "!!")
            raise YamlRefused(f"the tag {name!r:.80} has no meaning here; take it out", _line(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, number), depth + 1) for number, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        try:
            self._nodes += len(node.value.encode()) // 100
        except UnicodeEncodeError:
            raise YamlRefused("not YAML: half a surrogate pair is no character", _line(node)) from None
        # Whoever writes "null" in quotes means the word.
        return None if node.style is None and node.value in _NULLS else str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise YamlRefused("a key is a list or a mapping; a key is one word", _line(key))
            name = str(key.value)
            if name == "<<" and key.style is None:
                raise YamlRefused("the merge key '<<' is not followed; write the keys out", _line(key))
            if name in found:
                raise YamlRefused(f"the key {name!r:.80} stands twice", _line(key))
            self._lines[(*path, name)] = _line(key)
            found[name] = self.read(value, (*path, name), depth + 1)
        return found


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1 if node.start_mark is not None else 0
