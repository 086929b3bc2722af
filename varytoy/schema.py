"""Strict pydantic models of dataclasses, which do not check the types of their fields themselves."""

import dataclasses
import functools
import typing
from collections.abc import Callable


@functools.cache
def strict_model(kind: type, form: Callable = lambda hint: hint):
    """A pydantic model with the fields of a dataclass: no other keys, no conversions, finite numbers.

    Args:
        form: type hint of a field -> what pydantic checks. Fields whose metadata has ``fill`` are not checked.
    """
    from pydantic import ConfigDict, Field, create_model

    hints = typing.get_type_hints(kind, include_extras=True)
    fields: dict[str, typing.Any] = {}
    for field in dataclasses.fields(kind):
        hint = typing.Any if "fill" in field.metadata else form(hints[field.name])
        has_factory = field.default_factory is not dataclasses.MISSING
        fields[field.name] = (hint, Field(default_factory=field.default_factory) if has_factory else field.default)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    return create_model(kind.__name__, __config__=config, **fields)
