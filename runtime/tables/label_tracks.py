"""The windows or bursts of a recording as a label track, for programs in which people look at sound.

audacity    Audacity: File > Import > Labels
raven       Raven: a selection table, with the score of every label in a column
textgrid    Praat: one tier of intervals, which cover the whole recording

Labels and file names of others are made harmless: one line each, without tabs. K labels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..spec import FrontendSpec
from ..text import printable
from .rows import Row, score_columns
from .top_rows import Scales, top_rows


@dataclass(frozen=True, kw_only=True)
class Track:
    """The scored parts of one recording."""

    name: str  # of the recording
    seconds: float  # its length; 0 where nobody knows it
    labels: tuple[str, ...]  # K
    rows: Sequence[Row]  # with start, end and scores, in the order of their starts
    scales: Scales = field(default_factory=dict)
    highest_hertz: float = FrontendSpec.f_max  # that the model hears
    channel: int = 1  # that was scored, counted from 1; the first for the mean of all

    @property
    def places(self) -> list[tuple[float, float]]:
        """Start and end of each row, in seconds."""
        return [(row.start or 0.0, row.end or 0.0) for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class TrackFormat:
    """A form in which a label track can be written."""

    name: str
    suffix: str  # of the file's name
    text: Callable[[Track], str]
    needs_length: bool = False  # of the recording


def highest(track: Track, top: int) -> list[str]:
    """The `top` highest labels of each row, as in "Amusement 0.87  Awe 0.51"."""
    rows = top_rows(track.rows, track.labels, top, track.scales)
    return ["  ".join(f"{printable(name)} {score:.2f}" for name, score in row.scores) for row in rows]


def _audacity(track: Track) -> str:
    marks = zip(track.places, highest(track, 1), strict=True)
    return "".join(f"{start:.6f}\t{end:.6f}\t{_cell(text)}\n" for (start, end), text in marks)


def _raven(track: Track) -> str:
    head = [
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Low Freq (Hz)",
        "High Freq (Hz)",
    ]
    lines = ["\t".join([*head, *map(_cell, score_columns(track.labels))])]
    for number, (row, (start, end)) in enumerate(zip(track.rows, track.places, strict=True), 1):
        scores = [f"{score:z.6f}" for score in (row.scores or {}).values()]
        place = [f"{start:.6f}", f"{end:.6f}", "0.0", f"{track.highest_hertz}"]
        lines.append("\t".join([str(number), "Spectrogram 1", str(track.channel), *place, *scores]))
    return "".join(f"{line}\n" for line in lines)


def _textgrid(track: Track) -> str:
    intervals = list(_intervals(track))
    end = f"{max([track.seconds, *(stop for _, stop, _ in intervals)]):.6f}"
    lines = [
        *('File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"),
        *("tiers? <exists>", "size = 1", "item []:", "    item [1]:", '        class = "IntervalTier"'),
        *('        name = "rrtn"', "        xmin = 0", f"        xmax = {end}"),
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start, stop, text) in enumerate(intervals, 1):
        quoted = text.replace('"', '""')
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {start:.6f}",
            f"            xmax = {stop:.6f}",
            f'            text = "{quoted}"',
        ]
    return "".join(f"{line}\n" for line in lines)


def _intervals(track: Track) -> Iterator[tuple[float, float, str]]:
    """Intervals without gaps, to the microsecond; where windows overlap, one ends where the next begins."""
    places, begin = [(round(start, 6), round(end, 6)) for start, end in track.places], 0.0
    following = [start for start, _ in places[1:]] + [math.inf]
    for (start, end), limit, text in zip(places, following, highest(track, 1), strict=False):
        if start > begin:
            yield begin, start, ""
        begin = min(end, limit)
        if start < begin:
            yield start, begin, text
    if begin < (seconds := round(track.seconds, 6)):
        yield begin, seconds, ""


def _cell(text: str) -> str:
    return printable(text).replace("\t", " ")


TRACK_FORMATS: Final[dict[str, TrackFormat]] = {
    track.name: track
    for track in (
        TrackFormat(name="audacity", suffix=".txt", text=_audacity),
        TrackFormat(name="raven", suffix=".selections.txt", text=_raven),
        TrackFormat(name="textgrid", suffix=".TextGrid", text=_textgrid, needs_length=True),
    )
}
