"""What commands print, and that a command that fails prints one document, not two."""

import json
import sys
from pathlib import Path

import pytest
import typer
from rrtn.commands.export import _end_export
from rrtn.commands.printing import end_with_error, say
from rrtn.export.publish import Published
from rrtn.runtime import load_bundle
from rrtn.runtime.errors import ModelError

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
        _end_export(published, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert ended.value.exit_code == document["error"]["exit_code"] == 5
    assert document["failed"] == {"fp16": "scores differ"}
    assert document["error"]["came"] == "not published: fp16: scores differ"


def test_an_export_with_a_variant_that_fails_shows_the_others(tiny_model: Path, capsys: Captured) -> None:
    published = Published(load_bundle(tiny_model), {"trt": "no TensorRT here"}, {"fp16": "scores differ"})
    with pytest.raises(ModelError):
        _end_export(published, as_json=False)
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
