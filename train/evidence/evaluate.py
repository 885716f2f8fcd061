"""How good a run is on a split, beside what a ridge regression reaches there."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ...runtime.errors import ConfigError, DataError
from ...runtime.progress import Progress
from ...runtime.system.host import quoted
from ...runtime.tables.outputs import check_place
from ...runtime.text import counted
from ..checkpoint import POINTER, read_info
from ..config_file import MAY_DIFFER, PLACES, config_from_toml, differences
from ..data.corpus import is_synthetic
from ..data.data_set import DataSet
from ..data.ratings import constant_in
from ..method.tasks import submitted_columns, task_of_name
from ..run_folder import RunFolder, runs_in
from .evaluation import Evaluation
from .fold_runs import folds_in
from .groups import Grouping, GroupReport, group_report, grouping_of_text
from .predictions import Predictions, scores_of_seeds, write_test_submission
from .significance import Comparison, compare
from .trained_run import DATA_CHANGED, TrainedRun, predictions_of_run, trained_run

_OF_FOLDS: Final = "a cross-validation, whose clips are those that it was trained on"


def evaluate(
    run: Path,
    *,
    data: Path | None = None,
    split: str = "Val",
    ridge: bool = True,
    others: Sequence[Path] = (),
    submission: Path | None = None,
    by: Sequence[str] = (),
) -> Evaluation:
    """The run's best checkpoint on a `split` of its data, or of `data` with the same targets.

    `run` and each of `others` may be a folder of runs that differ in nothing but their seed. The
    predictions are kept in the run (predictions/), and made again only for another checkpoint or other
    clips. `submission` is the file for the scores of the Test split, in the challenge's format. `by` are
    groups of clips to look at apart, as `grouping_of_text` takes them.

    Raises ModelError for a broken checkpoint; DataError for faulty data and for runs that were not
    evaluated on the same clips; ConfigError, before any work, for what is no run, and for a folder of
    unlike or unfinished runs.
    """
    groupings = [grouping_of_text(text) for text in by]
    ours = _Seeds.of_folder(run, data, split)
    compared = [_Seeds.of_folder(other, data, split) for other in others]
    _check_folds(ours, submission)
    for theirs in compared:
        _check_comparable(ours, theirs)
    if submission:
        _check_submission(submission, ours)
    epochs, seeds, heard = [], [], []
    for last in ours.trained():
        epochs.append(last.info.epoch)
        seeds.append(last.kept_predictions(split))
        heard += ours.heard(last)
    task, columns = task_of_name(last.config.data.task), last.config.data.columns
    wanted = ridge and bool(columns.targets)
    baseline = wanted and last.can_fit_ridge()
    is_own = DATA_CHANGED not in heard and last.is_of_its_own_data
    if submission:
        write_test_submission(submission, last.predictions("Test"), submitted_columns(task, columns.names))
    return Evaluation(
        run=run,
        epochs=tuple(epochs),
        seeds=tuple(seeds),
        ridge=last.ridge_ccc(split) if baseline else None,
        synthetic=is_synthetic(last.data.path),
        split=split,
        chosen_on=split == "Val" and not ours.folds and is_own,
        data_changed=DATA_CHANGED in heard,
        ridge_of_others=baseline and data is not None and not is_own,
        ridge_lacks_train=wanted and not baseline,
        folds=len(ours.folds),
        compared={str(theirs.folder): _comparison(run, seeds, theirs) for theirs in compared},
        groups=tuple(
            _groups(grouping, last.data, seeds, one_scale=len(set(columns.scales)) < 2)
            for grouping in groupings
        ),
        remarks=_remarks(
            {run: [*heard, *_notes(last, split), *_not_judged(seeds[-1])]}
            | {theirs.folder: _heard_by(theirs) for theirs in compared}
        ),
        scales=columns.scales if columns.is_scaled else (),
        task=task,
    )


@dataclass(frozen=True, eq=False)
class _Seeds:
    """A run, S runs that differ in their seed, or a cross-validation: on a split of its data or of other."""

    folder: Path
    runs: list[Path]  # [S]
    folds: list[Path]  # of a cross-validation, which is one of `runs`
    data: Path | None
    split: str

    @classmethod
    def of_folder(cls, folder: Path, data: Path | None, split: str) -> "_Seeds":
        """Raises what `runs_of_seeds` raises."""
        return cls(folder, runs_of_seeds(folder), folds_in(folder), data, split)

    @property
    def is_on_its_own_val(self) -> bool:
        """Whether no other clips are asked for than those that its epochs were chosen on."""
        return self.data is None and self.split == "Val"

    def trained(self) -> Iterator[TrainedRun]:
        """The runs with their data, one after the other. Raises ModelError, DataError."""
        for run in self.runs:
            with Progress("read the run") as bar:
                bar.update(0, str(run))
                found = trained_run(run, self.data, self.split)
            yield found

    def heard(self, run: TrainedRun) -> list[str]:
        """What one of them has learned from these clips and their speakers, or may have."""
        return run.what_it_heard(self.split, other_data=self.data is not None)


def _heard_by(seeds: _Seeds) -> list[str]:
    """`heard` of each; nothing is known where the predictions alone are left."""
    with contextlib.suppress(DataError):
        return [text for one in seeds.trained() for text in seeds.heard(one)]
    return ["its data cannot be read any more: these are the predictions that it made last"]


def _notes(evaluated: TrainedRun, split: str) -> list[str]:
    """What else to know of a run's figures on a split."""
    texts = [evaluated.data.hidden] if split == "Test" else []
    texts += constant_in(evaluated.data, split)
    if evaluated.config.eval.crop == "full":
        spec, lengths = evaluated.config.frontend, evaluated.clips(split).store.lengths
        if longer := int((lengths > spec.clip_samples).sum()):
            longer_ones = f"{longer} of {counted(len(lengths), 'clip')} last longer"
            heard = f"{spec.clip_seconds:g} s, all that an exported model hears"
            texts.append(f"eval.crop is full: {longer_ones} than {heard}")
    return texts


def _not_judged(predictions: Predictions) -> list[str]:
    """What the run learned, and other data do not have."""
    few = ", ".join(predictions.unlabelled)
    return [f"not judged, since too few clips have it: {few}"] if few else []


def _remarks(heard: Mapping[Path, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Each run's folder -> what to know of its figures; runs without any are left out."""
    found = {run: dict.fromkeys(filter(None, (*_unfinished(run), *texts))) for run, texts in heard.items()}
    return {str(run): tuple(texts) for run, texts in found.items() if texts}


def _unfinished(run: Path) -> tuple[str, ...]:
    """Says it of a single run: the seeds and the folds that are evaluated are finished."""
    if not RunFolder(run).is_begun() or folds_in(run):
        return ()
    done, wanted = read_info(RunFolder(run).last).epoch, config_from_toml(RunFolder(run).config).optim.epochs
    return (f"not finished: {done} of {counted(wanted, 'epoch')}",) if done < wanted else ()


def _check_folds(seeds: _Seeds, submission: Path | None) -> None:
    """Raises ConfigError for a cross-validation on other clips than its own, and for its submission."""
    if seeds.folds and (submission or not seeds.is_on_its_own_val):
        raise ConfigError(
            str(seeds.folder), _OF_FOLDS, fix="leave --data, --split and --submission out, or name one fold"
        )


def _check_comparable(ours: _Seeds, theirs: _Seeds) -> None:
    """Raises ConfigError where the two cannot be compared."""
    subject = str(theirs.folder)
    if theirs.folds and not theirs.is_on_its_own_val:
        raise ConfigError(subject, _OF_FOLDS, fix="leave --data and --split out, or name one fold")
    trained = [RunFolder(one).best for one in theirs.folds or theirs.runs]
    if missing := [best for best in trained if not (best / POINTER).is_file()]:
        raise ConfigError(
            subject,
            f"no checkpoint in {missing[0]}",
            wanted="a run that has trained for an epoch, or a folder of such runs",
        )
    if len(theirs.runs) != len(ours.runs):
        came, wanted = counted(len(theirs.runs), "seed"), f"{len(ours.runs)}, as many as {ours.folder} has"
        raise ConfigError(subject, came, wanted=wanted)


def _check_submission(target: Path, seeds: _Seeds) -> None:
    """Raises ConfigError where the scores of Test would have no meaning, and what `check_place` raises."""
    if len(seeds.runs) > 1:
        raise ConfigError(
            "--submission",
            f"{seeds.folder} holds {len(seeds.runs)} runs",
            wanted="one run",
            fix=f"name one, such as {seeds.runs[0]}",
        )
    check_place(target, f"--submission {target}")


def runs_of_seeds(folder: Path) -> list[Path]:
    """The folder itself, or the runs in it. The folds of a cross-validation are no seeds.

    Raises ConfigError where these differ in more than their seed and what changes no result, or are not
    finished.
    """
    runs = runs_in(folder)
    if RunFolder(folder).is_begun() or not runs or folds_in(folder):
        return [folder]
    configs = [config_from_toml(RunFolder(run).config) for run in runs]
    digest = read_info(RunFolder(runs[0]).last).data_sha256
    for run, config in zip(runs, configs, strict=True):
        info = read_info(RunFolder(run).last)
        is_same = info.data_sha256 == digest
        may = MAY_DIFFER | {"seed"} if is_same else MAY_DIFFER - PLACES | {"seed"}
        if unlike := [text for key, text in differences(configs[0], config).items() if key not in may]:
            raise ConfigError(
                str(run),
                f"unlike {runs[0].name}: {'; '.join(unlike)}",
                wanted="runs that differ in nothing but their seed",
                fix="name a single run, or move the others out of the folder",
            )
        if not is_same and config.data.fraction == configs[0].data.fraction == 1:
            raise ConfigError(
                str(run),
                f"other clips or ratings than {runs[0].name} was trained on",
                wanted="runs that differ in nothing but their seed",
                fix="name a single run, or train again: the data was changed between them",
            )
        if (done := info.epoch) < config.optim.epochs:
            raise ConfigError(
                str(run),
                f"{done} of {counted(config.optim.epochs, 'epoch')}",
                wanted="finished runs",
                fix=f"finish it: rrtn train --resume --out {quoted(run)}",
            )
    _check_seeds(runs, [config.seed for config in configs])
    return runs


def _check_seeds(runs: Sequence[Path], seeds: Sequence[int]) -> None:
    """Raises ConfigError for two runs with one seed: a copy tells nothing of how much chance does."""
    first: dict[int, Path] = {}
    for run, seed in zip(runs, seeds, strict=True):
        if seed in first:
            raise ConfigError(
                str(run),
                f"seed {seed}, as {first[seed].name} has",
                wanted="another seed in each run",
                fix="move one of the two out of the folder",
            )
        first[seed] = run


def _groups(
    grouping: Grouping, data: DataSet, seeds: Sequence[Predictions], *, one_scale: bool
) -> GroupReport:
    rated = [seed.of_ratings() for seed in seeds]
    if not rated[0].targets:
        raise ConfigError(f"--by {grouping.column}", "classes alone", wanted="a run with rated targets")
    with Progress("compare groups"):
        return group_report(grouping, data.cells, rated, one_scale=one_scale)


def _comparison(run: Path, seeds: Sequence[Predictions], other: _Seeds) -> Comparison:
    subject = str(other.folder)
    theirs = [predictions_of_run(one, data=other.data, split=other.split) for one in other.runs]
    if not all(same_clips(seeds[0], their) for their in theirs):
        if other.folds or folds_in(run):
            fix = "compare a cross-validation with another one of the same data, or name one of its folds"
        else:
            command = f"rrtn evaluate {quoted(run)} --compare {quoted(other.folder)} --data DIR"
            fix = f"judge both on one data set: {command}"
        raise DataError(
            subject,
            f"other clips, targets or ratings than {run}",
            wanted="runs on the same data",
            fix=fix,
        )
    ours, theirs = [seed.of_ratings() for seed in seeds], [their.of_ratings() for their in theirs]
    if not ours[0].targets:
        raise ConfigError(subject, "classes alone", wanted="runs with rated targets")
    with Progress("compare speaker by speaker"):
        return compare(scores_of_seeds(ours), scores_of_seeds(theirs), ours[0].rated, ours[0].speakers)


def same_clips(one: Predictions, other: Predictions) -> bool:
    """True if the two can be compared."""
    alike = (one.file_ids, one.targets) == (other.file_ids, other.targets)
    return alike and np.array_equal(one.rated, other.rated, equal_nan=True)
