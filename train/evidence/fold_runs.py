"""The runs of a cross-validation: one for each fold, in one folder.

<out>/fold<N>/ is a run, as `rrtn train` makes it, validated on fold N. What is kept of all clips lies in
<out> as in a run.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...runtime.errors import ConfigError
from ...runtime.system.locks import locked
from ...runtime.text import counted
from ..config import Config, fold_of_text
from ..config_file import config_from_toml
from ..data.data_set import DataSet
from ..data.folds import check_classes_of_fold, fold_numbers, fold_of_data
from ..data.ratings import constant_in_train
from ..display import Part
from ..loop import train
from ..plan import TrainingPlan, data_digest, data_from_config, notes_on_data, plan_from_config, targets_line
from ..run_folder import RunFolder, runs_in
from ..run_state import keep_places
from .planned_runs import check_digest, check_settings, epochs_done, resumed_by_the_command, state_of_run


class Fold(NamedTuple):
    """One run and its progress."""

    number: int
    folder: Path
    clips: int
    speakers: int
    epochs_done: int
    epochs: int

    @property
    def is_begun(self) -> bool:
        """True if there is a run to resume."""
        return RunFolder(self.folder).is_begun()

    @property
    def is_finished(self) -> bool:
        """True if all epochs are done."""
        return self.epochs_done >= self.epochs

    @property
    def state(self) -> str:
        """The progress, in plain words."""
        return state_of_run(self.folder, self.epochs_done, self.epochs)


@dataclass(frozen=True, kw_only=True)
class FoldRuns:
    """A cross-validation in a folder."""

    out: Path
    config: Config  # resolved; its fold is all/N
    data: DataSet  # all clips in Train and in Val
    notes: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The number of folds, or loso."""
        return fold_of_text(self.config.data.fold)[1]

    @cached_property
    def numbers(self) -> list[int]:
        """[n]: the fold of each clip."""
        return fold_numbers(self.data.splits["Val"].clips, self.kind)

    def config_of(self, number: int) -> Config:
        """The settings that `rrtn train` would be given."""
        return replace(self.config, data=replace(self.config.data, fold=f"{number}/{self.kind}"))

    def folds(self) -> list[Fold]:
        """All of them, as they are in the folder now."""
        clips, speakers = Counter(self.numbers), defaultdict[int, set[str]](set)
        for number, clip in zip(self.numbers, self.data.splits["Val"].clips, strict=True):
            speakers[number].add(clip.speaker)
        found, last, epochs = [], max(clips), self.config.optim.epochs
        for number in range(1, last + 1):
            folder = self.out / f"fold{number:0{len(str(last))}d}"
            people = len(speakers[number])
            found.append(Fold(number, folder, clips[number], people, epochs_done(folder), epochs))
        return found

    def describe(self) -> dict[str, Any]:
        """For --json."""
        return {
            "out": str(self.out),
            "folds": [
                {
                    "fold": fold.number,
                    "clips": fold.clips,
                    "speakers": fold.speakers,
                    "state": fold.state,
                    "folder": str(fold.folder),
                }
                for fold in self.folds()
            ],
            "config": self.config.to_dict(),
        }


def fold_runs(config: Config, *, folds: str, out: Path) -> FoldRuns:
    """Reads the data and fills the open settings, for all folds alike.

    Raises ConfigError for a folder with runs of other settings, and for folds that cannot be; DataError.
    """
    if RunFolder(out).is_begun():
        raise ConfigError(f"--out {out}", "a run", wanted="a new folder", fix="choose another name")
    whole = replace(config, data=replace(config.data, fold=f"all/{folds}"))
    first = plan_from_config(replace(config, data=replace(config.data, fold=f"1/{folds}")))
    resolved = replace(first.config, data=replace(first.config.data, fold=whole.data.fold))
    data = data_from_config(resolved)
    runs = FoldRuns(out=out, config=resolved, data=data, notes=_notes(first, data))
    of_folds = []
    for fold in runs.folds():
        check_settings(fold.folder, runs.config_of(fold.number), wanted="one setting for all folds")
        # Refuses a fold before anything is trained.
        name = f"{fold.number}/{folds}"
        part = fold_of_data(runs.data, name, runs.numbers)
        check_classes_of_fold(part, name)
        of_folds += [f"fold {name}: {note}" for note in constant_in_train(part)]
    return replace(runs, notes=(*runs.notes, *(of_folds if not constant_in_train(data) else ())))


def _notes(first: TrainingPlan, data: DataSet) -> tuple[str, ...]:
    """What is said of settings by the first fold's plan, and of all clips of the folds. Test stays aside."""
    everything = replace(first.data, splits={"Train": data.splits["Train"]})
    of_settings = [note for note in first.notes if note not in notes_on_data(first.data)]
    return (targets_line(everything), *of_settings, *notes_on_data(everything))


def train_folds(runs: FoldRuns, *, say: Callable[[str], object]) -> None:
    """Trains the missing runs. Finished runs are kept, and a begun one is resumed.

    Raises StoppedError where a run is stopped; calling again continues. Raises ConfigError where the data
    have changed, or another process trains the folds.
    """
    runs.out.mkdir(parents=True, exist_ok=True)
    with locked(runs.out / "crossval.lock", does="trains folds"):
        folds, said = runs.folds(), set[str]()
        for fold in folds:
            if fold.is_finished:
                check_digest(fold.folder, data_digest(plan_from_config(runs.config_of(fold.number))))
                keep_places(RunFolder(fold.folder), runs.config)
                continue
            label = f"fold {fold.number}/{len(folds)}"
            people = f"{counted(fold.clips, 'clip')} of {counted(fold.speakers, 'speaker')}"
            say(f"{label}: {people}, {fold.state}")
            later = sum(after.epochs - after.epochs_done for after in folds[fold.number :]) / fold.epochs
            plan = plan_from_config(runs.config_of(fold.number))
            with resumed_by_the_command():
                train(plan, fold.folder, resume=fold.is_begun, part=Part(label=label, later=later, said=said))
            torch.cuda.empty_cache()


def folds_in(folder: Path) -> list[Path]:
    """The runs of a cross-validation, by their numbers; none where the folder holds none."""
    if RunFolder(folder).is_begun():
        return []
    found = [run for run in runs_in(folder) if run.name.startswith("fold")]
    return found if found and config_from_toml(RunFolder(found[0]).config).data.fold else []
