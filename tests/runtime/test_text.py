"""Text of others as a terminal, a spreadsheet and a page get it."""

import json
import math
import unicodedata

import pytest
from rrtn.runtime.text import (
    bytes_from_cell,
    cell_from_text,
    difference_text,
    in_html,
    interval_text,
    json_text,
    number_text,
    printable,
    printable_lines,
    short,
)

HARMLESS = "Gr\u00fc\u00dfe, caf\u00e9 \N{GRINNING FACE} \N{ARABIC LETTER ALEF} [bold]\u00a0<b>"
FORMULAS = ["=1+1", "+1", "-1", "@x", " =1", "\u00a0=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201", "'x"]


def test_n25_every_control_character_is_shown_and_none_is_sent() -> None:
    sent = [
        chr(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in ("Cc", "Zl", "Zp", "Cs")
        or unicodedata.bidirectional(chr(code))
        in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    ]
    assert len(sent) > 2_000
    assert [hex(ord(c)) for c in sent if c in printable(f"a{c}b") or c in cell_from_text(f"a{c}b"[:1])] == []
    assert printable("\x1b[31m\u202e\n\ud800") == r"\x1b[31m\u202e\n\ud800"
    assert in_html("<b\x1b>&\"'") == r"&lt;b\x1b&gt;&amp;&quot;&#x27;"
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"


def test_n25_other_text_is_left_alone() -> None:
    assert printable(HARMLESS) == HARMLESS
    assert cell_from_text(HARMLESS) == HARMLESS


@pytest.mark.parametrize("text", FORMULAS)
def test_n25_a_cell_is_no_formula_and_comes_back(text: str) -> None:
    cell = cell_from_text(text)
    assert cell == f"'{text}"
    assert bytes_from_cell(cell).decode() == text


@pytest.mark.parametrize("text", ["C:\\Study\\wav\\spk 7\\a.wav", "C:\\x\\xyz", "a\\x4", "\\", "\\\\host\\x"])
def test_a_path_of_windows_is_left_alone(text: str) -> None:
    """A table that is joined by its names finds them."""
    assert cell_from_text(text) == text
    assert bytes_from_cell(text).decode() == text


@pytest.mark.parametrize("before", ["", "\\", "\\x", "\\x4", "\\x41", "\\\\x41", "\\x5cx41"])
@pytest.mark.parametrize("after", ["", "\x1b", "41", "x41", "\\x41", "\udce9", "\n4"])
def test_a_backslash_that_reads_as_an_escape_is_one(before: str, after: str) -> None:
    cell = cell_from_text(before + after)
    assert bytes_from_cell(cell) == (before + after).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("text", ["\x1b[31m", "\u202ecod.exe", "a\r\n=1", "\\x1b", "\u2028", "\t=1", "\x85"])
def test_n25_a_cell_is_one_plain_line_and_comes_back(text: str) -> None:
    cell = cell_from_text(text)
    assert cell == printable(cell)
    assert len(cell.splitlines()) == 1
    assert bytes_from_cell(cell).decode() == text


def test_json_has_no_nan_and_no_half_of_a_character() -> None:
    text = json_text({"q\udcff": [math.nan, ("\ud800", 0.5, "\N{GRINNING FACE}")]})
    assert text.isascii()
    assert json.loads(text) == {"q\ufffd": [None, ["\ufffd", 0.5, "\N{GRINNING FACE}"]]}


def test_a_long_value_is_cut() -> None:
    assert short("x" * 10_000).endswith("x...")
    assert len(short("x" * 10_000)) < 600


def test_what_nobody_knows_is_blank() -> None:
    assert [number_text(value) for value in (0.1234, -0.0, None, math.nan)] == ["0.123", "0.000", "", ""]
    assert interval_text(-0.5, 0.25, "+z.2f") == "-0.50 to +0.25"
    differences = (0.1234, -0.00038, 0.0, -2.8e-17, None)
    assert [*map(difference_text, differences)] == ["+0.123", "-4e-04", "+0.000", "+0.000", ""]
    assert [interval_text(low, 0.5) for low in (None, math.nan)] == ["", ""]
