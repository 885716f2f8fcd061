"""The state of a training run: from its folder into a stepper, and back."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..runtime.errors import ConfigError, ModelError, StoppedError
from ..runtime.system.files import remove_left, write_bytes
from ..runtime.text import counted
from .checkpoint import (
    POINTER,
    PREVIOUS,
    CheckpointInfo,
    joined_weights,
    load_checkpoint,
    save_checkpoint,
    split_weights,
)
from .config import Config, config_from_dict
from .config_file import PLACES, changes_on_resume, read_toml, toml_from_config, toml_text
from .distributed import World, check_equal, from_first
from .host_copy import HostCopy, Tensors
from .run_folder import RunFolder
from .step import Stepper


def start(run: RunFolder, config: Config, info: CheckpointInfo) -> None:
    """Writes settings and history as they are at the point where training starts, or goes on."""
    for file in (run.config, run.history):
        remove_left(file)
    write_bytes(run.config, toml_from_config(config).encode())
    write_bytes(run.history, b"".join(_history_line(record) for record in info.history))


def keep_places(run: RunFolder, config: Config) -> None:
    """Writes into the config.toml of a finished run where its data lie now, which changes no result."""
    document = read_toml(run.config)
    places = {name: value for name, value in config.to_dict()["data"].items() if f"data.{name}" in PLACES}
    data = {name: value for name, value in document["data"].items() if f"data.{name}" not in PLACES}
    if (now := {**document, "data": places | data}) != document:
        with contextlib.suppress(OSError):  # a folder that takes no file: `--data` says it the next time, too
            write_bytes(run.config, toml_text(now).encode())


def restored(
    run: RunFolder,
    fresh: CheckpointInfo,
    stepper: Stepper,
    strict: bool,
    say: Callable[[str], None],
    world: World = World(),  # noqa: B008  # frozen
) -> CheckpointInfo | None:
    """Loads the last checkpoint into the stepper; gives None if no checkpoint was finished.

    A broken or lost checkpoint is replaced by the one before, and `say` tells so; with `strict` it is an
    error. Of several ranks the first one does so, and the others take what is the last one then.
    Raises ModelError for broken checkpoints, ConfigError if the data or config.toml was changed, or if the
    ranks do not read the same.
    """
    found = _newest_whole(run, strict, say) if world.is_first else None
    if not from_first(world, "found" if found else ""):
        return None
    info, tensors = found or load_checkpoint(run.last, "weights", "optimizer")
    check_equal(world, "the checkpoint", _state_text(info, tensors["weights"]) if world.size > 1 else "")
    check_data_kept(info, fresh.data_sha256)
    check_config_kept(run, info, fresh.config)
    if changed := _changed_versions(info, fresh):
        say(f"note: {changed}: the run goes on, but not bit for bit as it would have")
    try:
        _load(stepper, tensors)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        came = str(error).partition("\n")[0]
        wanted = "the tensors of the network that config.toml describes"
        raise ModelError(str(run.last), came, wanted=wanted, fix="start a new run") from error
    return info


def _newest_whole(
    run: RunFolder, strict: bool, say: Callable[[str], None]
) -> tuple[CheckpointInfo, dict[str, Tensors]] | None:
    """The last checkpoint, or the one before, which is then the last one; None where there is neither."""
    if not (run.last / POINTER).exists() and not (run.last / PREVIOUS).exists():
        _check_not_lost(run)
        return None
    try:
        return load_checkpoint(run.last, "weights", "optimizer")
    except ModelError as error:
        if strict or not (run.last / PREVIOUS).exists():
            raise
        info, tensors = load_checkpoint(run.last, "weights", "optimizer", pointer=PREVIOUS)
        say(f"note: {error}; going on from the checkpoint before, at step {info.step}")
        write_bytes(run.last / POINTER, (run.last / PREVIOUS).read_bytes())
        return info, tensors


def _state_text(info: CheckpointInfo, weights: Tensors) -> str:
    """Which state it is. The same step may be saved before its epoch's validation, and after it."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].contiguous().reshape(-1).numpy().data)
    return f"step {info.step} after {counted(info.epoch, 'epoch')}, weights {digest.hexdigest()[:12]}"


def check_data_kept(info: CheckpointInfo, now: str) -> None:
    """Raises ConfigError for other data than the run learned from. `now` is its SHA-256."""
    if info.data_sha256 != now:
        raise ConfigError(
            "--resume",
            f"clips or ratings were changed: the data is {now[:12]}, the run's was {info.data_sha256[:12]}",
            fix="restore them, or start a new run",
        )


def check_config_kept(run: RunFolder, info: CheckpointInfo, now: Mapping[str, Any]) -> None:
    """Raises ConfigError where config.toml was edited, and asks for other settings than the checkpoint's."""
    of = f"those of its checkpoint, {run.last / POINTER}"
    changes_on_resume(config_from_dict(info.config, source=of), config_from_dict(now, source=of), of=of)


def _check_not_lost(run: RunFolder) -> None:
    """Raises ModelError where a run had checkpoints.

    One that was killed in its first save may have noted two epochs: the second ended during the save.
    """
    epochs = len(run.history.read_bytes().splitlines()) if run.history.is_file() else 0
    if epochs > 2:
        raise ModelError(
            str(run.last),
            f"no checkpoint, and the run has trained for {epochs} epochs",
            wanted="its last checkpoint",
            fix="restore the folder, or start a new run",
        )


def kept_best(run: RunFolder, info: CheckpointInfo) -> CheckpointInfo | None:
    """The best epoch of a run that goes on at `info`; None before its first.

    A process that was killed between its two saves, or whose last checkpoint was broken, may have kept one
    that is still to come. Raises ModelError where its weights are lost or broken: no later epoch brings them.
    """
    return load_checkpoint(run.best, "weights")[0] if info.history else None


def _changed_versions(info: CheckpointInfo, fresh: CheckpointInfo) -> str:
    """What differs in words; runs from before `device` was kept do not have it."""
    new = {name: now for name, now in fresh.versions.items() if name != "device" or name in info.versions}
    old = info.versions
    return ", ".join(f"{name} {old.get(name)} -> {now}" for name, now in new.items() if old.get(name) != now)


def _load(stepper: Stepper, tensors: dict[str, Tensors]) -> None:
    network, weighting = split_weights(tensors["weights"])
    stepper.network.load_state_dict(network)
    stepper.loss.weighting.load_state_dict(weighting)
    stepper.sums.copy_(tensors["optimizer"].pop("epoch.sums"))
    if stepper.loss_scale:
        stepper.loss_scale.load(tensors["optimizer"])
    parameters = [parameter for group in stepper.optimizer.param_groups for parameter in group["params"]]
    state: dict[int, Tensors] = {}
    for name, tensor in tensors["optimizer"].items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = _laid_out(tensor, parameters[int(number)])
    stepper.optimizer.load_state_dict({**stepper.optimizer.state_dict(), "state": state})


def _laid_out(moment: Tensor, parameter: Tensor) -> Tensor:
    """A moment in the memory format of its parameter (channels last).

    AdamW's fused kernel pairs the two by their place in memory, whatever their strides.
    """
    if moment.shape != parameter.shape:  # a step count
        return moment
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)


def save_job(
    run: RunFolder, info: CheckpointInfo, stepper: Stepper, *, is_best: bool = False
) -> Callable[[], None]:
    """Copies the whole state now, and gives a function that writes it later."""
    weighting = stepper.loss.weighting.state_dict()
    entries = stepper.optimizer.state_dict()["state"].items()
    moments = {f"{i}.{key}": value for i, entry in entries for key, value in entry.items()}
    scale = stepper.loss_scale.state() if stepper.loss_scale else {}
    kept = [
        HostCopy(joined_weights(stepper.network.state_dict(), weighting)),
        HostCopy({**moments, "epoch.sums": stepper.sums, **scale}),
    ]

    def write() -> None:
        weights, optimizer = (copy.tensors() for copy in kept)
        if is_best:  # first: a process that is killed between the two loses nothing
            save_checkpoint(run.best, info, {"weights": weights})
        save_checkpoint(run.last, info, {"weights": weights, "optimizer": optimizer}, keep_previous=True)

    return write


def append_history(run: RunFolder, record: dict[str, Any]) -> None:
    """Adds a line for those who follow the file; the checkpoint has the same record."""
    path, line = run.history, _history_line(record)
    try:
        with path.open("ab") as file:
            file.write(line)
    except OSError as error:
        raise StoppedError(
            str(path),
            str(error.strerror),
            wanted=f"room for {len(line):,} bytes",
            fix="make room and continue with --resume",
        ) from error


def _history_line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record) + "\n").encode()
