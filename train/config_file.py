"""config.toml: settings are written to it, read from it, overridden by flags, and compared on a resume."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomli_w

from ..runtime.errors import ConfigError
from ..runtime.system.files import read_regular
from .config import Config, config_from_dict
from .sections import flat_settings

PLACES: Final = frozenset({"data.dir", "data.csv", "data.audio"})
# Settings that a resumed run may change. Places of data are among them: the data is compared by its content.
MAY_DIFFER: Final = PLACES | {"device", "compile", "checkpoint_minutes", "tensorboard"}


def toml_from_config(config: Config) -> str:
    """The text of config.toml, a setting a line: all of them, but of labels and places only what is used."""
    return toml_text(config.to_dict())


def toml_text(document: Mapping[str, Any]) -> str:
    """The text of a config.toml, a setting a line."""
    text = tomli_w.dumps(document, indent=0)
    # tomli-w gives each item of an array its own line. It escapes the line ends of text, so those that
    # are left in the middle of a setting belong to arrays.
    return text.replace("[\n", "[").replace(",\n]", "]").replace(",\n", ", ")


def config_from_toml(path: Path) -> Config:
    """Reads a config.toml. Raises ConfigError."""
    return config_from_dict(read_toml(path), source=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The document of a TOML file, with a byte-order mark or without.

    Raises ConfigError with the place of a mistake.
    """
    try:
        return tomllib.loads(read_regular(path).decode("utf-8-sig"))
    except OSError as error:
        came = error.strerror or str(error)
        raise ConfigError(str(path), came, wanted="a TOML file of settings", fix="check the path") from error
    except (ValueError, RecursionError) as error:  # ValueError: no TOML, no UTF-8, no name of a file
        raise ConfigError(str(path), str(error), wanted="TOML") from error


def merged(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A nested document with `overrides` {"optim.lr": 0.01} in place of its settings.

    An override of None was not given, and changes nothing.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in document.items()}
    for dotted, value in overrides.items():
        if value is None:
            continue
        section, _, key = dotted.rpartition(".")
        target = result.setdefault(section, {}) if section else result
        if isinstance(target, dict):  # config_from_dict refuses anything else by its name
            target[key] = value
    return result


def differences(old: Config, new: Config) -> dict[str, str]:
    """{key: "key: old -> new"} for each setting that differs."""
    a, b = flat_settings(old.to_dict()), flat_settings(new.to_dict())
    keys = [*a, *(key for key in b if key not in a)]  # some are left out where they are not used
    return {key: f"{key}: {a.get(key)!r} -> {b.get(key)!r}" for key in keys if a.get(key) != b.get(key)}


def changes_on_resume(old: Config, new: Config, *, of: str = "the run's") -> list[str]:
    """The settings that a resumed run changes, in words. `of` says whose the `old` ones are.

    It may change what leaves its remaining steps as they were. Raises ConfigError with every other
    setting that differs.
    """
    allowed = MAY_DIFFER | ({"optim.epochs"} if new.optim.schedule == "constant" else set())
    changed = differences(old, new)
    if refused := [text for key, text in changed.items() if key not in allowed]:
        raise ConfigError(
            "--resume",
            f"other settings than {of}: {'; '.join(refused)}",
            fix="start a new run with them",
        )
    return list(changed.values())
