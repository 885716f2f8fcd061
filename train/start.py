"""From the settings of `rrtn train` to a finished run, in one process or in those of torchrun."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..runtime.errors import ConfigError
from .config import Config, config_from_dict, flat_settings
from .config_file import changes_on_resume, merged, read_toml
from .distributed import World, first_on_machine_first, from_first, joined, world_from_environment
from .loop import TrainResult, check_is_new, device_from_config, train
from .plan import TrainingPlan, check_init, plan_from_config, targets_line
from .run_folder import RUNS, RunFolder, newest_run

Say = Callable[[str], object]  # takes a line for the person


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What to train, as it was asked for: nothing is read or checked yet."""

    run: Path | None = None  # the run's folder; None: a new one, or with `resume` the newest
    config_file: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # by section; they win over the file
    resume: bool = False
    strict_resume: bool = False


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
            "best": {"epoch": best.epoch, "ccc": best.ccc, "per_target": best.per_target},
            "epochs": self.result.epochs,
            "config": self.config.to_dict(),
        }


def start_training(request: TrainingRequest, *, say: Say) -> FinishedTraining | None:
    """Trains, or goes on with a run. Gives None in each process but the first.

    Raises ConfigError, DataError, ModelError and StoppedError, as `plan_from_config` and `loop.train` do.
    """
    with _planned(request, say) as (plan, run, world):
        model, epochs = plan.config.model, plan.config.optim.epochs
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{model.encoder}-{model.method}"
        run_folder = run or RUNS / from_first(world, name)
        if world.is_first:
            say(f"run {run_folder}: {model.encoder}, {model.method}, {epochs} epochs, {plan.steps} steps")
        result = train(
            plan, run_folder, resume=request.resume, strict_resume=request.strict_resume, world=world
        )
    return FinishedTraining(result, plan.config) if world.is_first else None


def plan_training(request: TrainingRequest, *, say: Say) -> TrainingPlan | None:
    """Reads and checks everything, and trains nothing. Gives None in each process but the first.

    Raises ConfigError, DataError.
    """
    with _planned(request, say) as (plan, _, world):
        return plan if world.is_first else None


@contextlib.contextmanager
def _planned(request: TrainingRequest, say: Say) -> Iterator[tuple[TrainingPlan, Path | None, World]]:
    """The plan and the run's folder, if it is known, in a process group that lasts as long as the block."""
    run, source = request.run, request.config_file
    if request.resume:
        run = _existing_run(request)
        source = RunFolder(run).config
    document, name = read_toml(source) if source else {}, str(source or "flags")
    config = config_from_dict(merged(document, flat_settings(request.settings)), source=name)
    changed = changes_on_resume(config_from_dict(document, source=name), config) if request.resume else []
    if not request.resume and run:
        check_is_new(RunFolder(run))
    world = world_from_environment()
    with joined(world, device_from_config(config, world)):
        with first_on_machine_first(world):
            plan = plan_from_config(config, ranks=world.size)
        if not request.resume:
            check_init(plan.config)
        notes = (*(f"changed on resume: {change}" for change in changed), *plan.notes)
        for line in (targets_line(plan.data), *(f"note: {note}" for note in notes)) if world.is_first else ():
            say(line)
        yield plan, run, world


def _existing_run(request: TrainingRequest) -> Path:
    """The run to go on with. Raises ConfigError if there is none."""
    run = request.run or newest_run()
    if run is None or not RunFolder(run).is_begun():
        raise ConfigError(
            "--resume",
            f"no run in {run or 'runs/'}",
            wanted="a folder with config.toml",
            fix="name the run: --resume --out RUN",
        )
    if request.config_file:
        raise ConfigError("--config", "not with --resume: the run's own config.toml is taken")
    return run
