"""What rrtn score shows at its end: the rows, and how many files it scored in what time."""

from typing import TYPE_CHECKING

from ..runtime.errors import install_command
from ..runtime.text import counted
from .printing import NO_BREAK, Column, Table, fits, print_table, say, stdout_width

if TYPE_CHECKING:
    from collections import Counter

    from ..runtime.scoring.folder import ScoringSummary
    from ..runtime.tables.rows import Row
    from ..runtime.tables.top_rows import Scales, TopRow

_LONG = 2.0  # s; shorter scoring has no bottleneck worth a line


def say_summary(summary: "ScoringSummary") -> None:
    """Says files, speed and errors in one line; after long scoring the bottleneck, too."""
    from ..runtime.audio.inputs import counts_text

    totals, seconds = summary.totals, max(summary.seconds, 1e-9)
    real_time = ""
    if summary.scored_now == totals.files:
        real_time = f", {totals.audio_seconds / seconds:.0f} x real time"
    say(
        f"{totals.scored:,} of {counted(totals.files, 'file')} scored in {summary.seconds:.1f} s "
        f"({counted(round(summary.scored_now / seconds), 'file')}/s{real_time})"
        + _counts("errors", totals.errors)
        + _counts("flags", totals.flags)
        + (f" -> {summary.out}" if summary.out else "")
    )
    if summary.kept_rows:
        say(f"{counted(summary.kept_rows, 'row')} of other files kept (--append)")
    if summary.left_out:
        say(f"left out: {counts_text(summary.left_out)}")
    if longer := totals.flags["only_start"]:
        files, them = counted(longer, "longer file"), "it" if longer == 1 else "them"
        say(f"note: only the start of {files} was scored; --window auto scores all of {them}")
    if unread := totals.errors["needs_formats_extra"]:
        again = ", then the same command with --overwrite" if summary.out else ""
        say(f"note: to read the {unread} with needs_formats_extra: {install_command('formats')}{again}")
    if summary.busy and summary.seconds > _LONG:
        shares = ", ".join(f"{part} {share:.0%}" for part, share in summary.busy.items())
        say(f"busy: {shares}; the bottleneck is {max(summary.busy, key=summary.busy.__getitem__)}")


def _counts(what: str, counts: "Counter[str]") -> str:
    listed = ", ".join(f"{code} {count}" for code, count in sorted(counts.items()))
    return f"; {what}: {listed}" if listed else ""


def print_rows(rows: list["Row"], labels: tuple[str, ...], top: int, scales: "Scales") -> None:
    """Prints a table with the `top` highest labels of each row, by their shares of their scales.

    Errors and flags have a column of their own, or on a narrow terminal stand behind the scores.
    """
    from ..runtime.tables.top_rows import top_rows

    shown = list(top_rows(rows, labels, top, scales))
    table = Table("file", "s", "highest scores", "")
    for row in shown:
        table.add_row(row.file, _place(row), _scores(row), row.error or row.flags)
    if not fits(table, stdout_width()):
        table = Table("file", "s", Column("highest scores", words=True))
        for row in shown:
            said = "  ".join(filter(None, [_scores(row), row.error or row.flags]))
            table.add_row(row.file, _place(row), said)
    print_table(table)


def _place(row: "TopRow") -> str:
    return "" if row.start is None or row.end is None else f"{row.start:.2f}-{row.end:.2f}"


def _scores(row: "TopRow") -> str:
    return "  ".join(f"{name}{NO_BREAK}{value:z.2f}" for name, value in row.scores)
