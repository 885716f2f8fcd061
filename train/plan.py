"""From settings to a plan: the data is read and checked, open settings are filled, nothing is trained."""

import importlib.util
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ..runtime.errors import ConfigError, DataError
from ..runtime.system.host import quoted
from ..runtime.text import counted, first_of
from .config import CompileMode, Config, Precision
from .data.builtin import EPOCHS as BUILTIN_EPOCHS
from .data.builtin import builtin_corpus
from .data.data_set import DataSet, named_speakers
from .data.device_clips import part_of_training, sha256_of_splits, split_clips
from .data.folds import check_classes_of_fold
from .data.ratings import (
    LabelSummary,
    absent_classes,
    alike_names,
    classes_not_in_train,
    constant_targets,
    label_summaries,
)
from .data.reading import data_of_settings, label_settings
from .data.targets import FEWEST_RATED
from .method.columns import UNIT, scale_choice, scale_settings
from .method.encoders import encoder_from_name
from .method.model import TwinsNetwork
from .method.panns import initialisation_from_panns

_PAPER_EPOCHS: Final = 60
_PAPER_BATCH: Final = 128
_FEWEST_CLIPS: Final = 2  # the losses are over a batch
_FEWEST_STEPS: Final = 10  # of an epoch; the default batch shrinks until there are as many
_SMALLEST_BATCH: Final = 16
_FOREVER: Final = 1e9  # minutes, for infinity, which JSON does not have
# Compute capabilities.
_TENSOR_CORES: Final = (7, 0)
_TRITON_NEEDS: Final = (7, 0)
_BYTES_A_PARAMETER: Final = 16  # float32 weight, gradient, and AdamW's two moments


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A run that can start."""

    config: Config  # resolved: only the device may still be "auto"
    data: DataSet
    steps_per_epoch: int
    notes: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.optim.epochs * self.steps_per_epoch


def plan_from_config(config: Config, *, ranks: int = 1) -> TrainingPlan:
    """Reads the data and fills the settings that are open; `ranks` processes share each batch.

    Raises DataError, ConfigError.
    """
    data = _checked_part(config, data_of_settings(data_folder(config), config.data))
    _check_fits(config)
    n_train = len(data.splits["Train"].clips)
    batch_size = _batch_size(config, n_train, ranks)
    return TrainingPlan(
        config=_resolved(config, data, batch_size, ranks),
        data=data,
        steps_per_epoch=n_train // batch_size,
        notes=tuple(_notes(config, data, batch_size)),
    )


def data_digest(plan: TrainingPlan) -> str:
    """SHA-256 of the data that a plan's run learns from, as in its checkpoints. Raises DataError."""
    splits = (
        split_clips(plan.data, name, plan.config.frontend, torch.device("cpu")) for name in ("Train", "Val")
    )
    return sha256_of_splits(plan.data.columns.labels, *splits)


def check_draws(config: Config, seeds: Iterable[int]) -> None:
    """Raises what a plan raises where one of these seeds draws training clips that cannot be learned from.

    For several runs, before the first one is trained.
    """
    if config.data.fraction == 1:
        return
    whole = data_of_settings(data_folder(config), config.data)
    for seed in seeds:
        part = _checked_part(replace(config, seed=seed), whole)
        _batch_size(config, len(part.splits["Train"].clips), ranks=1)


def _checked_part(config: Config, whole: DataSet) -> DataSet:
    """The data set with the training clips that are drawn.

    Raises ConfigError where they are too few, or lack a class; DataError for a fold that lacks one. Not in
    `data_from_config`, which also reads finished runs: these are evaluated as they are.
    """
    if config.data.fold:
        check_classes_of_fold(whole, config.data.fold)
    data = part_of_training(whole, config.data.fraction, seed=config.seed)
    train = data.splits["Train"]
    rated = zip(data.columns.names, (~np.isnan(train.ratings)).sum(0).tolist(), strict=True)
    few = [f"{counted(count, 'training clip')} with {name}" for name, count in rated if count < FEWEST_RATED]
    absent = classes_not_in_train(data, [whole.splits["Train"]])
    if len(train.clips) < _FEWEST_CLIPS:
        raise _too_small(config, counted(len(train.clips), "training clip"), f"at least {_FEWEST_CLIPS}")
    if few:
        raise _too_small(config, first_of(few), f"at least {FEWEST_RATED}", "leave this target out")
    if lost := [name for name, clips in absent.items() if clips]:
        came = f"no training clip with {first_of(lost)}"
        raise _too_small(config, came, "at least 1", "leave the cells of this class empty")
    return data


def _too_small(config: Config, left: str, wanted: str, otherwise: str = "") -> ConfigError:
    fix = "take a larger fraction, or another seed"
    return ConfigError(
        "--fraction",
        f"{config.data.fraction} with seed {config.seed} leaves {left}",
        wanted=wanted,
        fix=f"{fix}, or {otherwise}" if otherwise else fix,
    )


def _check_fits(config: Config) -> None:
    """Raises ConfigError where the encoder's poolings leave nothing of a clip."""
    frames, mels = config.frontend.frames, config.frontend.n_mels
    with torch.device("meta"):
        encoder = encoder_from_name(config.model.encoder, n_mels=mels).eval()
        try:
            encoder(torch.empty(1, 1, frames, mels))
        except RuntimeError as error:
            raise ConfigError(
                "frontend.frames and frontend.n_mels",
                f"{frames} frames of {mels} mels",
                wanted=f"clips of which the poolings of {config.model.encoder} leave something",
                fix="take more, or another --encoder",
            ) from error


def _batch_size(config: Config, n_train: int, ranks: int) -> int:
    """The batch over all ranks. Raises ConfigError if the clips or the ranks do not allow it."""
    batch_size = config.optim.batch_size or _default_batch(n_train)
    if batch_size > n_train:
        raise ConfigError(
            "--batch-size", str(batch_size), wanted=f"at most {n_train}, the number of training clips"
        )
    if batch_size % ranks:
        raise ConfigError(
            "--batch-size",
            str(batch_size),
            wanted=f"a multiple of {ranks}: the processes share it equally",
        )
    return batch_size


def _resolved(config: Config, data: DataSet, batch_size: int, ranks: int) -> Config:
    """The settings without anything open but the device."""
    epochs = config.optim.epochs or (_PAPER_EPOCHS if config.data.dir else BUILTIN_EPOCHS)
    return replace(
        config,
        optim=replace(config.optim, epochs=epochs, batch_size=batch_size),
        data=replace(
            config.data,
            targets=data.targets,
            scale=scale_settings(data.columns, scale_choice(label_settings(config.data)[1].scale)),
            class_targets=tuple(target.name for target in data.columns.classes),
            classes=tuple(label for target in data.columns.classes for label in target.labels),
        ),
        checkpoint_minutes=min(config.checkpoint_minutes, _FOREVER),
        precision=_default_precision(config) if config.precision == "auto" else config.precision,
        compile=_default_compile(config, ranks) if config.compile == "auto" else config.compile,
    )


def _notes(config: Config, data: DataSet, batch_size: int) -> Iterator[str]:
    """What a person should know before training starts."""
    if not config.data.dir:
        yield (
            "NO --data GIVEN: training on the built-in SYNTHETIC corpus. It shows that everything works; "
            "its scores say nothing about real voices. Your own: --data DIR"
        )
    if not config.optim.batch_size and batch_size != _PAPER_BATCH:
        clips = counted(len(data.splits["Train"].clips), "training clip")
        yield f"{clips}: --batch-size {batch_size} instead of the paper's {_PAPER_BATCH}"
    if not np.float32(config.optim.eps):
        yield f"optim.eps {config.optim.eps:g} is 0 in float32: a weight whose gradient is 0 may become NaN"
    yield from notes_on_data(data)


def notes_on_data(data: DataSet) -> tuple[str, ...]:
    """What a person should know of the clips that are trained on and validated on."""
    return (*absent_classes(data), *constant_targets(data), *alike_names(data), *data.warnings)


def targets_line(data: DataSet) -> str:
    """What is learned, and which columns of numbers are not, because of their names."""
    clips = len(data.splits["Train"].clips)
    line = f"targets: {', '.join(_target_text(label, clips) for label in label_summaries(data, ['Train']))}"
    if data.numeric_metadata:
        line += f"; metadata by their names: {', '.join(data.numeric_metadata)} (--targets takes any column)"
    return line


def _target_text(label: LabelSummary, clips: int) -> str:
    """For one target, "Awe (1:9, 12 values, 3% blank)"."""
    blank = f"{label.blank['Train'] / clips:.0%} blank" if label.blank["Train"] else ""
    scale = "" if label.scale == str(UNIT) else label.scale
    values = "" if label.scale.endswith("classes") else counted(label.values, "value")
    return f"{label.name} ({', '.join(filter(None, (scale, values, blank)))})"


def data_folder(config: Config) -> Path:
    """The folder of the data set; the built-in corpus if the config names none."""
    return Path(config.data.dir) if config.data.dir else builtin_corpus()


def data_from_config(config: Config, run: Path | None = None) -> DataSet:
    """The data set, with the fraction of its training clips that the config takes.

    Raises DataError; of a `run`, whose data may lie elsewhere by now, it says how the run learns where.
    """
    named = config.data
    places = [named.csv, named.audio] if named.csv and named.audio else [named.dir, named.csv, named.audio]
    if run and (gone := [place for place in places if place and not Path(place).exists()]):
        now = "--csv FILE --audio FOLDER" if config.data.csv else "--data DIR"
        fix = f"say where it lies now: rrtn train --resume --out {quoted(run)} {now}"
        raise DataError(gone[0], "is not there", wanted=f"the data that {run} was trained on", fix=fix)
    data = data_of_settings(data_folder(config), config.data)
    return part_of_training(data, config.data.fraction, seed=config.seed)


def describe(plan: TrainingPlan) -> dict[str, Any]:
    """The document of `rrtn train --dry-run --json`."""
    counts = shapes_from_config(plan.config).parameter_counts()
    return {
        "config": plan.config.to_dict(),
        "data": {
            "dir": str(plan.data.path),
            "targets": list(plan.data.targets),
            "clips": {name: len(split.clips) for name, split in plan.data.splits.items()},
            "speakers": {
                name: named_speakers(clip.speaker for clip in split.clips)
                for name, split in plan.data.splits.items()
            },
        },
        "parameters": dict(counts),
        "steps": plan.steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "bytes_of_training_state": counts["total"] * _BYTES_A_PARAMETER,
        "notes": list(plan.notes),
    }


def network_from_config(config: Config) -> TwinsNetwork:
    """A network that is freshly initialised from the config's seed, with a score for each of its targets.

    The caller's random numbers stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return TwinsNetwork(
            config.model.encoder,
            n_mels=config.frontend.n_mels,
            n_targets=len(config.data.targets),
            class_sizes=[len(target.classes) for target in config.data.columns.classes],
            activation=config.head.activation,
            projector_layers=config.projector.layers if config.model.has_second_view else 0,
            projector_units=config.projector.units,
        )


def shapes_from_config(config: Config) -> TwinsNetwork:
    """The same network on the meta device: it takes no memory, whatever the settings say, and no time."""
    with torch.device("meta"):
        return network_from_config(config)


def check_init(config: Config) -> None:
    """Raises ConfigError or ModelError where the encoder cannot start from --init."""
    if config.model.init:
        initialisation_from_panns(
            Path(config.model.init), network_from_config(config).encoder, config.frontend
        )


def _default_precision(config: Config) -> Precision:
    """bf16 on a GPU that has it, fp16 on one with tensor cores for that alone (T4), else fp32.

    Few CPUs have units for bf16, and it is slower without them.
    """
    if config.device == "cpu" or not torch.cuda.is_available():
        return "fp32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16" if torch.cuda.get_device_capability() >= _TENSOR_CORES else "fp32"


def _default_compile(config: Config, ranks: int) -> CompileMode:
    """`default` for one process on a GPU, where the compiler can run; else off.

    On the built-in corpus compiling takes longer than training. With several ranks it has not run yet.
    """
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    can = on_gpu and torch.cuda.get_device_capability() >= _TRITON_NEEDS and _has_compiler()
    return "default" if can and ranks == 1 and config.data.dir else "off"


def _has_compiler() -> bool:
    """Whether Triton is here, and the C compiler with which it builds what launches its kernels."""
    names = ("cc", "gcc", "clang")
    compiler = os.environ.get("CC") or next((name for name in names if shutil.which(name)), None)
    return compiler is not None and importlib.util.find_spec("triton") is not None


def _default_batch(n_train: int) -> int:
    """128, or the largest power of two that leaves ten steps an epoch; but at least 16, or all clips."""
    batch = _PAPER_BATCH
    while batch > _SMALLEST_BATCH and n_train // batch < _FEWEST_STEPS:
        batch //= 2
    return min(batch, n_train)
