"""What commands print, and that a command that fails prints one document, not two."""

import json
import re
import sys
from pathlib import Path

import pytest
import rrtn
import typer
from rich.cells import cell_len
from rrtn.commands.export import _end_export
from rrtn.commands.printing import (
    Column,
    Table,
    end_with_error,
    lines_of_table,
    numbers,
    print_table,
    say,
    wrapped,
)
from rrtn.export.publish import Published
from rrtn.runtime import load_bundle
from rrtn.runtime.errors import ModelError
from rrtn.runtime.text import counted

Captured = pytest.CaptureFixture[str]


def test_an_error_is_part_of_a_document_that_is_printed_anyway(capsys: Captured) -> None:
    error = ModelError("parity", "fp16: too far", fix="rrtn export")
    with pytest.raises(typer.Exit) as ended:
        end_with_error(error, {"results": [1]})
    out, err = capsys.readouterr()
    assert ended.value.exit_code == 5
    assert json.loads(out) == {"results": [1], "error": error.to_dict()}
    assert err == "rrtn: parity | fp16: too far | rrtn export\n"


def test_an_export_with_a_variant_that_fails_is_one_document(tiny_model: Path, capsys: Captured) -> None:
    published = Published(load_bundle(tiny_model), {}, {"fp16": "scores differ"})
    with pytest.raises(typer.Exit) as ended:
        _end_export(published, None, None, [], as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert ended.value.exit_code == document["error"]["exit_code"] == 5
    assert document["failed"] == {"fp16": "scores differ"}
    assert document["error"]["came"] == "fp16: scores differ"


def test_an_export_with_a_variant_that_fails_shows_the_others(tiny_model: Path, capsys: Captured) -> None:
    published = Published(load_bundle(tiny_model), {"trt": "no TensorRT here"}, {"fp16": "scores differ"})
    with pytest.raises(ModelError):
        _end_export(published, None, None, [], as_json=False)
    out, err = capsys.readouterr()
    assert "tiny.onnx" in out
    assert "skipped: trt: no TensorRT here\n" in err


@pytest.mark.parametrize(
    ("no_color", "line"),
    [(False, "\033[1;33mnote\033[0m: it is late\n"), (True, "note: it is late\n")],
)
def test_a_label_is_coloured_on_a_terminal(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, no_color: bool, line: str
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    say("note: it is late")
    assert capsys.readouterr().err == line


def test_off_a_terminal_a_line_is_plain(capsys: Captured) -> None:
    say("note: [bold] is a name")
    say("error in a.wav: it is no label")
    assert capsys.readouterr().err == "note: [bold] is a name\nerror in a.wav: it is no label\n"


def figures() -> Table:
    table = Table(
        Column("file", drop=0),
        *numbers("CCC", "MAE"),
        Column("sha256", drop=2),
        Column("input", drop=1),
        Column("remark", words=True),
    )
    table.add_row("recordings/laugh.wav", "-0.123", "1234.5", "650b2c5054db", "logmel", "runs here, and fast")
    table.add_row("a.wav", "0.4", "0.001", "ca23ee015d28", "waveform", "")
    return table


WORDS = {*"recordings/laugh.wav -0.123 1234.5 runs here, and fast a.wav 0.4 0.001".split()}


@pytest.mark.parametrize("width", range(24, 140))
def test_n18_no_cell_is_cut_at_any_width(width: int) -> None:
    lines = lines_of_table(figures(), width)
    assert max(map(len, lines)) <= width
    assert set(" ".join(lines).split()) >= WORDS


def test_n18_columns_go_in_their_order_and_are_named() -> None:
    assert "sha256" in lines_of_table(figures(), 120)[0]
    narrow = lines_of_table(figures(), 71)
    assert ("sha256" in narrow[0], "input" in narrow[0]) == (False, True)
    assert narrow[-1] == "left out here, in --json: sha256"
    narrower = lines_of_table(figures(), 62)
    assert ("sha256" in narrower[0], "input" in narrower[0]) == (False, False)
    assert narrower[-1] == "left out here, in --json: input; sha256"


def test_n18_where_nothing_more_can_go_a_record_is_a_block() -> None:
    assert lines_of_table(figures(), 30) == [
        "recordings/laugh.wav",
        "  CCC     -0.123",
        "  MAE     1234.5",
        "  sha256  650b2c5054db",
        "  input   logmel",
        "  remark  runs here, and fast",
        "",
        "a.wav",
        "  CCC     0.4",
        "  MAE     0.001",
        "  sha256  ca23ee015d28",
        "  input   waveform",
    ]


def test_n18_a_record_may_be_a_column() -> None:
    table = Table("", "Train", "Val", records="columns")
    table.add_row("clips", "96", "40")
    table.add_row("countries", "China 28, South Africa 12", "China 16")
    lines = lines_of_table(table, 40)
    assert lines[0] == "Train"
    assert lines[1:3] == ["  clips      96", "  countries  China 28, South Africa 12"]
    assert lines[4:] == ["Val", "  clips      40", "  countries  China 16"]


@pytest.mark.parametrize("width", [20, 40, 60])
def test_n18_a_name_that_is_wider_than_the_terminal_stays_whole(width: int) -> None:
    """The terminal breaks the line; a copy of it is the name."""
    table = Table("file", *numbers("CCC"))
    name = f"{'x' * 70}.wav"
    table.add_row(name, "0.5")
    assert name in lines_of_table(table, width)


def test_n18_a_wide_character_takes_two_cells() -> None:
    table = Table("file", *numbers("CCC"))
    table.add_row("録音.wav", "0.5")
    table.add_row("abcd.wav", "0.5")
    *_, wide, narrow = lines_of_table(table, 40)
    assert (wide, narrow) == (" 録音.wav  0.5", " abcd.wav  0.5")


@pytest.mark.parametrize("width", [7, 20, 40])
def test_n18_no_line_of_wide_characters_is_wider_than_asked(width: int) -> None:
    lines = wrapped("怒り " * 20 + "  悲しみ", width)
    assert max(map(cell_len, lines)) <= width
    assert " ".join(lines).split() == ["怒り"] * 20 + ["悲しみ"]
    table = Table("target", Column("", words=True))
    table.add_row("a", "怒り " * 20)
    assert max(map(cell_len, lines_of_table(table, 60))) <= 60


def test_n18_a_record_of_a_title_alone_has_no_lines_below_it() -> None:
    table = Table("target", "CCC")
    table.add_row("Awe", "")
    assert lines_of_table(table, 1) == ["Awe"]


def test_n18_brackets_are_no_markup(capsys: Captured) -> None:
    table = Table("file")
    table.add_row("[bold]a[/].wav")
    print_table(table, title="[red]runs", caption="[x]")
    assert {"[bold]a[/].wav", "[red]runs", "[x]"} <= set(capsys.readouterr().out.split())


def test_n18_lines_of_prose_break_at_spaces_alone() -> None:
    text = "sha256 650b2c5054db650b2c5054db650b2c5054db, 1,234,567.25 s and -0.001 to +0.001"
    for width in range(5, 90):
        assert " ".join(wrapped(text, width)).split() == text.split()


@pytest.mark.parametrize(
    ("value", "form", "shown"), [(-1e-9, "z.3f", "0.000"), (-1e-9, "+z.3f", "+0.000"), (-0.2, "z.1f", "-0.2")]
)
def test_n23_minus_zero_is_zero(value: float, form: str, shown: str) -> None:
    """The form that every command uses for figures that may be negative."""
    assert f"{value:{form}}" == shown


def test_n23_no_figure_that_may_be_negative_is_printed_without_it() -> None:
    """CCC, losses, differences, correlations and levels, wherever they become text."""
    forms = r"\{[^{}]*(ccc|difference|challenge|pearson|low|high|loss|correlat|\br\b)[^{}]*:[^{}z]*\.\d+f\}"
    found = [
        f"{path.name}: {match[0]}"
        for room in ("commands", "train", "export")
        for path in Path(rrtn.__file__).parent.joinpath(room).rglob("*.py")
        for match in re.finditer(forms, path.read_text())
        if "paper_ccc" not in match[0] and "scale" not in match[0]
    ]
    assert found == []


@pytest.mark.parametrize(
    ("count", "noun", "shown"),
    [(0, "file", "0 files"), (1, "file", "1 file"), (12345, "clip", "12,345 clips")],
)
def test_n23_one_is_not_many(count: int, noun: str, shown: str) -> None:
    assert counted(count, noun) == shown
