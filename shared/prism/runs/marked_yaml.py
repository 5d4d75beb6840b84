"""YAML in which every scalar stays the text it is, and every key knows its line.

YAML's own ideas (`NO` = false, `1.10` = 1.1, `010` = 8) so cannot change a value, and no tag can build an
object. A key that stands twice is refused: elsewhere the last one wins, in silence.
"""

from dataclasses import dataclass, field
from typing import Any

import yaml

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
    """Return what a text holds: mappings, lists and texts. Raises YamlRefused."""
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise YamlRefused(f"not YAML: {what}", mark.line + 1 if mark is not None else 0) from None
    except (yaml.YAMLError, RecursionError, UnicodeEncodeError) as error:
        raise YamlRefused(f"not YAML: {' '.join(str(error).split())}") from None
    found = MarkedYaml()
    if node is not None:
        found.value = _Reader(found.lines).read(node, (), 0)
    return found


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
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, number), depth + 1) for number, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        try:
            self._nodes += len(node.value.encode()) // 100
        except UnicodeEncodeError:
            raise YamlRefused("not YAML: half a surrogate pair is no character", _line(node)) from None
        return str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise YamlRefused("a key is a list or a mapping; a key is one word", _line(key))
            name = str(key.value)
            if name in found:
                raise YamlRefused(f"the key {name!r:.80} stands twice", _line(key))
            self._lines[(*path, name)] = _line(key)
            found[name] = self.read(value, (*path, name), depth + 1)
        return found


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1 if node.start_mark is not None else 0
