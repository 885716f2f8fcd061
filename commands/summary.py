"""What rrtn score says at its end: the rows, and how many in what time."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .printing import new_table, plain, print_table, say

if TYPE_CHECKING:
    from ..runtime.scoring.folder import Totals
    from ..runtime.scoring.scorer import Scorer
    from ..runtime.tables.rows import Row

_LONG = 2.0  # s; shorter scoring has no bottleneck worth a line


def choice_of_scorer(scorer: "Scorer") -> tuple[str, str, int]:
    """Device, variant, batch size."""
    return scorer.backend.device, scorer.backend.variant.name, scorer.batch_that_fits


def summary_of_totals(
    totals: "Totals",
    seconds: float,
    scored_now: int,
    out: Path | None,
    busy: dict[str, float],
    chosen: tuple[str, str, int],
) -> dict[str, Any]:
    """What --json prints; `chosen` is choice_of_scorer's."""
    device, variant, batch_size = chosen
    return {
        "files": totals.files,
        "scored": totals.scored,
        "errors": dict(sorted(totals.errors.items())),
        "seconds": round(seconds, 3),
        "audio_seconds": round(totals.audio_seconds, 3),
        "backend": device,
        "variant": variant,
        "out": str(out) if out else None,
        "scored_now": scored_now,
        "batch_size": batch_size,
        "busy": {part: round(share, 3) for part, share in busy.items()},
    }


def say_summary(summary: dict[str, Any]) -> None:
    """Files, speed and errors in a line; after long scoring the bottleneck, too."""
    errors = ", ".join(f"{code} {count}" for code, count in summary["errors"].items())
    seconds = max(summary["seconds"], 1e-9)
    was_all_scored_now = summary["scored_now"] == summary["files"]
    real_time = f", {summary['audio_seconds'] / seconds:.0f} x real time" if was_all_scored_now else ""
    say(
        f"{summary['scored']} of {summary['files']} files scored in {summary['seconds']:.1f} s "
        f"({summary['scored_now'] / seconds:.0f} files/s{real_time})"
        + (f"; errors: {errors}" if errors else "")
        + (f" -> {plain(summary['out'])}" if summary["out"] else "")
    )
    if summary["busy"] and summary["seconds"] > _LONG:
        shares = ", ".join(f"{part} {share:.0%}" for part, share in summary["busy"].items())
        say(f"busy: {shares}; the bottleneck is {max(summary['busy'], key=summary['busy'].__getitem__)}")


def print_rows(rows: list["Row"], labels: tuple[str, ...], top: int) -> None:
    """As a table, each with its highest labels."""
    from ..runtime.tables.top_rows import top_rows

    table = new_table("file", "s", "highest scores", "")
    for row in top_rows(rows, labels, top):
        place = "" if row.start is None or row.end is None else f"{row.start:.2f}-{row.end:.2f}"
        scores = "  ".join(f"{name} {value:.2f}" for name, value in row.scores)
        table.add_row(plain(row.file), place, plain(scores), row.error)
    print_table(table)


def row_json(row: "Row") -> dict[str, Any]:
    """A row for --json."""
    from ..runtime.audio.file_names import cell_from_path

    return {
        "file": cell_from_path(row.file),
        "start": row.start,
        "end": row.end,
        "scores": row.scores,
        "error": row.error,
    }
