"""A run's best checkpoint: its settings and its network."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from ...runtime.errors import ConfigError, ModelError
from ...runtime.text import short
from ..checkpoint import POINTER, CheckpointInfo, load_checkpoint, split_weights
from ..config import Config, config_from_dict
from ..config_file import MAY_DIFFER, config_from_toml, differences
from ..method.model import TwinsNetwork
from ..plan import shapes_from_config
from ..run_folder import RunFolder

_ANOTHER: Final = "the checkpoint was changed: use another one, or train again"


def best_of_run(run: Path) -> tuple[CheckpointInfo, Config, TwinsNetwork]:
    """A run's best checkpoint, its settings, and its network in evaluation mode on the CPU.

    Raises ModelError where the checkpoint is broken, or contradicts itself.
    """
    folder = RunFolder(run).best
    info, tensors = load_checkpoint(folder, "weights")
    config = config_of_checkpoint(info, RunFolder(run))
    return info, config, network_from_weights(config, tensors["weights"], source=str(folder))


def config_of_checkpoint(info: CheckpointInfo, run: RunFolder) -> Config:
    """The settings in the checkpoint, which must be those of the run's config.toml where there is one.

    Where the data lie is what config.toml says: they may have moved since.
    """
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
    places = {name: getattr(saved.data, name) for name in ("dir", "csv", "audio")}
    return replace(config, data=replace(config.data, **places))


def network_from_weights(
    config: Config, weights: dict[str, torch.Tensor], *, source: str = "checkpoint"
) -> TwinsNetwork:
    """The network of a checkpoint, in evaluation mode on the CPU.

    `source` is what the ModelError names where the weights are not those of the settings.
    """
    state, _ = split_weights(weights)
    network = shapes_from_config(config)
    empty = network.state_dict()
    wanted = {name: value.shape for name, value in empty.items()}
    came = {name: value.shape for name, value in state.items()}
    if differing := sorted(name for name in {**wanted, **came} if wanted.get(name) != came.get(name)):
        named = f"{len(differing)} tensors are not those of its settings, such as {differing[0]}"
        raise ModelError(source, named, wanted="weights of the network in its settings", fix=_ANOTHER)
    network.load_state_dict({name: value.to(empty[name].dtype) for name, value in state.items()}, assign=True)
    return network.eval()
