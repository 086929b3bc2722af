"""Dataclasses from a YAML file, overlays on it and ``a.b=value`` overrides; pydantic checks keys, types and bounds.

Merging and overrides are our own: OmegaConf's add no entries to lists, and it resolves ``${…}`` in any file.
"""

import dataclasses
import functools
import re
import reprlib
import typing
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$")
"""As in YAML 1.2: 5e-5 is a number without a point, too."""
OVERLAYS = Path(__file__).with_name("recipes") / "overlays"
_MAX_KEYS = 1000  # of a mapping that is looked through for doubled ones
_MAX_VALUES, _DEEPEST, _LARGEST = 10_000, 20, 2**63


class RecipeError(ValueError):
    """A recipe that cannot run; the message names the file and the key."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that stops where merge keys (``<<``) multiply each other."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((name for name in names if names.count(name) > 1), None) if len(names) <= _MAX_KEYS else None
        if twice is not None:
            raise yaml.constructor.ConstructorError(problem=f"the key {twice!r} stands twice in one mapping")
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node):
        super().flatten_mapping(node)
        if len(node.value) > _MAX_VALUES:
            raise yaml.constructor.ConstructorError(problem=f"a mapping of more than {_MAX_VALUES:,} keys")


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def read_tree(path: Path, overrides: Sequence[str] = (), overlays: Sequence[Path] = ()) -> object:
    """What a YAML file holds, with the overlays merged over it one after another, then the overrides put in (values are
    YAML; list entries by number).

    Raises:
        RecipeError: a file cannot be read, is not YAML, or an override cannot be applied.
    """
    tree = _read(path)
    for overlay in overlays:
        over = _read(overlay)
        if not isinstance(over, dict):
            raise RecipeError(f"{overlay}: an overlay must be a mapping")
        tree = _merged(tree, over) if isinstance(tree, dict) else tree
    for override in overrides:
        key, equals, value = override.partition("=")
        said = shown(override)
        if not equals:
            raise RecipeError(f"{said} is no override: write key=value, e.g. train.batch_size=4")
        _assign(tree, key.split("."), _load(value, f"{said}: the value"), said)
    return tree


def overlay_file(name: str | Path) -> Path:
    """The file of an overlay: one of ``train/recipes/overlays`` by its name, or any by its path.

    Raises:
        RecipeError: there is none; lists what there is.
    """
    for path in (OVERLAYS / f"{name}.yaml", Path(name)):
        if is_there(path):
            return path
    there = ", ".join(sorted(path.stem for path in OVERLAYS.glob("*.yaml")))
    raise RecipeError(f"no overlay {shown(str(name))}: train/recipes/overlays has {there}; or name a YAML file")


def _merged(tree: dict, over: dict) -> dict:
    """``over`` laid on ``tree``: mappings key by key; a section without anything below changes nothing."""
    found = dict(tree)
    for key, value in over.items():
        below = tree.get(key)
        if not isinstance(below, dict) or not isinstance(value, dict | None):
            found[key] = value
        elif value is not None:
            found[key] = _merged(below, value)
    return found


def _read(path: Path) -> object:
    """One YAML file."""
    if is_there(path, Path.is_dir):
        raise RecipeError(f"{path} is a folder: name the recipe's file, e.g. {path / 'recipe.yaml'}")
    if not is_there(path):
        raise RecipeError(f"no recipe at {shown(str(path))}; the recipes are in train/recipes")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from error
    tree = _load(text, f"{path}")
    return {} if tree is None else _unshared(tree)


def is_there(path: Path, kind=Path.is_file) -> bool:
    """Whether the file is there; one whose name no file can have is not."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def _load(text: str, where: str) -> object:
    """One YAML document, of a size that a recipe can have."""
    try:
        tree = yaml.load(text, _Loader)
    except RecursionError as error:
        raise RecipeError(f"{where} is nested too deep") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # numbers and dates that are none
        raise RecipeError(f"{where} is not YAML: {' '.join(str(error).split())[:300]}") from error
    left, count = [(tree, 0)], 0
    while left:  # aliases may make a tree much larger than its text, or endless
        value, depth = left.pop()
        count += 1
        if count > _MAX_VALUES or depth > _DEEPEST:
            raise RecipeError(f"{where} has more than {_MAX_VALUES:,} values or {_DEEPEST} levels: do aliases repeat?")
        if isinstance(value, int) and abs(value) >= _LARGEST:
            raise RecipeError(f"{where} has a number of more than 18 digits")
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= character <= "\udfff" for character in value)):
            raise RecipeError(f"{where} has a character that no text may hold in {shown(value)}")
        if isinstance(value, dict):
            left += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, (list, tuple, set)):
            left += [(part, depth + 1) for part in value]
    return tree


def _unshared(tree: object) -> object:
    """A copy in which each alias has values of its own: an override means one of them."""
    if isinstance(tree, dict):
        return {key: _unshared(value) for key, value in tree.items()}
    return [_unshared(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def shown(value: object) -> str:
    """A value for a message: one short line."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 120
    return short.repr(value)


def _index(key: str, size: int, override: str) -> int:
    """Raises RecipeError if ``key`` is no number from 0 to below ``size``."""
    if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < size):
        size_is = f"{size} entr{'y' if size == 1 else 'ies'}"
        raise RecipeError(f"{override}: index {shown(key)} out of range ({size_is}), or write the whole list: key=[…]")
    return int(key)


def _assign(tree, keys: list[str], value, override: str) -> None:
    for place, key in enumerate(keys[:-1]):
        following = keys[place + 1]
        fresh = [] if following.isascii() and following.isdigit() else {}
        if isinstance(tree, list):
            number = _index(key, len(tree) + 1, override)
            if number == len(tree):
                tree.append({})
            tree = tree[number]
        elif isinstance(tree, dict):
            if tree.get(key) is None:  # not there, or written without anything below
                tree[key] = fresh
            tree = tree[key]
        else:
            raise RecipeError(f"{override}: there are no settings below {shown('.'.join(keys[:place]))}")
    if isinstance(tree, list):
        tree[_index(keys[-1], len(tree), override)] = value
    elif isinstance(tree, dict):
        tree[keys[-1]] = value
    else:
        raise RecipeError(f"{override}: there are no settings below {shown('.'.join(keys[:-1]))}")


def fill(kind: type, tree: object, where: str, prefix: str = ""):
    """A dataclass from a mapping, recursively. ``where`` and ``prefix`` begin what messages say.

    A field whose metadata has ``fill`` is made by that function of the value, ``where`` and the key.

    Raises:
        RecipeError: an unknown key, or a value of another type or out of its bounds.
    """
    tree = {} if tree is None else tree  # a section without anything below
    if not isinstance(tree, dict):
        raise RecipeError(f"{where}: {prefix or 'the recipe'} must be a mapping")
    try:
        return _built(kind, _schema(kind).model_validate(tree), where, prefix)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_sentence(kind, error.errors(include_url=False)[0], prefix)}") from error


@functools.cache
def _schema(kind: type) -> type[BaseModel]:
    """A strict pydantic model with the fields of a dataclass."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields: dict[str, typing.Any] = {}
    for each in dataclasses.fields(kind):
        hint = typing.Any if "fill" in each.metadata else _form(hints[each.name])
        made = each.default_factory is not dataclasses.MISSING
        fields[each.name] = (hint, Field(default_factory=each.default_factory) if made else each.default)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    return create_model(kind.__name__, __config__=config, **fields)


def _form(hint):
    """What pydantic checks a hint as; a value left out after its key is an empty one."""
    if dataclasses.is_dataclass(hint):
        return typing.Annotated[_schema(hint), BeforeValidator(lambda value: {} if value is None else value)]
    if hint is str:
        return typing.Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
    if typing.get_origin(hint) is list:
        (inner,) = typing.get_args(hint)
        form = list[_form(inner)]
        return typing.Annotated[form, BeforeValidator(_listed)] if inner is str else form
    return hint


def _listed(value):
    """``model.init=FOLDER`` and ``model.init=`` as lists."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    return value


def _built(kind: type, checked: BaseModel, where: str, prefix: str):
    """The dataclass of what ``_schema`` has checked."""
    values = {}
    for each in dataclasses.fields(kind):
        if each.name not in checked.model_fields_set:
            continue
        value, key = getattr(checked, each.name), f"{prefix}{each.name}"
        inner = typing.get_args(each.type)[:1] if isinstance(value, list) else ()
        if "fill" in each.metadata:
            value = each.metadata["fill"](value, where, key)
        elif isinstance(value, BaseModel):
            value = _built(each.type, value, where, f"{key}.")
        elif inner and dataclasses.is_dataclass(inner[0]):
            value = [_built(inner[0], entry, where, f"{key}.{number}.") for number, entry in enumerate(value)]
        values[each.name] = value
    return kind(**values)


def _sentence(kind: type, error, prefix: str) -> str:
    """One of pydantic's errors in words."""
    path = [name for name in error["loc"] if name != "[key]"]
    key = shown(prefix + ".".join(map(str, path)))
    if error["type"] == "extra_forbidden":
        for name in path[:-1]:
            kind = typing.get_type_hints(kind)[name] if isinstance(name, str) else kind
            kind = next(iter(typing.get_args(kind)), kind)  # of a list of sections
        return f"unknown key {key}; known are {', '.join(each.name for each in dataclasses.fields(kind))}"
    if error["type"] in ("model_type", "dict_type"):
        return f"{key[1:-1]} must be a mapping, not {shown(error['input'])}"
    reason = error["msg"].removeprefix("Input ").replace(" after validation", "")
    return f"{key[1:-1]} {reason[:1].lower()}{reason[1:]}, not {shown(error['input'])}"
