"""Sections, dataclasses of settings <-> documents: the nested plain values that TOML and JSON hold."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from ..runtime.errors import ConfigError
from ..runtime.spec import FrontendSpec
from ..runtime.text import short

_Settings = TypeVar("_Settings")


def plain_settings(value: Any, *, where_used: Collection[str] = ()) -> Any:
    """A section as a dict, a tuple as a list. Empty settings that `where_used` names are left out."""
    if dataclasses.is_dataclass(value):
        parts = vars(value).items()
        return {
            name: plain_settings(part, where_used=where_used)
            for name, part in parts
            if part or name not in where_used
        }
    return list(value) if isinstance(value, tuple) else value


def settings_from_document(
    kind: type[_Settings], document: Mapping[str, Any], *, source: str, prefix: str = ""
) -> _Settings:
    """A dataclass of this kind; settings that are left out have their defaults.

    `source` is where the document comes from, `prefix` the section that it is. Raises ConfigError with the
    name of an unknown key, or of a setting with a wrong value.
    """
    fields: dict[str, dataclasses.Field[Any]] = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := [prefix + key for key in document if key not in fields]:
        defaults = {name: default_of(item) for name, item in fields.items()}
        sections = {name: one for name, one in defaults.items() if dataclasses.is_dataclass(one)}
        its = [
            f"{key} is of [{name}]" for key in unknown for name, one in sections.items() if hasattr(one, key)
        ]
        wanted = f"some of {', '.join(fields)}"
        raise ConfigError(source, f"unknown: {', '.join(unknown)}", wanted=wanted, fix="; ".join(its))
    values = {
        key: _value(default_of(fields[key]), value, source=source, key=prefix + key)
        for key, value in document.items()
    }
    return kind(**values)


def default_of(item: "dataclasses.Field[Any]") -> Any:
    """The default of a field."""
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def flat_settings(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings -> {"optim.lr": 0.001, ...}."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _value(default: Any, value: object, *, source: str, key: str) -> Any:
    """A setting, in the type of its default; a section becomes its dataclass."""
    if isinstance(default, tuple):
        item = default[0] if default else ""  # the empty default is of names
        return tuple(
            _value(item, part, source=source, key=key)
            for part in _checked(value, list | tuple, source=source, key=key)
        )
    if isinstance(default, float):
        return _float(_checked(value, int | float, source=source, key=key), source=source, key=key)
    if isinstance(default, FrontendSpec):
        return FrontendSpec.from_settings(value, source=source)
    if dataclasses.is_dataclass(default):
        section = _checked(value, Mapping, source=source, key=key)
        return settings_from_document(type(default), section, source=source, prefix=f"{key}.")
    return _checked(value, type(default), source=source, key=key)


def _float(value: float, *, source: str, key: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(source, f"{key} = {short(value)}", wanted="a number that a float holds") from None


def _checked(value: Any, expected: Any, *, source: str, key: str) -> Any:
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        name = getattr(expected, "__name__", str(expected))
        raise ConfigError(source, f"{key} = {short(value)}", wanted=name)
    return value
