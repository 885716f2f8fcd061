"""One HTML page with the level of each recording, what was scored of it, and the scores over time.

Self-contained, without a script. Drawings are SVG in the colours of the report. S seconds, K labels.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ..text import counted, in_html
from .label_tracks import Track, highest
from .top_rows import share

if TYPE_CHECKING:  # NumPy is not loaded for a list of formats
    from ..arrays import Float32

_WIDTH, _LEFT, _RIGHT = 1160, 52, 12
_LEVEL_TOP, _LEVEL, _SCORE_TOP, _SCORES, _HEIGHT = 10, 110, 140, 150, 330
_LOWEST: Final = -100.0  # dBFS
_LINES: Final = 4  # labels whose scores are drawn
_TOP: Final = 3  # labels of each row in the list
_TICKS: Final = 6
_COLOURS: Final = ("#1b4965", "#b0545a", "#4c7a34", "#8d5a97")
_STYLE: Final = """
:root { --ink: #1d2733; --soft: #5b6875; --line: #dfe4ea; --ground: #f4f6f8; --accent: #1b4965; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
header { background: var(--accent); color: #fff; padding: 28px max(20px, 50vw - 590px); }
h1, h2 { overflow-wrap: anywhere; }
header p { margin: 4px 0 0; color: #cfdfe9; }
main { max-width: 1220px; margin: 0 auto; padding: 0 20px 64px; }
h1 { margin: 0; font-size: 28px; }
h2 { margin: 36px 0 4px; font-size: 20px; }
p { margin: 0 0 10px; color: var(--soft); }
figure { margin: 0 0 12px; padding: 16px; border: 1px solid var(--line); border-radius: 10px; }
figure { background: #fff; }
figcaption span { margin-right: 20px; font-size: 14px; font-weight: 600; }
svg { display: block; width: 100%; font: 12px system-ui, sans-serif; }
svg text { fill: var(--soft); }
figcaption { position: sticky; left: 0; }
@media (max-width: 900px) {
  figure { overflow-x: auto; }
  svg { width: 1160px; } /* at its own size, so that its text can be read: it scrolls */
  figcaption { width: max-content; max-width: calc(100vw - 74px); }
}
table { width: 100%; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: left; }
th { color: var(--soft); }
"""


class Timeline(NamedTuple):
    """What the page shows of a recording."""

    track: Track
    levels: "Float32 | None"  # [S] dBFS of each second; None where the recording is not there any more


def timeline_page(timelines: Sequence[Timeline], *, title: str) -> str:
    """The page as text."""
    parts = "".join(_recording(timeline) for timeline in timelines)
    rows = counted(sum(len(timeline.track.rows) for timeline in timelines), "scored part")
    said = f"{counted(len(timelines), 'recording')}, {rows}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="generator" content="rrtn tracks">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{in_html(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{in_html(title)}</h1><p>{said}</p></header>\n<main>\n{parts}</main>\n</body>\n</html>\n"
    )


def _recording(timeline: Timeline) -> str:
    track = timeline.track
    said = f"{_clock(_end(timeline))} long, {counted(len(track.rows), 'scored part')}"
    if timeline.levels is None:
        said += "; the recording is not there any more, so its level is not drawn"
    rows = zip(track.places, highest(track, _TOP), strict=True)
    cells = "".join(
        f"<tr><td>{_clock(start)}</td><td>{end - start:.2f} s</td><td>{in_html(text)}</td></tr>\n"
        for (start, end), text in rows
    )
    head = "<tr><th>start</th><th>length</th><th>highest scores</th></tr>\n"
    listed = f"<details><summary>All of them</summary><table>{head}{cells}</table></details>" if cells else ""
    return (
        f"<section>\n<h2>{in_html(track.name)}</h2>\n<p>{said}</p>\n{_figure(timeline)}{listed}\n</section>\n"
    )


def _figure(timeline: Timeline) -> str:
    drawing = _Drawing(timeline)
    legend = "".join(
        f'<span style="color:{colour}">{in_html(label)}</span>'
        for label, colour in zip(drawing.shown, _COLOURS, strict=False)
    )
    parts = "\n".join([*drawing.marks(), *drawing.axes(), *drawing.curve(), *drawing.scores()])
    name = "Level of the recording, and the scores of its parts"
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">\n{parts}\n</svg>'
    return f"<figure><figcaption>{legend}</figcaption>{svg}</figure>\n"


class _Drawing:
    """The level above, the scores below, over one axis of time."""

    def __init__(self, timeline: Timeline) -> None:
        self._track, self._levels = timeline
        self._end = _end(timeline)
        values = [
            self._share(label, score)
            for row in self._track.rows
            for label, score in (row.scores or {}).items()
        ]
        self._low, self._high = min([0.0, *values]), max([1.0, *values])
        self.shown = _shown(self._track)

    def marks(self) -> Iterator[str]:
        """A shade for each part, whose text a pointer shows."""
        for (start, end), text in zip(self._track.places, highest(self._track, _TOP), strict=True):
            left, right = self._x(start), self._x(end)
            place = f'x="{left:.1f}" y="{_LEVEL_TOP}" width="{max(1.0, right - left):.1f}"'
            height = _SCORE_TOP + _SCORES - _LEVEL_TOP
            title = f"<title>{_clock(start)}, {end - start:.2f} s: {in_html(text)}</title>"
            yield f'<rect {place} height="{height}" fill="#1b4965" fill-opacity="0.12">{title}</rect>'

    def axes(self) -> Iterator[str]:
        """Lines and numbers."""
        for tick in range(_TICKS + 1):
            seconds = self._end * tick / _TICKS
            anchor = "start" if not tick else "end" if tick == _TICKS else "middle"
            place = f'x="{self._x(seconds):.1f}" y="{_HEIGHT - 18}" text-anchor="{anchor}"'
            yield f"<text {place}>{_clock(seconds)}</text>"
        for level in (0, -50, int(_LOWEST)):
            yield _line(_level_y(level), f"{level} dB")
        for score in (self._low, (self._low + self._high) / 2, self._high):
            yield _line(self._score_y(score), f"{score:.2g}")

    def curve(self) -> Iterator[str]:
        """The loudest level of what each point stands for."""
        if self._levels is None or not len(self._levels):
            return
        seconds = -(-len(self._levels) // (_WIDTH - _LEFT - _RIGHT))  # that share a point
        points = []
        for first in range(0, len(self._levels), seconds):
            level = float(self._levels[first : first + seconds].max())
            points.append(f"{self._x(first + seconds / 2):.1f},{_level_y(max(_LOWEST, level)):.1f}")
        yield f'<polyline points="{" ".join(points)}" fill="none" stroke="#5b6875"/>'

    def scores(self) -> Iterator[str]:
        """The scores of each label that is shown."""
        for label, colour in zip(self.shown, _COLOURS, strict=False):
            strokes = []
            for row, (start, end) in zip(self._track.rows, self._track.places, strict=True):
                left, y = self._x(start), self._score_y(self._share(label, (row.scores or {})[label]))
                strokes.append(f"M{left:.1f} {y:.1f}H{max(self._x(end), left + 3):.1f}")
            yield f'<path d="{"".join(strokes)}" fill="none" stroke="{colour}" stroke-width="3"/>'

    def _share(self, label: str, score: float) -> float:
        """The score as a share of its scale, since all labels have one axis."""
        return share(label, score, self._track.scales)

    def _x(self, seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(1.0, seconds / self._end)

    def _score_y(self, score: float) -> float:
        return _SCORE_TOP + _SCORES * (self._high - score) / (self._high - self._low)


def _shown(track: Track) -> list[str]:
    """The labels that score highest anywhere on their scales, in the order of the model."""
    best = {
        label: max(share(label, (row.scores or {})[label], track.scales) for row in track.rows)
        for label in track.labels
        if track.rows
    }
    chosen = sorted(best, key=lambda label: -best[label])[:_LINES]
    return [label for label in track.labels if label in chosen]


def _line(y: float, text: str) -> str:
    line = f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dfe4ea"/>'
    return f'{line}<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def _level_y(level: float) -> float:
    return _LEVEL_TOP + _LEVEL * min(1.0, level / _LOWEST)


def _end(timeline: Timeline) -> float:
    """Where the axis of time ends, in seconds."""
    return max([0.01, timeline.track.seconds, *(end for _, end in timeline.track.places)])


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds, 2), 3600)
    return f"{hours:.0f}:{rest // 60:02.0f}:{rest % 60:05.2f}"
