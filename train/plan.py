"""From settings to what will happen: the data read and checked, the open settings resolved, nothing
trained yet.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from ..runtime.errors import ConfigError
from .config import Config, Precision
from .data.builtin import EPOCHS as BUILTIN_EPOCHS
from .data.builtin import builtin_corpus
from .data.data_set import DataSet, read_data
from .data.device_clips import part_of_training
from .data.ratings import constant_targets
from .method.model import TwinsNetwork

_PAPER_EPOCHS: Final = 60
_PAPER_BATCH: Final = 128
_FEWEST_CLIPS: Final = 2  # the losses are over a batch
_FEWEST_STEPS: Final = 10  # an epoch, below which the batch is made smaller
_SMALLEST_BATCH: Final = 16
_BYTES_A_PARAMETER: Final = 16  # float32 weight, gradient, and AdamW's two moments


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A run that can start."""

    config: Config  # resolved: nothing in it is "auto" any more but the device
    data: DataSet
    steps_per_epoch: int
    notes: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.optim.epochs * self.steps_per_epoch


def plan_from_config(config: Config, *, ranks: int = 1) -> TrainingPlan:
    """Reads the data and fills what was left open; `ranks` share each batch.

    Raises DataError, ConfigError.
    """
    notes = []
    if not config.data.dir:
        notes.append(
            "NO --data GIVEN: training on the built-in SYNTHETIC corpus. It shows that everything works; "
            "its scores say nothing about real voices. Your own: rrtn train --data DIR"
        )
    data = data_from_config(config)
    n_train = len(data.splits["Train"].clips)
    if n_train < _FEWEST_CLIPS:
        raise ConfigError(
            "--fraction",
            f"{config.data.fraction} leaves {n_train} training clips",
            wanted=f"at least {_FEWEST_CLIPS}",
        )
    epochs = config.optim.epochs or (_PAPER_EPOCHS if config.data.dir else BUILTIN_EPOCHS)
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
    if not config.optim.batch_size and batch_size != _PAPER_BATCH:
        notes.append(
            f"{n_train} training clips: --batch-size {batch_size} instead of the paper's {_PAPER_BATCH}"
        )
    optim = dataclasses.replace(config.optim, epochs=epochs, batch_size=batch_size)
    resolved_data = dataclasses.replace(config.data, targets=data.targets)
    precision = _default_precision(config) if config.precision == "auto" else config.precision
    config = dataclasses.replace(config, optim=optim, data=resolved_data, precision=precision)
    notes += [*constant_targets(data), *data.warnings]
    return TrainingPlan(config=config, data=data, steps_per_epoch=n_train // batch_size, notes=tuple(notes))


def data_folder(config: Config) -> Path:
    """The data set's folder; the built-in corpus where the config names none."""
    return Path(config.data.dir) if config.data.dir else builtin_corpus()


def data_from_config(config: Config) -> DataSet:
    """The data set with what the config takes of its training clips. Raises DataError."""
    data = read_data(data_folder(config), config.data.targets)
    return part_of_training(data, config.data.fraction, seed=config.seed)


def describe(plan: TrainingPlan) -> dict[str, Any]:
    """What `rrtn train --dry-run --json` prints."""
    counts = network_from_config(plan.config).parameter_counts()
    return {
        "config": plan.config.to_dict(),
        "data": {
            "dir": str(plan.data.path),
            "targets": list(plan.data.targets),
            "clips": {name: len(split.clips) for name, split in plan.data.splits.items()},
            "speakers": {
                name: len({clip.speaker for clip in split.clips}) for name, split in plan.data.splits.items()
            },
        },
        "parameters": dict(counts),
        "steps": plan.steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "bytes_of_training_state": counts["total"] * _BYTES_A_PARAMETER,
        "notes": list(plan.notes),
    }


def network_from_config(config: Config) -> TwinsNetwork:
    """Freshly initialised from the config's seed; K from its targets."""
    torch.manual_seed(config.seed)
    return TwinsNetwork(
        config.model.encoder,
        n_mels=config.frontend.n_mels,
        n_targets=len(config.data.targets),
        activation=config.head.activation,
        projector_layers=config.projector.layers if config.model.has_second_view else 0,
        projector_units=config.projector.units,
    )


def _default_precision(config: Config) -> Precision:
    """bf16 on a GPU that has it. CPUs stay with fp32: few have bf16 units, and there it is slower."""
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    return "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def _default_batch(n_train: int) -> int:
    """128, or the largest power of two that leaves ten steps an epoch."""
    batch = _PAPER_BATCH
    while batch > _SMALLEST_BATCH and n_train // batch < _FEWEST_STEPS:
        batch //= 2
    return min(batch, n_train)
