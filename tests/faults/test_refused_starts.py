"""N20: what cannot work is refused before any work, and leaves nothing; what was made is not made again."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Watch
from rrtn_processes import REAL_ENCODERS, Ended, Server

Rrtn = Callable[..., Ended]


@pytest.fixture(scope="module")
def trained(server: Server, corpus: Path, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch, to be left as it is."""
    folder = tmp_path_factory.mktemp("trained")
    flags = ("train", "--data", corpus, "--config", settings, "--device", "cpu", "--epochs", 1)
    ended = server.start(*flags, "--out", "run", cwd=folder).wait()
    assert ended.code == 0, ended.err
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize(
    "arguments",
    [
        "train --epochs 0 --data nowhere",
        "train --epochs=-1 --data nowhere",
        "train --batch-size 0 --data nowhere",
        "table2 --epochs 0 --data nowhere",
        "table2 --batch-size 0 --data nowhere",
        "table2 --seeds 0",
        "table2 --fraction 0",
        "train --lr 0",
        "train --lr nan",
        "data synth new --clips 0",
        "data synth new --speakers 0",
        "data synth new --workers 0",
        "data synth new --seed -1",
        "score x.wav --top 0",
        "export --batch-profile 0,1,2",
        "bench --seconds 0",
        "bench --seconds nan",
        "bench --batches 0",
    ],
)
def test_n20_a_number_that_means_nothing_is_refused(rrtn: Rrtn, arguments: str, tmp_path: Path) -> None:
    ended = rrtn(*arguments.split())
    option = next(word for word in arguments.split() if word.startswith("--")).partition("=")[0]
    assert ended.code == 2
    assert option in ended.error
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_n20_zero_in_a_file_is_auto(rrtn: Rrtn, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "auto.toml").write_text("[optim]\nepochs = 0\nbatch_size = 0\n")
    ended = rrtn("train", "--data", corpus, "--config", "auto.toml", "--dry-run", "--json")
    assert ended.code == 0
    assert ended.summary["config"]["optim"]["epochs"] > 0


def flags(corpus: Path, settings: Path) -> tuple[object, ...]:
    return ("train", "--data", corpus, "--config", settings, "--device", "cpu", "--out", "a/b/run")


@pytest.mark.parametrize("dry", [True, False])
def test_n20_init_is_checked_first(
    rrtn: Rrtn, corpus: Path, settings: Path, tmp_path: Path, dry: bool
) -> None:
    (tmp_path / "no.pth").write_bytes(b"no checkpoint")
    for name, code, came in (("gone.pth", 2, "No such file"), ("no.pth", 5, "expected a file of torch.save")):
        options = ("--init", name, "--encoder", "cnn10", *(["--dry-run"] if dry else []))
        ended = rrtn(*flags(corpus, settings), *options, before=REAL_ENCODERS)
        assert ended.code == code
        assert came in ended.error
        assert not (tmp_path / "a").exists()


def test_n20_a_refused_start_leaves_no_folder(
    rrtn: Rrtn, corpus: Path, settings: Path, tmp_path: Path
) -> None:
    bad = Path(shutil.copytree(corpus, tmp_path / "bad"))
    next((bad / "wav").iterdir()).write_bytes(b"no audio")
    ended = rrtn(*flags(bad, settings))
    assert ended.code == 2
    assert "cannot be decoded" in ended.error
    assert not (tmp_path / "a").exists()
    (tmp_path / "a/b/run").mkdir(parents=True)
    (tmp_path / "a/b/run/notes.txt").touch()
    assert rrtn(*flags(bad, settings)).code == 2
    assert [path.name for path in (tmp_path / "a/b/run").iterdir()] == ["notes.txt"]


def test_n20_a_file_in_the_runs_place_is_refused_and_left_alone(
    rrtn: Rrtn, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ended = rrtn("train", "--data", corpus, "--out", "notes.txt", "--dry-run")
    assert ended.code == 2
    assert "a file" in ended.error
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        "train --data {corpus} --out notes.txt/run",
        "crossval --data {corpus} --folds 2 --out notes.txt/run",
        "table2 --data {corpus} --out notes.txt/run",
        "data synth notes.txt/new --clips 4 --speakers 4",
        "data import {corpus} notes.txt/new",
        "export {run} --out notes.txt/bundle",
        "export {run} --web notes.txt/page",
        "pack {corpus}/wav --out notes.txt/packs",
        "pack {corpus}/wav --out notes.txt",
    ],
)
def test_n20_a_file_where_a_folder_must_be_is_refused_and_left_alone(
    rrtn: Rrtn, corpus: Path, run: Path, tmp_path: Path, arguments: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ended = rrtn(*arguments.format(corpus=corpus, run=run).split())
    assert (ended.code, ended.error.count("\n")) == (2, 0), ended.error
    assert "notes.txt" in ended.error
    assert "Not a directory" in ended.error or "File exists" in ended.error
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "command", ["train", "train --dry-run", "crossval --folds 2", "table2", "data check", "data import"]
)
def test_n20_a_table_that_is_none_is_refused(rrtn: Rrtn, corpus: Path, tmp_path: Path, command: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    table = corpus / "data_info.csv"
    for path, came in (
        (corpus / "gone.csv", "not there"),
        (corpus / "wav", "a folder"),
        (table / "x", "not there"),
        (pipe, "not a regular file"),
    ):
        given = [path, "new"] if command == "data import" else ["--csv", path]
        if command == "data import" and path == corpus / "wav":
            continue
        ended = rrtn(*command.split(), *given, "--audio", corpus / "wav")
        assert (ended.code, came in ended.error) == (2, True), ended.error
        assert str(path) in ended.error
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["pipe"]


@pytest.mark.parametrize("command", ["evaluate", "train --resume --epochs 2 --out"])
def test_n20_a_run_whose_table_was_moved_names_the_table(
    rrtn: Rrtn, run: Path, tmp_path: Path, command: str
) -> None:
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("[data]\n", f'[data]\ncsv = "{tmp_path}/gone.csv"\n', 1))
    ended = rrtn(*command.split(), run)
    assert ended.code == 2
    assert re.search(rf"{re.escape(str(tmp_path))}/gone.csv \| (is )?not there \| expected ", ended.error)


def test_n20_a_dry_run_says_that_the_folder_is_taken(rrtn: Rrtn, corpus: Path, run: Path) -> None:
    ended = rrtn("train", "--data", corpus, "--out", run, "--dry-run")
    assert ended.code == 2
    assert "holds a run already" in ended.error


@pytest.mark.parametrize("other", ["nowhere", ".", "file", "run/checkpoints"])
def test_n20_what_cannot_be_compared_is_refused_before_any_work(
    rrtn: Rrtn, run: Path, tmp_path: Path, other: str
) -> None:
    (tmp_path / "file").touch()
    shutil.rmtree(run / "predictions", ignore_errors=True)
    (tmp_path / "x").mkdir()
    named = "x" if other == "." else other
    ended = rrtn("evaluate", run, "--compare", named)
    assert ended.code == 2
    assert ended.error.startswith(f"rrtn: {named} | no checkpoint in ")
    assert ended.err.count("\n") == 1
    assert not (run / "predictions").exists()


@pytest.mark.parametrize("target", ["nodir/s.csv", "run"])
def test_n20_a_submission_without_a_place_is_refused_before_any_work(
    rrtn: Rrtn, run: Path, target: str
) -> None:
    ended = rrtn("evaluate", run, "--submission", target)
    assert ended.code == 2
    assert f"--submission {target}" in ended.error
    assert not (run / "predictions").exists()


def test_n20_predictions_are_made_once_for_a_checkpoint_and_its_clips(
    rrtn: Rrtn, run: Path, corpus: Path, tmp_path: Path, watch: Callable[[Path], Watch]
) -> None:
    data = Path(shutil.copytree(corpus, tmp_path / "data"))
    evaluate = ("evaluate", run, "--data", data, "--no-ridge", "--json")
    (weights,) = (run / "checkpoints/best").glob("weights-*")
    first = rrtn(*evaluate).summary
    opened = watch(weights)
    assert rrtn(*evaluate).summary == first
    assert rrtn("evaluate", run, "--compare", run, "--data", data, "--no-ridge").code == 0
    assert opened.opened() == 0
    (kept,) = (run / "predictions").iterdir()
    _swap_sounds(data)
    other = rrtn(*evaluate).summary
    assert opened.opened() > 0
    assert other["mean"] != first["mean"]
    assert len(list((run / "predictions").iterdir())) == 2
    kept.write_text("no predictions")
    assert rrtn("evaluate", run, "--data", corpus, "--no-ridge", "--json").summary["mean"] == first["mean"]


def _swap_sounds(data: Path) -> None:
    """Two sounds of Val under each other's names."""
    lines = (data / "data_info.csv").read_text().splitlines()
    names = [line.partition(",")[0].strip("[]") for line in lines if ",Val," in line]
    one, two = (data / f"wav/{name}.wav" for name in names[:2])
    for old, new in ((one, data / "kept"), (two, one), (data / "kept", two)):
        old.rename(new)


def test_n20_data_check_takes_targets(rrtn: Rrtn, corpus: Path) -> None:
    ended = rrtn("data", "check", corpus, "--targets", "Age,Awe", "--json")
    assert ended.code == 2
    assert "Age is out of range" in ended.error
    ended = rrtn("data", "check", corpus, "--targets", "Fear, Awe", "--json")
    assert json.loads(ended.out)["targets"] == ["Fear", "Awe"]
