"""Lists of paths as programs and people write them: read, or refused in one line; never a row a letter."""

import os
from pathlib import Path

import pytest
from rrtn.runtime.audio.path_list import PathList
from rrtn.runtime.errors import DataError

NAMES = ["a.wav", "caf\u00e9 1.wav", "\u97f3.wav"]


def paths_of(folder: Path, content: bytes, name: str = "list.txt") -> list[str]:
    """Relative to the list's folder."""
    (folder / name).write_bytes(content)
    found = PathList(str(folder / name)).paths()
    return [os.path.relpath(os.fsdecode(path), folder) for path in found]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
)
@pytest.mark.parametrize("last", [True, False])
def test_n14_a_list_in_any_encoding(tmp_path: Path, encoding: str, line_end: str, last: bool) -> None:
    mark = "\ufeff" if encoding in ("utf-16-be", "utf-32-le") else ""
    text = mark + line_end.join(NAMES) + (line_end if last else "")
    assert paths_of(tmp_path, text.encode(encoding)) == NAMES


def test_n14_names_of_one_letter_between_nuls_are_no_utf_16(tmp_path: Path) -> None:
    assert paths_of(tmp_path, b"a\0b\0c\0d\0") == ["a", "b", "c", "d"]


def test_n14_a_list_of_find_print0_is_exact(tmp_path: Path) -> None:
    names = [b"a.wav", b"new\nline.wav", b"# no comment.wav", b'"quotes".wav', b" blank .wav", b"caf\xe9.wav"]
    assert paths_of(tmp_path, b"\0".join(names) + b"\0") == [os.fsdecode(name) for name in names]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('"a b.wav"', "a b.wav"),
        ("'a b.wav'", "a b.wav"),
        ('  "a b.wav"  ', "a b.wav"),
        ('"a ""b"".wav"', 'a "b".wav'),
        ("a b.wav \t", "a b.wav"),
        ("  a b.wav", "a b.wav"),
        ('"a b.wav', '"a b.wav'),
        ("# a comment", None),
        ("  # a comment", None),
        ("", None),
        ("   ", None),
        ("a # b.wav", "a # b.wav"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_n14_quotes_blanks_and_comments(tmp_path: Path, line: str, path: str | None, there: bool) -> None:
    if there and path:
        (tmp_path / path).touch()
    assert paths_of(tmp_path, f"{line}\nz.wav\n".encode()) == [*([path] if path else []), "z.wav"]


@pytest.mark.parametrize("name", ["# a comment", '"a b.wav"', " a.wav ", "'x'"])
def test_n14_a_file_that_is_really_called_so_is_meant(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert paths_of(tmp_path, f"{name}\n".encode()) == [name]


def test_n14_paths_are_relative_to_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/beside.wav").touch()
    (tmp_path / "here.wav").touch()
    for folder in ("", "lists"):
        (tmp_path / folder / "both.wav").touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists/list").write_text("beside.wav\nhere.wav\nboth.wav\nnowhere.wav\n/tmp/absolute.wav\n")
    paths = PathList("lists/list")
    assert list(paths.paths()) == [
        *(b"lists/beside.wav", b"here.wav", b"lists/both.wav", b"lists/nowhere.wav", b"/tmp/absolute.wav")
    ]
    first, second = paths.notes()
    assert "note: 1 paths of --list lists/list" in first
    assert "current folder were taken" in first
    assert "list's folder were taken" in second


def test_n14_one_file_under_two_paths_is_no_surprise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list in the current folder, or links to one file."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.wav").touch()
    (tmp_path / "sub/a.wav").symlink_to("../a.wav")
    monkeypatch.chdir(tmp_path)
    for name in ("list", "sub/list", "./list"):
        Path(name).write_text("a.wav\n")
        paths = PathList(name)
        assert len(list(paths.paths())) == 1
        assert paths.notes() == []


@pytest.mark.parametrize(
    ("content", "came"),
    [
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(64), "is audio"),
        (b"fLaC\0" + bytes(64), "is audio"),
        ("a.wav\n".encode("utf-16")[:-1], "is no text"),
        (b"a.wav\n" * 20_000 + b"b\0c.wav\n", "has a NUL within a line"),
        (b"a" * 30_000_000, "has a line of more than 65,536 bytes"),
        (b"a.wav\0" + b"b" * 65_537 + b"\0c.wav\0", "has a line of more than 65,536 bytes"),
        ("a.wav\n{}\n".format("\u97f3" * 21_846).encode("utf-16"), "has a line of more than 65,536 bytes"),
    ],
)
def test_n14_what_is_no_list_is_refused_in_one_line(tmp_path: Path, content: bytes, came: str) -> None:
    with pytest.raises(DataError, match=came) as caught:
        paths_of(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gone", "folder"])
def test_a_list_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=rf"--list .*{name}"):
        list(PathList(str(tmp_path / name)).paths())


def test_the_longest_line_is_a_path(tmp_path: Path) -> None:
    names = ["a.wav", "b" * 65_536, "c.wav"]
    assert paths_of(tmp_path, "\n".join(names).encode()) == names


def test_a_long_list_is_read_piece_by_piece(tmp_path: Path) -> None:
    names = [f"{i:06}-{'x' * (i % 97)}.wav" for i in range(20_000)]
    assert paths_of(tmp_path, "\r\n".join(names).encode()) == names
    assert paths_of(tmp_path, "\r\n".join(names).encode("utf-16")) == names
