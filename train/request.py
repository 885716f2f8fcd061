"""What `rrtn train` was asked for, and its settings. No torch: wrong values are refused before its import."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..runtime.errors import ConfigError
from ..runtime.system.files import read_regular
from ..runtime.system.host import quoted
from ..runtime.text import counted
from .config import Config, DataConfig, config_from_dict
from .config_file import changes_on_resume, merged, read_toml
from .data.places import beneath_flags, with_settings_of_data
from .data.reading import check_labels
from .method.columns import same_scales
from .run_folder import RunFolder, newest_run, runs_below
from .sections import flat_settings


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What to train, as it was asked for: nothing is read or checked yet."""

    run: Path | None = None  # the run's folder; None: a new one, or with `resume` the newest
    config_file: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # by section; they win over the file
    resume: bool = False
    strict_resume: bool = False


class RequestedTraining(NamedTuple):
    """A request whose settings are read and have possible values; open ones are still open."""

    request: TrainingRequest
    config: Config
    run: Path | None  # the run's folder, if it is known
    changed: list[str]  # on a resume, what differs from the run's settings


def training_from_request(request: TrainingRequest) -> RequestedTraining:
    """Reads config.toml, and checks each setting. Raises ConfigError."""
    if request.resume:
        return _resumed(request)
    if request.strict_resume:
        raise ConfigError("--strict-resume", "without --resume", fix="add --resume, or leave it out")
    return _new(request)


def _new(request: TrainingRequest) -> RequestedTraining:
    if request.run is not None:
        check_is_new(RunFolder(request.run))
    source = request.config_file
    document, name = read_toml(source) if source else {}, str(source or "flags")
    return RequestedTraining(request, new_config(request.settings, document, source=name), request.run, [])


def _resumed(request: TrainingRequest) -> RequestedTraining:
    run = _existing_run(request)
    document, name = read_toml(RunFolder(run).config), str(RunFolder(run).config)
    document.setdefault("compile", "off")  # what a run did whose file lacks the setting
    own = config_from_dict(document, source=name)
    flags = _without_the_same(flat_settings(request.settings), own.data)
    config = config_from_dict(merged(document, flags), source=name)
    changed = changes_on_resume(own, config)
    if (done := _epochs_done(run)) > config.optim.epochs > 0:
        changed = [
            f"{change}, without effect: {done} are done" if "optim.epochs" in change else change
            for change in changed
        ]
    return RequestedTraining(request, config, run, changed)


def _without_the_same(flags: Mapping[str, Any], own: DataConfig) -> dict[str, Any]:
    """Flags without those that say in other words what the run has, as the command that began it may."""
    same = {"precision"} if flags.get("precision") == "auto" else set()
    if (asked := flags.get("data.scale")) and same_scales(asked, own.scale, own.targets):
        same.add("data.scale")
    return {name: value for name, value in flags.items() if name not in same}


def _epochs_done(run: Path) -> int:
    """A line of the history is an epoch; 0 where there is none that can be read."""
    try:
        return len(read_regular(RunFolder(run).history).splitlines())
    except OSError:
        return 0


def config_from_settings(settings: Mapping[str, Any], config_file: Path | None, *, fold: str) -> Config:
    """The settings of one fold of a cross-validation. Raises ConfigError."""
    document, name = read_toml(config_file) if config_file else {}, str(config_file or "flags")
    try:
        config = new_config({**flat_settings(settings), "data.fold": fold}, document, source=name)
    except ConfigError as error:
        if error.subject == "data.fold":
            folds = fold.partition("/")[2]
            raise ConfigError("--folds", folds, wanted="a number from 2 on, or loso") from error
        raise
    if config.data.fraction != 1:
        raise ConfigError(f"{name}: data.fraction", "not 1", wanted="all clips of each fold")
    return config


def new_config(
    settings: Mapping[str, Any], document: Mapping[str, Any] | None = None, *, source: str = "flags"
) -> Config:
    """Settings of flags, over those of a file's document, over those that the data itself brings along.

    Raises ConfigError.
    """
    flags = flat_settings(settings)
    asked = merged(beneath_flags(document or {}, flags), flags)
    config = config_from_dict(with_settings_of_data(asked), source=source)
    check_labels(config.data)
    return config


def check_is_new(folder: RunFolder) -> None:
    """Raises ConfigError where a run was begun, or where a file lies."""
    if folder.path.is_file():
        raise ConfigError(f"--out {folder.path}", "a file", wanted="a new folder", fix="choose another name")
    if folder.is_begun():
        raise ConfigError(
            f"--out {folder.path}",
            "holds a run already",
            fix="continue with --resume, or choose another folder",
        )


def _existing_run(request: TrainingRequest) -> Path:
    """The run to go on with. Raises ConfigError if there is none."""
    run = request.run or newest_run()
    if run is None or not RunFolder(run).is_begun():
        inside = runs_below(run) if run else []
        came = f"{run} holds {counted(len(inside), 'run')}" if inside else f"no run in {run or 'runs/'}"
        raise ConfigError(
            "--resume",
            came,
            wanted="one run" if inside else "a folder with config.toml",
            fix=f"name the run: --resume --out {quoted(inside[0]) if inside else 'RUN'}",
        )
    if request.config_file:
        raise ConfigError("--config", "not with --resume: the run's own config.toml is taken")
    return run
