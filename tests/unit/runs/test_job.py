"""Job files: YAML's ideas change nothing, and whatever is wrong is one line."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.runs.job import Job, JobRefused, Merge, parse_job, read_job
from prism.tables import TableFormat

SEED = """
project:
  name: "customer_feedback"
  version: "v1"
model:
  name: "llama3.2:1b"
  batch_size: 10
  retries: 3
  delay: 0.5
input_queue:
  - path: "data/feedback.csv"
    label: "feedback"
parallelization: {enabled: true, workers: 4, split_strategy: "auto"}
output:
  directory: "output/"
  naming_pattern: "{run_id}_{label}"
  checkpoints: {directory: "checkpoints/", interval: 25, cleanup_after_merge: NO}
merge:
  auto_merge: true
  condition: "all_success"
  sort_by: "RowID"
prompts:
  config_file: "prompts.json"
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "job.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_job_of_the_seed_is_read(tmp_path: Path) -> None:
    job, fields = read_job(written(tmp_path, SEED))
    assert job.project.name == "customer_feedback"
    assert (job.model.batch_size, job.model.retries, job.model.delay) == (10, 3, 0.5)
    assert job.output.checkpoints.interval == 25
    assert job.output.checkpoints.cleanup_after_merge is False
    assert job.merge.sort_by == "RowID"
    assert parse_job(json.loads(json.dumps(fields))) == job


@pytest.mark.parametrize(
    "text", ["", "{}", "---\n", "# nothing\n", "project:\nmodel: ~\nmerge: null\n", "\ufeff{}"]
)
def test_what_is_not_said_has_its_default(tmp_path: Path, text: str) -> None:
    assert read_job(written(tmp_path, text))[0] == Job()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("project: {name: NO}", "project.name", "NO"),
        ("project: {version: 1.10}", "project.version", "1.10"),
        ("project: {version: 010}", "project.version", "010"),
        ("project: {name: 0x1F}", "project.name", "0x1F"),
        ("model: {name: 12:30:45}", "model.name", "12:30:45"),
        ("model: {name: null}", "model.name", None),
        ("model: {name: }", "model.name", None),
        ("model: {batch_size: 010}", "model.batch_size", 10),
        ("merge: {sort_by: on}", "merge.sort_by", "on"),
        ("merge: {sort_by: ~}", "merge.sort_by", None),
        ("merge: {sort_by: 2026-11-21}", "merge.sort_by", "2026-11-21"),
        ("merge: {max_failed: 5%}", "merge.max_failed", "5%"),
        ("table: {delimiter: ';'}", "table.delimiter", ";"),
        ('table: {delimiter: "\\t"}', "table.delimiter", "\t"),
        ("project: {version: 1.0}", "project.version", "1.0"),
        ("project: {version: 2026-11-21}", "project.version", "2026-11-21"),
        ("project: {version: 1e3}", "project.version", "1e3"),
        ("project: {name: 1_000}", "project.name", "1_000"),
        ("project: {name: NaN}", "project.name", "NaN"),
        ("model: {batch_size: 1_0}", "model.batch_size", 10),
        ("model: {batch_size: '10'}", "model.batch_size", 10),
        ("model: {delay: .5}", "model.delay", 0.5),
        ("merge: {sort_by: 'null'}", "merge.sort_by", "null"),
        ("merge: {sort_by: '~'}", "merge.sort_by", "~"),
        ("merge: {sort_by: ''}", "merge.sort_by", None),
        ("merge: {sort_by: yes}", "merge.sort_by", "yes"),
        ("merge: {max_failed: 010}", "merge.max_failed", "010"),
        ("merge: {max_failed: 1.50%}", "merge.max_failed", "1.50%"),
        (
            "table: {required_columns: [NO, 1.10, 010, 12:30]}",
            "table.required_columns",
            ["NO", "1.10", "010", "12:30"],
        ),
        ("table: {columns: {Message: NO}}", "table.columns", {"Message": "NO"}),
        ("x: &a {name: b}\nproject: *a".replace("x:", "model:"), "project.name", "b"),
        ("%YAML 1.1\n---\nproject: {name: NO}", "project.name", "NO"),
        ("budget: {tokens: 1_000}", "budget.tokens", 1000),
    ],
)
def test_yamls_traps(tmp_path: Path, text: str, name: str, value: object) -> None:
    found: object = read_job(written(tmp_path, text))[0]
    for step in name.split("."):
        found = getattr(found, step)
    assert found == value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (word, value)
        for value, words in (
            (True, "yes Yes YES on On true True TRUE y 1"),
            (False, "no No NO off Off false n 0"),
        )
        for word in words.split()
    ],
)
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_what_is_yes_and_what_is_no(tmp_path: Path, word: str, value: bool, quote: str) -> None:
    text = f"parallelization: {{enabled: {quote}{word}{quote}}}"
    assert read_job(written(tmp_path, text))[0].parallelization.enabled is value


@pytest.mark.parametrize("word", ["ja", "maybe", "2", "-1", "0.5", "enabled", "[]", "[yes]", "{}"])
def test_what_is_neither_yes_nor_no(tmp_path: Path, word: str) -> None:
    with pytest.raises(JobRefused, match=r"line 1: parallelization\.enabled: "):
        read_job(written(tmp_path, f"parallelization: {{enabled: {word}}}"))


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<<: {model: {}}", "line 1: the merge key '<<' is not followed; write the keys out"),
        ("m: &m {name: a}\nmodel:\n  <<: *m", "line 3: the merge key '<<'"),
        ("model:\n\tname: a", "line 2: not YAML: a tab stands where YAML takes spaces only"),
        ("model: {name: a\t}", "a tab stands"),
        ("project: {name: a}\n---\nproject: {name: b}", "not YAML: expected a single document"),
        ("model:\n  name: !!str a\n  batch_size: !!int 5", "line 3: the tag '!!int' has no meaning here"),
        ("model: {name: !custom a}", "the tag '!custom'"),
        ("model: !!python/name:os.system", "the tag '!!python/name:os.system'"),
        ("model: !!binary aGk=", "the tag '!!binary'"),
        ('model: {name: "a\x85b"}', "line 1: the invisible character U+0085 ends a line in YAML"),
        ('model:\n  name: "a\u2028b"', "line 2: the invisible character U+2028"),
        ("model: {batch_size: 0x0A}", "model.batch_size"),
        ("model: {batch_size: 0o12}", "model.batch_size"),
        ("model: {batch_size: 0b11}", "model.batch_size"),
        ("model: {batch_size: 12:30}", "model.batch_size"),
        ("model: {delay: 1:30}", "model.delay"),
        ("model:\n  delay: 0,5", "model.delay"),
        ("merge: {max_failed: ٣}", "merge.max_failed"),
        ("table: {columns: {Message: ~}}", "table.columns.Message"),
        ("table: {required_columns: [~]}", "table.required_columns.0"),
        ("model: *nowhere", "line 1: not YAML: found undefined alias"),
        ("- a\n- b\n", "mapping"),
        ("just text", "mapping"),
        ("model: [1]", "model"),
        ("model: {batch_size: many}", "model.batch_size"),
        ("model: {batch_size: 0}", "model.batch_size"),
        ("model: {batch_size: 1e3}", "model.batch_size"),
        ("model: {delay: nan}", "model.delay"),
        ("model: {delay: inf}", "model.delay"),
        ("model: {delay: -1}", "model.delay"),
        ("model: {retries: 21}", "model.retries"),
        ("project: {name: ../x}", "project.name"),
        ('project: {name: "a\\n"}', "project.name"),
        ("output: {naming_pattern: '../{label}'}", "output.naming_pattern"),
        ("output: {naming_pattern: '{nope}'}", "output.naming_pattern"),
        ("merge: {condition: sometimes}", "merge.condition"),
        ("merge: {max_failed: -1}", "merge.max_failed"),
        ("merge: {max_failed: 5 %}", "merge.max_failed"),
        ("table: {delimiter: ab}", "table.delimiter"),
        ("table: {delimiter: '\"'}", "table.delimiter"),
        ('table: {delimiter: "\\n"}', "table.delimiter"),
        ('table: {delimiter: "\\0"}', "table.delimiter"),
        ("table: {format: xlsx}", "table.format"),
        ("table: {format: tsv, delimiter: ';'}", "format is tsv, and delimiter is ';'"),
        ("table: {columns: {RowID: id, Message: id}}", "'id' of the file cannot be two columns"),
        ("table: {columns: {Message: ''}}", "a name is empty"),
        ("output: {formats: []}", "output.formats"),
        ("output: {formats: [csv, csv]}", "'csv' stands there twice"),
        ("output: {formats: [xml]}", "output.formats"),
        ("output: {columns: []}", "output.columns"),
        ("output: {columns: [a, b, a]}", "'a' stands there twice"),
        ("output: {directory: /etc}", "must be a folder below"),
        ("output: {directory: 's3://key:secret@bucket/x'}", "no credentials"),
        ("output: {directory: 's3://bucket/../x'}", "or a URI such as"),
        ("output: {directory: 'simplecache::s3://bucket'}", "or a URI such as"),
        ("output: {directory: 's3://bucket/a b'}", "or a URI such as"),
        ("output: {directory: 's3://'}", "or a URI such as"),
        ("output: {checkpoints: {directory: 's3://bucket/x'}}", "must be a folder below"),
        ("a: [b", "not YAML"),
        ("a: !!python/object/apply:os.system [id]\nb: c: d", "not YAML"),
        ("? [a]\n: b", "line 1: a key is a list"),
        (
            "model: {batch_size: 5}\nmerge:\n  sort_by: a\n  sort_by: b",
            "line 4: the key 'sort_by' stands twice",
        ),
        ("[" * 5000, "not YAML"),
        ("a: &a [*a]", "nested deeper than"),
        ('a: "\\ud800"', "not YAML"),
        (b"\xff\xfe", "cannot be read"),
        (b"a: \x00", "not YAML"),
        ("a: " + "x" * 100_001, "bytes"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(tmp_path: Path, text: str | bytes, what: str) -> None:
    with pytest.raises(JobRefused) as refused:
        read_job(written(tmp_path, text))
    assert what in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_kilobyte_that_unfolds_to_a_gigabyte_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(JobRefused, match="more than 10000 values"):
        read_job(written(tmp_path, "\n".join(lines)))
    with pytest.raises(JobRefused, match="more than 10000 values"):
        read_job(written(tmp_path, f"a: &a {'x' * 50_000}\nb: [{', '.join(['*a'] * 1000)}]"))


def test_a_tag_builds_no_object_and_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(JobRefused, match=r"line 1: the tag '!!python/object/apply:os.getcwd' has no meaning"):
        read_job(written(tmp_path, "input_queue: !!python/object/apply:os.getcwd []\n"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "model:\n  batchsize: 5",
            "job.yaml, line 2: model.batchsize: no such key; did you mean batch_size?",
        ),
        ("modell: {}", "job.yaml, line 1: modell: no such key; did you mean model?"),
        (
            "output:\n  checkpoints:\n    intervall: 5",
            "line 3: output.checkpoints.intervall: no such key; did",
        ),
        (
            "input_queue:\n  - path: a.csv\n  - path: b.csv\n    lable: b",
            "line 4: input_queue.1.lable: no such key; did you mean label?",
        ),
        ("merge: {zzz: 1}", "merge.zzz: no such key; there are: auto_merge, condition, sort_by, max_failed"),
        ("model:\n  name: m\n  batch_size: many", "job.yaml, line 3: model.batch_size: "),
        ("input_queue:\n  - label: a", "job.yaml, line 2: input_queue.0.path: is missing"),
        (
            "parallelization:\n  manual_ranges:\n    - {start: 1, end: 5}\n    - {start: 5, end: 9}",
            "line 1: parallelization: manual_ranges: row 5 stands in two of them",
        ),
        ("parallelization: {manual_ranges: [{start: 3, end: 2}]}", "ends at 2, before its start at 3"),
        ("parallelization: {split_strategy: manual}", "manual_ranges is empty"),
        ("input_queue:\n  - pth: a.csv", "line 2: input_queue.0.pth: no such key; did you mean path?"),
        ("MODEL: {}", "line 1: MODEL: no such key; did you mean model?"),
        ("model: {Batch Size: 5}", "model.Batch Size: no such key; did you mean batch_size?"),
        ("model: {batch-size: 5}", "model.batch-size: no such key; did you mean batch_size?"),
        ("batch_size: 5", "batch_size: no such key here; it belongs to another section: model.batch_size"),
        ("output: {interval: 5}", "it belongs to another section: output.checkpoints.interval"),
        (
            "merge: {condition: all_succes}",
            "line 1: merge.condition: Input should be 'all_success', 'any_success' or 'always' "
            "(it is 'all_succes'); did you mean all_success?",
        ),
        (
            "project: {name: Customer Feedback}",
            "project.name: not allowed; the project: letters, digits, `_` and `-`, at most 64 "
            "(it is 'Customer Feedback')",
        ),
        ("project: [a]", "job.yaml, line 1: project: must be a mapping"),
        ("input_queue: a.csv", "input_queue: must be a list (it is 'a.csv')"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_what_would_be_right(
    tmp_path: Path, text: str, what: str
) -> None:
    with pytest.raises(JobRefused) as refused:
        read_job(written(tmp_path, text))
    assert what in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_record_may_have_keys_that_only_a_newer_ingestor_knows() -> None:
    assert parse_job({"model": {"temper": "1"}, "later": {}}) == Job()


def test_a_job_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobRefused, match=r"no job file none\.yaml"):
        read_job(tmp_path / "none.yaml")
    with pytest.raises(JobRefused, match="cannot be read"):
        read_job(tmp_path)


@given(st.text(max_size=3))
def test_a_delimiter_that_a_job_may_have_a_table_takes(text: str) -> None:
    try:
        job = parse_job({"table": {"delimiter": text}})
    except JobRefused:
        return
    TableFormat(delimiter=job.table.delimiter)


scalars = st.one_of(st.none(), st.text(max_size=5), st.integers(), st.floats(), st.booleans())
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
sections = st.sampled_from(["project", "model", "output", "merge", "prompts", "table", "other"])


@given(st.one_of(trees, st.dictionaries(sections, trees, max_size=4)))
def test_whatever_the_fields_a_job_or_a_refusal(fields: object) -> None:
    with contextlib.suppress(JobRefused):
        assert isinstance(parse_job(fields), Job)


@pytest.mark.parametrize(
    ("limit", "rows", "failed", "allowed"),
    [
        (None, 10, 10, True),
        ("0", 10, 0, True),
        ("0", 10, 1, False),
        ("3", 10, 3, True),
        ("3", 10, 4, False),
        ("10%", 10, 1, True),
        ("10%", 10, 2, False),
        ("0.5%", 1000, 5, True),
        ("0.5%", 1000, 6, False),
        ("5%", 0, 0, True),
    ],
)
def test_how_many_failures_a_merge_allows(limit: str | None, rows: int, failed: int, allowed: bool) -> None:
    assert Merge(max_failed=limit).allows(rows, failed) is allowed


def test_a_delimiter_is_the_jobs_or_that_of_the_kind() -> None:
    assert parse_job({}).table.delimiter_of("csv") == ","
    assert parse_job({}).table.delimiter_of("tsv") == "\t"
    assert parse_job({"table": {"delimiter": ","}}).table.delimiter_of("tsv") == ","
    assert parse_job({"table": {"format": "tsv"}}).table.delimiter_of("tsv") == "\t"


def test_an_output_goes_to_a_folder_or_a_uri() -> None:
    assert parse_job({"output": {"directory": "out/"}}).output.uri is None
    assert parse_job({"output": {"directory": "s3://bucket/x/"}}).output.uri == "s3://bucket/x"
