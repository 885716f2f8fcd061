"""N25: labels, names of files and of variants, and what a bundle says of itself, in all that commands print
and write: nothing of it is obeyed.
"""

import csv
import json
import os
import re
import runpy
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rrtn.train.method.model
import soundfile
from rrtn.cli import app
from rrtn.commands.printing import Table, print_error, print_table, say
from rrtn.commands.summary import print_rows
from rrtn.runtime import load_bundle
from rrtn.runtime.audio.file_names import path_from_record
from rrtn.runtime.errors import DataError
from rrtn.runtime.progress import Progress
from rrtn.runtime.tables.rows import Row
from rrtn.train.config import ProjectorConfig
from typer.testing import CliRunner, Result

HOSTILE = "Awe\x1b[31m\x07\u202e[red]<b>x</b>\x9b1m"
FORMULA = "=cmd|' /C calc'!A0[/red]"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
KEPT = Path(__file__).parents[1] / "fixtures/before.tar.xz"

Captured = pytest.CaptureFixture[str]


def call(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    check(result.output)
    return result


def check(text: str) -> None:
    assert not OBEYED.findall(text), text


@pytest.fixture
def model(tmp_path: Path, tiny_model_at: Callable[..., Path]) -> Path:
    return tiny_model_at(tmp_path / "tiny.onnx", labels=(HOSTILE, FORMULA, "[bold]Joy"))


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("\x1b[2J.wav", "\u202egpj.wav", "=1+1.wav", "[red].wav", "new\nline.wav", "ok.wav"):
        soundfile.write(folder / name, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    (folder / "bad\x1b.wav").write_bytes(b"no audio")
    return folder


def test_n25_a_model_and_its_scores_on_the_screen(model: Path, recordings: Path) -> None:
    shown = call("inspect", model).output
    assert "[red]" in shown
    assert "[bold]Joy" in shown
    lines = call("score", recordings, "-m", model, code=3).stdout
    assert r"\x1b" in lines
    json.loads(call("inspect", model, "--json").stdout)
    json.loads(call("score", recordings, "-m", model, "--json", code=3).stdout)


def test_n25_a_label_with_a_line_end_is_on_one_line(
    tmp_path: Path, tiny_model_at: Callable[..., Path]
) -> None:
    shown = call("inspect", tiny_model_at(tmp_path / "tiny.onnx", labels=("Awe\nful", "Joy"))).output
    assert r"labels: Awe\nful, Joy" in " ".join(shown.split())


def test_n25_rows_for_people(capsys: Captured) -> None:
    row = Row(file=b"\x1b[2J[red].wav", scores={HOSTILE: 0.5, FORMULA: 0.4})
    print_rows([row], (HOSTILE, FORMULA), 2, {})
    shown = capsys.readouterr().out
    check(shown)
    assert "[red].wav" in shown


def test_n25_a_table_and_a_submission(model: Path, recordings: Path, tmp_path: Path) -> None:
    (recordings / "bad\x1b.wav").unlink()
    table, submission = tmp_path / "s.csv", tmp_path / "sub.csv"
    call("score", recordings, "-m", model, "--out", table, "--submission", submission)
    for path in (table, submission):
        text = path.read_text(encoding="utf-8")
        check(text)
        header, *rows = csv.reader(text.splitlines())
        assert not [cell for row in (header, *rows) for cell in row if cell.startswith(("=", "+", "@"))]
        assert "'" + FORMULA in header
        assert len(rows) == 6


def test_rows_of_json_are_those_of_json_lines(model: Path, recordings: Path, tmp_path: Path) -> None:
    """No escape of a spreadsheet stands in them, and what is not exact as text is so as bytes."""
    content = (recordings / "ok.wav").read_bytes()
    for name in (b"\xff.wav", b"@b.wav", b"a\\xff.wav"):
        (recordings / os.fsdecode(name)).write_bytes(content)
    rows = json.loads(call("score", recordings, "-m", model, "--json", code=3).stdout)["rows"]
    table = tmp_path / os.fsdecode(b"q\xff.jsonl")
    summary = json.loads(call("score", recordings, "-m", model, "--out", table, "--json", code=3).stdout)
    written = [json.loads(line) for line in table.read_text().splitlines()]
    assert [json.dumps(row) for row in rows] == [json.dumps(line) for line in written]
    assert {path_from_record(row) for row in rows} == set(map(os.fsencode, recordings.iterdir()))
    assert summary["out"] == str(tmp_path / "q\ufffd.jsonl")


def hostile_bundle(model: Path, **changes: Any) -> Path:
    folder = model.parent / "bundle"
    folder.mkdir()
    manifest = load_bundle(model).manifest()
    model.rename(folder / "tiny.onnx")
    (folder / "bundle.json").write_text(json.dumps(manifest | changes))
    return folder


def test_n25_provenance_and_variants(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrtn.runtime.bench._SIDE", 64)  # the ceiling of a smaller product and copy
    monkeypatch.setattr("rrtn.runtime.bench._COPY_BYTES", 1 << 20)
    folder = hostile_bundle(model, provenance={"encoder": HOSTILE, "method": "[blink]x", "run": HOSTILE})
    document = json.loads((folder / "bundle.json").read_text())
    document["variants"][0] |= {"name": f"[red]{HOSTILE}", "plan": None}
    document["variants"][0]["parity"] = {"max_abs": 0.0, "ccc_change": 0.0, "clips": 1}
    (folder / "bundle.json").write_text(json.dumps(document))
    shown = call("inspect", folder).output
    assert "[blink]x" in shown
    benched = call("bench", folder, "--seconds", 0.01, "--batches", 1, "--chart", folder / "speed.svg").output
    assert "[red]" in benched
    check((folder / "speed.svg").read_text())


def test_n25_errors_lines_tables_and_bars(capsys: Captured) -> None:
    print_error(DataError(HOSTILE, HOSTILE, wanted=HOSTILE, fix=HOSTILE))
    say(f"note: {HOSTILE}\nrrtn: forged")
    table = Table(HOSTILE, "")
    table.add_row(HOSTILE.replace("[red]", ""), HOSTILE.replace("[red]", ""))
    print_table(table, title=HOSTILE, caption=HOSTILE)
    with Progress(HOSTILE, 1, "files") as bar:
        bar.advance(note=HOSTILE)
        bar._print_line()
    out, err = capsys.readouterr()
    check(out + err)
    assert len(err.splitlines()) == 3


def test_n25_ratings(make_data: Callable[..., Path], csv_lines: list[str], cache: Path) -> None:
    header = csv_lines[0].replace("Awe", HOSTILE).replace("Fear", f'"{FORMULA}"')
    lines = [header, *csv_lines[1:]]
    lines[3] = lines[3].replace("Train_0", HOSTILE).replace("Train_1", HOSTILE).replace("USA", HOSTILE)
    lines[9] = lines[9].replace("Val_4", HOSTILE)
    folder = make_data(lines)
    assert "[red]" in call("data", "check", folder).output
    call("train", "--data", folder, "--dry-run", "--epochs", 1)
    lines[2] = lines[2].replace("[00001]", HOSTILE)
    make_data(lines)
    assert CliRunner().invoke(app, ["data", "check", str(folder)]).exit_code


@pytest.fixture
def hostile_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """The kept run, with a hostile label in all of its files and in its data."""
    small = runpy.run_path(str(Path(__file__).parents[1] / "faults/small_cnn.py"))["SmallCnn"]
    monkeypatch.setattr(rrtn.train.method.model, "encoder_from_name", lambda name, *, n_mels: small(n_mels))
    with tarfile.open(KEPT) as kept:
        kept.extractall(tmp_path, filter="data")
    before = tmp_path / "before"
    pattern = ("whole/**/checkpoint.json", "whole/history.jsonl", "whole/config.toml")
    for path in [path for one in pattern for path in before.glob(one)]:
        text = path.read_text().replace('"Awe"', json.dumps(HOSTILE))
        path.write_text(text.replace("/before/data", str(before / "data")))
    table = before / "data/data_info.csv"
    table.write_text(table.read_text().replace("Awe", HOSTILE, 1), encoding="utf-8")
    (before / "whole/export/bundle.json").unlink()
    return before / "whole"


def test_n25_a_run_its_evaluation_its_page_and_its_submission(hostile_run: Path) -> None:
    submission = hostile_run / "sub.csv"
    assert "[red]" in call("evaluate", hostile_run, "--no-ridge", "--submission", submission).output
    check(submission.read_text(encoding="utf-8"))
    for kept in (hostile_run / "predictions").glob("*.csv"):
        check(kept.read_text(encoding="utf-8"))
    call("evaluate", hostile_run, "--no-ridge", "--compare", hostile_run)  # what was kept is read again
    call("report", hostile_run)
    page = (hostile_run / "report.html").read_text(encoding="utf-8")
    check(page)
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x" in page


@pytest.mark.slow
def test_n25_its_export_parity_and_repetition(hostile_run: Path, tmp_path: Path) -> None:
    shown = call("export", hostile_run, "--out", tmp_path / f"[red]{HOSTILE[3]}bundle").output
    assert "bundle" in shown
    (folder,) = tmp_path.glob("*bundle")
    for path in folder.rglob("*"):
        if path.suffix in {".json", ".yaml", ".txt", ".pbtxt", ".md"}:
            check(path.read_text(encoding="utf-8"))
    call("parity", folder, "--run", hostile_run)
    assert json.loads(call("parity", folder, "--run", hostile_run, "--json").stdout)
    data = hostile_run.parent / "data"
    call("table2", "--data", data, "--out", tmp_path / "t\x1b2", "--dry-run")


def test_n25_packs(model: Path, recordings: Path, tmp_path: Path) -> None:
    packs = tmp_path / "packs\x1b[31m"
    call("pack", recordings, "--out", packs)
    call("inspect", model)
    assert r"\x1b" in call("score", packs, "-m", model, code=3).output


def test_the_projector_of_a_checkpoint_has_bounds() -> None:
    with pytest.raises(ValueError, match="at most 16 layers"):
        ProjectorConfig(layers=10**9)
