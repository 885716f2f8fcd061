"""The rows of the paper's Table 2 and their runs: every row with each seed, in one folder.

<out>/<encoder>-<method>/seed<N>/    a run, as `rrtn train` makes it
<out>/measured.json                  the time of an epoch of each row, for estimates
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypedDict

import torch
from msgspec import Meta

from ...runtime.documents import converted, parsed
from ...runtime.errors import ConfigError
from ...runtime.system.files import read_regular, remove_left, write_json
from ...runtime.system.locks import locked
from ..config import METHODS, CompileMode, Config, Method
from ..config_file import config_from_toml
from ..display import Part
from ..loop import train
from ..method.choices import ENCODER_NAMES, EncoderName
from ..method.flops import step_flops
from ..plan import check_draws, data_digest, plan_from_config, shapes_from_config, targets_line
from ..run_folder import RunFolder
from ..run_state import keep_places
from .planned_runs import check_digest, check_settings, epochs_done, resumed_by_the_command, state_of_run


class _Spent(TypedDict):
    """What a row has taken, in measured.json."""

    epochs: Annotated[int, Meta(ge=1, le=10**9)]
    seconds: Annotated[float, Meta(ge=0)]


class Table2Row(NamedTuple):
    """A row of the table, with the paper's result on Hume-VB's development set."""

    encoder: EncoderName
    method: Method
    paper_ccc: float

    @property
    def name(self) -> str:
        """The name of the row and of its folder."""
        return f"{self.encoder}-{self.method}"


# Files of the table's folder.
MEASURED: Final = "measured.json"
TABLE_JSON: Final = "table2.json"
TABLE_MD: Final = "table2.md"
ROWS: Final = (
    Table2Row("resnet18", "vanilla", 0.613),
    Table2Row("resnet18", "rrtn", 0.628),
    Table2Row("resnet18", "rrtn-ruwl", 0.634),
    Table2Row("cnn10", "vanilla", 0.655),
    Table2Row("cnn10", "rrtn", 0.667),
    Table2Row("cnn10", "rrtn-ruwl", 0.668),
    Table2Row("cnn14", "vanilla", 0.647),
    Table2Row("cnn14", "rrtn", 0.674),
    Table2Row("cnn14", "rrtn-ruwl", 0.678),
)


def rows_of(encoders: Sequence[str] = (), methods: Sequence[str] = ()) -> tuple[Table2Row, ...]:
    """The rows of these encoders and methods; all rows where none is named.

    Raises ConfigError for an unknown name.
    """
    for flag, names, known in (
        ("--encoders", encoders, ENCODER_NAMES),
        ("--methods", methods, METHODS),
    ):
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(
                flag, ", ".join(unknown), wanted=f"some of {', '.join(known)}, separated by commas"
            )
    return tuple(
        row
        for row in ROWS
        if row.encoder in (encoders or ENCODER_NAMES) and row.method in (methods or METHODS)
    )


class TableRun(NamedTuple):
    """One run of the table, and its progress."""

    row: Table2Row
    seed: int
    folder: Path
    epochs_done: int
    epochs: int

    @property
    def is_begun(self) -> bool:
        """True if there is a run to resume."""
        return RunFolder(self.folder).is_begun()

    @property
    def epochs_left(self) -> int:
        """The number of epochs that are still to be trained."""
        return max(self.epochs - self.epochs_done, 0)

    @property
    def is_finished(self) -> bool:
        """True once all epochs are trained."""
        return self.epochs_left == 0

    @property
    def state(self) -> str:
        """The progress, in plain words."""
        return state_of_run(self.folder, self.epochs_done, self.epochs)


@dataclass(frozen=True, kw_only=True)
class TableRuns:
    """The runs of a table in one folder."""

    out: Path
    config: Config  # resolved; the same for all runs, except for encoder, method and seed
    seeds: int  # the seeds are 0 .. seeds - 1
    rows: tuple[Table2Row, ...] = ROWS  # the rows to train; other rows in the folder are shown, too
    notes: tuple[str, ...] = ()

    def config_of(self, row: Table2Row, seed: int) -> Config:
        """The settings that `rrtn train` would be given."""
        return replace(
            self.config, seed=seed, model=replace(self.config.model, encoder=row.encoder, method=row.method)
        )

    def all_of(self, rows: Sequence[Table2Row] = ROWS) -> list[TableRun]:
        """All runs, seed by seed: a table that is stopped early has every row. Cheap rows come first."""
        return [self.run(row, seed) for seed in range(self.seeds) for row in rows]

    def describe(self) -> dict[str, Any]:
        """What `rrtn table2 --dry-run --json` prints."""
        found = self.all_of(self.rows)
        return {
            "runs": [
                {"row": one.row.name, "seed": one.seed, "state": one.state, "folder": str(one.folder)}
                for one in found
            ],
            "epochs": sum(run.epochs for run in found),
            "epochs_to_go": sum(run.epochs_left for run in found),
            "seconds_to_go": seconds_to_go(self),
            "config": self.config.to_dict(),
        }

    def run(self, row: Table2Row, seed: int) -> TableRun:
        """One run, as it is in the folder now."""
        folder = _folder(self.out, row, seed)
        return TableRun(row, seed, folder, epochs_done(folder), self.config.optim.epochs)


def table_runs(config: Config, *, out: Path, seeds: int, rows: tuple[Table2Row, ...] = ROWS) -> TableRuns:
    """Resolves the open settings, for all runs alike.

    Raises ConfigError for a folder with runs of other settings; DataError.
    """
    if seeds < 1:
        raise ConfigError("--seeds", str(seeds), wanted="at least 1")
    plan = plan_from_config(replace(config, seed=0, compile=_compile_mode(config, out, seeds)))
    if not plan.data.targets:
        raise ConfigError("rrtn table2", "classes alone", wanted="rated targets, whose CCC the table holds")
    check_draws(plan.config, range(seeds))
    runs = TableRuns(
        out=out, config=plan.config, seeds=seeds, rows=rows, notes=(targets_line(plan.data), *plan.notes)
    )
    for run in runs.all_of():
        check_settings(
            run.folder, runs.config_of(run.row, run.seed), wanted="one setting for the whole table"
        )
    return runs


def _compile_mode(config: Config, out: Path, seeds: int) -> CompileMode:
    """Where none was asked for, the mode of the runs that are there."""
    if config.compile == "auto":
        for run in (RunFolder(_folder(out, row, seed)) for seed in range(seeds) for row in ROWS):
            if run.is_begun():
                return config_from_toml(run.config).compile
    return config.compile


def _folder(out: Path, row: Table2Row, seed: int) -> Path:
    return out / row.name / f"seed{seed}"


def train_rows(runs: TableRuns, *, say: Callable[[str], None], at_run: Callable[[], object]) -> None:
    """Trains the missing runs. Finished runs are kept, and a begun one is resumed.

    `at_run` is called after each run. Raises StoppedError where a run is stopped; calling again
    continues. Raises ConfigError where the data have changed, or another process trains the table.
    """
    runs.out.mkdir(parents=True, exist_ok=True)
    with locked(runs.out / "table2.lock", does="trains a table"):
        for name in (MEASURED, TABLE_JSON, TABLE_MD):
            remove_left(runs.out / name)
        _check_data(runs)
        found, said = runs.all_of(runs.rows), set[str]()
        for number, run in enumerate(found, start=1):
            if run.is_finished:
                continue
            costs = _costs(runs)
            later = sum(costs[after.row.name] * after.epochs_left for after in found[number:])
            label = f"{number}/{len(found)} {run.row.name} seed {run.seed}"
            say(f"{label}: {run.state}")
            with _measured(runs, run), resumed_by_the_command():
                train(
                    plan_from_config(runs.config_of(run.row, run.seed)),
                    run.folder,
                    resume=run.is_begun,
                    part=Part(label=label, later=later / (costs[run.row.name] * run.epochs), said=said),
                )
            # otherwise the next run would see less free memory, and might not keep its clips on the GPU
            torch.cuda.empty_cache()
            at_run()


def seconds_to_go(runs: TableRuns) -> float | None:
    """The seconds that the missing runs will take; None where nothing was measured in this folder."""
    if not _read_measured(runs.out):
        return None
    costs = _costs(runs)
    return sum(costs[run.row.name] * run.epochs_left for run in runs.all_of(runs.rows))


def _check_data(runs: TableRuns) -> None:
    """The data are compared here, because a finished run never looks at them again."""
    digests: dict[int, str] = {}
    for run in runs.all_of():
        if not run.is_finished:
            continue
        # With a fraction, each seed draws other training clips.
        drawn = run.seed if runs.config.data.fraction < 1 else 0
        if drawn not in digests:
            digests[drawn] = data_digest(plan_from_config(runs.config_of(run.row, drawn)))
        check_digest(run.folder, digests[drawn])
        keep_places(RunFolder(run.folder), runs.config)


@contextmanager
def _measured(runs: TableRuns, run: TableRun) -> Iterator[None]:
    """Adds the epochs that are trained inside, and their seconds, to measured.json."""
    start = time.monotonic()
    try:
        yield
    finally:
        epochs = runs.run(run.row, run.seed).epochs_done - run.epochs_done
        if epochs > 0:
            measured = _read_measured(runs.out)
            before = measured.get(run.row.name, {"epochs": 0, "seconds": 0.0})
            seconds = before["seconds"] + time.monotonic() - start
            measured[run.row.name] = {"epochs": before["epochs"] + epochs, "seconds": round(seconds, 3)}
            with suppress(OSError):  # an estimate is worth no stop, and must not hide another error
                write_json(runs.out / MEASURED, measured)


def _read_measured(out: Path) -> dict[str, _Spent]:
    try:
        document = parsed(read_regular(out / MEASURED))
        return converted(document, dict[str, _Spent])
    except (OSError, ValueError):
        return {}


def _costs(runs: TableRuns) -> dict[str, float]:
    """Row name -> seconds of an epoch.

    Rows that were not measured are estimated by their FLOPs, relative to the measured ones. Where
    nothing was measured, only the ratios mean something.
    """
    flops = {row.name: float(_flops(runs.config_of(row, 0))) for row in runs.rows}
    seconds = {
        name: entry["seconds"] / entry["epochs"]
        for name, entry in _read_measured(runs.out).items()
        if name in flops
    }
    scale = sum(seconds.values()) / sum(flops[name] for name in seconds) if seconds else 1.0
    return {name: seconds.get(name, scale * flops[name]) for name in flops}


@functools.lru_cache(maxsize=len(ROWS))
def _flops(config: Config) -> int:
    return step_flops(shapes_from_config(config), spec=config.frontend, batch_size=config.optim.batch_size)
