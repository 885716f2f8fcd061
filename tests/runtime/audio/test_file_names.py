"""Names of files as text: the exact bytes come back, and no spreadsheet takes the text for a formula."""

from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime.audio.file_names import cell_from_path, path_from_cell

NAMES = [
    b"plain.wav",
    b"new\nline.wav",
    b"tab\t.wav",
    b"\t=cmd.wav",
    b"quote\"'.wav",
    b"'quoted'.wav",
    b"''.wav",
    b"=cmd|' /C calc'!A0.wav",
    b"+1.wav",
    b"@sum.wav",
    b"-lead.wav",
    b"\r\n.wav",
    b"caf\xe9.wav",
    b"\xed\xb2\x80surrogate.wav",
    b"back\\slash.wav",
    b"\\x41 is not A.wav",
    b"a,b;c.wav",
    b"x" * 255,
    "\N{GRINNING FACE}.wav".encode(),
    "caf\u00e9.wav".encode(),
    "cafe\u0301.wav".encode(),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_back_byte_by_byte(name: bytes) -> None:
    assert path_from_cell(cell_from_path(name)) == name


@pytest.mark.parametrize("first", "=+-@'")
def test_who_takes_one_apostrophe_from_the_front_has_the_name(first: str) -> None:
    """As docs/scoring.md says of names in plain text."""
    for name in (f"{first}a.wav", f"{first}{first}a.wav"):
        cell = cell_from_path(name.encode())
        assert (cell[0], cell.removeprefix("'")) == ("'", name)


def test_every_byte_comes_back_at_every_place() -> None:
    rng = np.random.default_rng(0)
    names = [bytes([byte]) for byte in range(1, 256)] + [rng.bytes(rng.integers(1, 12)) for _ in range(2_000)]
    assert [path_from_cell(cell_from_path(name)) for name in names] == names
    assert len({cell_from_path(name) for name in names}) == len(set(names))


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_one_line_of_utf8_and_no_formula(name: bytes) -> None:
    cell = cell_from_path(name)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert len(cell.encode().splitlines()) == 1


def test_ordinary_names_are_left_alone() -> None:
    assert cell_from_path("clips/Gr\u00fc\u00dfe, 1=2.wav") == "clips/Gr\u00fc\u00dfe, 1=2.wav"
    assert cell_from_path(b"caf\xe9\\\n.wav") == r"caf\xe9\\x0a.wav"
    assert cell_from_path(Path("=cmd.wav")) == "'=cmd.wav"
