"""YAML files are read as they are meant, within bounds; what was written is read back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.config import Study, UsageError
from ablations.config.experiment import load_experiment
from ablations.config.yaml_file import MOST_BYTES, dump_yaml, parse_yaml, read_yaml

ROOT = Path(__file__).resolve().parents[2]

ODD = """
no yes on off y n true null ~ Null 010 08 1e-3 1e-05 1.5e3 1e+3 .5 +.5 1. 1_000 12:30 1:2.5 0o10 0x1F 0b1
+ - = << * & ! .inf -.inf .NaN 2024-01-01 2001-12-14t21:59:43.10-05:00 -0 +1 1e400 ' " # % @ ` | > ? : -
,
"""


def read(tmp_path, text, **given):
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return parse_yaml(path.read_bytes(), path, **given) if given else read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("[on, Off, y, YES]", ["on", "Off", "y", "YES"]),
        ("[true, False, null, ~]", [True, False, None, None]),
        ("010", 10),
        ("[0o10, 0x10]", [8, 16]),
        ("[1e-3, -2.5E+3, .5, 1., 3]", [0.001, -2500.0, 0.5, 1.0, 3]),
        ("[1_000, 12:30, 0b1]", ["1_000", "12:30", "0b1"]),
        ("[2024-01-01, =, <<]", ["2024-01-01", "=", "<<"]),
        ("['no', \"1\", !!str 2, !!int 010]", ["no", "1", "2", 10]),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        (".inf", math.inf),
        ("a:\t[1,\t2]\t# x\nb: \t'c'\t\n\nd: 1 \t# y", {"a": [1, 2], "b": "c", "d": 1}),
        ("[1,\n\t2]", [1, 2]),
        ("", None),
        (b"\xef\xbb\xbfa: 1", {"a": 1}),
        ("a: é".encode("utf-16"), {"a": "é"}),
    ],
)
def test_words_and_numbers_are_read_as_they_are_meant(tmp_path, text, value):
    found = read(tmp_path, text)
    assert found == value
    assert repr(found) == repr(value)


def laughs(depth):
    return "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "\n".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, depth)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "'a' comes twice (line 3, column 1)"),
        ("{x: {1: a, 1: b}}", "'1' comes twice (line 1, column 12)"),
        ("a:\n\t- b", "that cannot start any token; write spaces in place of the tab (line 2, column 1)"),
        ("a:\n  b: 1\n\tc: 2", "write spaces in place of the tab (line 3, column 1)"),
        ("-\ta: 1\n  b: 2", "write spaces in place of the tab (line 1, column 2)"),
        ("a: 1\n---\nb: 2", "it has several documents, and must have one"),
        ("%YAML 1.1\n---\na: no", "files are read as YAML 1.2; leave out the line %YAML"),
        (laughs(9), "it has more than 250,000 values"),
        ("a: &a [1, *a]", "*a stands within what it stands for"),
        ("a: *b", "found undefined alias 'b'"),
        (f"a: {'9' * 400}", "a number has more than 100 digits"),
        ("a: -1e999", "-1e999 exceeds the range of numbers"),
        ("[" * 100_000, "lists and mappings are more than 50 deep"),
        ("- " * 100_000, "lists and mappings are more than 50 deep"),
        ("a: 1\n" + "#" * MOST_BYTES, "it has more than 10 MB"),
        ("[a, b]: 1", "a key must be a word"),
        ("a: !!binary YQ==", "the type !!binary is not allowed"),
        ("a: !!python/object/apply:os.getcwd []", "the type !!python/object/apply:os.getcwd is not allowed"),
        ("a: !!int no", "no is not of the type !!int"),
        ("a: !!map [b]", "what is of the type !!map must have keys and values (line 1, column 4)"),
        ("a: !!map b", "what is of the type !!map must have keys and values (line 1, column 4)"),
        ("a: !!seq b", "expected a sequence node, but found scalar"),
        ("a: !!str [b]", "expected a scalar node, but found sequence"),
        (r'a: "\UFFFFFFFF"', "a text has an escape of a character that does not exist (line 1, column 4)"),
        (r'a: "\U00110000"', "a text has an escape of a character that does not exist (line 1, column 4)"),
        (r'a: "\ud800"', r"\ud800 has an escape of half a character (line 1, column 4)"),
        (r'"b\udcff": 1', r"b\udcff has an escape of half a character (line 1, column 1)"),
        (r'a: !!int "\ud800"', r"\ud800 has an escape of half a character"),
        ("a: \x1b[31m", "unacceptable character"),
        (b"a: caf\xe9", "'utf-8' codec"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(UsageError) as error:
        read(tmp_path, text)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'file.yaml'} cannot be read: ")
    assert "\n" not in str(error.value)


def same(tmp_path, content):
    """Assert that content is read back from both dumpers, and from ours by YAML 1.1 and by YAML 1.2."""
    ours = dump_yaml(content)
    for text in (yaml.safe_dump(content, sort_keys=False), ours):
        assert repr(read(tmp_path, text, dumped=True)) == repr(content)
    assert repr(yaml.safe_load(ours)) == repr(read(tmp_path, ours)) == repr(content)


@pytest.mark.parametrize("word", ODD.split())
def test_every_text_is_read_back_as_it_was_written(tmp_path, word):
    same(tmp_path, {word: [word, {"a": f"{word}\n"}], "b": f" {word}"})


@settings(max_examples=100, deadline=None)
@given(
    st.text("0123456789abcdefnoy.+-_:~=<xXeE #'\n", max_size=8)
    | st.text(max_size=4)
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | st.none()
    | st.booleans()
)
def test_every_value_is_read_back_as_it_was_written(tmp_path_factory, value):
    same(tmp_path_factory.getbasetemp(), [value, {"key": value}])


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/**/study.yaml")), ids=lambda path: path.parent.name)
def test_a_committed_study_is_read_and_written_as_before(path):
    content = parse_yaml(path.read_bytes(), path, dumped=True)
    assert content == yaml.safe_load(path.read_text())
    assert Study.model_validate(content).model_dump(mode="json", exclude_unset=True) == content
    assert dump_yaml(content) == path.read_text()


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("study: no", "study", "no"),
        ("study: 2024-01-01", "study", "2024-01-01"),
        ("lpi: [on, off]", "fields", {"lpi": [True, False]}),
        ("lpi: no", "fields", {"lpi": [False]}),
        ("lr: 1e-3", "fields", {"lr": [0.001]}),
        ("seeds: 010", "seeds", list(range(10))),
        ("seeds: 1_0", "seeds", list(range(10))),
        ("seeds: [1_0]", "seeds", [10]),
        ("epochs: 1_0", "fields", {"epochs": [10]}),
        ("classes: [dog, cat]", "fields", {"classes": ["cat+dog"]}),
        ("classes: [10, 20]", "fields", {"classes": ["10", "20"]}),
        ("classes: [cat+dog, owl+cat]", "fields", {"classes": ["cat+dog", "cat+owl"]}),
        ("train_limit: [none, 100]", "fields", {"train_limit": [None, 100]}),
        ("depth: [2-4, 8]", "fields", {"depth": [2, 3, 4, 8]}),
        ("lr: [1e-3,\t3e-3]\t# both", "fields", {"lr": [0.001, 0.003]}),
    ],
)
def test_an_experiment_is_read_as_it_is_meant(tmp_path, text, key, value):
    (tmp_path / "e.yaml").write_text(text)
    assert getattr(load_experiment(tmp_path / "e.yaml"), key) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: 12:30", "seeds=12:30: give how many (8), or which (0-3,7)"),
        ("seeds: 8.0", "seeds=8.0: give how many (8), or which (0-3,7)"),
        ("seeds: yes", "seeds=yes: give how many (8), or which (0-3,7)"),
        ("study: 2024", "study=2024: must be a valid string; put it in quotes"),
        ("<<: {a: 1}", "unknown key '<<'"),
        ("norm: [l2]\ncompare: lr\nref: 1e-3", "ref=0.001: must be a valid string; put it in quotes"),
    ],
)
def test_an_experiment_that_cannot_be_meant_is_refused(tmp_path, text, message):
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(ValueError) as error:
        load_experiment(tmp_path / "e.yaml")
    assert f"{tmp_path / 'e.yaml'}: {message}" in str(error.value)
