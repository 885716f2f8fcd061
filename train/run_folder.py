"""Where things lie in a run's folder; no other module knows. It needs no torch: `rrtn score` looks here, too.

config.toml                the whole settings
history.jsonl              one record an epoch
checkpoints/{last,best}/   see checkpoint.py; `last` keeps two
predictions/               scores of the validation clips, by the best checkpoint
export/                    the bundle
report.html                one page with all of this
tensorboard/               event files, with --tensorboard
parity-worst.npz           the clip that an export failed on
run.lock                   held by the trainer
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RUNS: Final = Path("runs")  # where runs are made, and looked for, by default


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run; none of them need exist."""

    path: Path

    @property
    def config(self) -> Path:
        """The settings; the first file of a run."""
        return self.path / "config.toml"

    @property
    def history(self) -> Path:
        """One JSON record a line, one line an epoch."""
        return self.path / "history.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of `last` and `best`."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed run goes on from."""
        return self.checkpoints / "last"

    @property
    def best(self) -> Path:
        """The checkpoint of the epoch with the highest score on Val (`metric_of`)."""
        return self.checkpoints / "best"

    @property
    def predictions(self) -> Path:
        """The folder of the best checkpoint's scores."""
        return self.path / "predictions"

    @property
    def export(self) -> Path:
        """The bundle's folder."""
        return self.path / "export"

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        """The folder of event files."""
        return self.path / "tensorboard"

    @property
    def parity_worst(self) -> Path:
        """The clip whose scores were furthest from PyTorch's, where an export failed."""
        return self.path / "parity-worst.npz"

    @property
    def lock(self) -> Path:
        """Held by the process that trains."""
        return self.path / "run.lock"

    def is_begun(self) -> bool:
        """Whether a run was started here."""
        return self.config.exists()


def runs_in(folder: Path) -> list[Path]:
    """The runs directly in a folder, by name."""
    return [path for path in sorted(folder.glob("*")) if RunFolder(path).is_begun()]


def runs_below(folder: Path) -> list[Path]:
    """The runs in a folder, by name; where it holds none, those in its folders, as in a table's."""
    return runs_in(folder) or [run for inside in sorted(folder.glob("*")) for run in runs_in(inside)]


def free_name(folder: Path, name: str) -> str:
    """The name, or name-2, name-3, ...: the first that nothing in the folder has."""
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(each for each in names if not (folder / each).exists())


def newest_run(
    *, having: Callable[[RunFolder], Path] = lambda run: run.config, runs: Path = RUNS
) -> Path | None:
    """The run in `runs` whose file `having` was written last; None where no run has that file."""
    found = [path for path in runs.glob("*") if having(RunFolder(path)).is_file()]
    return max(found, key=lambda path: having(RunFolder(path)).stat().st_mtime_ns, default=None)
