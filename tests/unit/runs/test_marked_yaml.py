"""YAML that changes no value: texts as they stand, with their lines."""

import contextlib

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from prism.runs.marked_yaml import YamlRefused, load, quoted

TEXT = """\
# a comment
project:
  name: NO        # a name
files:
  - a.csv
  - path: 010
    label: 1.10
"""


def test_each_value_is_its_text_and_each_key_knows_its_line() -> None:
    found = load(TEXT)
    assert found.value == {"project": {"name": "NO"}, "files": ["a.csv", {"path": "010", "label": "1.10"}]}
    lines = {path: found.line(path) for path in found.lines if path}
    assert lines == {
        ("project",): 2,
        ("project", "name"): 3,
        ("files",): 4,
        ("files", 0): 5,
        ("files", 1): 6,
        ("files", 1, "path"): 6,
        ("files", 1, "label"): 7,
    }


def test_what_is_not_there_stands_where_it_would_stand() -> None:
    found = load(TEXT)
    assert found.line(("project", "version")) == 3 - 1
    assert found.line(("files", 1, "labels", 3)) == 6
    assert load("").line(("project",)) == 0


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("a: 1\na: 2", "the key 'a' stands twice", 2),
        ("a: 1\n? {b: c}\n: d", "a key is a list or a mapping", 2),
        ("a:\n  - [b", "not YAML", 2),
        ('a: "\\ud800"', "not YAML: half a surrogate pair", 1),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(text: str, what: str, line: int) -> None:
    with pytest.raises(YamlRefused, match=what) as refused:
        load(text)
    assert refused.value.line == line


@pytest.mark.parametrize("word", ["", "~", "null", "Null", "NULL"])
def test_only_a_bare_word_is_nothing(word: str) -> None:
    assert load(f"a: {word}\nb: [{word}]\nc: '{word}'\nd: \"{word}\"").value == {
        "a": None,
        "b": [None] if word else [],
        "c": word,
        "d": word,
    }


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
plain = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff"))


@given(texts)
@example("\x85\u2028\ufeff\x7f\0")
@example('👩\u200d💻 # no comment: \\ "')
def test_a_quoted_text_comes_back_as_it_was(text: str) -> None:
    assert load(f"a: {quoted(text)}  # {{").value == {"a": text}
    assert load(f"- {{{quoted(text)}: {quoted(text)}}}").value == [{text: text}]
    assert yaml.safe_load(quoted(text)) == text
    assert "\n" not in quoted(text)


@given(texts)
def test_what_others_quote_comes_back_too(text: str) -> None:
    with contextlib.suppress(YamlRefused):  # PyYAML leaves some invisible line ends as they are
        for style in ("'", '"'):
            written = yaml.safe_dump({"a": text}, default_style=style, allow_unicode=True)
            assert load(written).value == {"a": text}


@given(plain)
def test_a_text_in_single_quotes_is_that_text(text: str) -> None:
    assert load("a: '" + text.replace("'", "''") + "'").value == {"a": text}


def test_half_a_pair_cannot_be_quoted() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        quoted("\ud800")


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#\n \t?,%@`~", max_size=40))
def test_whatever_the_text_it_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(YamlRefused):
        load(text)
