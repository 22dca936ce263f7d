"""YAML files: read by the core schema of YAML 1.2 within bounds, and written so that every reader reads the same.

YAML 1.1, which PyYAML reads, takes ``no`` and ``on`` as truth values, ``010`` as 8, ``12:30`` as 750, dates as
objects, and ``1e-3`` as text. Here words are text, and numbers are decimal.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import BaseConstructor

from ablations.config.errors import UsageError, one_line, shown
from ablations.config.escape import is_readable, visible

MOST_BYTES = 10_000_000
"""Largest file, in bytes."""

MOST_NODES = 250_000
"""Largest number of values in a file, where an alias counts as all that it stands for."""

MOST_DEPTH = 50
"""Largest number of lists and mappings around a value."""

MOST_DIGITS = 100
"""Longest whole number, in characters."""

_INT = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_SPECIAL = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"

CORE = {
    "null": re.compile(r"(?:null|Null|NULL|~|)\Z"),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(rf"(?:{_INT})\Z"),
    "float": re.compile(rf"(?:{_FLOAT}|{_SPECIAL})\Z"),
}
"""Unquoted words of each type, the first that matches; all others are text (YAML 1.2.2, section 10.3.2)."""

PLAIN = CORE | {
    "int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"),
    "float": re.compile(rf"(?:(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?|{_SPECIAL})\Z"),
}
"""The same for files that PyYAML has written: it leaves texts such as ``1e-05`` and ``08`` without quotes."""

_PREFIX = "tag:yaml.org,2002:"


def read_yaml(path: Path) -> Any:
    """Read a YAML file, as `parse_yaml` does.

    Args:
        path: a file, or a pipe.

    Raises:
        UsageError: it cannot be read, or as for `parse_yaml`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from error
    return parse_yaml(content, path)


def parse_yaml(content: bytes, path: Path, *, dumped: bool = False) -> Any:
    """Read YAML.

    Args:
        content: content of a file.
        path: path of the file, for messages.
        dumped: whether PyYAML or `dump_yaml` has written it.

    Returns:
        Lists, mappings, texts, numbers, truth values and None.

    Raises:
        UsageError: it is not one document of YAML, repeats a key, has another type of value, or exceeds a bound.
    """
    try:
        if len(content) > MOST_BYTES:
            raise UsageError(f"{path} cannot be read: it has more than {MOST_BYTES // 10**6} MB")
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
        return yaml.load(text, _Dumped if dumped else _Core)  # both are safe
    except yaml.MarkedYAMLError as error:
        raise UsageError(f"{path} cannot be read: {_reason(error)}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from error


def dump_yaml(content: Any) -> str:
    """Write lists, mappings, texts, numbers, truth values and None as YAML that 1.1 and 1.2 read alike."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def _reason(error: yaml.MarkedYAMLError) -> str:
    """Say in one line what is wrong with a file, and where."""
    mark = error.problem_mark or error.context_mark
    where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
    reason = ", ".join(filter(None, (error.context, error.problem)))
    if "\\t" in reason:
        reason += "; write spaces in place of the tab"
    if "found another document" in reason:
        reason = "it has several documents, and must have one"
    return " ".join(f"{reason}{where}".split())


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Core(yaml.SafeLoader):
    """Loader of the core schema, with bounds."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._num_nodes, self._depth = 0, 0
        self._sizes: dict[str, int] = {}

    def compose_document(self) -> yaml.Node | None:
        start = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(start, yaml.DocumentStartEvent) and start.version not in (None, (1, 2)):
            raise _refused("files are read as YAML 1.2; leave out the line %YAML", start.start_mark)
        return super().compose_document()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, and count the nodes that it stands for."""
        event, before = self.peek_event(), self._num_nodes  # type: ignore[no-untyped-call]
        self._num_nodes, self._depth = before + 1, self._depth + 1
        if self._depth > MOST_DEPTH:
            raise _refused(f"lists and mappings are more than {MOST_DEPTH} deep", event.start_mark)
        is_alias = isinstance(event, yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and event.anchor not in self._sizes:
            raise _refused(f"*{event.anchor} stands within what it stands for", event.start_mark)
        if is_alias:
            self._num_nodes = before + self._sizes[event.anchor]
        elif event.anchor is not None:
            self._sizes[event.anchor] = self._num_nodes - before
        if self._num_nodes > MOST_NODES:
            raise _refused(f"it has more than {MOST_NODES:,} values", event.start_mark)
        self._depth -= 1
        return node

    def scan_to_next_token(self) -> None:
        """Skip what separates tokens: tabs too, which YAML 1.2 allows unless they indent."""
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()

    def scan_flow_scalar_non_spaces(self, double: bool, start_mark: Any) -> list[str]:
        """Scan a part of a text in quotes, refusing a number of a character that there is not."""
        try:
            return super().scan_flow_scalar_non_spaces(double, start_mark)
        except (OverflowError, ValueError) as error:
            raise _refused("a text has an escape of a character that does not exist", start_mark) from error

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Construct a text, refusing halves of characters, which cannot be written."""
        text = super().construct_scalar(node)
        if not is_readable(str(text)):
            raise _refused(f"{visible(shown(text))} has an escape of half a character", node.start_mark)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping, refusing duplicate keys, of which YAML 1.1 would take the last."""
        if not isinstance(node, yaml.MappingNode):
            raise _refused("what is of the type !!map must have keys and values", node.start_mark)
        found: set[Hashable] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key must be a word", key.start_mark)
            if (value := self.construct_object(key)) in found:
                raise _refused(f"'{value}' comes twice", key.start_mark)
            found.add(value)
        return BaseConstructor.construct_mapping(self, node, deep)

    def _null(self, node: yaml.ScalarNode) -> None:
        self._text_of("null", node)

    def _bool(self, node: yaml.ScalarNode) -> bool:
        return self._text_of("bool", node).lower() == "true"

    def _int(self, node: yaml.ScalarNode) -> int:
        text = self._text_of("int", node)
        if len(text) > MOST_DIGITS:
            raise _refused(f"a number has more than {MOST_DIGITS} digits", node.start_mark)
        return int(text, 0) if text[1:2] in ("o", "x") else int(text)

    def _float(self, node: yaml.ScalarNode) -> float:
        text = self._text_of("float", node)
        if CORE["float"].match(text) and not re.match(_SPECIAL, text):
            value = float(text)
            if value in (float("inf"), -float("inf")):
                raise _refused(f"{shown(text)} exceeds the range of numbers", node.start_mark)
            return value
        return float(text.replace(".", ""))

    def _text_of(self, kind: str, node: yaml.ScalarNode) -> str:
        """Return the text of a word, which its tag may contradict."""
        text = str(self.construct_scalar(node))
        if not CORE[kind].match(text):
            raise _refused(f"{shown(text)} is not of the type !!{kind}", node.start_mark)
        return text

    def _refuse_tag(self, node: yaml.Node) -> None:
        raise _refused(f"the type {node.tag.replace(_PREFIX, '!!')} is not allowed; leave it out", node.start_mark)


_Core.add_constructor(f"{_PREFIX}null", _Core._null)
_Core.add_constructor(f"{_PREFIX}bool", _Core._bool)
_Core.add_constructor(f"{_PREFIX}int", _Core._int)
_Core.add_constructor(f"{_PREFIX}float", _Core._float)
_Core.add_constructor(f"{_PREFIX}str", _Core.construct_yaml_str)  # type: ignore[type-var]
_Core.add_constructor(f"{_PREFIX}seq", _Core.construct_yaml_seq)  # type: ignore[type-var]
_Core.add_constructor(f"{_PREFIX}map", _Core.construct_yaml_map)  # type: ignore[type-var]
_Core.add_constructor(None, _Core._refuse_tag)


class _Dumped(_Core):
    """Loader of files that PyYAML has written."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc]


class _Dumper(yaml.SafeDumper):
    """Dumper that quotes a text which YAML 1.1 or YAML 1.2 would take for another type."""


for _kind, _pattern in CORE.items():
    _Core.add_implicit_resolver(_PREFIX + _kind, _pattern, None)
    _Dumped.add_implicit_resolver(_PREFIX + _kind, PLAIN[_kind], None)
for _kind in ("int", "float"):
    _Dumper.add_implicit_resolver(_PREFIX + _kind, CORE[_kind], None)
