"""The training loop, and what it needs before the first step and writes after an epoch.

M mels, K targets.
"""

import contextlib
import functools
import platform
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import torch

from .. import __version__
from ..runtime.arrays import Float32
from ..runtime.errors import ModelError, StoppedError
from ..runtime.progress import Progress
from ..runtime.system.failpoints import failpoint
from ..runtime.system.host import quoted
from ..runtime.system.locks import is_held, locked
from ..runtime.text import first_of
from .checkpoint import POINTER, CheckpointInfo, Saver, check_no_link, read_info, score_of
from .config import Config
from .data.clip_cache import SampleCheck
from .data.device_clips import Epoch, SplitClips, epoch_of_split, sha256_of_splits, split_clips
from .data.sound_check import notes_for_training
from .device import device_from_config
from .display import Display, Part
from .distributed import World, any_rank, check_equal, first_on_machine_first
from .interruption import Interruption
from .method.choices import TERMS
from .method.flops import matmul_peak, step_flops
from .method.frontend import LogMel
from .method.metrics import judgement
from .method.model import TwinsNetwork
from .method.panns import initialisation_from_panns
from .method.tasks import task_of_name
from .plan import TrainingPlan, data_digest, network_from_config, shapes_from_config
from .predict import mel_mean, predict
from .request import check_is_new
from .run_folder import RunFolder
from .run_state import append_history, check_config_kept, check_data_kept, restored, save_job, start
from .step import HALF, Stepper, sums_of_config

_CLIPS_NAMED: Final = 8  # of a batch with a loss that is not finite
_LOOK_EVERY: Final = {"cpu": 1, "cuda": 25}  # steps between two looks at the device and at signals


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A run that is done: its folder, its best epoch, and the number of its epochs."""

    run: Path
    best: CheckpointInfo
    epochs: int


def train(
    plan: TrainingPlan,
    run: Path,
    *,
    resume: bool,
    strict_resume: bool = False,
    world: World = World(),  # noqa: B008  # frozen
    part: Part | None = None,
) -> TrainResult:
    """Trains into the folder `run`.

    `resume` continues from the last checkpoint, and gives the bits of a run that was never interrupted.
    `part` is the place of this run among those that a command trains one after the other.

    Raises ConfigError if the folder has a run already or another trainer is in it, DataError for audio
    that cannot be decoded, ModelError for broken checkpoints, StoppedError for a loss that is not
    finite, a full disk or a signal.
    """
    folder = RunFolder(run)
    if not resume:
        check_is_new(folder)
    if resume and (done := _finished(plan, folder)):
        return done
    try:
        for checkpoints in (folder.last, folder.best):
            check_no_link(checkpoints)
        with _made(folder) if world.is_first else contextlib.nullcontext():
            return _train(plan, folder, resume, strict_resume, world, part)
    except torch.OutOfMemoryError as error:
        raise StoppedError(
            str(run),
            f"batch {plan.config.optim.batch_size}: {str(error).splitlines()[0]}",
            fix="use --precision bf16, more GPUs (torchrun), or a smaller --batch-size; that is another "
            "experiment, since the losses are over the batch",
        ) from error


@contextlib.contextmanager
def _made(folder: RunFolder) -> Iterator[None]:
    """The run's folder, for this process alone. It goes again where nothing was begun in it."""
    new = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    folder.path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as released, locked(folder.lock, does="trains"):
        released.callback(_remove_unbegun, folder, new)  # Windows removes no file that is held
        try:
            yield
        finally:
            _remove_unbegun(folder, new, held=True)


def _remove_unbegun(folder: RunFolder, new: Sequence[Path], *, held: bool = False) -> None:
    if folder.is_begun() or not folder.lock.exists() or (not held and is_held(folder.lock)):
        return
    with contextlib.suppress(OSError):  # what is not ours stays
        folder.lock.unlink()
        for path in new:
            path.rmdir()


def _train(  # noqa: PLR0915  # the loop reads top to bottom, rare things first, the step last
    plan: TrainingPlan, run: RunFolder, resume: bool, strict_resume: bool, world: World, part: Part | None
) -> TrainResult:
    config, per_epoch = plan.config, plan.steps_per_epoch
    device = device_from_config(config, world)
    with Progress("prepare"):
        training, validation, stepper, info = _ready(plan, device, world)
        notes = _notes_on_sounds(plan, training, validation, world)
    shared = [training.store, validation.store] if world.local_rank == 0 else []  # one check a machine
    with (
        Interruption() as interruption,
        SampleCheck(shared) as samples,
        Saver() as saver,
        _display(plan, run, device, world, part) as display,
    ):
        display.say_notes(notes)
        if resume and (found := restored(run, info, stepper, strict_resume, display.say)):
            _check_place(run, found, per_epoch)
            info = replace(info, epoch=found.epoch, step=found.step, history=found.history)
        elif config.model.init:
            display.say(_initialised(stepper.network, config))
        if world.is_first:
            start(run, config, info)
        check_samples = functools.partial(_check_samples, samples, run, world, device)
        stop = functools.partial(_stop, run, stepper, saver, interruption, world, check_samples)
        are_checked = False

        def validated(count: int) -> None:
            display.advance_validation(count)
            if world.size == 1 and interruption.signal:  # several ranks stop together, after validation
                stop(info)

        saved = time.monotonic()
        looked = info.step  # until this step the loss is known to be finite
        epoch: Epoch | None = None
        while info.epoch < config.optim.epochs:
            number, first_step = info.epoch, info.epoch * per_epoch
            is_whole = info.step == first_step + per_epoch

            # At the start of an epoch, and of a resumed run: the order of the clips, their crops and masks.
            if epoch is None:
                epoch = epoch_of_split(training, config, number, world)
                batches = epoch.batches(info.step - first_step)
                display.start_epoch(number, done_clips=(info.step - first_step) * config.optim.batch_size)
                stepper.network.train()

            # Every few steps: is the loss finite, must the run stop, is a checkpoint due? A sync point.
            if info.step > looked and (is_whole or info.step % _LOOK_EVERY[device.type] == 0):
                looked = info.step
                _check_finite(stepper, epoch, training, number, per_epoch)
                if any_rank(world, interruption.signal is not None or samples.has_failed, device):
                    stop(info)
                is_due = time.monotonic() - saved > 60 * config.checkpoint_minutes
                if world.is_first and is_due and samples.has_passed:
                    saver.submit(save_job(run, info, stepper))
                    saved = time.monotonic()

            # At the end of an epoch: validation, a line of history, a checkpoint.
            if is_whole:
                failpoint("train.validate")
                display.validating(len(validation))
                scores = predict(
                    stepper.network,
                    stepper.frontend,
                    validation,
                    crop=config.eval.crop,
                    half=stepper.loss.autocast_to,
                    compiled=stepper.scoring if config.is_compiled else None,
                    world=world,
                    advance=validated,
                )
                if any_rank(world, interruption.signal is not None, device):
                    stop(info)
                if not are_checked:  # nothing that learned from wrong samples becomes a checkpoint
                    check_samples()
                    are_checked = True
                record = _record(stepper, info.step, number + 1, scores, validation, plan)
                is_best = score_of(record) > max(map(score_of, info.history), default=-np.inf)
                info = replace(info, epoch=number + 1, history=[*info.history, record])
                stepper.sums.zero_()
                if world.is_first:
                    append_history(run, record)
                    saver.submit(save_job(run, info, stepper, is_best=is_best))
                    saved = time.monotonic()
                display.end_epoch(record, is_best=is_best)
                epoch = None
                continue

            # The step. It does not wait for the device.
            batch = next(batches)
            failpoint("train.step")
            stepper.step(batch, info.step)
            info = replace(info, step=info.step + 1)
            display.advance(config.optim.batch_size)
        saver.wait()
    return _result(run, info)


def _ready(
    plan: TrainingPlan, device: torch.device, world: World
) -> tuple[SplitClips, SplitClips, Stepper, CheckpointInfo]:
    """The clips of Train and Val, a fresh stepper, and the state before the first step."""
    config = plan.config
    with first_on_machine_first(world):
        training, validation = (
            split_clips(plan.data, name, config.frontend, device, checked=False) for name in ("Train", "Val")
        )
    data_sha256 = sha256_of_splits(plan.data.columns.labels, training, validation)
    check_equal(world, "the decoded data set", data_sha256[:12])
    fill = mel_mean(training, LogMel(config.frontend).to(device))
    stepper = Stepper(
        config,
        network_from_config(config),
        fill,
        steps=plan.steps,
        steps_per_epoch=plan.steps_per_epoch,
        world=world,
        has_blanks=bool(np.isnan(plan.data.splits["Train"].ratings[:, : len(plan.data.targets)]).any()),
    )
    info = CheckpointInfo(
        epoch=0,
        step=0,
        history=[],
        labels=list(plan.data.columns.labels),
        config=config.to_dict(),
        data_sha256=data_sha256,
        versions={"rrtn": __version__, "torch": torch.__version__, "python": platform.python_version()},
    )
    return training, validation, stepper, info


def _notes_on_sounds(
    plan: TrainingPlan, training: SplitClips, validation: SplitClips, world: World
) -> list[str]:
    """What a person should know of the clips; nothing on other ranks than the first."""
    if not world.is_first:
        return []
    clips = [*plan.data.splits["Train"].clips, *plan.data.splits["Val"].clips]
    return notes_for_training(clips, [training.store, validation.store])


def _check_place(run: RunFolder, found: CheckpointInfo, per_epoch: int) -> None:
    """Raises ModelError where a checkpoint's step does not lie in the epoch that follows its last one."""
    first = found.epoch * per_epoch
    if not first <= found.step <= first + per_epoch:
        came = f"step {found.step} after {found.epoch} epochs of {per_epoch} steps"
        raise ModelError(str(run.last / POINTER), came, fix="the file was changed: start a new run")


def _initialised(network: TwinsNetwork, config: Config) -> str:
    """Loads the PANNs checkpoint, and says which of its tensors the encoder took."""
    initial = initialisation_from_panns(Path(config.model.init), network.encoder, config.frontend)
    network.encoder.load_state_dict(initial.weights)
    said = f"{config.model.init}: {len(initial.used)} tensors taken, dropped: {', '.join(initial.dropped)}"
    if initial.melw_difference is not None:
        said += f"; its mel filters are ours within {initial.melw_difference:.1e}"
    return said


def _display(
    plan: TrainingPlan, run: RunFolder, device: torch.device, world: World, part: Part | None
) -> Display:
    config = plan.config
    clips = plan.steps_per_epoch * config.optim.batch_size
    if not world.is_first:
        return Display(epochs=config.optim.epochs, clips_per_epoch=clips, quiet=True)
    batch = config.optim.batch_size
    dtype = HALF.get(config.precision, torch.float32)
    with Progress("measure the machine"):
        flops = step_flops(shapes_from_config(config), spec=config.frontend, batch_size=batch)
        peak = matmul_peak(device, dtype) * world.size
    return Display(
        epochs=config.optim.epochs,
        clips_per_epoch=clips,
        flops_per_clip=flops / batch,
        peak=peak,
        tensorboard=run.tensorboard if config.tensorboard else None,
        part=part,
    )


def _finished(plan: TrainingPlan, run: RunFolder) -> TrainResult | None:
    if not (run.last / POINTER).exists():
        return None
    try:
        info = read_info(run.last)
    except ModelError:
        return None  # `restored` reports the problem, and takes the checkpoint before
    if info.epoch < plan.config.optim.epochs:
        return None
    check_config_kept(run, info, plan.config.to_dict())
    check_data_kept(info, data_digest(plan))
    return _result(run, info)


def _result(run: RunFolder, info: CheckpointInfo) -> TrainResult:
    """The result, with the best epoch; the first one if several are equal."""
    best = max(info.history, key=score_of)
    history = info.history[: best["epoch"]]
    return TrainResult(
        run=run.path,
        best=replace(info, epoch=best["epoch"], step=best["step"], history=history),
        epochs=info.epoch,
    )


def _check_samples(samples: SampleCheck, run: RunFolder, world: World, device: torch.device) -> None:
    """Waits until the samples are compared. Raises StoppedError on every rank if those of one are wrong."""
    broken = samples.broken()
    if any_rank(world, bool(broken), device):
        raise StoppedError(
            first_of(broken, 1) if broken else "clip cache",
            "holds other samples than were decoded: the storage or a program has changed them",
            fix=f"they are decoded anew by: rrtn train --resume --out {quoted(run.path)}",
        )


def _stop(
    run: RunFolder,
    stepper: Stepper,
    saver: Saver,
    interruption: Interruption,
    world: World,
    check_samples: Callable[[], None],
    info: CheckpointInfo,
) -> NoReturn:
    """Saves the state, and raises StoppedError."""
    check_samples()
    if world.is_first:
        saver.submit(save_job(run, info, stepper))
        saver.wait()
    number = interruption.signal or signal.SIGTERM  # None if another rank got the signal
    raise StoppedError(
        str(run.path),
        f"stopped by a signal at step {info.step}, and saved",
        fix=f"rrtn train --resume --out {quoted(run.path)}",
        exit_code=128 + number,
    )


def _check_finite(stepper: Stepper, epoch: Epoch, training: SplitClips, number: int, per_epoch: int) -> None:
    """Raises StoppedError with the clips of the first step whose loss or gradient is not finite."""
    bad = stepper.bad_step()
    if bad is None:
        return
    samples = epoch.order[bad - number * per_epoch]
    names = first_of([training.names[i] for i in samples], _CLIPS_NAMED)
    raise StoppedError(
        f"epoch {number + 1}, step {bad + 1}",
        f"loss or gradient is not finite, and no weight was changed; clips of the batch: {names}",
        fix="lower --lr, or look at these clips",
    )


def _record(
    stepper: Stepper, steps: int, epoch: int, scores: Float32, validation: SplitClips, plan: TrainingPlan
) -> dict[str, Any]:
    """One line of the history. It has no times, so that equal runs have equal histories."""
    judged = judgement(plan.data.columns, scores, validation.ratings.cpu())
    if judged.not_finite:
        raise StoppedError(
            f"epoch {epoch}",
            f"Val {' and '.join(judged.not_finite)} not finite",
            fix="start a new run with a lower --lr",
        )
    means = dict(
        zip(sums_of_config(plan.config), (stepper.sums / plan.steps_per_epoch).tolist(), strict=True)
    )
    if plan.config.model.has_second_view:
        means["weights"] = stepper.loss.weighting.weights().tolist()
    else:
        means = {name: mean for name, mean in means.items() if name not in TERMS[1:]}
    return {
        "epoch": epoch,
        "step": steps,
        **means,
        "lr": stepper.lr_of(steps - 1),
        **judged.to_record(task_of_name(plan.config.data.task)),
    }
