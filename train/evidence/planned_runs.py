"""One of the runs that a command trains one after the other: how far it is, and whether it is still the one
that the command asks for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...runtime.errors import ConfigError, ModelError, StoppedError
from ...runtime.system.host import quoted
from ...runtime.text import counted
from ..checkpoint import read_info
from ..config import Config
from ..config_file import MAY_DIFFER, config_from_toml, differences
from ..run_folder import RunFolder

_OF_SIGNALS: Final = 128  # an exit code above it is 128 and the number of a signal


def epochs_done(run: Path) -> int:
    """The epochs that are trained; 0 where there is no run."""
    try:
        return read_info(RunFolder(run).last).epoch
    except ModelError:
        return 0  # none yet, or broken: training finds the one before


def state_of_run(run: Path, done: int, epochs: int) -> str:
    """The progress, in plain words."""
    if done >= epochs:
        return "finished"
    return f"begun, {done} of {counted(epochs, 'epoch')}" if RunFolder(run).is_begun() else "not run"


def check_settings(run: Path, config: Config, *, wanted: str) -> None:
    """Raises ConfigError for a run of other settings than `config`."""
    if not RunFolder(run).is_begun():
        return
    changed = differences(config_from_toml(RunFolder(run).config), config)
    if refused := [text for key, text in changed.items() if key not in MAY_DIFFER]:
        raise ConfigError(
            str(run),
            f"made with other settings: {'; '.join(refused)}",
            wanted=wanted,
            fix="use the old settings, or choose another --out",
        )


def check_digest(run: Path, now: str) -> None:
    """Raises ConfigError for a finished run of other data: it never looks at them again."""
    was = read_info(RunFolder(run).last).data_sha256
    if was != now:
        raise ConfigError(
            str(run),
            f"clips or ratings have changed: sha256 was {was[:12]} and is now {now[:12]}",
            wanted="the data that its runs were trained on",
            fix="restore the data, or choose another --out",
        )


@contextmanager
def trained_anew(run: Path, command: str) -> Iterator[None]:
    """Errors of a broken checkpoint then say how `command` trains this run of its own again."""
    try:
        yield
    except ModelError as error:
        error.fix = f"remove {quoted(run)}, and run the same {command} again: the other runs stay"
        raise


@contextmanager
def resumed_by_the_command() -> Iterator[None]:
    """Errors inside then name the command itself, not the one that resumes a single run."""
    try:
        yield
    except StoppedError as error:
        again = "run the same command again: it continues where this one stopped"
        by_signal = error.exit_code > _OF_SIGNALS
        fix = again if by_signal else f"remove the cause and {again}"
        raise StoppedError(
            error.subject, error.came, wanted=error.wanted, fix=fix, exit_code=error.exit_code
        ) from error
