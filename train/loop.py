"""The training loop, and what it needs before the first step and writes after an epoch.

M mels, K targets.
"""

import contextlib
import platform
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from .data.device_clips import Epoch, SplitClips, TrainingBatch, epoch_of_split, sha256_of_splits, split_clips
from .data.sound_check import notes_for_training
from .device import device_from_config, device_name, device_text, gpu_errors
from .display import Display, Part
from .distributed import World, any_rank, check_equal, first_on_machine_first
from .interruption import Interruption
from .method.choices import TERMS
from .method.flops import matmul_peak, step_flops
from .method.frontend import LogMel
from .method.metrics import judgement
from .method.model import TwinsNetwork
from .method.panns import initialisation_from_panns
from .method.tasks import METRIC_NAMES, task_of_name
from .plan import TrainingPlan, data_digest, network_from_config, shapes_from_config
from .predict import mel_mean, predict
from .request import check_is_new
from .run_folder import RunFolder
from .run_state import (
    append_history,
    check_config_kept,
    check_data_kept,
    keep_places,
    kept_best,
    restored,
    save_job,
    start,
)
from .step import HALF, Stepper, compiler_for_run, products_as_convolutions, sums_of_config

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
    finite, a full disk, a GPU that fails or a signal.
    """
    folder = RunFolder(run)
    if not resume:
        check_is_new(folder)
    if resume:
        done = _finished(plan, folder)
        check_equal(world, "the run", "finished" if done else "not finished")
        if done:
            if world.is_first:
                keep_places(folder, plan.config)
            return done
    for checkpoints in (folder.last, folder.best):
        check_no_link(checkpoints)
    made = _made(folder) if world.is_first else contextlib.nullcontext()
    with gpu_errors(str(run), batch=plan.config.optim.batch_size), made, compiler_for_run(plan.config):
        return _train(plan, folder, resume, strict_resume, world, part)


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


def _train(
    plan: TrainingPlan, run: RunFolder, resume: bool, strict_resume: bool, world: World, part: Part | None
) -> TrainResult:
    config, device, best = plan.config, device_from_config(plan.config, world), None
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
        if part:  # `rrtn train` says so of its run
            display.say_notes([f"trained {device_text(config, device, world)}"])
        display.say_notes(notes)
        if resume and (found := restored(run, info, stepper, strict_resume, display.say, world)):
            _check_place(run, found, plan.steps_per_epoch)
            info = replace(info, epoch=found.epoch, step=found.step, history=found.history)
            best = kept_best(run, info)
        elif config.model.init:
            display.say(_initialised(stepper.network, config))
        if world.is_first:
            start(run, config, info)
        in_work = _Training(
            plan=plan,
            run=run,
            world=world,
            device=device,
            training=training,
            validation=validation,
            stepper=stepper,
            info=info,
            best=best,
            interruption=interruption,
            samples=samples,
            saver=saver,
            display=display,
        )
        in_work.finish()
        assert in_work.best, "there is an epoch at least"
    return _result(run, in_work.info, in_work.best)


@dataclass(kw_only=True, eq=False)
class _Training:
    """A run in work: what learns, from which clips, how far it is, and who stops, saves and shows it."""

    plan: TrainingPlan
    run: RunFolder
    world: World
    device: torch.device
    training: SplitClips
    validation: SplitClips
    stepper: Stepper
    info: CheckpointInfo  # after the last step
    best: CheckpointInfo | None  # what checkpoints/best holds
    interruption: Interruption
    samples: SampleCheck
    saver: Saver
    display: Display
    saved: float = field(default_factory=time.monotonic)
    are_samples_checked: bool = False

    def finish(self) -> None:
        """Trains from the step of `info`, which may lie in the middle of an epoch, to the last one."""
        while self.info.epoch < self.plan.config.optim.epochs:
            self._train_epoch()
            self._end_epoch()
        self.saver.wait()

    def _train_epoch(self) -> None:
        """The steps that are left of it. Its order, crops and masks come from its number."""
        config, number = self.plan.config, self.info.epoch
        epoch = epoch_of_split(self.training, config, number, self.world)
        self.display.start_epoch(number, done_clips=self._steps_done * config.optim.batch_size)
        self.stepper.network.train()
        for batch in epoch.batches(self._steps_done):
            self._step(batch)
            self._look(epoch)

    @property
    def _first_step(self) -> int:
        """The first one of this epoch."""
        return self.info.epoch * self.plan.steps_per_epoch

    @property
    def _steps_done(self) -> int:
        """Of this epoch."""
        return self.info.step - self._first_step

    def _step(self, batch: TrainingBatch) -> None:
        """Does not wait for the device."""
        failpoint("train.step")
        self.stepper.step(batch, self.info.step)
        self.info = replace(self.info, step=self.info.step + 1)
        self.display.advance(self.plan.config.optim.batch_size)

    def _look(self, epoch: Epoch) -> None:
        """Every few steps, and awaits the device: is the loss finite, must we stop, is a checkpoint due?"""
        is_whole = self._steps_done == self.plan.steps_per_epoch
        if not is_whole and self.info.step % _LOOK_EVERY[self.device.type]:
            return
        self._check_finite(epoch)
        if any_rank(self.world, self.interruption.signal is not None or self.samples.has_failed, self.device):
            self._stop()
        is_due = time.monotonic() - self.saved > 60 * self.plan.config.checkpoint_minutes
        if self.world.is_first and is_due and self.samples.has_passed:
            self._save()

    def _end_epoch(self) -> None:
        """Validation, a line of history, a checkpoint."""
        scores = self._validate()
        if any_rank(self.world, self.interruption.signal is not None, self.device):
            self._stop()
        if not self.are_samples_checked:  # nothing that learned from wrong samples becomes a checkpoint
            self._check_samples()
            self.are_samples_checked = True
        record = _record(self.stepper, self.info, scores, self.validation, self.plan)
        self.info = replace(self.info, epoch=record["epoch"], history=[*self.info.history, record])
        is_better = False
        if self.best is None or score_of(record) > self.best.score:
            self.best, is_better = self.info, True
        is_best = self.best.epoch == self.info.epoch  # it may be from before a kill
        if is_best and score_of(record) < self.best.score:
            self.display.say(
                f"note: epoch {self.info.epoch} was trained before, too, and then had a higher "
                f"Val {METRIC_NAMES[self.best.metric]}, {self.best.score:.4f}: those weights are kept"
            )
        self.stepper.sums.zero_()
        if self.world.is_first:
            append_history(self.run, record)
            self._save(is_best=is_better)
        self.display.end_epoch(record, is_best=is_best)

    def _validate(self) -> Float32:
        """The scores of the validation clips [N, K]."""
        failpoint("train.validate")
        config, stepper = self.plan.config, self.stepper
        self.display.validating(len(self.validation))
        return predict(
            stepper.network,
            stepper.frontend,
            self.validation,
            crop=config.eval.crop,
            half=stepper.loss.autocast_to,
            compiled=stepper.scoring if config.is_compiled else None,
            world=self.world,
            advance=self._advance_validation,
        )

    def _advance_validation(self, count: int) -> None:
        self.display.advance_validation(count)
        if any_rank(self.world, self.interruption.signal is not None, self.device):
            self._stop()

    def _save(self, *, is_best: bool = False) -> None:
        self.saver.submit(save_job(self.run, self.info, self.stepper, is_best=is_best))
        self.saved = time.monotonic()

    def _stop(self) -> NoReturn:
        """Saves the state, and raises StoppedError."""
        self._check_samples()
        if self.world.is_first:
            self._save()
            self.saver.wait()
        number = self.interruption.signal or signal.SIGTERM  # None if another rank got the signal
        raise StoppedError(
            str(self.run.path),
            f"stopped by a signal at step {self.info.step}, and saved",
            fix=f"rrtn train --resume --out {quoted(self.run.path)}",
            exit_code=128 + number,
        )

    def _check_samples(self) -> None:
        """Waits until all are compared. Raises StoppedError on every rank if those of one are wrong."""
        broken = self.samples.broken()
        if any_rank(self.world, bool(broken), self.device):
            raise StoppedError(
                first_of(broken, 1) if broken else "clip cache",
                "holds other samples than were decoded: the storage or a program has changed them",
                fix=f"they are decoded anew by: rrtn train --resume --out {quoted(self.run.path)}",
            )

    def _check_finite(self, epoch: Epoch) -> None:
        """Raises StoppedError with the clips of the first step whose loss or gradient is not finite."""
        bad = self.stepper.bad_step()
        if bad is None:
            return
        names = [self.training.names[i] for i in epoch.order[bad - self._first_step]]
        share = " that this process had" if self.world.size > 1 else ""
        raise StoppedError(
            f"epoch {self.info.epoch + 1}, step {bad + 1}",
            "loss or gradient is not finite, and no weight was changed; clips of the batch"
            f"{share}: {first_of(names, _CLIPS_NAMED)}",
            fix="lower --lr, or look at these clips",
        )


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
        versions={
            "rrtn": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": device_name(device, world),
        },
    )
    return training, validation, stepper, info


def _notes_on_sounds(
    plan: TrainingPlan, training: SplitClips, validation: SplitClips, world: World
) -> list[str]:
    """What a person should know of the clips; nothing on other ranks than the first."""
    if not world.is_first:
        return []
    clips = [*plan.data.splits["Train"].clips, *plan.data.splits["Val"].clips]
    stores = [training.store, validation.store]
    return notes_for_training(clips, stores, plan.config.frontend, plan.config.eval.crop)


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
        with products_as_convolutions(config):
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
    return _result(run, info, read_info(run.best))


def _result(run: RunFolder, info: CheckpointInfo, best: CheckpointInfo) -> TrainResult:
    """The best epoch in the words of the last: its settings and versions are those of now."""
    return TrainResult(
        run=run.path,
        best=replace(info, epoch=best.epoch, step=best.step, history=best.history),
        epochs=info.epoch,
    )


def _record(
    stepper: Stepper, info: CheckpointInfo, scores: Float32, validation: SplitClips, plan: TrainingPlan
) -> dict[str, Any]:
    """The line of history for the epoch after `info`'s. No times: equal runs have equal histories."""
    epoch = info.epoch + 1
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
        "step": info.step,
        **means,
        "lr": stepper.lr_of(info.step - 1),
        **judged.to_record(task_of_name(plan.config.data.task)),
    }
