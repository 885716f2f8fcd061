"""Where a data set has its table and its audio, and which columns say what."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeGuard

from ...runtime.errors import ConfigError, DataError
from ...runtime.system.files import resolved
from ...runtime.system.host import quoted
from ..config import DataConfig, config_from_dict
from ..config_file import read_toml
from ..method.columns import scales_of_targets
from ..sections import settings_from_document
from .audio_folder import is_file
from .roles import Roles

SETTINGS: Final = "data.toml"  # beside the table: settings of [data] that the folder brings along
TABLE: Final = "data_info.csv"
_OF_A_RUN: Final = ("dir", "fraction", "fold")  # not the data's to say


@dataclass(frozen=True, kw_only=True)
class DataPlaces:
    """What is not where the Hume-VB layout has it. Empty: it is."""

    csv: Path | None = None
    audio: Path | None = None
    file_column: str = ""
    split_column: str = ""
    speaker_column: str = ""

    def table(self, folder: Path) -> Path:
        """The table of a data set in `folder`. Raises DataError where there is none, or several."""
        return self.csv or _table_in(folder)

    def audio_root(self, folder: Path) -> Path:
        """The folder that file names are looked for in."""
        if self.audio:
            return self.audio
        wav = folder / "wav"
        return folder if self.csv and not wav.is_dir() else wav

    @property
    def columns(self) -> Roles:
        """The columns that are asked for by name."""
        return Roles(self.file_column, self.split_column, self.speaker_column)


def places_of_config(data: DataConfig) -> DataPlaces:
    """What the settings of [data] say."""
    return DataPlaces(
        csv=Path(data.csv) if data.csv else None,
        audio=Path(data.audio) if data.audio else None,
        file_column=data.file_column,
        split_column=data.split_column,
        speaker_column=data.speaker_column,
    )


def config_of_folder(folder: Path) -> DataConfig:
    """The settings of [data] by the folder's data.toml alone. Raises ConfigError."""
    return config_from_dict({"data": settings_of_folder(folder)}, source=str(folder / SETTINGS)).data


def places_of_folder(folder: Path) -> DataPlaces:
    """What a folder's own settings say. Raises ConfigError."""
    return places_of_config(config_of_folder(folder))


def settings_of_folder(folder: Path) -> dict[str, Any]:
    """The settings of [data] in the folder's data.toml; empty where it has none.

    Raises ConfigError, with the file's name, for what is no setting of data or has an impossible value.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return {}
    settings = read_toml(path)
    known = [item.name for item in fields(DataConfig) if item.name not in _OF_A_RUN]
    if unknown := [name for name in settings if name not in known]:
        came, wanted = f"unknown: {', '.join(unknown)}", f"some of {', '.join(known)}"
        fix = "write its settings without the line [data]" if "data" in unknown else ""
        raise ConfigError(str(path), came, wanted=wanted, fix=fix)
    for name in ("csv", "audio"):
        if isinstance(settings.get(name), str):
            settings[name] = str(resolved(folder) / settings[name])
    settings = {"dir": str(resolved(folder)), **settings}
    try:
        settings_from_document(DataConfig, settings, source=str(path))
    except ConfigError as error:
        if error.subject == str(path):
            raise
        named = f"{path}: {error.subject}"  # a value that DataConfig refuses
        raise ConfigError(named, error.came, wanted=error.wanted, fix=error.fix) from error
    return settings


def with_settings_of_data(document: Mapping[str, Any]) -> dict[str, Any]:
    """Settings [data] of the folder that a document names stand where the document says nothing."""
    data = document.get("data", {})
    folder = data.get("dir") if isinstance(data, Mapping) else None
    own = settings_of_folder(Path(folder)) if isinstance(folder, str) and folder else {}
    return {**document, "data": {**_narrowed(own, data), **data}} if own else dict(document)


def beneath_flags(document: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """What of a file's document stands where flags {"data.dir": ...} come over it.

    Where they name the data, nothing of the place that the file names; where they name targets, the scales
    and the classes of these.
    """
    data, given = document.get("data"), {name.removeprefix("data."): value for name, value in flags.items()}
    if not isinstance(data, Mapping):  # config_from_dict refuses it by its name
        return dict(document)
    if given.get("dir") or given.get("csv"):
        places = {"dir", *(item.name for item in fields(DataPlaces))}
        data = {name: value for name, value in data.items() if name not in places}
    return {**document, "data": _narrowed(data, given)}


def _narrowed(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of [data] with the scales and the classes of the targets that are wanted, if any are named."""
    left = dict(settings)
    scale, targets = settings.get("scale"), wanted.get("targets")
    if targets and _are_names(targets) and _are_names(scale):
        left["scale"] = scales_of_targets(scale, targets)
    classes, names = settings.get("classes"), wanted.get("class_targets")
    if names and _are_names(names) and _are_names(classes):
        left["classes"] = [
            label for label in classes if label.startswith(tuple(f"{name}=" for name in names))
        ]
    return left


def _are_names(value: object) -> TypeGuard[list[str]]:
    """False for what config_from_dict refuses."""
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def place_fix(**places: str) -> str:
    """How data are told where they lie: by options, which evaluate lacks, or by the settings in their folder.

    file_column="NAME" -> `--file-column NAME (for evaluate write into data.toml: file_column)`.
    """
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in places.items())
    return f"{options} (for evaluate write into {SETTINGS}: {', '.join(places)})"


def _table_in(folder: Path) -> Path:
    if not folder.is_dir():
        fix = place_fix(csv=quoted(folder), audio="FOLDER") if folder.is_file() else ""
        raise DataError(str(folder), "not a folder", wanted="one with data_info.csv and wav/", fix=fix)
    path = folder / TABLE
    if path.is_file():
        return path
    if path.exists():
        raise DataError(str(path), "not a regular file", wanted="a table with File_ID, Split and targets")
    for suffix in ("csv", "tsv"):
        found = sorted(other for other in folder.glob(f"*.{suffix}") if is_file(other))
        if len(found) == 1:
            return found[0]
        if found:
            break
    if not found:
        named = place_fix(csv="FILE", audio=quoted(folder))
        raise DataError(
            str(folder),
            "holds no table of ratings",
            wanted="data_info.csv and wav/",
            fix=f"{named}; recordings alone are scored, not learned: rrtn score",
        )
    raise DataError(
        str(folder),
        f"{len(found)} {suffix.upper()} files, none named {TABLE}",
        wanted="data_info.csv and wav/",
        fix=f"name the table data_info.csv, or give it: {place_fix(csv='FILE')}",
    )
