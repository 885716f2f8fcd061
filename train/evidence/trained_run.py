"""A run with its data: its predictions on a split, made once and kept, and the baseline beside them.

n clips, K rated targets, L columns of the scores.
"""

import contextlib
import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch

from ...runtime.arrays import Float32, Float64, Int64, waveform_from_samples
from ...runtime.errors import ConfigError, DataError
from ...runtime.frontend import clip_log_mel
from ...runtime.progress import Progress
from ...runtime.system.files import sha256_of
from ...runtime.system.host import quoted
from ...runtime.text import counted
from ..checkpoint import POINTER, CheckpointInfo, load_checkpoint, read_info
from ..config import Config, DataConfig, fold_of_text
from ..data.clip_cache import ClipStore
from ..data.data_set import DataSet, Split, read_data
from ..data.device_clips import SplitClips, sha256_of_splits, split_clips
from ..data.folds import fold_numbers, fold_of_data
from ..data.places import SETTINGS, config_of_folder
from ..data.reading import labels_of_settings
from ..data.sound_check import learned_count
from ..method.columns import scale_choice
from ..method.frontend import LogMel
from ..method.metrics import (
    ccc_challenge,
    in_units,
)
from ..method.model import TwinsNetwork
from ..plan import data_from_config
from ..precision import full_float32
from ..predict import predict
from ..run_folder import RunFolder
from .best_checkpoint import best_of_run, config_of_checkpoint, network_from_weights
from .fold_runs import folds_in
from .planned_runs import trained_anew
from .predictions import Predictions, kept_predictions, write_predictions
from .ridge import mel_statistics, ridge_predictions

DATA_CHANGED: Final = "the data was changed since training: clips may be among those that it learned from"
_LEARNED: Final = "it learned from these clips"
_UNKNOWN: Final = "its own data is not there as it was: it may have learned from these clips"
_CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class TrainedRun:
    """A best checkpoint with its data. The network is loaded where it is needed."""

    run: Path
    info: CheckpointInfo
    config: Config
    data: DataSet

    @classmethod
    def of_run(cls, run: Path, data: Path | None, split: str = "Val") -> "TrainedRun":
        """With the data that the run was trained on, or with `data`, of which `split` alone need be there."""
        info = read_info(RunFolder(run).best)
        config = config_of_checkpoint(info, RunFolder(run))
        return cls(
            run, info, config, _other_data(data, config, split) if data else data_from_config(config, run)
        )

    @cached_property
    def is_of_its_own_data(self) -> bool:
        """Whether `data` is what the run was trained on, wherever that lies now."""
        return _is_what_was_learned(self.info, self.config, self.data)

    def what_it_heard(self, split: str, *, other_data: bool) -> list[str]:
        """What the run has learned from the clips of a split, or from their speakers, in words.

        `other_data` says that the data was named, and need not be the run's own.
        """
        if self.is_of_its_own_data and split == "Train":
            return [_LEARNED]
        if self.is_of_its_own_data:
            return [*self._clips_of(self, split), *self._speakers_of(split)]
        if not other_data:
            return [DATA_CHANGED]
        with contextlib.suppress(DataError):  # of its own data, which may be gone
            own = replace(self, data=data_from_config(self.config))
            if own.is_of_its_own_data:
                return self._clips_of(own, split)
        return [_UNKNOWN]

    def _clips_of(self, own: "TrainedRun", split: str) -> list[str]:
        """Which clips it learned from, known by their samples. `own` has the run's own data."""
        clips, learned = self.data.splits[split].clips, own.data.splits["Train"].clips
        count = learned_count(clips, learned, self._samples(split), own._samples("Train"))
        return [f"it learned from {count} of these {counted(len(clips), 'clip')}"] if count else []

    def _speakers_of(self, split: str) -> list[str]:
        """Which speakers it learned from. In other data the same name need not be the same person."""
        judged, learned = ({*_speakers(self.data.splits[name])} - {""} for name in (split, "Train"))
        known = len(judged & learned)
        return [f"it learned from {known} of these {counted(len(judged), 'speaker')}"] if known else []

    def _samples(self, split: str) -> ClipStore:
        """Those that the cache holds, not compared with their hashes."""
        return split_clips(self.data, split, self.config.frontend, _CPU, checked=False).store

    def clips(self, split: str, device: torch.device = _CPU) -> SplitClips:
        """The decoded clips of a split."""
        return split_clips(self.data, split, self.config.frontend, device)

    def kept_predictions(self, name: str, device: torch.device = _CPU) -> Predictions:
        """Those on a split, in float32. They are read if they are of this checkpoint and these clips.

        Raises DataError where the split has no labels.
        """
        split = self.data.splits[name]
        if np.isnan(split.ratings).all():
            came = f"none of {counted(len(split.clips), 'clip')} is rated" if split.clips else "no clips"
            rated = [one for one, found in self.data.splits.items() if not np.isnan(found.ratings).all()]
            fix = " or ".join(f"--split {one}" for one in rated)
            raise DataError(f"--split {name}", came, wanted="a split with labels", fix=fix)
        unchecked = split_clips(self.data, name, self.config.frontend, _CPU, checked=False)
        of_data = name if self.is_of_its_own_data else f"other-{name}"
        stem = _kept(self.run, of_data, sha256_of_splits(self.data.columns.labels, unchecked)[:12])
        kept = kept_predictions(stem.parent, f"{stem.name}-*.csv")
        if kept and kept.file_ids == _file_ids(split) and kept.targets == self.data.columns.labels:
            return replace(kept, speakers=_speakers(split), classes=self.data.columns.classes)
        predictions = self.predictions(name, device)
        with contextlib.suppress(OSError):  # of a folder that cannot be written to: they are made again
            write_predictions(stem, predictions)
        return predictions

    def predictions(self, name: str, device: torch.device = _CPU) -> Predictions:
        """Those on a split, in the units of the scales. Raises DataError where it has no clips."""
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

    def can_fit_ridge(self) -> bool:
        """Whether each target has two rated clips in Train, which other data may lack."""
        ratings = self.data.splits["Train"].ratings[:, : len(self.data.targets)]
        return bool(((~np.isnan(ratings)).sum(0) >= 2).all())

    def ridge_ccc(self, split: str) -> Float64:
        """CCC [K] (challenge) on a split of a ridge regression that was fitted on Train."""
        return _ridge_ccc(self.data, self.clips(split))


class CrossFittedRun(TrainedRun):
    """A cross-validation: each clip is predicted by the run that did not learn from its speaker.

    That run's last epoch is taken, so that no epoch is chosen on the clips that it is judged by.
    """

    @classmethod
    def of_run(cls, run: Path, data: Path | None, split: str = "Val") -> "CrossFittedRun":
        """The folds in the folder.

        Raises ConfigError where one of them is not finished, and DataError for data that were changed since:
        clips may be in the fold of a run that learned from them.
        """
        folds = folds_in(run)
        infos = [read_info(RunFolder(fold).last) for fold in folds]
        config = config_of_all_folds(config_of_checkpoint(infos[0], RunFolder(folds[0])))
        crossed = cls(run, infos[0], config, data_from_config(config, folds[0]))
        finished = sum(info.epoch >= config.optim.epochs for info in infos)
        if (finished, len(folds)) != (wanted := int(crossed.numbers.max()), wanted):
            came = f"{finished} of {counted(wanted, 'fold')} finished"
            raise ConfigError(str(run), came, wanted="all", fix=f"rrtn crossval ... --out {quoted(run)}")
        for fold, info in zip(folds, infos, strict=True):
            of_fold = config_of_checkpoint(info, RunFolder(fold))
            if not _is_what_was_learned(info, of_fold, fold_of_data(crossed.data, of_fold.data.fold)):
                came, fix = (
                    f"clips or ratings were changed since {fold.name} was trained",
                    "rrtn crossval --out NEW",
                )
                raise DataError(str(run), came, wanted="the same data", fix=f"restore them, or: {fix}")
        return crossed

    @cached_property
    def is_of_its_own_data(self) -> bool:
        """No other can be given."""
        return True

    @cached_property
    def numbers(self) -> Int64:
        """[n]: the fold of each clip."""
        numbers = fold_numbers(self.data.splits["Val"].clips, fold_of_text(self.config.data.fold)[1])
        return np.array(numbers)

    def _scores(self, name: str, device: torch.device) -> Float32:
        scores = np.empty((len(self.numbers), len(self.data.columns.labels)), np.float32)
        for fold in folds_in(self.run):
            with trained_anew(fold, "rrtn crossval"):
                info, tensors = load_checkpoint(RunFolder(fold).last, "weights")
            config = config_of_checkpoint(info, RunFolder(fold))
            data = fold_of_data(self.data, config.data.fold)
            inside = self.numbers == fold_of_text(config.data.fold)[0]
            network = network_from_weights(config, tensors["weights"], source=str(fold))
            clips = split_clips(data, "Val", config.frontend, device)
            scores[inside] = _scores_of(network, config, clips, label=f"predict {fold.name}")
        return scores

    def what_it_heard(self, split: str, *, other_data: bool) -> list[str]:
        """Each clip is scored by the run that did not hear its speaker."""
        return []

    def can_fit_ridge(self) -> bool:
        """Each fold's is fitted on the others."""
        return True

    def ridge_ccc(self, split: str) -> Float64:
        """CCC [K] (challenge) of ridge regressions that were fitted fold by fold."""
        clips = self.clips(split)
        k = len(self.data.targets)
        features, ratings = _statistics(clips, label="ridge"), clips.ratings.numpy()[:, :k]
        predicted = np.empty(ratings.shape)
        for number in range(1, int(self.numbers.max()) + 1):
            inside = self.numbers == number
            predicted[inside] = ridge_predictions(features[~inside], ratings[~inside], features[inside])
        return ccc_challenge(predicted, ratings)


def _other_data(folder: Path, config: Config, split: str) -> DataSet:
    """Clips with the targets of a run, on its scales. The channel is the folder's own, or the run's.

    Raises DataError where the folder says that people rated on other scales.
    """
    own = config_of_folder(folder)
    channel = own.channel or config.data.channel or None
    labels = labels_of_settings(config.data, learned=True)
    unlike = _other_scales(folder, own, config)
    try:
        data = read_data(folder, config.data.targets, channel=channel, labels=labels, evaluated=split)
    except DataError:
        if unlike:  # which is why
            raise next(iter(unlike.values())) from None
        raise
    for name, error in unlike.items():
        k = config.data.targets.index(name)
        if any(not np.isnan(part.ratings[:, k]).all() for part in data.splits.values()):
            raise error
    if own.channel or not channel:
        return data
    its_own = f"write the channel of these files, such as channel = 1, into {folder / SETTINGS}"
    return replace(data, without_channel=f"the run was trained on channel {channel} of its files: {its_own}")


def _other_scales(folder: Path, own: DataConfig, config: Config) -> dict[str, DataError]:
    """The targets that other data, by their `own` settings, have on another scale than the run -> errors."""
    if folder.resolve() == Path(config.data.dir).resolve():
        return {}
    choice, columns, found = scale_choice(own.scale), config.data.columns, {}
    for name, learned in zip(columns.targets, columns.scales, strict=True):
        if (theirs := choice.given(name)) and theirs != learned:
            came = f"{name} was rated on {theirs} by its {SETTINGS}"
            fix = f"write the ratings on {learned}, there and in the table"
            wanted = f"{learned}, as the run learned it"
            found[name] = DataError(f"--data {folder}", came, wanted=wanted, fix=fix)
    return found


def _is_what_was_learned(info: CheckpointInfo, config: Config, data: DataSet) -> bool:
    if not all(data.splits[name].clips for name in ("Train", "Val")):
        return False
    with contextlib.suppress(DataError):
        splits = (split_clips(data, name, config.frontend, _CPU, checked=False) for name in ("Train", "Val"))
        return sha256_of_splits(data.columns.labels, *splits) == info.data_sha256
    return False


def config_of_all_folds(config: Config) -> Config:
    """The settings of a fold -> those with which all clips are in Val."""
    kind = fold_of_text(config.data.fold)[1]
    return replace(config, data=replace(config.data, fold=f"all/{kind}"))


def trained_run(run: Path, data: Path | None, split: str = "Val") -> TrainedRun:
    """A run, or a cross-validation."""
    kind = CrossFittedRun if folds_in(run) else TrainedRun
    return kind.of_run(run, data, split)


def _scores_of(network: TwinsNetwork, config: Config, clips: SplitClips, *, label: str) -> Float32:
    frontend = LogMel(config.frontend).to(clips.device)
    with full_float32(), Progress(label, len(clips), "clips") as bar:
        return predict(network.to(clips.device), frontend, clips, crop=config.eval.crop, advance=bar.advance)


def _file_ids(split: Split) -> tuple[str, ...]:
    return tuple(clip.file_id for clip in split.clips)


def _speakers(split: Split) -> tuple[str, ...]:
    return tuple(clip.speaker for clip in split.clips)


def _kept(run: Path, split: str, data: str) -> Path:
    """The stem of the file for the predictions on a split, of hashes of the checkpoints and of the clips.

    A split of other data than the run's own is called other-Val.
    """
    pointers = [RunFolder(fold).last / POINTER for fold in folds_in(run)] or [RunFolder(run).best / POINTER]
    hashes = [sha256_of(pointer) for pointer in pointers]
    of_all = hashlib.sha256("".join(hashes).encode()).hexdigest()
    checkpoint = of_all if len(hashes) > 1 else hashes[0]
    return RunFolder(run).predictions / f"{split}-{checkpoint[:12]}-{data}"


def predictions_of_run(
    run: Path, *, data: Path | None = None, split: str = "Val", device: torch.device = _CPU
) -> Predictions:
    """The best checkpoint's predictions on a split, in float32.

    They are kept in the run, and read from there the next time. Where the run's own data cannot be read
    any more, those that were made last on it with this checkpoint are taken.
    """
    try:
        return trained_run(run, data, split).kept_predictions(split, device)
    except DataError:
        stem = _kept(run, split, "*")
        kept = None if data or folds_in(run) else kept_predictions(stem.parent, f"{stem.name}.csv")
        if kept is None:
            raise
        classes = config_of_checkpoint(read_info(RunFolder(run).best), RunFolder(run)).data.columns.classes
        return replace(kept, classes=classes)


def _ridge_ccc(data_set: DataSet, validation: SplitClips) -> Float64:
    """CCC [K] (challenge) on a split of a ridge regression that was fitted on Train."""
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
