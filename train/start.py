"""From the settings of `rrtn train` to a finished run, in one process or in those of torchrun."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ..runtime.progress import Progress
from ..runtime.text import counted
from .config import Config
from .config_file import PLACES
from .device import device_from_config, device_text
from .distributed import (
    World,
    check_equal,
    first_on_machine_first,
    from_all,
    from_first,
    joined,
    world_from_environment,
)
from .loop import TrainResult, train
from .plan import TrainingPlan, check_init, plan_from_config, targets_line
from .request import RequestedTraining
from .run_folder import RUNS, free_name
from .sections import flat_settings

Say = Callable[[str], object]  # takes a line for the person
# Settings that ranks may have of their own. The data is compared itself.
_OF_A_PROCESS: Final = PLACES | {"device", "tensorboard", "checkpoint_minutes"}
_PRECISIONS: Final = ("fp32", "tf32", "fp16", "bf16")  # a GPU that has one of auto's has those before it


@dataclass(frozen=True)
class FinishedTraining:
    """A run that is done."""

    result: TrainResult
    config: Config

    def to_dict(self) -> dict[str, Any]:
        """The document of `rrtn train --json`."""
        best = self.result.best
        return {
            "run": str(self.result.run),
            "best": {"epoch": best.epoch, "ccc": best.ccc, "per_target": best.per_target, **self._judged},
            "epochs": self.result.epochs,
            "device": best.versions.get("device"),
            "config": self.config.to_dict(),
        }

    @property
    def _judged(self) -> dict[str, Any]:
        """What another metric than CCC says of the best epoch; empty where there is none."""
        record = self.result.best.history[-1]
        return {
            name: value for name, value in record.items() if name.startswith("val_") and "ccc" not in name
        }


def start_training(
    requested: RequestedTraining, *, say: Say, on_run: Callable[[Path], object]
) -> FinishedTraining | None:
    """Trains, or goes on with a run. Gives None in each process but the first.

    `on_run` takes the run's folder before anything is written there.
    Raises ConfigError, DataError, ModelError and StoppedError, as `plan_from_config` and `loop.train` do.
    """
    request = requested.request
    with _planned(requested, say) as (plan, world):
        model, epochs = plan.config.model, plan.config.optim.epochs
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{model.encoder}-{model.method}"
        run = requested.run or RUNS / from_first(world, free_name(RUNS, name))
        on_run(run)
        if world.is_first:
            work = f"{counted(epochs, 'epoch')}, {counted(plan.steps, 'step')}"
            on_device = device_text(plan.config, device_from_config(plan.config, world), world)
            say(f"run {run}: {model.encoder}, {model.method}, {work} {on_device}")
        result = train(plan, run, resume=request.resume, strict_resume=request.strict_resume, world=world)
    return FinishedTraining(result, plan.config) if world.is_first else None


def plan_training(requested: RequestedTraining, *, say: Say) -> TrainingPlan | None:
    """Reads and checks everything, and trains nothing. Gives None in each process but the first.

    Raises ConfigError, DataError.
    """
    with _planned(requested, say) as (plan, world):
        return plan if world.is_first else None


@contextlib.contextmanager
def _planned(requested: RequestedTraining, say: Say) -> Iterator[tuple[TrainingPlan, World]]:
    """The plan, in a process group that lasts as long as the block."""
    config, world = requested.config, world_from_environment()
    with joined(world, device_from_config(config, world)):
        with first_on_machine_first(world), Progress("read data"):
            plan = plan_from_config(config, ranks=world.size)
        plan = replace(plan, config=_of_all_ranks(world, plan.config, asked=config))
        if not requested.request.resume:
            check_init(plan.config)
        notes = (*(f"changed on resume: {change}" for change in requested.changed), *plan.notes)
        for line in (targets_line(plan.data), *(f"note: {note}" for note in notes)) if world.is_first else ():
            say(line)
        yield plan, world


def _of_all_ranks(world: World, config: Config, *, asked: Config) -> Config:
    """The settings with a precision that all ranks have, where `asked` leaves it to them.

    Raises ConfigError where a setting differs between the ranks.
    """
    precisions = from_all(world, config.precision)
    if asked.precision == "auto":
        config = replace(config, precision=min(precisions, key=_PRECISIONS.index))
    flats = from_all(world, flat_settings(config.to_dict()))
    for name in dict.fromkeys(name for flat in flats for name in flat):
        if name not in _OF_A_PROCESS and any(flat.get(name) != flats[0].get(name) for flat in flats):
            check_equal(world, name, repr(flats[world.rank].get(name)))
    return config
