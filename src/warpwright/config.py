"""Strict settings: TOML or JSON in, frozen dataclasses out, and back.

A table is a dataclass; a choice is a union of dataclasses, told apart by a key `kind` that holds the class name in lower
case. An unknown key is an error that names the nearest known one; a value of another type is an error; numbers are finite;
nothing is guessed or converted, except that a whole number may stand for a float and an array for a tuple. Ranges are the
business of each dataclass, whose complaint is prefixed with the file and the key of its table.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from warpwright.errors import BadInput

__all__ = ["KIND", "from_mapping", "merged", "read_mapping", "to_mapping"]

T = TypeVar("T")
KIND = "kind"  # key that holds the name of the class, where there is a choice
LARGEST = 1e300  # a whole number beyond is no float any more


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The tables of a `.toml` or `.json` file.

    Raises:
        BadInput: the file is missing, is not readable, or is not what its suffix says.
    """
    path = Path(path)
    readers = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in readers:
        raise BadInput(f"{path}: settings are read from a .toml or .json file, found the suffix {path.suffix!r}")
    try:
        found = readers[path.suffix](path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file, expected settings in TOML or JSON") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}), expected settings in TOML or JSON") from None
    except (ValueError, RecursionError) as error:  # both decoders' errors, bytes that are no UTF-8, endless nesting
        raise BadInput(f"{path}: not valid {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{path}: expected a table of settings, found {_said(found)}")
    return found


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "settings") -> T:
    """A dataclass from nested mappings.

    Args:
        cls: a dataclass, whose fields are numbers, strings, Paths, Literals, tuples, dicts of these, dataclasses, or unions.
        mapping: keys are field names; a field that is left out takes its default.
        where: what a message calls the mapping.

    Raises:
        BadInput: an unknown or missing key, a value of another type, or a value that `cls` itself refuses.
    """
    return _decode_dataclass(cls, mapping, where)


def to_mapping(settings: Any) -> dict[str, Any]:
    """A dataclass as nested plain mappings and lists, ready for JSON; `from_mapping` turns them back."""
    hints = get_type_hints(type(settings))
    return {f.name: _encode(getattr(settings, f.name), hints[f.name]) for f in fields(settings) if f.init}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, table by table; a table of another `kind` replaces the old one whole."""
    out = dict(base)
    for key, value in changes.items():
        old: Any = out.get(key)
        tables = isinstance(old, Mapping) and isinstance(value, Mapping) and value.get(KIND, old.get(KIND)) == old.get(KIND)
        out[key] = merged(old, value) if tables else value
    return out


def _kind(cls: type) -> str:
    return cls.__name__.lower()


def _members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _dataclasses(hint: Any) -> list[type]:
    return [m for m in _members(hint) if isinstance(m, type) and is_dataclass(m)]


def _encode(value: Any, hint: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        kind = {KIND: _kind(type(value))} if len(_dataclasses(hint)) > 1 else {}
        return kind | to_mapping(value)
    if isinstance(value, (tuple, list)):
        items = [get_args(m) for m in _members(hint) if get_origin(m) is tuple]
        inner = items[0] if items else (Any,)
        hints = [inner[0]] * len(value) if len(inner) != len(value) or inner[-1] is Ellipsis else inner
        return [_encode(v, h) for v, h in zip(value, hints, strict=True)]
    if isinstance(value, Mapping):
        return {str(k): _encode(v, Any) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def _decode(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    members = _members(hint)
    choices = _dataclasses(hint)
    if choices and isinstance(value, Mapping):
        return _decode_choice(choices, value, where)
    for member in members:
        fits, decoded = _decode_plain(member, value, where)
        if fits:
            return decoded
    raise BadInput(f"{where}: expected {_named(hint)}, found {_said(value)}")


def _decode_plain(hint: Any, value: Any, where: str) -> tuple[bool, Any]:
    """Whether a value is of a type that is no dataclass, and the value in that type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in args), value
    if origin is tuple and isinstance(value, (list, tuple)):
        hints = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(hints) != len(value):
            return False, None
        return True, tuple(_decode(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))
    if origin is dict and isinstance(value, Mapping):
        return True, {k: _decode(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and type(value) in (int, float):
        if not abs(value) < LARGEST:  # a NaN is not
            raise BadInput(f"{where}: expected a finite number, found {_said(value)}")
        return True, float(value)
    if hint is Path and isinstance(value, str):
        return True, Path(value)
    return hint in (int, str, bool, NoneType) and type(value) is hint, value


def _decode_choice(choices: list[type], value: Mapping[str, Any], where: str) -> Any:
    if len(choices) == 1:
        return _decode_dataclass(choices[0], value, where)
    known = {_kind(c): c for c in choices}
    if value.get(KIND) not in known:
        found = _said(value[KIND]) if KIND in value else "no such key"
        hint = _nearest(value.get(KIND), {_initials(c): k for k, c in known.items()} | {k: k for k in known})
        raise BadInput(f"{where}.{KIND}: expected one of {', '.join(known)}, found {found}{hint}")
    rest = {k: v for k, v in value.items() if k != KIND}
    return _decode_dataclass(known[value[KIND]], rest, where)


def _decode_dataclass(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in known:
            hint = _nearest(key, {name: name for name in known})
            raise BadInput(f"{where}: unknown key {key!r}{hint or ', expected one of ' + ', '.join(known)}")
    for name, f in known.items():
        if name not in mapping and f.default is MISSING and f.default_factory is MISSING:
            raise BadInput(f"{where}: the key {name!r} is missing, expected {_named(hints[name])}")
    values = {key: _decode(hints[key], value, f"{where}.{key}") for key, value in mapping.items()}
    try:
        return cls(**values)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _nearest(found: Any, known: Mapping[str, str]) -> str:
    """A question about the nearest of some spellings, each with the word it stands for."""
    close = get_close_matches(str(found), list(known), n=1)
    return f", did you mean {known[close[0]]!r}?" if close else ""


def _initials(cls: type) -> str:
    """The capitals of a class name: a person may write mi for MutualInformation."""
    return "".join(letter for letter in cls.__name__ if letter.isupper()).lower()


def _named(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is Literal:
        return " or ".join(repr(a) for a in get_args(hint))
    if get_origin(hint) is tuple:
        args = get_args(hint)
        return f"an array of {_named(args[0])}" if args[-1] is Ellipsis else f"an array of {len(args)} values"
    if len(_members(hint)) > 1:
        kinds = ", ".join(_kind(c) for c in _dataclasses(hint))
        tables = [f"a table with a key '{KIND}' (one of {kinds})" if "," in kinds else "a table"] if kinds else []
        return " or ".join([*tables, *(_named(m) for m in _members(hint) if m not in _dataclasses(hint))])
    words = {
        float: "a number",
        int: "a whole number",
        str: "a string",
        bool: "true or false",
        NoneType: "nothing",
        Path: "a path",
    }
    return words.get(hint, "a table")


def _said(value: Any) -> str:
    """A value in words, short enough for one line."""
    if isinstance(value, Mapping):
        return "a table"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
