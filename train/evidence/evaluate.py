"""How good a run is on a split, beside what a ridge regression reaches there.

S seeds, n clips, K rated targets, J class targets, L columns of the scores.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ...runtime.arrays import Float32, Float64, Int64, waveform_from_samples
from ...runtime.errors import ConfigError, DataError, ModelError, counted
from ...runtime.frontend import clip_log_mel
from ...runtime.progress import Progress
from ...runtime.system.files import sha256_of
from ...runtime.tables.outputs import check_place
from ...runtime.text import short
from ..checkpoint import POINTER, CheckpointInfo, load_checkpoint, read_info, split_weights
from ..config import Config, config_from_dict, fold_of_text
from ..config_file import MAY_DIFFER, config_from_toml, differences
from ..data.corpus import is_synthetic
from ..data.data_set import DataSet, Split, read_data
from ..data.device_clips import SplitClips, sha256_of_splits, split_clips
from ..data.folds import fold_numbers, fold_of_data
from ..data.reading import labels_of_settings
from ..method.columns import ClassTarget, Scale
from ..method.frontend import LogMel
from ..method.metrics import (
    Judgement,
    ccc_biased,
    ccc_challenge,
    confusion,
    in_units,
    mae,
    metric_of,
    numbers_of_one_hot,
    pearson,
    uar_of_confusion,
)
from ..method.model import TwinsNetwork
from ..method.tasks import Metric, Task, task_of_name
from ..plan import data_from_config, network_from_config
from ..predict import predict
from ..run_folder import RunFolder, runs_in
from .fold_runs import folds_in
from .groups import Grouping, GroupReport, group_report, grouping_of_text
from .predictions import Predictions, read_predictions, write_predictions, write_submission
from .ridge import mel_statistics, ridge_predictions
from .significance import FEWEST_SPEAKERS, Comparison, ccc_interval, compare, uar_interval

_CPU: Final = torch.device("cpu")
_ANOTHER: Final = "the checkpoint was changed: use another one, or train again"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A run's best checkpoint on the validation split.

    Of a folder of seeds, it is the best checkpoint of each; metrics are then means over the seeds.
    Columns [K + 1] are the rated targets and then their mean. Each target is judged on the clips that
    have it. Scores and ratings are in the units of their scales.
    """

    run: Path
    epochs: tuple[int, ...]  # [S]
    seeds: tuple[Predictions, ...]  # [S]
    ridge: Float64 | None  # [K] CCC (challenge) of the baseline, fitted on the last seed's training clips
    synthetic: bool = False  # the voices are: the scores say nothing about real ones
    split: str = "Val"
    folds: int = 0  # of a cross-validation; 0: the clips were held out of one run
    chosen_on: bool = True  # the epoch was chosen on these clips
    compared: dict[str, Comparison] = field(default_factory=dict)  # folder of the other run -> comparison
    groups: tuple[GroupReport, ...] = ()  # of each --by
    scales: tuple[Scale, ...] = ()  # [K]; empty where all are 0 to 1
    task: Task | None = None

    @property
    def epoch(self) -> int:
        """The best epoch of the first seed."""
        return self.epochs[0]

    @property
    def predictions(self) -> Predictions:
        """The predictions of the first seed."""
        return self.seeds[0]

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the K rated targets."""
        return self.predictions.columns.targets

    @property
    def classes(self) -> tuple[ClassTarget, ...]:
        """The J class targets."""
        return self.predictions.classes

    @cached_property
    def _rated(self) -> tuple[Predictions, ...]:
        """The rated columns of each seed."""
        return tuple(seed.of_ratings() for seed in self.seeds)

    @property
    def counts(self) -> tuple[int, ...]:
        """[K]: the clips that are rated for each target."""
        return tuple((~np.isnan(self._rated[0].rated)).sum(0).tolist())

    @property
    def clips(self) -> int:
        """The number of clips, n."""
        return len(self.predictions.file_ids)

    @property
    def speakers(self) -> int:
        """The number of speakers who are named: clips without a speaker are of nobody known."""
        return len(set(self.predictions.speakers) - {""})

    @property
    def challenge(self) -> Float64:
        """CCC [K]: variances over n - 1, covariance over n."""
        return _mean([ccc_challenge(seed.scores, seed.rated) for seed in self._rated])

    @property
    def biased(self) -> Float64:
        """CCC [K]: all moments over n."""
        return _mean([ccc_biased(seed.scores, seed.rated) for seed in self._rated])

    @property
    def pearson(self) -> Float64:
        """Correlation [K]. A wrong scale or level does not lower it. 0 where one side is constant."""
        return _mean([pearson(seed.scores, seed.rated) for seed in self._rated])

    @property
    def mae(self) -> Float64:
        """Mean absolute error [K]."""
        return _mean([mae(seed.scores, seed.rated) for seed in self._rated])

    @cached_property
    def tables(self) -> tuple[Int64, ...]:
        """[J]: clips [C, C] by their class and by the likeliest one, summed over the seeds."""
        return tuple(
            np.sum(
                [
                    confusion(seed.scores[:, group], numbers_of_one_hot(seed.rated[:, group]))
                    for seed in self.seeds
                ],
                0,
            )
            for group in self.predictions.columns.groups
        )

    @property
    def uar(self) -> Float64:
        """Unweighted average recall [J]."""
        return _mean([self._uar_of(seed) for seed in self.seeds])

    @staticmethod
    def _uar_of(seed: Predictions) -> Float64:
        groups = seed.columns.groups
        tables = (confusion(seed.scores[:, g], numbers_of_one_hot(seed.rated[:, g])) for g in groups)
        return np.array([float(uar_of_confusion(table)) for table in tables])

    @cached_property
    def uar_intervals(self) -> tuple[tuple[float, float], ...] | None:
        """[J] 95% intervals (low, high) of the recalls; None where there are too few speakers."""
        if self.speakers < FEWEST_SPEAKERS:
            return None
        scores, predictions = _scores(self.seeds), self.predictions
        return tuple(
            uar_interval(scores[..., g], numbers_of_one_hot(predictions.rated[:, g]), predictions.speakers)
            for g in predictions.columns.groups
        )

    @property
    def metric(self) -> Metric:
        """What the epoch was chosen by."""
        return metric_of(self.predictions.columns, self.task)

    @property
    def score(self) -> float:
        """That metric here; the mean over the seeds."""
        return float(
            np.mean(
                [
                    self._judgement(*pair).score(self.task)
                    for pair in zip(self.seeds, self._rated, strict=True)
                ]
            )
        )

    @property
    def parts(self) -> dict[str, float]:
        """What S_MTL is made of, means over the seeds; empty for another metric."""
        if self.metric != "s_mtl" or self.task is None:
            return {}
        of_seeds = [
            self._judgement(*pair).parts_of_s_mtl(self.task)
            for pair in zip(self.seeds, self._rated, strict=True)
        ]
        return {name: float(np.mean([parts[name] for parts in of_seeds])) for name in of_seeds[0]}

    @property
    def has_one_scale(self) -> bool:
        """Whether errors of several targets have a mean: all are on the same scale."""
        return len(set(self.scales)) < 2

    def _judgement(self, seed: Predictions, rated: Predictions) -> Judgement:
        return Judgement(
            columns=seed.columns,
            ccc=ccc_challenge(rated.scores, rated.rated),
            mae=mae(rated.scores, rated.rated),
            uar=self._uar_of(seed),
        )

    @cached_property
    def interval(self) -> tuple[Float64, Float64] | None:
        """The 95% interval of the challenge CCC: low and high, [K + 1] each.

        It draws speakers, and seeds where there are several. None where there are too few speakers for it
        to mean something.
        """
        if self.speakers < FEWEST_SPEAKERS or not self.targets:
            return None
        with Progress("resample speakers"):
            return ccc_interval(_scores(self._rated), self._rated[0].rated, self.predictions.speakers)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        columns = {"ccc": self.challenge, "ccc_biased": self.biased, "pearson": self.pearson, "mae": self.mae}
        shown = columns | ({} if self.ridge is None else {"ridge_ccc": self.ridge})
        return {
            "run": str(self.run),
            "epoch": self.epoch,
            "split": self.split,
            "clips": self.clips,
            "speakers": self.speakers,
            "synthetic": self.synthetic,
            **({"mean": self._mean_of(shown)} if self.targets else {}),
            "per_target": {
                target: {**{name: float(values[k]) for name, values in shown.items()}, **self._pair(k)}
                for k, target in enumerate(self.targets)
            },
            "compared": {run: comparison.to_dict(self.targets) for run, comparison in self.compared.items()},
            **self._of_labels(),
            **({"folds": self.folds} if self.folds else {}),
            **({"groups": [group.to_dict() for group in self.groups]} if self.groups else {}),
        } | ({"epochs_of_seeds": list(self.epochs)} if len(self.seeds) > 1 else {})

    def _mean_of(self, shown: dict[str, Float64]) -> dict[str, float | None]:
        means: dict[str, float | None] = {name: float(values.mean()) for name, values in shown.items()}
        return {**means, **({} if self.has_one_scale else {"mae": None}), **self._pair(-1)}

    def _of_labels(self) -> dict[str, Any]:
        """What scales, blanks, classes and tasks add to `to_dict`; empty without them."""
        added: dict[str, Any] = {}
        if self.scales:
            named = zip(self.targets, self.scales, strict=True)
            added["scales"] = {name: [scale.low, scale.high] for name, scale in named}
        if any(count < self.clips for count in self.counts):
            added["rated"] = dict(zip(self.targets, self.counts, strict=True))
        if self.classes:
            added["classes"] = {target.name: self._of_class(j) for j, target in enumerate(self.classes)}
        if self.metric != "ccc":
            added |= {"metric": self.metric, "score": self.score}
        if self.parts:
            added["score_parts"] = self.parts
        return added

    def _of_class(self, j: int) -> dict[str, Any]:
        low, high = self.uar_intervals[j] if self.uar_intervals else (None, None)
        return {
            "uar": float(self.uar[j]),
            "uar_low": low,
            "uar_high": high,
            "classes": list(self.classes[j].classes),
            "confusion": self.tables[j].tolist(),
        }

    def _pair(self, column: int) -> dict[str, float | None]:
        low, high = (float(end[column]) for end in self.interval) if self.interval else (None, None)
        return {"ccc_low": low, "ccc_high": high}


def _mean(of_seeds: Sequence[Float64]) -> Float64:
    return np.asarray(np.mean(of_seeds, axis=0))


def _scores(seeds: Sequence[Predictions]) -> Float64:
    """[S, n, K]."""
    return np.array([seed.scores for seed in seeds])


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
    runs, groupings = runs_of_seeds(run), [grouping_of_text(text) for text in by]
    is_crossed = bool(folds_in(run))
    if is_crossed and (data or split != "Val" or submission):
        came = "a cross-validation, whose clips are those that it was trained on"
        raise ConfigError(str(run), came, fix="leave --data, --split and --submission out, or name one fold")
    for other in others:
        _check_comparable(run, len(runs), other)
    if submission:
        _check_submission(submission, run, runs)
    epochs, seeds = [], []
    for one in runs:
        with Progress("read the run") as bar:
            bar.update(0, str(one))
            evaluated = _evaluated(one, data)
        epochs.append(evaluated.info.epoch)
        seeds.append(evaluated.kept_predictions(split))
    task = task_of_name(evaluated.config.data.task)
    if submission:
        write_submission(submission, evaluated.predictions("Test"), task.submitted if task else ())
    columns = evaluated.config.data.columns
    return Evaluation(
        run=run,
        epochs=tuple(epochs),
        seeds=tuple(seeds),
        ridge=evaluated.ridge_ccc(split) if ridge and columns.targets else None,
        synthetic=is_synthetic(evaluated.data.path),
        split=split,
        chosen_on=data is None and split == "Val" and not is_crossed,
        folds=len(folds_in(run)),
        compared={str(other): _comparison(run, seeds, other, data, split) for other in others},
        groups=tuple(_groups(grouping, evaluated.data, seeds) for grouping in groupings),
        scales=columns.scales if columns.is_scaled else (),
        task=task,
    )


def _check_comparable(run: Path, seeds: int, other: Path) -> None:
    """Raises ConfigError for an `other` that cannot be compared with `run`."""
    runs = runs_of_seeds(other)
    trained = [RunFolder(one).best for one in folds_in(other) or runs]
    if missing := [best for best in trained if not (best / POINTER).is_file()]:
        raise ConfigError(
            f"--compare {other}",
            f"no checkpoint in {missing[0]}",
            wanted="a run that has trained for an epoch, or a folder of such runs",
        )
    if len(runs) != seeds:
        came = counted(len(runs), "seed")
        raise ConfigError(f"--compare {other}", came, wanted=f"{seeds}, as many as {run} has")


def _check_submission(target: Path, run: Path, runs: Sequence[Path]) -> None:
    """Raises ConfigError where the scores of Test would have no meaning, and what `check_place` raises."""
    if len(runs) > 1:
        raise ConfigError(
            "--submission",
            f"{run} holds {len(runs)} runs",
            wanted="one run",
            fix=f"name one, such as {runs[0]}",
        )
    check_place(target, f"--submission {target}")


def runs_of_seeds(folder: Path) -> list[Path]:
    """The folder itself, or the runs in it. The folds of a cross-validation are no seeds.

    Raises ConfigError where these differ in more than their seed, or are not finished.
    """
    runs = runs_in(folder)
    if RunFolder(folder).is_begun() or not runs or folds_in(folder):
        return [folder]
    configs = [config_from_toml(RunFolder(run).config) for run in runs]
    for run, config in zip(runs, configs, strict=True):
        if unlike := [
            text for key, text in differences(configs[0], config).items() if key not in {"seed", "device"}
        ]:
            raise ConfigError(
                str(run),
                f"unlike {runs[0].name}: {'; '.join(unlike)}",
                wanted="runs that differ in nothing but their seed",
                fix="name a single run, or move the others out of the folder",
            )
        if (done := read_info(RunFolder(run).last).epoch) < config.optim.epochs:
            raise ConfigError(
                str(run),
                f"{done} of {counted(config.optim.epochs, 'epoch')}",
                wanted="finished runs",
                fix=f"finish it: rrtn train --resume --out {run}",
            )
    return runs


@dataclass(frozen=True)
class _Evaluated:
    """A best checkpoint with its data. The network is loaded where it is needed."""

    run: Path
    info: CheckpointInfo
    config: Config
    data: DataSet

    @classmethod
    def of_run(cls, run: Path, data: Path | None) -> "_Evaluated":
        info = read_info(RunFolder(run).best)
        config = _config_of(info, RunFolder(run))
        channel = config.data.channel or None
        labels = labels_of_settings(config.data, only_named=True)
        data_set = (
            read_data(data, config.data.targets, channel=channel, labels=labels)
            if data
            else data_from_config(config)
        )
        return cls(run, info, config, data_set)

    def clips(self, split: str, device: torch.device = _CPU) -> SplitClips:
        return split_clips(self.data, split, self.config.frontend, device)

    def kept_predictions(self, name: str, device: torch.device = _CPU) -> Predictions:
        """Those on a split, in float32. They are read if they are of this checkpoint and these clips.

        Raises DataError where the split has no labels.
        """
        split = self.data.splits[name]
        if np.isnan(split.ratings).all():
            came = f"none of {counted(len(split.clips), 'clip')} is rated" if split.clips else "no clips"
            raise DataError(f"--split {name}", came, wanted="a split with labels", fix="leave it out: Val")
        unchecked = split_clips(self.data, name, self.config.frontend, _CPU, checked=False)
        path = _kept(self.run, name, sha256_of_splits(self.data.columns.labels, unchecked)[:12])
        with contextlib.suppress(DataError):  # not there, or broken
            kept = read_predictions(path)
            if kept.file_ids == _file_ids(split) and kept.targets == self.data.columns.labels:
                return replace(kept, speakers=_speakers(split), classes=self.data.columns.classes)
        predictions = self.predictions(name, device)
        write_predictions(path, predictions)
        return predictions

    def predictions(self, name: str, device: torch.device = _CPU) -> Predictions:
        split = self.data.splits[name]
        if not split.clips:
            raise DataError(str(self.data.path), f"its {name} split has no clips", wanted="at least one")
        scores = self._scores(name, device)
        columns = self.config.data.columns
        return Predictions(
            file_ids=_file_ids(split),
            speakers=_speakers(split),
            targets=columns.labels,
            scores=in_units(scores, columns) if columns.is_scaled else np.asarray(scores, np.float64),
            rated=split.rated,
            classes=columns.classes,
        )

    def _scores(self, name: str, device: torch.device) -> Float32:
        """[n, L] as the network gives them."""
        network = best_of_run(self.run)[2]
        return _scores_of(network, self.config, self.clips(name, device), label=f"predict {name}")

    def ridge_ccc(self, split: str) -> Float64:
        """CCC [K] (challenge) on a split of a ridge regression that was fitted on Train."""
        return _ridge_ccc(self.data, self.clips(split))


class _CrossFitted(_Evaluated):
    """A cross-validation: each clip is predicted by the run that did not learn from its speaker.

    That run's last epoch is taken, so that no epoch is chosen on the clips that it is judged by.
    """

    @classmethod
    def of_run(cls, run: Path, data: Path | None) -> "_CrossFitted":
        folds = folds_in(run)
        infos = [read_info(RunFolder(fold).last) for fold in folds]
        config = config_of_all_folds(_config_of(infos[0], RunFolder(folds[0])))
        crossed = cls(run, infos[0], config, data_from_config(config))
        finished = sum(info.epoch >= config.optim.epochs for info in infos)
        if (finished, len(folds)) != (wanted := max(crossed.numbers), wanted):
            came = f"{finished} of {counted(wanted, 'fold')} finished"
            raise ConfigError(str(run), came, wanted="all", fix=f"rrtn crossval ... --out {run}")
        return crossed

    @property
    def numbers(self) -> list[int]:
        """[n]: the fold of each clip."""
        return fold_numbers(self.data.splits["Val"].clips, fold_of_text(self.config.data.fold)[1])

    def _scores(self, name: str, device: torch.device) -> Float32:
        scores = np.empty((len(self.numbers), len(self.data.columns.labels)), np.float32)
        for fold in folds_in(self.run):
            info, tensors = load_checkpoint(RunFolder(fold).last, "weights")
            config = _config_of(info, RunFolder(fold))
            data = fold_of_data(self.data, config.data.fold)
            inside = np.array(self.numbers) == fold_of_text(config.data.fold)[0]
            network = network_from_weights(config, tensors["weights"], source=str(fold))
            clips = split_clips(data, "Val", config.frontend, device)
            scores[inside] = _scores_of(network, config, clips, label=f"predict {fold.name}")
        return scores

    def ridge_ccc(self, split: str) -> Float64:
        clips = self.clips(split)
        k = len(self.data.targets)
        features, ratings = _statistics(clips, label="ridge"), clips.ratings.numpy()[:, :k]
        predicted = np.empty(ratings.shape)
        for number in range(1, max(self.numbers) + 1):
            inside = np.array(self.numbers) == number
            predicted[inside] = ridge_predictions(features[~inside], ratings[~inside], features[inside])
        return ccc_challenge(predicted, ratings)


def config_of_all_folds(config: Config) -> Config:
    """The settings of a fold -> those with which all clips are in Val."""
    kind = fold_of_text(config.data.fold)[1]
    return replace(config, data=replace(config.data, fold=f"all/{kind}"))


def _evaluated(run: Path, data: Path | None) -> _Evaluated:
    """A run, or a cross-validation."""
    return _CrossFitted.of_run(run, data) if folds_in(run) else _Evaluated.of_run(run, data)


def _scores_of(network: TwinsNetwork, config: Config, clips: SplitClips, *, label: str) -> Float32:
    frontend = LogMel(config.frontend).to(clips.device)
    with Progress(label, len(clips), "clips") as bar:
        return predict(network.to(clips.device), frontend, clips, crop=config.eval.crop, advance=bar.advance)


def _file_ids(split: Split) -> tuple[str, ...]:
    return tuple(clip.file_id for clip in split.clips)


def _speakers(split: Split) -> tuple[str, ...]:
    return tuple(clip.speaker for clip in split.clips)


def _kept(run: Path, split: str, data: str) -> Path:
    """The file for the predictions on a split, named by hashes of the checkpoints and of the clips."""
    pointers = [RunFolder(fold).last / POINTER for fold in folds_in(run)] or [RunFolder(run).best / POINTER]
    hashes = [sha256_of(pointer) for pointer in pointers]
    of_all = hashlib.sha256("".join(hashes).encode()).hexdigest()
    checkpoint = of_all if len(hashes) > 1 else hashes[0]
    return RunFolder(run).predictions / f"{split}-{checkpoint[:12]}-{data}.csv"


def predictions_of_run(
    run: Path, *, data: Path | None = None, split: str = "Val", device: torch.device = _CPU
) -> Predictions:
    """The best checkpoint's predictions on a split, in float32.

    They are kept in the run, and read from there the next time. Where the run's own data cannot be read
    any more, those that were made last with this checkpoint are taken.
    """
    try:
        return _evaluated(run, data).kept_predictions(split, device)
    except DataError:
        kept = (
            [] if data else sorted(_kept(run, split, "x").parent.glob(_kept(run, split, "*").name), key=_time)
        )
        if not kept or folds_in(run):
            raise
        classes = _config_of(read_info(RunFolder(run).best), RunFolder(run)).data.columns.classes
        return replace(read_predictions(kept[-1]), classes=classes)


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


def _groups(grouping: Grouping, data: DataSet, seeds: Sequence[Predictions]) -> GroupReport:
    rated = [seed.of_ratings() for seed in seeds]
    if not rated[0].targets:
        raise ConfigError(f"--by {grouping.column}", "classes alone", wanted="a run with rated targets")
    with Progress("compare groups"):
        return group_report(grouping, data.cells, rated)


def _comparison(
    run: Path, seeds: Sequence[Predictions], other: Path, data: Path | None, split: str
) -> Comparison:
    theirs = [predictions_of_run(one, data=data, split=split) for one in runs_of_seeds(other)]
    if not all(same_clips(seeds[0], their) for their in theirs):
        raise DataError(
            f"--compare {other}",
            f"other clips, targets or ratings than {run}",
            wanted="runs on the same data",
            fix="evaluate both on the same data: add --data DIR",
        )
    ours, theirs = [seed.of_ratings() for seed in seeds], [their.of_ratings() for their in theirs]
    if not ours[0].targets:
        raise ConfigError(f"--compare {other}", "classes alone", wanted="runs with rated targets")
    with Progress("compare speaker by speaker"):
        return compare(_scores(ours), _scores(theirs), ours[0].rated, ours[0].speakers)


def same_clips(one: Predictions, other: Predictions) -> bool:
    """True if the two can be compared."""
    alike = (one.file_ids, one.targets) == (other.file_ids, other.targets)
    return alike and np.array_equal(one.rated, other.rated, equal_nan=True)


def best_of_run(run: Path) -> tuple[CheckpointInfo, Config, TwinsNetwork]:
    """A run's best checkpoint, its settings, and its network in evaluation mode on the CPU.

    Raises ModelError where the checkpoint is broken, or contradicts itself.
    """
    folder = RunFolder(run).best
    info, tensors = load_checkpoint(folder, "weights")
    config = _config_of(info, RunFolder(run))
    return info, config, network_from_weights(config, tensors["weights"], source=str(folder))


def _config_of(info: CheckpointInfo, run: RunFolder) -> Config:
    """The settings in the checkpoint, which must be those of the run's config.toml where there is one."""
    pointer = str(run.best / POINTER)
    try:
        config = config_from_dict(info.config, source=pointer)
        saved = config_from_toml(run.config) if run.is_begun() else config
        labels = list(config.data.columns.labels)
    except ConfigError as error:
        raise ModelError(error.subject, error.came, wanted=error.wanted, fix=_ANOTHER) from error
    if labels != info.labels or not info.history:
        came = f"labels {short(info.labels)} and targets {short(labels)}, epoch {info.epoch}"
        raise ModelError(pointer, came, wanted="the same names, after at least one epoch", fix=_ANOTHER)
    changed = differences(saved, config)
    if contradictions := [text for key, text in changed.items() if key not in MAY_DIFFER | {"optim.epochs"}]:
        came = f"other settings than {run.config.name}: {'; '.join(contradictions)}"
        raise ModelError(pointer, came, wanted="the same settings in both", fix=_ANOTHER)
    return config


def network_from_weights(
    config: Config, weights: dict[str, torch.Tensor], *, source: str = "checkpoint"
) -> TwinsNetwork:
    """The network of a checkpoint, in evaluation mode on the CPU.

    `source` is what the ModelError names where the weights are not those of the settings.
    """
    state, _ = split_weights(weights)
    with torch.device("meta"):  # takes no memory, whatever the settings say
        wanted = {name: value.shape for name, value in network_from_config(config).state_dict().items()}
    came = {name: value.shape for name, value in state.items()}
    if differing := sorted(name for name in {**wanted, **came} if wanted.get(name) != came.get(name)):
        named = f"{len(differing)} tensors are not those of its settings, such as {differing[0]}"
        raise ModelError(source, named, wanted="weights of the network in its settings", fix=_ANOTHER)
    network = network_from_config(config)
    network.load_state_dict(state)
    return network.eval()


def _ridge_ccc(data_set: DataSet, validation: SplitClips) -> Float64:
    """CCC [K] (challenge) on Val of a ridge regression that was fitted on Train."""
    training = split_clips(data_set, "Train", validation.spec, torch.device("cpu"))
    features = (_statistics(training, label="ridge Train"), _statistics(validation, label="ridge Val"))
    k = len(data_set.targets)
    predicted = ridge_predictions(features[0], training.ratings.numpy()[:, :k], features[1])
    return ccc_challenge(predicted, validation.ratings.numpy()[:, :k])


def _statistics(split: SplitClips, *, label: str) -> Float64:
    with Progress(label, len(split.store), "clips") as bar:

        def features(index: int) -> Float32:
            bar.advance()
            return clip_log_mel(waveform_from_samples(split.store.waveform(index)), split.spec)

        return mel_statistics(features(i) for i in range(len(split)))
