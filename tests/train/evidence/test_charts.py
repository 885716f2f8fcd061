"""Pictures are well formed, and what is seen is what was given."""

import base64
import io
import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib

import numpy as np
import pytest
from markupsafe import escape
from rrtn.train.evidence.charts import interval_chart, line_chart, scatter, spectrogram


def attributes(svg: str, tag: str, *names: str) -> list[tuple[float, ...]]:
    return [tuple(float(e.attrib[name]) for name in names) for e in ElementTree.fromstring(svg).iter(tag)]


def points_of(svg: str) -> list[list[tuple[float, ...]]]:
    lines = [e.attrib["points"] for e in ElementTree.fromstring(svg).iter("polyline")]
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]


def test_lines_rise_where_values_rise() -> None:
    svg = line_chart(
        {"<a>": [0.0, 1.0, 0.5], "b": [1.0, 1.0, 1.0]}, x=[1, 2, 3], x_label="epoch", y_label="CCC"
    )
    a, b = points_of(svg)
    assert a[0][1] > a[2][1] > a[1][1] == b[0][1] == b[1][1]
    assert [x for x, _ in a] == [x for x, _ in b] == sorted(x for x, _ in a)


@pytest.mark.parametrize(("x", "ticks"), [([1, 2, 3], "123"), ([1, 2], "12"), ([7], "78")])
def test_there_is_no_half_epoch(x: list[int], ticks: str) -> None:
    svg = ElementTree.fromstring(line_chart({"a": [0.1] * len(x)}, x=x, x_label="epoch", y_label="CCC"))
    bottom = max(float(e.attrib["y"]) for e in svg.iter("text") if e.text in ticks)
    assert "".join(e.text or "" for e in svg.iter("text") if float(e.get("y", 0)) == bottom) == ticks


def test_one_epoch_and_a_constant_are_drawn_too() -> None:
    svg = line_chart({"a": [0.3]}, x=[1], x_label="epoch", y_label="CCC")
    (line,) = points_of(svg)
    assert np.isfinite(line).all()
    (dot,) = (e for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("circle"))  # or nothing is seen
    assert (float(dot.attrib["cx"]), float(dot.attrib["cy"])) == tuple(line[0])


def test_a_run_that_ended_early_is_drawn_to_its_end() -> None:
    lines = {"long": [0.1, 0.2, 0.4], "short": [0.2, 0.3]}
    long, short = points_of(line_chart(lines, x=[1, 2, 3], x_label="epoch", y_label="CCC"))
    assert (len(long), len(short)) == (3, 2)
    assert [x for x, _ in short] == [x for x, _ in long[:2]]


def test_names_at_the_ends_do_not_lie_on_each_other() -> None:
    svg = line_chart({name: [0.0, 0.5] for name in "abcdefgh"}, x=[1, 2], x_label="epoch", y_label="CCC")
    ends = sorted(
        float(e.attrib["y"]) for e in ElementTree.fromstring(svg).iter("text") if (e.text or "") in "abcdefgh"
    )
    assert min(np.diff(ends[-8:])) >= 13.9


def test_on_a_phone_the_names_are_below_one_under_the_other() -> None:
    given = {"x": [1, 2], "x_label": "epoch", "y_label": "CCC"}
    names = ["Awe", "Perceived authenticity of the laugh"]
    broad, narrow = (
        ElementTree.fromstring(line_chart({name: [0.0, 0.5] for name in names}, **given, narrow=narrow))
        for narrow in (False, True)
    )
    assert float(narrow.attrib["viewBox"].split()[2]) < 340 < float(broad.attrib["viewBox"].split()[2])
    below = [float(e.attrib["y"]) for e in narrow.iter("text") if "fill" in e.attrib]
    epochs = next(float(e.attrib["y"]) for e in narrow.iter("text") if e.text == "epoch")
    assert epochs < below[0] < below[1] < float(narrow.attrib["viewBox"].split()[3])
    samples = [e.attrib["stroke-dasharray"] for e in narrow.iter("path") if "stroke-dasharray" in e.attrib]
    assert samples == [e.attrib["stroke-dasharray"] for e in narrow.iter("polyline")]


@pytest.mark.parametrize(("narrow", "longest"), [(False, 30), (True, 16)])
def test_names_of_intervals_have_room(narrow: bool, longest: int) -> None:
    names = ["Awe", "Perceived authenticity of the laugh"]
    svg = interval_chart(names, [0.1, 0.2], None, x_label="CCC", narrow=narrow)
    ends = {
        e.text or "": float(e.attrib["x"])
        for e in ElementTree.fromstring(svg).iter("text")
        if e.get("text-anchor") == "end"
    }
    assert set(ends) == {"Awe", f"…{names[1][1 - longest :]}"}
    assert all(x - 8 * len(name) >= 0 for name, x in ends.items())


def test_long_names_have_room() -> None:
    """Names of runs, as they come: 20261123-101500-cnn14-rrtn-ruwl."""
    svg = line_chart(
        {"short": [0.0, 1.0], f"runs/{'x' * 30}": [1.0, 0.0]}, x=[1, 2], x_label="epoch", y_label="CCC"
    )
    width = float(ElementTree.fromstring(svg).attrib["viewBox"].split()[2])
    named = {
        e.text or "": float(e.attrib["x"])
        for e in ElementTree.fromstring(svg).iter("text")
        if "fill" in e.attrib
    }
    assert set(named) == {"short", f"…{'x' * 29}"}
    assert {x for line in points_of(svg) for x, _ in line} == {62.0, named["short"] - 6}
    assert all(x + 8 * len(text) <= width for text, x in named.items())


def test_n22_the_best_epoch_is_marked() -> None:
    """The line stands where the line of values has that epoch, and its name is in the drawing."""
    for best in (1, 2, 4):
        svg = line_chart(
            {"a": [0.0, 1.0, 0.5, 0.2]},
            x=[1, 2, 3, 4],
            x_label="epoch",
            y_label="CCC",
            mark=best,
            mark_label="best",
        )
        (marked,) = (x1 for x1, x2 in attributes(svg, "line", "x1", "x2") if x1 == x2)
        ((values),) = points_of(svg)
        assert marked == pytest.approx(values[best - 1][0], abs=0.1)
        assert "best" in [e.text for e in ElementTree.fromstring(svg).iter("text")]


def test_n22_a_spectrogram_has_units() -> None:
    """1 kHz is the second of three mels from below, in the middle of the picture; seconds run below."""
    svg = spectrogram(np.zeros((4, 3), np.float32), seconds=2.0, hertz=[200.0, 1000.0, 4000.0])
    texts = {e.text: e for e in ElementTree.fromstring(svg).iter("text")}
    assert {"200 Hz", "1 kHz", "4 kHz", "0", "1", "2", "s"} <= set(texts)
    assert "8 kHz" not in texts
    heights = [float(texts[name].attrib["y"]) for name in ("200 Hz", "1 kHz", "4 kHz")]
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.1)
    assert heights[0] > heights[2]


def test_n22_without_intervals_there_are_dots_alone() -> None:
    svg = interval_chart(["a", "b"], [0.2, 0.7], None, x_label="CCC")
    assert len(attributes(svg, "circle", "cx")) == 2
    assert all(x1 == x2 for x1, x2 in attributes(svg, "line", "x1", "x2")[2:])


def test_text_in_a_drawing_is_escaped_and_a_template_takes_the_drawing_as_it_is() -> None:
    name = "<b>&\"'"
    for svg in (
        line_chart({name: [0.0, 1.0]}, x=[1, 2], x_label=name, y_label=name),
        scatter([0.5], [0.5], x_label=name, y_label=name),
        interval_chart([name], [0.2], ([0.1], [0.3]), x_label=name),
    ):
        assert escape(svg) == svg
        assert [e.text for e in ElementTree.fromstring(svg).iter("text")].count(name) >= 2


def test_points_are_where_they_belong() -> None:
    svg = scatter([0.0, 1.0, 0.5], [0.0, 1.0, 0.5], x_label="rated", y_label="predicted")
    low, high, middle = attributes(svg, "circle", "cx", "cy")
    assert middle == pytest.approx(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2), abs=0.1)
    assert (high[0] > low[0], high[1] < low[1]) == (True, True)


def test_an_interval_holds_its_dot() -> None:
    svg = interval_chart(["a", "b"], [0.2, 0.7], ([0.1, 0.5], [0.3, 0.8]), x_label="CCC")
    dots = [cx for (cx,) in attributes(svg, "circle", "cx")]
    bars = re.findall(r'<line x1="([0-9.]+)" x2="([0-9.]+)" y1="[0-9.]+" y2="[0-9.]+" stroke="#1b4965"', svg)
    assert [float(a) < dot < float(b) for (a, b), dot in zip(bars, dots, strict=True)] == [True, True]


def test_a_spectrogram_is_a_png_of_its_values() -> None:
    """Read by hand: time to the right, high mels above, the louder the darker."""
    log_mel = np.full((3, 2), -100.0, np.float32)
    log_mel[2, 1] = 20
    source = re.search(r'base64,([^"]+)', spectrogram(log_mel, seconds=1.0, hertz=[50.0, 8000.0]))
    assert source
    file = io.BytesIO(base64.b64decode(source[1]))
    assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    chunks = {}
    while header := file.read(8):
        length, kind = struct.unpack(">I4s", header)
        chunks[kind] = file.read(length)
        assert struct.unpack(">I", file.read(4))[0] == zlib.crc32(kind + chunks[kind])
    assert struct.unpack(">IIBB", chunks[b"IHDR"][:10]) == (3, 2, 8, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(2, 4)
    assert rows.tolist() == [[0, 255, 255, 0], [0, 255, 255, 255]]
