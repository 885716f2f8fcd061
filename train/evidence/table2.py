"""The paper's Table 2 from the runs that are there.

For each row: CCC, gains, and which differences are more than chance. A row with fewer finished runs
than seeds says so. Gains and comparisons are between the seeds that both rows have. S seeds, n
clips, K targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ... import __version__
from ...runtime.errors import DataError
from ...runtime.system.files import write_bytes, write_json
from ...runtime.text import counted, number_text
from ..data.corpus import is_synthetic
from ..data.data_set import named_speakers
from ..device import device_from_config, gpu_errors
from ..distributed import World
from ..method.metrics import ccc_challenge
from .evaluate import same_clips
from .planned_runs import trained_anew
from .predictions import Predictions
from .significance import (
    RESAMPLES,
    Comparison,
    ccc_interval,
    compare,
    have_evidence,
    holm,
)
from .table2_runs import ROWS, TABLE_JSON, TABLE_MD, Table2Row, TableRun, TableRuns
from .trained_run import predictions_of_run

# as the paper calls them
METHODS: Final = {"vanilla": "vanilla", "rrtn": "RRTN w/o RUWL", "rrtn-ruwl": "RRTN w RUWL"}
SYNTHETIC: Final = "SYNTHETIC data: it shows that everything works, and says nothing about real voices"
_LEAST_BASE: Final = 0.01  # CCC: a gain over less is a share of next to nothing
HEADER: Final = (
    "encoder",
    "method",
    "runs",
    "CCC (95%)",
    "SD",
    "gain %: local, global",
    "over vanilla (95%)",
    "p, Holm",
    "",
    "paper: CCC",
    "gain %",
)


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One row of the table, with the runs that are finished."""

    row: Table2Row
    runs: tuple[TableRun, ...]
    ccc: tuple[float, ...] = ()  # mean over targets of each finished run's best epoch (challenge)
    interval: tuple[float, float] | None = None  # 95% of their mean, drawing speakers and seeds
    # percent, over the row before; None for vanilla, and where either row has no run
    local_gain: float | None = None
    global_gain: float | None = None  # percent, over the encoder's vanilla
    over_vanilla: Comparison | None = None  # p_holm of its mean is over the table's rows
    compared_seeds: int = 0

    @property
    def state(self) -> str:
        """The number of finished seeds, in words."""
        done = sum(run.is_finished for run in self.runs)
        begun = sum(run.is_begun and not run.is_finished for run in self.runs)
        finished = f"{done} of {counted(len(self.runs), 'seed')}" if done else "not run"
        return f"{finished}, {begun} begun" if begun else finished

    @property
    def is_whole(self) -> bool:
        """True once every seed is finished."""
        return all(run.is_finished for run in self.runs)

    @property
    def mean(self) -> float | None:
        """The mean CCC of the seeds."""
        return float(np.mean(self.ccc)) if self.ccc else None

    @property
    def sd(self) -> float | None:
        """The standard deviation over the seeds, with n - 1."""
        return float(np.std(self.ccc, ddof=1)) if len(self.ccc) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        comparison = self.over_vanilla
        return {
            "encoder": self.row.encoder,
            "method": self.row.method,
            "whole": self.is_whole,
            "runs": [{"seed": run.seed, "folder": str(run.folder), "state": run.state} for run in self.runs],
            "ccc": self.mean,
            "ccc_of_seeds": list(self.ccc),
            "ccc_low": self.interval and self.interval[0],
            "ccc_high": self.interval and self.interval[1],
            "sd": self.sd,
            "local_gain_percent": self.local_gain,
            "global_gain_percent": self.global_gain,
            "over_vanilla": comparison
            and {
                **comparison.figures(-1),
                "verdict": comparison.verdict(-1),
                "seeds": self.compared_seeds,
            },
            "paper": dict(
                zip(("ccc", "local_gain_percent", "global_gain_percent"), paper_of(self.row), strict=True)
            ),
        }

    def cells(self) -> tuple[str, ...]:
        """The columns of HEADER, as text."""
        _, *paper_gains = paper_of(self.row)
        interval = f" ({self.interval[0]:z.3f} to {self.interval[1]:z.3f})" if self.interval else ""
        return (
            self.row.encoder,
            METHODS[self.row.method],
            self.state,
            number_text(self.mean, "z.3f") + interval,
            number_text(self.sd, ".3f"),
            _gains(self.local_gain, self.global_gain),
            *self._compared_cells(),
            f"{self.row.paper_ccc:.3f}",
            _gains(*paper_gains),
        )

    def _compared_cells(self) -> tuple[str, str, str]:
        if not self.over_vanilla:
            return "", "", ""
        figures = self.over_vanilla.figures(-1)
        seeds = (
            f" ({self.compared_seeds} of {counted(len(self.runs), 'seed')})"
            if self.compared_seeds < len(self.runs)
            else ""
        )
        interval = f" ({figures['low']:+z.3f} to {figures['high']:+z.3f})" if figures["p"] is not None else ""
        return (
            f"{figures['difference']:+z.3f}{interval}",
            number_text(figures["p_holm"], ".4f"),
            self.over_vanilla.verdict(-1) + seeds,
        )


@dataclass(frozen=True, kw_only=True)
class Table2:
    """The nine rows, in the paper's order."""

    runs: TableRuns
    rows: tuple[RowResult, ...]
    clips: int  # n of Val; 0 where no run is finished
    speakers: int
    targets: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """True once every row has every seed."""
        return all(row.is_whole for row in self.rows)

    @property
    def is_synthetic(self) -> bool:
        """True if the voices are."""
        folder = self.runs.config.data.dir
        return not folder or is_synthetic(Path(folder))

    @property
    def title(self) -> str:
        """The data and settings of the rows."""
        config = self.runs.config
        synthetic = f" {SYNTHETIC}." if self.is_synthetic else ""
        part = f"{sum(row.is_whole for row in self.rows)} of {len(self.rows)} rows are whole: "
        share = f", {config.data.fraction:.0%} of the training clips" if config.data.fraction < 1 else ""
        return (
            f"{'' if self.is_whole else 'PARTIAL, ' + part}{config.data.dir or 'built-in corpus'}, "
            f"Val: {counted(self.clips, 'clip')}, {counted(self.speakers, 'speaker')}; "
            f"{counted(config.optim.epochs, 'epoch')}, batch "
            f"{config.optim.batch_size}{share}, {config.precision}.{synthetic}"
        )

    @property
    def caption(self) -> str:
        """How to read the columns."""
        return (
            "CCC: the challenge's, mean over targets, of the best epoch by this same split, mean "
            "over seeds; 95%: drawing "
            "speakers and seeds; SD: over seeds. Gains are relative: local over the row before, "
            "global over the encoder's "
            "vanilla. p: two-tailed, by swapping speaker by speaker, Holm over the table's RRTN "
            "rows. Paper: on Hume-VB's "
            "development set."
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of table2.json, and of --json."""
        return {
            "whole": self.is_whole,
            "seeds": self.runs.seeds,
            "data": self.runs.config.data.dir or "built-in",
            "synthetic": self.is_synthetic,
            "split": "Val",
            "clips": self.clips,
            "speakers": self.speakers,
            "targets": list(self.targets),
            "rows": [row.to_dict() for row in self.rows],
            "config": self.runs.config.to_dict(),
            "rrtn": __version__,
        }

    def to_markdown(self) -> str:
        """The content of table2.md."""
        lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in self.rows)]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"{self.title}\n\n{table}\n\n{self.caption}\n"

    def write(self) -> None:
        """Writes table2.json and table2.md; each is replaced as a whole."""
        self.runs.out.mkdir(parents=True, exist_ok=True)
        write_json(self.runs.out / TABLE_JSON, self.to_dict())
        write_bytes(self.runs.out / TABLE_MD, self.to_markdown().encode())


def gain(ccc: float, before: float) -> float | None:
    """The gain in percent of `before`, as the paper counts.

    None where `before` is below 0.01: there is nothing to be relative to.
    """
    return 100 * (ccc - before) / before if before >= _LEAST_BASE else None


def paper_of(row: Table2Row) -> tuple[float, float | None, float | None]:
    """The paper's CCC, and its local and global gain."""
    if row.method == "vanilla":
        return row.paper_ccc, None, None
    return (
        row.paper_ccc,
        gain(row.paper_ccc, before(row).paper_ccc),
        gain(row.paper_ccc, vanilla_of(row).paper_ccc),
    )


def before(row: Table2Row) -> Table2Row:
    """The row that the local gain is relative to."""
    return ROWS[ROWS.index(row) - 1]


def vanilla_of(row: Table2Row) -> Table2Row:
    """The row that the global gain is relative to."""
    return next(other for other in ROWS if (other.encoder, other.method) == (row.encoder, "vanilla"))


def table_of_runs(
    runs: TableRuns, *, resamples: int = RESAMPLES, read: dict[Path, Predictions] | None = None
) -> Table2:
    """The table of all runs in the folder that are finished.

    `read` keeps the predictions of each run's folder for the next call: a finished run changes no more.
    Raises DataError where two runs were not evaluated on the same clips.
    """
    device, read = device_from_config(runs.config, World()), {} if read is None else read
    of_rows = {row: tuple(runs.run(row, seed) for seed in range(runs.seeds)) for row in ROWS}
    found = {
        row: {run.seed: _predictions(run.folder, device, read) for run in of_row if run.is_finished}
        for row, of_row in of_rows.items()
    }
    every = [predictions for of_row in found.values() for predictions in of_row.values()]
    _check_alike(runs.out, every)
    rows = [_result(row, of_rows[row], found, resamples) for row in ROWS]
    compared = [(i, row.over_vanilla) for i, row in enumerate(rows) if row.over_vanilla]
    adjusted = holm(np.array([comparison.p[-1] for _, comparison in compared]))
    for (i, comparison), p in zip(compared, adjusted, strict=True):
        p_holm = np.append(comparison.p_holm[:-1], p)
        rows[i] = replace(rows[i], over_vanilla=replace(comparison, p_holm=p_holm))
    return Table2(
        runs=runs,
        rows=tuple(rows),
        clips=len(every[0].file_ids) if every else 0,
        speakers=named_speakers(every[0].speakers) if every else 0,
        targets=runs.config.data.targets,
    )


def _predictions(run: Path, device: torch.device, read: dict[Path, Predictions]) -> Predictions:
    """Those of the rated columns."""
    if run not in read:
        with trained_anew(run, "rrtn table2"), gpu_errors(str(run)):
            read[run] = predictions_of_run(run, device=device).of_ratings()
    return read[run]


def _check_alike(out: Path, every: Sequence[Predictions]) -> None:
    if not all(same_clips(every[0], other) for other in every):
        raise DataError(
            str(out),
            "its runs are on different clips, targets or ratings",
            wanted="one data set",
            fix="choose another --out",
        )


def _result(
    row: Table2Row, runs: tuple[TableRun, ...], found: dict[Table2Row, dict[int, Predictions]], resamples: int
) -> RowResult:
    mine = found[row]
    if not mine:
        return RowResult(row=row, runs=runs)
    result = RowResult(
        row=row,
        runs=runs,
        ccc=tuple(_mean_ccc(p) for p in mine.values()),
        interval=_interval_of_mean(mine, resamples),
    )
    if row.method == "vanilla":
        return result
    both = [seed for seed in mine if seed in found[vanilla_of(row)]]
    return replace(
        result,
        local_gain=_gain_of_seeds(mine, found[before(row)]),
        global_gain=_gain_of_seeds(mine, found[vanilla_of(row)]),
        over_vanilla=_compared(mine, found[vanilla_of(row)], both, resamples) if both else None,
        compared_seeds=len(both),
    )


def _interval_of_mean(mine: dict[int, Predictions], resamples: int) -> tuple[float, float] | None:
    """None where there are too few speakers."""
    one = next(iter(mine.values()))
    if not have_evidence(one.rated, one.speakers)[-1]:
        return None
    low, high = ccc_interval([p.scores for p in mine.values()], one.rated, one.speakers, resamples=resamples)
    return float(low[-1]), float(high[-1])


def _compared(
    mine: dict[int, Predictions], other: dict[int, Predictions], seeds: Sequence[int], resamples: int
) -> Comparison:
    a, b = ([of_row[seed].scores for seed in seeds] for of_row in (mine, other))
    one = mine[seeds[0]]
    return compare(a, b, one.rated, one.speakers, resamples=resamples)


def _gain_of_seeds(mine: dict[int, Predictions], other: dict[int, Predictions]) -> float | None:
    """The gain between the means of the seeds that both rows have."""
    both = [seed for seed in mine if seed in other]
    if not both:
        return None
    now, then = (float(np.mean([_mean_ccc(of_row[seed]) for seed in both])) for of_row in (mine, other))
    return gain(now, then)


def _mean_ccc(predictions: Predictions) -> float:
    return float(ccc_challenge(predictions.scores, predictions.rated).mean())


def _gains(local: float | None, over_all: float | None) -> str:
    both = [number_text(gain_of, "+z.1f") or "-" for gain_of in (local, over_all)]
    return "" if both == ["-", "-"] else ", ".join(both)
