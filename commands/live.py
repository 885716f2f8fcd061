"""What `rrtn listen` and `rrtn score -` show: each window as it comes, and a summary at the end."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..runtime.errors import ConfigError, RrtnError
from ..runtime.text import counted, printable
from .options import EXIT_SOME_ERRORS, bundle_place, say_gaps, say_other_channel
from .printing import end_with_summary, print_json, say
from .program import ends_with, signal_that_came, words_of_signal

if TYPE_CHECKING:
    from ..runtime.bundle import Bundle
    from ..runtime.live.live_scoring import LiveRow, LiveScoring
    from ..runtime.live.source import LiveSource
    from ..runtime.scoring.engine import LoadedModel
    from ..runtime.scoring.scorer_settings import ScorerSettings

Show = Callable[["LiveRow"], None]
_BAR = 24  # cells, of the display


class Shown(NamedTuple):
    """How windows are shown, and what the exit code says of them."""

    as_json: bool
    top: int
    allow_truncated: bool = False


class Stdin(NamedTuple):
    """The options for sound on stdin."""

    rate: int | None
    channels: int | None
    pcm: str | None
    drop_late: bool


def score_stdin(
    settings: "ScorerSettings",
    model: Path | None,
    level: str | None,
    stdin: Stdin,
    shown: Shown,
) -> None:
    """`rrtn score -`."""
    from ..runtime.bundle import load_bundle
    from ..runtime.live.standard_input import check_stdin, sound_on_stdin

    if level not in (None, "running"):
        came = "cannot be known before the sound has ended"
        raise ConfigError(f"--level {level}", came, wanted="running", fix="leave it out")
    check_stdin(rate=stdin.rate, channels=stdin.channels, pcm=stdin.pcm)
    bundle = load_bundle(bundle_place(model))
    window = "auto" if settings.window is None else settings.window
    settings = replace(settings, window=window, level="running", batch_size=1)
    source = sound_on_stdin(
        rate=stdin.rate, channels=stdin.channels, pcm=stdin.pcm, waits=not stdin.drop_late
    )
    score_live(bundle, settings, source, shown, drops_late=stdin.drop_late)


def score_live(
    bundle: "Bundle",
    settings: "ScorerSettings",
    opened_source: "AbstractContextManager[LiveSource]",
    shown: Shown,
    *,
    drops_late: bool,
) -> None:
    """Scores a source until it ends, or a signal comes; then prints a summary.

    Loads the model before it opens the source, so that no sound queues up meanwhile.
    """
    from ..runtime.live.live_scoring import LiveScoring
    from ..runtime.scoring.local_engine import LocalEngine, scorer_within_budget
    from ..runtime.system.memory import memory_as_before

    say_gaps(bundle.spec, settings)
    say_other_channel(bundle, settings.channel)
    with contextlib.ExitStack() as stack:
        stack.enter_context(memory_as_before())
        scorer = stack.enter_context(scorer_within_budget(bundle, settings))
        source = stack.enter_context(opened_source)
        scoring = LiveScoring(scorer, source, drops_late=drops_late)
        engine = LocalEngine(scorer)
        say(f"{source.description}; {engine.description}")
        _shown_to_the_end(scoring, engine.loaded, shown)


def _shown_to_the_end(scoring: "LiveScoring", model: "LoadedModel", shown: Shown) -> None:
    with _screen(model, shown) as show:
        error, ended = None, "the sound has ended"
        try:
            for row in scoring.rows():
                show(row)
        except RrtnError as raised:
            error, ended = raised, "stopped"
        except BaseException:
            if (number := signal_that_came()) is None:
                raise
            ended = words_of_signal(number)
    code = _exit_code(scoring, error, shown.allow_truncated)
    ends_with(code)
    summary = {**scoring.summary(), "ended": ended}
    if not shown.as_json and not sys.stdout.isatty() and (mean := scoring.mean_row()):
        print(*_csv_lines([mean], model.labels)[1:], sep="", end="", flush=True)
    _say_summary(summary)
    end_with_summary(summary, code, error, as_json=shown.as_json)


def _exit_code(scoring: "LiveScoring", error: RrtnError | None, allow_truncated: bool) -> int:
    if error:
        return error.exit_code
    if number := signal_that_came():
        return 128 + number
    is_cut, summary = scoring.missing and not allow_truncated, scoring.summary()
    is_bad = is_cut or summary["errors"] or not summary["windows"]
    return EXIT_SOME_ERRORS if is_bad else 0


def _screen(model: "LoadedModel", shown: Shown) -> "AbstractContextManager[Show]":
    if shown.as_json:
        return contextlib.nullcontext(_print_json_line)
    if sys.stdout.isatty():
        return _display(model, shown.top)
    return _csv(model.labels)


def _print_json_line(live: "LiveRow") -> None:
    from ..runtime.tables.json_row import json_row

    dropped = {"dropped_windows": live.dropped_windows, "dropped_samples": live.dropped_samples}
    print_json({**json_row(live.row), "latency": round(live.latency, 4), **dropped}, indent=None)


@contextlib.contextmanager
def _csv(labels: tuple[str, ...]) -> Iterator[Show]:
    """The lines of the table that a file with this sound has."""
    print(*_csv_lines([], labels), end="", flush=True)
    yield lambda live: print(_csv_lines([live.row], labels)[1], end="", flush=True)


def _csv_lines(rows: list[Any], labels: tuple[str, ...]) -> list[str]:
    from ..runtime.tables.csv_table import csv_lines

    return [*csv_lines(rows, labels)]


@contextlib.contextmanager
def _display(model: "LoadedModel", top: int) -> Iterator[Show]:
    """The last window's highest labels, in the same place of the terminal."""
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False) as display:
        yield lambda live: display.update("\n".join(_display_lines(live, model, top)), refresh=True)


def _display_lines(live: "LiveRow", model: "LoadedModel", top: int) -> list[str]:
    from rich.markup import escape

    from ..runtime.tables.top_rows import share, top_rows

    (row,) = top_rows([live.row], model.labels, top, model.scales)
    lost = f", dropped {counted(live.dropped_windows, 'window')}" if live.dropped_windows else ""
    head = f"{row.start:.1f} to {row.end:.1f} s, {1000 * live.latency:.0f} ms later{lost}  "
    width = max((len(label) for label, _ in row.scores), default=0)
    shares = [min(max(share(item[0], item[1], model.scales), 0), 1) for item in row.scores]
    bars = [
        f"{escape(printable(label)):{width}}  {score:5.2f}  {'━' * round(_BAR * of_scale)}"
        for (label, score), of_scale in zip(row.scores, shares, strict=True)
    ]
    return [head + (row.error or row.flags), *bars]


def _say_summary(summary: dict[str, Any]) -> None:
    latency = ""
    if summary["latency_p50"] is not None:
        p50, p99 = (1000 * summary[f"latency_{name}"] for name in ("p50", "p99"))
        latency = f"; latency p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    counts = {"errors": summary["errors"], "flags": summary["flags"]}
    codes = "".join(
        f"; {what}: {', '.join(f'{code} {count}' for code, count in found.items())}"
        for what, found in counts.items()
        if found
    )
    say(
        f"{summary['ended']}: {counted(summary['scored'], 'window')} scored of "
        f"{summary['audio_seconds']:.1f} s of sound in {summary['seconds']:.1f} s{latency}{codes}"
    )
    if summary["dropped_windows"] or summary["dropped_samples"]:
        windows, samples = summary["dropped_windows"], summary["dropped_samples"]
        say(
            f"warning: dropped {counted(windows, 'window')} and {counted(samples, 'sample')}: "
            "scoring was slower than the sound; a longer --hop or a faster --variant helps"
        )
    if summary["missing"]:
        say(f"warning: {summary['missing']}")
