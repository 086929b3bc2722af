"""Dataclasses from a YAML file, overlays on it and ``a.b=value`` overrides; pydantic checks keys, types and bounds.

Merging and overrides are implemented here: OmegaConf cannot add list entries, and resolves ``${…}`` in any file.
"""

import dataclasses
import re
import reprlib
import typing
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError

from varytoy.schema import strict_model

_FLOAT = re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+")
"""A number of YAML 1.2 that PyYAML takes for text, such as 5e-5."""
_MAX_KEYS = 1000  # of a mapping that is searched for duplicate keys
_MAX_VALUES, _DEEPEST, _LARGEST = 10_000, 20, 2**63


class SettingsError(ValueError):
    """Settings that cannot be used; the message names the file and the key."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that rejects duplicate keys, and mappings that merge keys (``<<``) make too large."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        duplicate = next((name for name in names if names.count(name) > 1), None) if len(names) <= _MAX_KEYS else None
        if duplicate is not None:
            raise yaml.constructor.ConstructorError(problem=f"the key {duplicate!r} stands twice in one mapping")
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node):
        super().flatten_mapping(node)
        if len(node.value) > _MAX_VALUES:
            raise yaml.constructor.ConstructorError(problem=f"a mapping of more than {_MAX_VALUES:,} keys")


def read_tree(path: Path, overrides: Sequence[str] = (), overlays: Sequence[Path] = ()) -> object:
    """Read a YAML file, merge the overlays over it in order, then apply the overrides (values are YAML; list entries by
    index).

    Raises:
        SettingsError: a file cannot be read, is not YAML, or an override cannot be applied.
    """
    tree = _read(path)
    for overlay in overlays:
        over = _read(overlay)
        if not isinstance(over, dict):
            raise SettingsError(f"{overlay}: an overlay must be a mapping")
        tree = _merged(tree, over) if isinstance(tree, dict) else tree
    for override in overrides:
        key, equals, value = override.partition("=")
        quoted = shown(override)
        if not equals:
            raise SettingsError(f"{quoted} is no override: write key=value, e.g. train.batch_size=4")
        _assign(tree, key.split("."), _load(value, f"{quoted}: the value"), quoted)
    return tree


def _merged(tree: dict, over: dict) -> dict:
    """``over`` merged into ``tree``, mappings key by key; an empty section changes nothing."""
    merged = dict(tree)
    for key, value in over.items():
        below = tree.get(key)
        if not isinstance(below, dict) or not isinstance(value, dict | None):
            merged[key] = value
        elif value is not None:
            merged[key] = _merged(below, value)
    return merged


def _read(path: Path) -> object:
    """One YAML file."""
    if is_there(path, Path.is_dir):
        raise SettingsError(f"{path} is a folder: name the YAML file in it")
    if not is_there(path):
        raise SettingsError(f"no YAML file at {shown(str(path))}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    tree = _load(text, f"{path}")
    return {} if tree is None else _unshared(tree)


def is_there(path: Path, kind=Path.is_file) -> bool:
    """Whether the file exists; False for an invalid name."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def _load(text: str, where: str) -> object:
    """Parse one YAML document, with limits on its size, depth and numbers."""
    try:
        tree = yaml.load(text, _Loader)
    except RecursionError as error:
        raise SettingsError(f"{where} is nested too deep") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # invalid numbers and dates
        raise SettingsError(f"{where} is not YAML: {' '.join(str(error).split())[:300]}") from error
    pending, count = [(tree, 0)], 0
    while pending:  # aliases may make a tree much larger than its text, or endless
        value, depth = pending.pop()
        count += 1
        if count > _MAX_VALUES or depth > _DEEPEST:
            raise SettingsError(
                f"{where} has more than {_MAX_VALUES:,} values or {_DEEPEST} levels: do aliases repeat?"
            )
        if isinstance(value, int) and abs(value) >= _LARGEST:
            raise SettingsError(f"{where} has a number of more than 18 digits")
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= character <= "\udfff" for character in value)):
            raise SettingsError(f"{where} has a character that no text may hold in {shown(value)}")
        if isinstance(value, dict):
            pending += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, (list, tuple, set)):
            pending += [(part, depth + 1) for part in value]
    return tree


def _unshared(tree: object) -> object:
    """A copy in which aliases share no values, so that an override changes only one of them."""
    if isinstance(tree, dict):
        return {key: _unshared(value) for key, value in tree.items()}
    return [_unshared(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def shown(value: object) -> str:
    """A value as one short line, for messages."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 120
    return short.repr(value)


def _index(key: str, size: int, override: str) -> int:
    """Raises SettingsError if ``key`` is not a number from 0 to ``size`` - 1."""
    if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < size):
        size_is = f"{size} entr{'y' if size == 1 else 'ies'}"
        raise SettingsError(
            f"{override}: index {shown(key)} out of range ({size_is}), or write the whole list: key=[…]"
        )
    return int(key)


def _assign(tree, keys: list[str], value, override: str) -> None:
    for depth, key in enumerate(keys[:-1]):
        following = keys[depth + 1]
        empty: list | dict = [] if following.isascii() and following.isdigit() else {}
        if isinstance(tree, list):
            number = _index(key, len(tree) + 1, override)
            if number == len(tree):
                tree.append({})
            tree = tree[number]
        elif isinstance(tree, dict):
            if tree.get(key) is None:  # missing or empty
                tree[key] = empty
            tree = tree[key]
        else:
            raise SettingsError(f"{override}: there are no settings below {shown('.'.join(keys[:depth]))}")
    if isinstance(tree, list):
        tree[_index(keys[-1], len(tree), override)] = value
    elif isinstance(tree, dict):
        tree[keys[-1]] = value
    else:
        raise SettingsError(f"{override}: there are no settings below {shown('.'.join(keys[:-1]))}")


def fill(kind: type, tree: object, where: str, prefix: str = ""):
    """A dataclass from a mapping, recursively. ``where`` and ``prefix`` start the error messages.

    If a field's metadata has ``fill``, that function makes its value from the value, ``where`` and the key.

    Raises:
        SettingsError: an unknown key, or a value of another type or out of its bounds.
    """
    tree = {} if tree is None else tree  # an empty section
    if not isinstance(tree, dict):
        raise SettingsError(f"{where}: {prefix or 'the file'} must be a mapping")
    try:
        return _built(kind, strict_model(kind, _form).model_validate(tree), where, prefix)
    except ValidationError as error:
        raise SettingsError(f"{where}: {_sentence(kind, error.errors(include_url=False)[0], prefix)}") from error


def _form(hint):
    """The hint that pydantic checks. A key without a value stands for an empty section, text or list."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return typing.Annotated[
            strict_model(hint, _form), BeforeValidator(lambda value: {} if value is None else value)
        ]
    if origin is typing.Annotated:
        return typing.Annotated.__class_getitem__((_form(inner[0]), *hint.__metadata__))
    if type(None) in inner:  # a value or None, which is no setting
        return _form(next(part for part in inner if part is not type(None))) | None
    if _is_text(hint):
        return typing.Annotated[hint, BeforeValidator(lambda value: "" if value is None else value)]
    if hint is float:
        return typing.Annotated[float, BeforeValidator(_number)]
    if origin is list:
        form = list[_form(inner[0])]
        return typing.Annotated[form, BeforeValidator(_listed)] if _is_text(inner[0]) else form
    if origin is dict:
        return dict[inner[0], _form(inner[1])]
    return hint


def _is_text(hint) -> bool:
    return hint is str or typing.get_origin(hint) is typing.Literal


def _number(value):
    return float(value) if isinstance(value, str) and _FLOAT.fullmatch(value) else value


def _listed(value):
    """``model.init=FOLDER`` and ``model.init=`` as lists."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    return value


def _built(kind: type, checked: BaseModel, where: str, prefix: str):
    """The dataclass of a validated ``strict_model``."""
    values = {}
    for field in dataclasses.fields(kind):
        if field.name not in checked.model_fields_set:
            continue
        value, key = getattr(checked, field.name), f"{prefix}{field.name}"
        inner = typing.get_args(field.type)[:1] if isinstance(value, list) else ()
        if "fill" in field.metadata:
            value = field.metadata["fill"](value, where, key)
        elif isinstance(value, BaseModel):
            value = _built(field.type, value, where, f"{key}.")
        elif inner and dataclasses.is_dataclass(inner[0]):
            value = [_built(inner[0], entry, where, f"{key}.{number}.") for number, entry in enumerate(value)]
        values[field.name] = value
    return kind(**values)


def _sentence(kind: type, error, prefix: str) -> str:
    """A pydantic error as a sentence."""
    path = [name for name in error["loc"] if name != "[key]"]
    key = shown(prefix + ".".join(map(str, path)))
    if error["type"] == "extra_forbidden":
        for name in path[:-1]:
            kind = typing.get_type_hints(kind)[name] if isinstance(name, str) else kind
            kind = next(iter(typing.get_args(kind)), kind)  # of a list of sections
        return f"unknown key {key}; known are {', '.join(field.name for field in dataclasses.fields(kind))}"
    if error["type"] in ("model_type", "dict_type"):
        return f"{key[1:-1]} must be a mapping, not {shown(error['input'])}"
    reason = error["msg"].removeprefix("Input ").replace(" after validation", "")
    sentence = f"{key[1:-1]} {reason[:1].lower()}{reason[1:]}"
    return sentence if error["type"].startswith("too_") else f"{sentence}, not {shown(error['input'])}"
