"""What several commands share."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rrtn.cli import app
from rrtn.commands.options import (
    bundle_named,
    bundle_place,
    existing_run,
    names_with_commas,
    newest_bundle,
    run_named,
    say_gaps,
    say_other_channel,
    single_run,
)
from rrtn.runtime import FrontendSpec, load_bundle
from rrtn.runtime.errors import ConfigError, ModelError
from rrtn.runtime.scoring.scorer_settings import ScorerSettings


@pytest.fixture(scope="module")
def with_torch() -> list[str]:
    """Of a process that has loaded torch: its threads, looks for garbage meanwhile, and what is on then."""
    code = """
import gc
from rrtn.runtime.system import cpus
cpus.usable_cpus = lambda: 1  # as in a container with a quota of one core
looks = []
gc.callbacks.append(lambda phase, info: looks.append(info["generation"]))
from rrtn.cli import app
from rrtn.commands.options import load_torch
before = len(looks)
load_torch("train.start")
looked = len(looks) - before
import torch
print(torch.get_num_threads(), looked, gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout.split()


def test_torch_takes_no_more_threads_than_this_process_may_keep_busy(with_torch: list[str]) -> None:
    """By itself it takes one for each core of the machine, whatever the quota of a container is."""
    assert with_torch[0] == "1"


def test_what_torch_makes_of_itself_is_never_looked_through_for_garbage(with_torch: list[str]) -> None:
    _, looks, is_on, is_frozen = with_torch
    assert int(looks) < 10  # of the bar's own imports, before
    assert (is_on, is_frozen) == ("True", "True")


def test_advice_names_a_run_or_a_bundle_unless_it_is_what_is_taken_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("elsewhere/my run", "runs/a"):
        (tmp_path / run / "export").mkdir(parents=True)
        (tmp_path / run / "config.toml").touch()
        (tmp_path / run / "export/bundle.json").touch()
    assert run_named(Path("elsewhere/my run")) == " 'elsewhere/my run'"
    assert bundle_named(Path("elsewhere/my run/export")) == " --model 'elsewhere/my run/export'"
    assert (existing_run(None), run_named(Path("runs/a"))) == (Path("runs/a"), "")
    assert run_named(tmp_path / "runs/a") == ""
    assert (newest_bundle(), bundle_named(Path("runs/a/export"))) == (Path("runs/a/export"), "")
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert (run_named(Path("moved/a")), bundle_named(Path("moved/a/export"))) == (
        " moved/a",
        " --model moved/a/export",
    )


def test_a_newer_run_without_an_export_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`rrtn evaluate` would take that one."""
    monkeypatch.chdir(tmp_path)
    for age, run in enumerate(("b", "a")):
        (tmp_path / "runs" / run / "export").mkdir(parents=True)
        (tmp_path / "runs" / run / "config.toml").touch()
        os.utime(tmp_path / "runs" / run / "config.toml", (age, age))
    (tmp_path / "runs/b/export/bundle.json").touch()
    assert bundle_place(None) == Path("runs/b/export")
    said = "note: runs/a is newer than runs/b/export, and was not exported: rrtn export runs/a"
    assert said in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ModelError, match=r"bundle\.json"):  # it is empty
        app(["score", "a.wav"], standalone_mode=False)
    assert " ".join(capsys.readouterr().err.split()).count(said) == 1
    (tmp_path / "runs/a/export/bundle.json").touch()
    os.utime(tmp_path / "runs/b/export/bundle.json", (2**32, 2**32))
    assert bundle_place(None) == Path("runs/b/export")
    assert "note" not in capsys.readouterr().err


@pytest.fixture
def folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a table: two runs of one row."""
    monkeypatch.chdir(tmp_path)
    for name in ("seed0", "seed1"):
        (Path("t/row") / name).mkdir(parents=True)
        (Path("t/row") / name / "config.toml").touch()
    return Path("t/row")


def test_where_one_run_is_taken_a_folder_of_runs_names_them(folds: Path) -> None:
    several = r"holds 2 runs \| expected one run \| name one, such as t/row/seed0$"
    for folder in (folds, folds.parent):
        with pytest.raises(ConfigError, match=f"^{folder} \\| {several}"):
            single_run(folder)
    assert existing_run(folds) == folds
    with pytest.raises(ConfigError, match=r"RUN t \| is no run: .* \| name one in it, such as t/row$"):
        existing_run(folds.parent)
    assert single_run(folds / "seed1") == folds / "seed1"


def test_where_a_model_is_taken_a_folder_of_runs_names_one_that_has_a_bundle(folds: Path) -> None:
    with pytest.raises(ConfigError, match=r"^t \| holds 2 runs .* \| rrtn export t/row/seed0, then name"):
        bundle_place(folds.parent)
    export = folds / "seed1/export"
    export.mkdir()
    (export / "bundle.json").touch()
    with pytest.raises(ConfigError, match=r"^t/row \| holds 2 runs .* name one, such as t/row/seed1$"):
        bundle_place(folds)
    (folds / "bundle.json").touch()
    for one in (folds, folds / "seed0", folds / "seed1", export, Path("no.onnx"), Path("n" * 300)):
        assert bundle_place(one) == one


@pytest.mark.parametrize("command", ["export", "inspect", "parity", "tune", "bench"])
def test_commands_of_one_run_say_so(folds: Path, command: str) -> None:
    with pytest.raises(ConfigError, match=f"^{folds} . holds 2 runs"):
        app([command, str(folds)], standalone_mode=False)


@pytest.mark.parametrize(
    ("text", "names"), [("Awe, Fear", ["Awe", "Fear"]), ("Awe,", ["Awe"]), ("", None), (None, None)]
)
def test_names_with_commas(text: str | None, names: list[str] | None) -> None:
    assert names_with_commas(text) == names


def test_commas_alone_are_no_names() -> None:
    with pytest.raises(ConfigError, match="no name"):
        names_with_commas(", ,")


@pytest.mark.parametrize(
    ("window", "hop", "said"),
    [
        (1.0, 2.0, "windows of 1 s, 2 s apart: the 1 s between them are not scored"),
        ("auto", 3.0, "windows of 2.49 s, 3 s apart: the 0.51 s between them are not scored"),
        (1.0, 1.0, ""),
        (1.0, None, ""),
        (None, None, ""),
    ],
)
def test_windows_that_leave_sound_out_are_told(
    window: Any, hop: float | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_gaps(FrontendSpec(), ScorerSettings(window=window, hop=hop))
    assert capsys.readouterr().err == (f"note: {said}\n" if said else "")


@pytest.mark.parametrize(("learned", "asked", "is_said"), [(2, None, True), (2, 1, False), (0, None, False)])
def test_a_model_of_one_channel_that_hears_the_mean_is_told(
    tiny_model: Path, learned: int, asked: int | None, is_said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = replace(load_bundle(tiny_model), provenance={"channel": learned} if learned else {})
    say_other_channel(bundle, asked)
    assert ("note: the model learned channel 2" in capsys.readouterr().err) == is_said
