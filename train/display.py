"""What a person sees of `rrtn train`: a live table on a terminal, plain lines in a log, TensorBoard.

Everything goes to stderr. Durations are those of the monotonic clock, which nobody can set back.
"""

import math
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..runtime.errors import MissingExtraError
from ..runtime.progress import bar_line, duration, times
from ..runtime.text import printable
from .checkpoint import metric_of_record, score_of
from .method.choices import CLASS_TERM, TERMS
from .method.tasks import METRIC_NAMES

HistoryRecord = dict[str, Any]  # one line of history.jsonl

_REFRESH_SECONDS: Final = 0.25  # of the live table, at least
_DRAWING_SHARE: Final = 0.02  # of the training's time, at most
_FIRST_LINE_SECONDS: Final = 1.5  # until the first plain line
_LINE_SECONDS: Final = 10.0  # between plain lines inside an epoch
_TICK_SECONDS: Final = 1.0  # a step that takes longer is seen to go on
_EPOCHS_SHOWN: Final = 12
_OTHER_LINES: Final = 6  # header, rule, the best epoch, progress, the cursor, and one above
_GAP: Final = 2  # between two columns
_HEADERS: Final = {"w": "weights", "best": ""}
_TERMS: Final = (*TERMS, CLASS_TERM)
_COLUMNS: Final = tuple(term.removeprefix("l_") for term in _TERMS)
_DECIMALS: Final = (3, 3, 0, 3)  # of the terms: Barlow Twins' is a sum, and in the hundreds
# The columns that a narrow terminal does without, the first of them first.
_DROPPED_FIRST: Final = ("peak", "w", *_COLUMNS[1:], _COLUMNS[0], "clips/s", "loss")


@dataclass(frozen=True, kw_only=True)
class Part:
    """The place of a run in something larger, such as a table of runs."""

    label: str = ""
    later: float = 0.0  # work that follows this run, in runs as long as this one
    said: set[str] = field(default_factory=set)  # notes of the runs before, which this one does not repeat


@dataclass(kw_only=True)
class _Phase:
    """Training or validation in one epoch. The rate leaves out clips from before a resume."""

    split: str
    total: int
    started: float
    before: int = 0
    done: int = 0
    ended: float | None = None

    @property
    def seconds(self) -> float:
        return max((monotonic() if self.ended is None else self.ended) - self.started, 0.0)

    @property
    def rate(self) -> float:
        seconds = self.seconds
        return self.done / seconds if seconds else 0.0


class Display:
    """The display of one run: `with Display(epochs=..., clips_per_epoch=...) as display:`.

    Of several processes all but one are `quiet`. `flops_per_clip` are those of a training step, `peak`
    is in FLOP/s; with both the share of the peak is shown. `tensorboard` is a folder for event files:
    raises MissingExtraError if the package is missing.
    """

    def __init__(
        self,
        *,
        epochs: int,
        clips_per_epoch: int,
        flops_per_clip: float = 0.0,
        peak: float = 0.0,
        tensorboard: Path | None = None,
        quiet: bool = False,
        part: Part | None = None,
    ) -> None:
        self._part = part or Part()
        self._epochs, self._clips_per_epoch, self._quiet = epochs, clips_per_epoch, quiet
        self._share_per_rate = flops_per_clip / peak if peak > 0 else 0.0
        self._writer = _Writer(tensorboard) if tensorboard and not quiet else None
        self._began = now = monotonic()
        self._epoch = 0
        self._rest = 0.0  # seconds of an epoch after its training, with its checkpoint
        self._earlier = self._training = self._phase = _Phase(split="Train", total=0, started=now, ended=now)
        self._rows: list[dict[str, str]] = []
        self._best = -1  # the row; after a resume the best epoch may have no row
        self._console = Console(stderr=True, highlight=False)
        on_terminal = not quiet and sys.stderr.isatty() and self._console.is_interactive
        # Drawn by hand, so that drawing takes no more than its share. stdout is for --json alone.
        live = Live(
            get_renderable=self._rendered, console=self._console, auto_refresh=False, redirect_stdout=False
        )
        self._live = live if on_terminal else None
        self._period = _REFRESH_SECONDS if on_terminal else _LINE_SECONDS
        self._next = now + (self._period if on_terminal else _FIRST_LINE_SECONDS)
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="display", daemon=True)

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        if not self._quiet:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._ticker.is_alive():
            self._ticker.join()
        if self._live:
            self._live.stop()
        if self._writer:
            self._writer.close()

    def start_epoch(self, epoch: int, *, done_clips: int = 0) -> None:
        """Training of epoch `epoch`, counted from 0, begins, or continues after its first `done_clips`."""
        self._measure_rest()
        self._epoch, self._earlier = epoch, self._training
        self._training = _Phase(
            split="Train", total=self._clips_per_epoch, before=done_clips, started=monotonic()
        )
        self._phase = self._training
        self._show()

    def advance(self, clips: int) -> None:
        """`clips` more training clips are done."""
        self._phase.done += clips
        self._show_if_due()

    def validating(self, total: int) -> None:
        """The training of this epoch is over, and `total` clips of validation follow."""
        self._training.ended = monotonic()
        self._phase = _Phase(split="Val", total=total, started=self._training.ended)
        self._show()

    def advance_validation(self, clips: int) -> None:
        """`clips` more validation clips are done."""
        self.advance(clips)

    def end_epoch(self, record: HistoryRecord, *, is_best: bool) -> None:
        """Shows one record of the history, with the rate of this epoch's training."""
        if self._training.ended is None:
            self._training.ended = monotonic()
        self._measure_rest()
        rate = self._training.rate
        self._best = len(self._rows) if is_best else self._best
        # There is no rate if all steps were before a resume.
        speed = {"clips/s": f"{rate:.1f}" if rate else "", "peak": self._share(rate) if rate else ""}
        self._rows.append(row := _cells(record) | speed)
        self._phase = self._training
        losses = "  ".join(f"{name} {row[name]}" for name in ("loss", *_COLUMNS, "w") if name in row)
        measured = "  ".join(f"{name} {row[name]}" for name in row if name.startswith("Val "))
        self._show(f"{losses}  |  {measured}{'  best' if is_best else ''}")
        if self._writer:
            self._writer.write(record, rate)

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        line = printable(text)
        if self._live:
            self._console.print(line, markup=False, soft_wrap=True)
        elif not self._quiet:
            print(line, file=sys.stderr, flush=True)

    def say_notes(self, notes: Iterable[str]) -> None:
        """A line for each that no run before has said."""
        for note in notes:
            if note not in self._part.said:
                self.say(f"note: {note}")
                self._part.said.add(note)

    def _tick(self) -> None:
        """Shows that a long step goes on."""
        while not self._ended.wait(_TICK_SECONDS):
            if self._training.total:
                self._show_if_due()

    def _show_if_due(self) -> None:
        with self._lock:
            if monotonic() >= self._next:
                done = self._phase.before + self._phase.done
                self._show(f"{self._phase.split} {done}/{self._phase.total} clips")

    def _measure_rest(self) -> None:
        """Called at the end of an epoch and at the start of the next: a checkpoint may come between."""
        if self._training.ended is not None and self._training.total:
            self._rest = max(monotonic() - self._training.ended, 0.0)

    def _show(self, line: str = "") -> None:
        """Draws the table, or prints `line` if there is no table. Then `advance` is silent for a while."""
        with self._lock:
            started = monotonic()
            if self._live:
                self._live.refresh()
            elif line:
                speed = "  ".join(filter(None, self._speed()))
                epoch = f"epoch {self._epoch + 1:3d}/{self._epochs}  {line}"
                parts = (self._part.label, epoch, speed, "  ".join(self._times()))
                self.say("  |  ".join(filter(None, parts)))
            else:
                return
            now = monotonic()
            self._next = now + max(self._period, (now - started) / _DRAWING_SHARE)

    def _speed(self) -> tuple[str, str]:
        """Rate and share of the peak; each is empty if it is not known."""
        if not self._phase.rate:
            return "", ""
        share = self._share(self._phase.rate) if self._phase is self._training else ""
        return f"{self._phase.rate:.1f} clips/s", f"{share} of peak" if share else ""

    def _times(self) -> tuple[str, str]:
        """Since the start of this process, and to the end of the run."""
        left = self._seconds_left()
        elapsed, to_go = times(monotonic() - self._began, left)
        if self._part.later and left < math.inf:
            pace, rest = self._pace()
            later = self._part.later * self._epochs * (self._clips_per_epoch * pace + rest)
            to_go += f" ({duration(left + later)} in all)"
        return elapsed, to_go

    def _share(self, rate: float) -> str:
        """More than all of the peak was measured while other programs ran: then it says nothing."""
        share = rate * self._share_per_rate
        return f"{share:.0%}" if 0 < share <= 1 else ""

    def _seconds_left(self) -> float:
        """Seconds to the end of the run; infinite if not known.

        The pace is that of this epoch and the one before: the first epoch starts slowly.
        """
        training = self._training
        pace, rest = self._pace()
        if not pace:
            return math.inf
        later = (self._epochs - self._epoch - 1) * (self._clips_per_epoch * pace + rest)
        if training.ended is None:
            return later + max(training.total - training.before - training.done, 0) * pace + rest
        return later + max(rest - (monotonic() - training.ended), 0.0)

    def _pace(self) -> tuple[float, float]:
        """Seconds of a training clip, and of what follows the training of an epoch; 0 if not known."""
        training, phase, rest = self._training, self._phase, self._rest
        clips = self._earlier.done + training.done
        if not rest and phase is not training and phase.rate:
            rest = phase.total / phase.rate
        return (self._earlier.seconds + training.seconds) / clips if clips else 0.0, rest

    def _rendered(self) -> Group:
        """The last epochs, the best one above them if it is older, and the progress of this epoch.

        As many lines as the terminal has room for.
        """
        width, height = self._console.size
        parts: list[Table | Text] = []
        if self._rows:
            first = max(len(self._rows) - max(1, min(_EPOCHS_SHOWN, height - _OTHER_LINES)), 0)
            shown = [self._best] * (0 <= self._best < first) + [*range(first, len(self._rows))]
            parts.append(_table([self._rows[i] | {"best": "best" * (i == self._best)} for i in shown], width))
        if self._training.total and not (self._rows and self._rows[-1]["epoch"] == str(self._epochs)):
            parts.append(Text(self._bar(width), no_wrap=True))
        return Group(*parts)

    def _bar(self, width: int) -> str:
        """One line: what is in work, a bar, and what else has room."""
        epoch, phase = f"epoch {self._epoch + 1}/{self._epochs} {self._phase.split}", self._phase
        label = f"{self._part.label} {epoch}".lstrip()
        share, (elapsed, left) = (phase.before + phase.done) / phase.total, self._times()
        for speed in ("  ".join(filter(None, self._speed())), self._speed()[0]):
            line = bar_line(label, "", share, rate=speed, times=(elapsed, left), width=width)
            if speed in line:
                break
        return line if left in line else bar_line(epoch, "", share, times=(elapsed, left), width=width)


def _cells(record: HistoryRecord) -> dict[str, str]:
    """Column -> text; a method has columns for its own losses alone."""
    cells = {"epoch": str(record["epoch"]), "loss": f"{record['loss']:z.3f}"}
    for term, column, decimals in zip(_TERMS, _COLUMNS, _DECIMALS, strict=True):
        if term in record:
            cells[column] = f"{record[term]:z.{decimals}f}"
    if "weights" in record:
        cells["w"] = "/".join(f"{w:.2f}" if w >= 0.01 else f"{w:.1e}" for w in record["weights"])
    measured = {"Val CCC": record.get("val_ccc"), "Val UAR": record.get("val_uar")}
    if (metric := metric_of_record(record)) == "s_mtl":
        measured[f"Val {METRIC_NAMES[metric]}"] = score_of(record)
    return cells | {name: f"{v:z.3f}" for name, v in measured.items() if v is not None} | {"best": ""}


def _table(rows: list[dict[str, str]], width: int) -> Table:
    """The most important columns that fit into `width`; a column without any text is left out."""
    rows = [{name: text.replace("e-0", "e-") for name, text in row.items()} for row in rows]
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {
        name: max(len(text) for text in (_HEADERS.get(name, name), *(row[name] for row in rows)))
        for name in names
    }
    for name in _DROPPED_FIRST:
        if sum(widths[kept] + _GAP for kept in names) - _GAP > width:
            names = [kept for kept in names if kept != name]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for name in names:
        table.add_column(
            _HEADERS.get(name, name), justify="left" if name == "best" else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*(row[name] for name in names), style="bold green" if row["best"] else "")
    return table


class _Writer:
    """Writes the numbers of a record as TensorBoard's scalars, to files in `folder`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError.of(error.name or "tensorboard", "tensorboard", "--tensorboard") from error
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._type = folder, SummaryWriter
        self._writer: SummaryWriter | None = None

    def write(self, record: HistoryRecord, rate: float) -> None:
        """Writes one record.

        The first record hides what an earlier process wrote from this step on, because these steps
        were trained again.
        """
        step = record["step"]
        self._writer = self._writer or self._type(str(self._folder), purge_step=step)
        scalars = {"loss/total": record["loss"]}
        terms = [(term, column) for term, column in zip(_TERMS, _COLUMNS, strict=True) if term in record]
        for term, column in terms:
            scalars[f"loss/{column}"] = record[term]
        if "weights" in record:
            for (_, column), weight in zip(terms, record["weights"], strict=True):
                scalars[f"weights/{column}"] = weight
        scalars |= {"speed/clips_per_s": rate, "speed/grad_norm": record["grad_norm"]}
        for metric in ("val_ccc", "val_uar"):
            if metric in record:
                scalars[f"{metric}/mean"] = record[metric]
                scalars |= {
                    f"{metric}/{name}": value for name, value in record[f"{metric}_per_target"].items()
                }
        if "val_score" in record:
            scalars[f"val_{record['val_metric']}"] = record["val_score"]
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer:
            self._writer.close()
