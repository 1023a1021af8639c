"""Files a person writes: one strict YAML loader, and the base of every file's model."""

from __future__ import annotations

import difflib
import json
import math
import re
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from station.errors import ConfigError

SIZE_LIMIT_BYTES = 256 << 10  # of a file a person writes; YAML of this size takes seconds to read
DEPTH_LIMIT = 20
READ_DEPTH_LIMIT = 100  # up to here a message also names the key
LONGEST_INTEGER = 20  # characters; longer ones fit no field, and Python refuses thousands of digits

ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[str | int, ...]

# YAML 1.2 core schema: PyYAML's own 1.1 rules read `1e-3` as text and `no` as False.
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class Strict(BaseModel):
    """What touches a file: frozen, unknown keys refused, no NaN, no silent conversion."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    @classmethod
    def load(cls, path: Path, limit_bytes: int = SIZE_LIMIT_BYTES) -> Self:
        """Read and check a YAML file; a ConfigError names file, line and key."""
        return parse(read(path, limit_bytes), path, cls)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own class attribute; scalars are read here
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        # The scanner's work grows with the square of the depth: stop long before Python would.
        self._depth += 1
        if self._depth > READ_DEPTH_LIMIT:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def what_it_is(path: Path) -> str:
    """Name what lies at a path in place of a file."""
    if path.is_dir():
        return "a folder"
    return "neither file nor folder" if path.exists() else "a link that leads nowhere"


def read(path: Path, limit_bytes: int = SIZE_LIMIT_BYTES) -> str:
    """Return the file's text; a ConfigError names what is wrong with it."""
    try:
        if path.stat().st_size > limit_bytes:
            raise ConfigError(f"{path}: larger than {limit_bytes >> 10} KiB, not a file for this")
        text = path.read_text(encoding="utf-8")
        if text.startswith("\N{ZERO WIDTH NO-BREAK SPACE}"):
            raise ConfigError(f"{path}: begins with a byte-order mark; save it as plain UTF-8")
        return text
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def parse(text: str, path: Path, model: type[ModelT]) -> ModelT:
    """Check YAML text against `model`."""
    lines: dict[Location, int] = {}
    value = _tree(text, path, lines)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}:1: a mapping of keys is expected here")
    try:
        # Through JSON, so that strict mode still takes a list where a tuple is declared.
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise ConfigError(_message(error, path, lines, model)) from error


def line_of(path: Path, at: Location) -> int:
    """Return the line of a key in a file that was read before, or of the nearest key above it."""
    lines: dict[Location, int] = {}
    _tree(read(path), path, lines)
    return _line(at, lines)


def _line(at: Location, lines: dict[Location, int]) -> int:
    while at not in lines and at:
        at = at[:-1]
    return lines.get(at, 1)


def _tree(text: str, path: Path, lines: dict[Location, int]) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else f"{path}"
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ConfigError(f"{where}: {' '.join(str(problem).split())}") from error
    except (OverflowError, ValueError) as error:  # PyYAML lets chr() fail on "\\Uffffffff"
        raise ConfigError(f"{path}: an escape names no character") from error
    if node is None:
        raise ConfigError(f"{path}: empty")
    if "&" in text or "*" in text:
        _refuse_aliases(text, path)
    return _value(node, (), path, lines)


def _refuse_aliases(text: str, path: Path) -> None:
    event: Any
    for event in yaml.parse(text, Loader=_Loader):
        if getattr(event, "anchor", None):
            raise ConfigError(
                f"{path}:{event.start_mark.line + 1}: anchors and aliases are not allowed"
            )


def _value(node: yaml.Node, at: Location, path: Path, lines: dict[Location, int]) -> Any:
    lines[at] = node.start_mark.line + 1
    where = f"{path}:{lines[at]}: {dotted(at)}"
    if len(at) > DEPTH_LIMIT:
        raise ConfigError(f"{where}: nested too deeply")
    if node.tag not in {f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")}:
        raise ConfigError(f"{where}: tags such as {node.tag!r} are not allowed")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{path}:{line}: a key must be plain text")
            key = str(key_node.value)
            if key in mapping:
                raise ConfigError(f"{path}:{line}: {dotted((*at, key))}: given twice")
            mapping[key] = _value(value_node, (*at, key), path, lines)
            lines[(*at, key)] = line
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*at, index), path, lines) for index, item in enumerate(node.value)]
    plain = getattr(node, "style", None) is None
    return _scalar(str(node.value), plain, where)


def _scalar(text: str, plain: bool, where: str) -> str | int | float | bool | None:
    if not plain:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        if len(text) > LONGEST_INTEGER:
            raise ConfigError(f"{where}: {text[:LONGEST_INTEGER]}... is too large a number")
        return int(text) if text[-1:].isdigit() and text[:2] not in {"0x", "0o"} else int(text, 0)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ConfigError(f"{where}: {text} is too large a number")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise ConfigError(f"{where}: {text} is not a finite number")
    return text


_FORMS: dict[str, str] = {}  # pattern -> what it asks for, in words


def form(pattern: str, words: str) -> Any:
    """Return the field of a text that must match, and say in words what is expected."""
    _FORMS[pattern] = words
    return Field(pattern=pattern)


# Instead of the types' names in Python, which a recipe's writer need not know.
WORDS = {
    "float_type": "a number is expected",
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "bool_type": "true or false is expected",
    "string_type": "text is expected",
    "tuple_type": "a list is expected",
    "list_type": "a list is expected",
    "dict_type": "a mapping of keys is expected",
    "model_type": "a mapping of keys is expected",
    "model_attributes_type": "a mapping of keys is expected",
    "too_short": "a list of {actual_length}, at least {min_length} are needed",
    "too_long": "a list of {actual_length}, at most {max_length} are allowed",
    "string_too_long": "at most {max_length} characters are allowed",
    "greater_than": "a number above {gt:g} is needed",
    "greater_than_equal": "a number from {ge:g} on is needed",
    "less_than": "a number below {lt:g} is needed",
    "less_than_equal": "a number up to {le:g} is needed",
    "literal_error": "{expected} is expected",
    "enum": "{expected} is expected",
}


def first_problem(error: ValidationError, model: type[BaseModel]) -> tuple[Location, str]:
    """Return where pydantic's most telling complaint stands, and the complaint."""
    # A misspelt key is both unknown and missing: the unknown one is what its writer sees.
    details = sorted(error.errors(include_url=False), key=lambda d: d["type"] == "missing")
    first = details[0]
    at: Location = tuple(first["loc"])
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(at[-1]), _keys(model, at[:-1]), n=1)
        problem = "unknown key" + (f"; did you mean {near[0]}?" if near else "")
    elif first["type"] == "missing":
        problem = "missing"
    elif first["type"] != "value_error":
        context = first.get("ctx", {})
        if first["type"] in WORDS:
            problem = WORDS[first["type"]].format(**context)
        elif context.get("pattern") in _FORMS:
            problem = f"{_FORMS[context['pattern']]} is expected"
        if not isinstance(first.get("input"), dict | list):
            problem += f", not {_spelt(first.get('input'))}"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return at, problem + more


def _spelt(value: object) -> str:
    """Write a value as it stands in the file."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return repr(value)[:80]


def dotted(at: Location) -> str:
    """Write a location as a person would: setups[2].pose."""
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "top level"


def _message(
    error: ValidationError, path: Path, lines: dict[Location, int], model: type[BaseModel]
) -> str:
    at, problem = first_problem(error, model)
    return f"{path}:{_line(at, lines)}: {dotted(at)}: {problem}"


def _keys(model: type[BaseModel], at: Location) -> list[str]:
    """Return the keys allowed at a location, as far as plain nesting tells."""
    current: Any = model
    for part in at:
        field = getattr(current, "model_fields", {}).get(part) if isinstance(part, str) else None
        annotation = current if field is None else field.annotation
        current = next(
            (a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")),
            annotation,
        )
    return [f.alias or name for name, f in getattr(current, "model_fields", {}).items()]
