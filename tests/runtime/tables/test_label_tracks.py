"""Label tracks, read back by what their programs expect; hostile labels stay text."""

import itertools
import re

import pytest
from rrtn.runtime.tables.label_tracks import TRACK_FORMATS, Track
from rrtn.runtime.tables.rows import Row
from rrtn.runtime.tables.timeline_page import Timeline, timeline_page

LABELS = ("Awe", 'Fe"ar', "file", "J\to\ny")


def row(start: float, end: float, *scores: float) -> Row:
    return Row(file="a.wav", start=start, end=end, scores=dict(zip(LABELS, scores, strict=True)))


ROWS = [
    row(1.0, 2.5, 0.1, 0.9, 0.2, 0.3),
    row(2.5, 3.0, 0.5, 0.1, 0.2, 0.3),
    row(7.25, 8.0, 0.1, 0.2, 0.3, 0.75),
]


def text(form: str, rows: list[Row], seconds: float = 10.0) -> str:
    return TRACK_FORMATS[form].text(Track(name="a.wav", seconds=seconds, labels=LABELS, rows=rows))


def intervals(grid: str) -> list[tuple[float, float, str]]:
    """The intervals of the one tier, as Praat reads them: by the order of what stands behind the `=`."""
    found = re.findall(r'xmin = (\S+)\s+xmax = (\S+)\s+text = "((?:[^"]|"")*)"', grid)
    (count,) = re.findall(r"intervals: size = (\d+)", grid)
    assert int(count) == len(found)
    return [(float(start), float(end), name.replace('""', '"')) for start, end, name in found]


def test_audacity_has_a_line_for_each_part() -> None:
    assert text("audacity", ROWS).splitlines() == [
        '1.000000\t2.500000\tFe"ar 0.90',
        "2.500000\t3.000000\tAwe 0.50",
        r"7.250000" + "\t8.000000\t" + r"J\to\ny 0.75",
    ]
    assert text("audacity", []) == ""


def test_raven_has_every_score_in_a_column() -> None:
    head, first, *_, last = (line.split("\t") for line in text("raven", ROWS).splitlines())
    assert head[:5] == ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"]
    assert head[7:] == ["Awe", 'Fe"ar', "score_file", r"J\to\ny"]
    assert first[:7] == ["1", "Spectrogram 1", "1", "1.000000", "2.500000", "0.0", "8000.0"]
    assert first[7:] == ["0.100000", "0.900000", "0.200000", "0.300000"]
    assert (last[0], last[10]) == ("3", "0.750000")
    assert {len(line.split("\t")) for line in text("raven", ROWS).splitlines()} == {len(head)}


def test_raven_selects_what_the_model_hears() -> None:
    track = Track(name="a.wav", seconds=10, labels=LABELS, rows=ROWS, highest_hertz=11_025.0)
    lines = [line.split("\t") for line in TRACK_FORMATS["raven"].text(track).splitlines()]
    assert [line[5:7] for line in lines] == [["Low Freq (Hz)", "High Freq (Hz)"], *[["0.0", "11025.0"]] * 3]


def test_textgrid_covers_the_whole_recording() -> None:
    grid = text("textgrid", ROWS)
    assert grid.startswith(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 10.000000\n'
    )
    found = intervals(grid)
    assert found == [
        (0.0, 1.0, ""),
        (1.0, 2.5, 'Fe"ar 0.90'),
        (2.5, 3.0, "Awe 0.50"),
        (3.0, 7.25, ""),
        (7.25, 8.0, r"J\to\ny 0.75"),
        (8.0, 10.0, ""),
    ]


OVERLAPPING = [row(start, end, 1, 0, 0, 0) for start, end in ((0.0, 2.0), (1.0, 3.0), (1.5, 8.0))]


@pytest.mark.parametrize("seconds", [0.0, 8.0, 10.0])
@pytest.mark.parametrize("rows", [[], ROWS, OVERLAPPING])
def test_intervals_neither_overlap_nor_leave_gaps(rows: list[Row], seconds: float) -> None:
    """Windows may overlap (--hop), and Praat's intervals may not."""
    found = intervals(text("textgrid", rows, seconds))
    edges = [edge for start, end, _ in found for edge in (start, end)]
    assert edges == sorted(edges)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))
    assert all(start < end for start, end, _ in found)
    assert edges[:1] + edges[-1:] == [0.0, max(seconds, 8.0)] if found else not rows and not seconds
    assert len([name for _, _, name in found if name]) == len(rows)


def test_no_interval_is_empty_in_the_digits_that_are_written() -> None:
    """A window may end a hair before the recording does, or begin where the next one does."""
    rows = [row(0.0, 0.1 + 0.2, 1, 0, 0, 0), row(0.3, 0.7, 1, 0, 0, 0), row(0.3 + 1e-9, 0.9, 1, 0, 0, 0)]
    found = intervals(text("textgrid", rows, 0.9 + 1e-9))
    assert [(start, end) for start, end, _ in found] == [(0.0, 0.3), (0.3, 0.9)]


def test_the_highest_label_is_so_on_its_scale() -> None:
    row = Row(file="a.wav", start=0.0, end=1.0, scores={"Arousal": 3.6, "Valence": 0.8})
    scales = {"Arousal": (1.0, 9.0), "Valence": (-1.0, 1.0)}
    track = Track(name="a.wav", seconds=1.0, labels=("Arousal", "Valence"), rows=[row], scales=scales)
    assert TRACK_FORMATS["audacity"].text(track).endswith("\tValence 0.80\n")
    page = timeline_page([Timeline(track, None)], title="t")
    assert "Valence 0.80  Arousal 3.60" in page
    heights = {float(y) for y in re.findall(r'd="M[\d.]+ ([\d.]+)H', page)}
    assert len(heights) == 2 and all(140 <= y <= 290 for y in heights)
