"""Small pictures for a page: lines, scatters and intervals as SVG, a spectrogram as PNG. No script.

Each picture is Markup: HTML that a template takes as it is. All text in it is escaped here. Colours
can be told apart in greyscale, too, by dash patterns and by names at the ends of the lines.
"""

import base64
import itertools
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from ...runtime.text import in_html

_WIDTH, _HEIGHT, _SQUARE = 560, 260, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 120, 18, 40
_EDGE: Final = 14  # right of a chart without names
_COLOURS: Final = (
    "#1b4965",
    "#b0545a",
    "#4c7a34",
    "#8d5a97",
    "#8f6808",
    "#1f7a6f",
    "#6c757d",
    "#c13a4d",
    "#30638e",
    "#7f4f24",
)
_DASHES: Final = ("", "6 3", "2 3", "8 3 2 3")
_TICKS: Final = 5
_LOW: Final = 170  # height of a spectrogram
_HERTZ_TICKS: Final = (200, 1000, 2000, 4000, 8000)
SPECTROGRAM_DB: Final = (-100.0, 20.0)  # what is white, and what is black
_LONGEST: Final = 30  # characters of a line's name, at most 9 pixels each
_NARROW: Final = 330  # width of the drawing that a phone shows, at about its own size
_ROW: Final = 18  # height of a name in its legend

Numbers = Sequence[float] | npt.NDArray[np.floating]


def line_chart(
    series: Mapping[str, Numbers],
    *,
    x: Numbers,
    x_label: str,
    y_label: str,
    mark: float | None = None,
    mark_label: str = "",
    narrow: bool = False,
) -> Markup:
    """Lines over a common x, of which some may end early. The name of each line is at its end; a long
    name loses its beginning.

    `narrow` is for a phone: the names are below. `mark` is a place on the x axis with a vertical line.
    """
    values = [float(v) for line in series.values() for v in line]
    longest = min(_LONGEST, max(map(len, series)))
    whole = all(float(value).is_integer() for value in x)  # epochs
    step = 1.0 if whole else 0.0
    right = _EDGE if narrow else max(_RIGHT, 9 * longest + 10)
    width = _NARROW if narrow else _WIDTH
    scale = _Scale(min(x), max(x), min(values), max(values), right=right, width=width, step=step)
    parts = [_axes(scale, x_label, y_label)]
    if mark is not None:
        parts.append(_vertical(scale, mark))
        anchor = "end" if scale.x(mark) > scale.left + 50 else "start"
        place = f'x="{scale.x(mark):.1f}" y="{_TOP - 3}" text-anchor="{anchor}"'
        parts.append(f"<text {place}>{in_html(mark_label)}</text>")
    ends = _spread([scale.y(line[-1]) for line in series.values()])
    for i, (name, line) in enumerate(series.items()):
        colour, dash = _COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)]
        stroke = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        points = [f"{scale.x(a):.1f},{scale.y(b):.1f}" for a, b in zip(x[: len(line)], line, strict=True)]
        parts.append(f'<polyline points="{" ".join(points)}" {stroke}/>')
        if len(points) == 1:  # a line of one point is not seen
            place = f'cx="{scale.x(x[0]):.1f}" cy="{scale.y(line[0]):.1f}"'
            parts.append(f'<circle {place} r="3" fill="{colour}"/>')
        shown = _shortened(name, longest)
        if narrow:
            y = _HEIGHT + _ROW * i + 8
            parts.append(f'<path d="M{_LEFT} {y}h28" {stroke}/>')
            place = f'x="{_LEFT + 36}" y="{y + 4}"'
        else:
            place = f'x="{_WIDTH - scale.right + 6}" y="{ends[i] + 4:.1f}"'
        parts.append(f'<text {place} fill="{colour}">{in_html(shown)}</text>')
    height = _HEIGHT + _ROW * len(series) * narrow
    return _svg(parts, f"{y_label} over {x_label}", width=width, height=height)


def scatter(
    x: Numbers, y: Numbers, *, x_label: str, y_label: str, ends: tuple[float, float] = (0.0, 1.0)
) -> Markup:
    """Points in a square from one of the `ends` to the other, with the line on which they are equal."""
    low, high = ends
    scale = _Scale(low, high, low, high, right=_EDGE, width=_SQUARE)
    diagonal = (
        f'<line x1="{scale.x(low)}" y1="{scale.y(low)}" x2="{scale.x(high)}" y2="{scale.y(high)}" '
        'stroke="#999" stroke-dasharray="4 3"/>'
    )
    points = (
        f'<circle cx="{scale.x(a):.1f}" cy="{scale.y(b):.1f}" r="2.5" '
        f'fill="{_COLOURS[0]}" fill-opacity="0.45"/>'
        for a, b in zip(x, y, strict=True)
    )
    return _svg(
        [_axes(scale, x_label, y_label), diagonal, *points], f"{y_label} over {x_label}", width=_SQUARE
    )


def interval_chart(
    names: Sequence[str],
    values: Numbers,
    interval: tuple[Numbers, Numbers] | None,
    *,
    x_label: str,
    narrow: bool = False,
) -> Markup:
    """A dot for each name, one below the other, and a bar where there are intervals. NaN is not drawn.

    `narrow` is for a phone. A long name loses its beginning.
    """
    width, longest = (_NARROW, 16) if narrow else (_WIDTH, _LONGEST)
    height, longest = _TOP + _BOTTOM + 24 * len(names), min(longest, max(map(len, names)))
    low, high = (np.where(np.isnan(ends), values, ends) for ends in interval or (values, values))
    lowest, highest = np.nanmin([0.0, *low]), np.nanmax([0.0, *high])
    left = 8 * longest + 16
    room = 0.03 * (highest - lowest)
    scale = _Scale(lowest - room, highest + room, 0.0, 1.0, left=left, right=24, width=width, height=height)
    parts = [_x_axis(scale, x_label), _vertical(scale, 0.0)]
    for i, name in enumerate(names):
        y = _TOP + 24 * i + 12
        parts.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{in_html(_shortened(name, longest))}</text>'
        )
        if np.isnan(values[i]):
            continue
        parts.append(
            f'<line x1="{scale.x(low[i]):.1f}" x2="{scale.x(high[i]):.1f}" y1="{y}" y2="{y}" '
            f'stroke="{_COLOURS[0]}" stroke-width="3"/>'
        )
        parts.append(f'<circle cx="{scale.x(values[i]):.1f}" cy="{y}" r="5" fill="{_COLOURS[0]}"/>')
    return _svg(parts, x_label, width=width, height=height)


def spectrogram(
    log_mel: npt.NDArray[np.float32],
    *,
    seconds: float,
    hertz: Numbers,
) -> Markup:
    """log_mel [T, M] in dB: time runs to the right over `seconds`, high mels are above, loud is dark.

    `hertz` [M] is where each mel lies.
    """
    low, high = SPECTROGRAM_DB
    share = np.clip((log_mel.T[::-1] - low) / (high - low), 0, 1)
    image = "data:image/png;base64," + base64.b64encode(_png((255 * (1 - share)).astype(np.uint8))).decode()
    scale = _Scale(0.0, seconds, 0.0, 1.0, right=_EDGE, width=_SQUARE, height=_LOW)
    width, height = _SQUARE - _LEFT - _EDGE, _LOW - _TOP - _BOTTOM
    place = f'x="{_LEFT}" y="{_TOP}" width="{width}" height="{height}" preserveAspectRatio="none"'
    picture = f'<image {place} style="image-rendering: pixelated" href="{image}"/>'
    mels = np.arange(len(hertz)) / max(len(hertz) - 1, 1)
    ticks = "".join(
        f'<path d="M{_LEFT - 4} {y:.1f}H{_LEFT}" stroke="#444"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_hertz_text(f)}</text>'
        for f in _HERTZ_TICKS
        if hertz[0] <= f <= hertz[-1]
        for y in [scale.y(float(np.interp(f, hertz, mels)))]
    )
    frame = f'<rect {place.partition(" preserve")[0]} fill="none" stroke="#dfe4ea"/>'
    title = f"log-Mel spectrogram, {len(log_mel)} frames, {log_mel.shape[1]} mels"
    return _svg([picture, frame, ticks, _x_axis(scale, "s")], title, width=_SQUARE, height=_LOW)


def _hertz_text(hertz: float) -> str:
    return f"{hertz / 1000:g} kHz" if hertz >= 1000 else f"{hertz:g} Hz"


def _shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


class _Scale:
    """Converts values to pixels."""

    def __init__(
        self,
        x0: float,
        x1: float,
        y0: float,
        y1: float,
        *,
        left: int = _LEFT,
        right: int = _RIGHT,
        width: int = _WIDTH,
        height: int = _HEIGHT,
        step: float = 0.0,
    ) -> None:
        self.x0, self.x1 = float(x0), float(x1) if x1 > x0 else float(x0) + 1
        margin = 0.05 * (y1 - y0) or 0.5
        exact = (y0, y1) == (0.0, 1.0)
        self.y0, self.y1 = (0.0, 1.0) if exact else (y0 - margin, y1 + margin)
        self.left, self.right, self.width, self.height = left, right, width, height
        self.step = step  # smallest distance between ticks on the x axis

    def x(self, value: float) -> float:
        return self.left + (float(value) - self.x0) / (self.x1 - self.x0) * (
            self.width - self.left - self.right
        )

    def y(self, value: float) -> float:
        return (
            self.height
            - _BOTTOM
            - (float(value) - self.y0) / (self.y1 - self.y0) * (self.height - _TOP - _BOTTOM)
        )


def _axes(scale: _Scale, x_label: str, y_label: str) -> str:
    middle = (_TOP + scale.height - _BOTTOM) / 2
    label = (
        f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{in_html(y_label)}</text>'
    )
    ticks = "".join(
        f'<path d="M{scale.left} {scale.y(v):.1f}H{scale.width - scale.right}" stroke="#e3e3e3"/>'
        f'<text x="{scale.left - 5}" y="{scale.y(v) + 4:.1f}" text-anchor="end">{v:.4g}</text>'
        for v in _ticks(scale.y0, scale.y1)
    )
    return ticks + label + _x_axis(scale, x_label)


def _x_axis(scale: _Scale, label: str) -> str:
    y = scale.height - _BOTTOM
    middle = (scale.left + scale.width - scale.right) / 2
    ticks = "".join(
        f'<text x="{scale.x(v):.1f}" y="{y + 16}" text-anchor="middle">{v:.3g}</text>'
        for v in _ticks(scale.x0, scale.x1, least=scale.step)
    )
    line = f'<line x1="{scale.left}" x2="{scale.width - scale.right}" y1="{y}" y2="{y}" stroke="#444"/>'
    return line + ticks + f'<text x="{middle}" y="{y + 33}" text-anchor="middle">{in_html(label)}</text>'


def _vertical(scale: _Scale, value: float) -> str:
    x = scale.x(value)
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{scale.height - _BOTTOM}" '
        'stroke="#999" stroke-dasharray="4 3"/>'
    )


def _ticks(low: float, high: float, *, least: float = 0.0) -> list[float]:
    """Round numbers between the two; `least` is their smallest distance."""
    rough = max((high - low) / _TICKS, least)
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [float(v) for v in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0]


def _spread(heights: Sequence[float], distance: float = 14.0) -> list[float]:
    """Moves names apart that would overlap."""
    order = np.argsort(heights)
    placed = np.array(heights, dtype=float)
    for before, after in itertools.pairwise(order):
        placed[after] = max(placed[after], placed[before] + distance)
    return [float(v) for v in placed - max(0.0, placed.max(initial=0.0) - (_HEIGHT - 6))]


def _svg(parts: Sequence[str], title: str, *, width: int = _WIDTH, height: int = _HEIGHT) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{in_html(title)}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#444" stroke-linejoin="round">'
        f"{''.join(parts)}</svg>"
    )


def _png(grey: npt.NDArray[np.uint8]) -> bytes:
    """[height, width] -> a PNG of 8-bit greys (RFC 2083).

    It has three chunks; a filter byte of 0 precedes each row.
    """
    height, width = grey.shape
    rows = np.hstack([np.zeros((height, 1), np.uint8), grey]).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    )
