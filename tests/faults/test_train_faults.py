"""What `rrtn train` does when things go wrong: rows T7 to T10, T13 and T16 to T20 of docs/reliability.md."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from rrtn.cli import main
from rrtn.runtime.errors import ConfigError, DataError, ModelError
from rrtn.runtime.files import sha256_of
from rrtn.train.checkpoint import POINTER, CheckpointInfo, load_checkpoint, save_checkpoint
from rrtn.train.config import Config, DataConfig, OptimConfig
from rrtn.train.data import read_data
from rrtn.train.loop import train
from rrtn.train.losses import bt_loss, ccc_loss, cross_correlation
from rrtn.train.plan import Plan, network_from_config, plan_from_config

MakeData = Callable[..., Path]
Lines = list[str]


class Ended(NamedTuple):
    code: object
    out: str
    err: str


@pytest.fixture
def rrtn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> Callable[..., Ended]:
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["rrtn", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        signal.signal(signal.SIGTERM, handler)
        out, err = capsys.readouterr()
        return Ended(ended.value.code, out, err)

    return run


def assert_refused(ended: Ended, code: int, *parts: str) -> None:
    """Nothing on stdout; on stderr one line with all the parts, and before it at most which run it is."""
    assert (ended.code, ended.out) == (code, "")
    *before, line = ended.err.splitlines()
    assert [other for other in before if not other.startswith("run ")] == []
    assert line.startswith("rrtn: ")
    assert [part for part in parts if part not in line] == []


# --- T19: the label CSV -----------------------------------------------------------------------------------------------


def cell(line: int, column: int, value: str) -> Callable[[Lines], Lines]:
    """Another value in one cell; lines count from 1, the header's, columns from 0."""

    def edit(lines: Lines) -> Lines:
        cells = lines[line - 1].split(",")
        cells[column] = value
        return [*lines[: line - 1], ",".join(cells), *lines[line:]]

    return edit


def rows(*added: str) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines, *added]


def both(*edits: Callable[[Lines], Lines]) -> Callable[[Lines], Lines]:
    def edit(lines: Lines) -> Lines:
        for one in edits:
            lines = one(lines)
        return lines

    return edit


def as_bytes(lines: Lines, *, end: str = "\n", encoding: str = "utf-8") -> bytes:
    return "".join(line + end for line in lines).encode(encoding)


FILE_ID, SPLIT, SUBJECT, COUNTRY, AWE, FEAR = 0, 1, 2, 3, 5, 6
ABSENT = [f"[{i:05d}],Train,x,USA,30,0.5,0.5" for i in range(90, 95)]
SPLIT_TYPOS = both(*(cell(line, SPLIT, "train") for line in (2, 3, 5, 8)))
QUOTED_NEWLINE = both(cell(2, COUNTRY, '"United\nStates"'), cell(4, FEAR, "1.5"))

REFUSED: dict[str, tuple[Callable[[Lines], Lines | bytes], tuple[str, ...]]] = {
    "file missing": (rows(ABSENT[0]), ("line 16 (1 in all)", "00090.wav is not in")),
    "files missing": (rows(*ABSENT), ("lines 16, 17, 18 and 2 more (5 in all)", "00090.wav is not in")),
    "duplicate conflicting": (rows("[00002],Train,x,USA,30,0.1,0.2"), ("line 16 (1 in all)", "File_ID stands above")),
    "duplicate written otherwise": (rows("00002.wav,Val,x,USA,30,0.1,0.2"), ("line 16 (1 in all)", "File_ID stands above")),
    "duplicate in two splits": (lambda x: [*x, x[3].replace("Train", "Val")], ("line 16 (1 in all)", "File_ID stands above")),
    "NaN": (cell(5, AWE, "NaN"), ("line 5 (1 in all)", "Awe is not a number")),
    "infinity": (cell(5, AWE, "inf"), ("line 5 (1 in all)", "Awe is not a number")),
    "infinity in float32 only": (cell(5, AWE, "1e39"), ("line 5 (1 in all)", "Awe is out of range")),
    "blank in Train": (cell(6, FEAR, ""), ("line 6 (1 in all)", "Fear is blank")),
    "blank in Val": (cell(11, FEAR, " "), ("line 11 (1 in all)", "Fear is blank")),
    "above 1": (both(cell(3, AWE, "1.01"), cell(9, AWE, "7")), ("lines 3, 9 (2 in all)", "Awe is out of range", "0 to 1")),
    "below 0": (cell(12, FEAR, "-0.01"), ("line 12 (1 in all)", "Fear is out of range")),
    "out of range in Test": (cell(14, FEAR, "2"), ("line 14 (1 in all)", "Fear is out of range")),
    "text": (cell(7, FEAR, "high"), ("line 7 (1 in all)", "Fear is not a number", "--targets")),
    "no File_ID": (cell(1, FILE_ID, "Filename"), ("line 1 ", "no column File_ID", "has Filename, Split")),
    "no Split": (cell(1, SPLIT, "Part"), ("line 1 ", "no column Split", "has File_ID, Part")),
    "column twice": (cell(1, FEAR, "Awe"), ("line 1 ", "column 'Awe' twice")),
    "semicolons": (lambda x: [line.replace(",", ";") for line in x], ("line 1 ", "no column File_ID", "';'", "with commas")),
    "below a quoted newline": (QUOTED_NEWLINE, ("line 5 (1 in all)", "Fear is out of range")),
    "below a blank line": (lambda x: cell(4, FEAR, "9")([x[0], "", *x[1:]]), ("line 4 (1 in all)", "Fear is out of range")),
    "open quote": (cell(15, COUNTRY, '"USA'), ("line 15 ", "unexpected end of data")),
    "empty": (lambda _: b"", ("empty file", "File_ID, Split")),
    "header only": (lambda x: x[:1], ("no rows below the header",)),
    "Latin-1": (lambda x: as_bytes(cell(6, COUNTRY, "Réunion")(x), encoding="latin-1"), ("line 6 ", "not UTF-8")),
    "UTF-16": (lambda x: as_bytes(x, encoding="utf-16"), ("line 1 ", "not UTF-8")),
    "ragged, short": (lambda x: [*x[:4], x[4].rsplit(",", 1)[0], *x[5:]], ("line 5 (1 in all)", "number of cells", "7 cells")),
    "ragged, long": (cell(5, COUNTRY, "Korea, South"), ("line 5 (1 in all)", "number of cells", "7 cells")),
    "split unknown": (SPLIT_TYPOS, ("lines 2, 3, 5 and 1 more (4 in all)", "Split is 'train'", "Train, Val or Test")),
    "path traversal": (cell(4, FILE_ID, "[../../etc/passwd]"), ("line 4 (1 in all)", "'[../../etc/passwd]'", "below wav/")),
    "parent alone": (cell(4, FILE_ID, ".."), ("line 4 (1 in all)", "File_ID is '..'")),
    "absolute path": (cell(4, FILE_ID, "/etc/passwd"), ("line 4 (1 in all)", "File_ID is '/etc/passwd'")),
    "File_ID blank": (both(cell(4, FILE_ID, ""), cell(6, FILE_ID, "[]")), ("lines 4, 6 (2 in all)", "File_ID is ''")),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_t19_a_faulty_csv_is_refused_in_one_line(fault: str, make_data: MakeData, csv_lines: Lines) -> None:
    edit, parts = REFUSED[fault]
    folder = make_data(edit(csv_lines))
    with pytest.raises(DataError) as caught:
        read_data(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder / "data_info.csv"))
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    "accepted",
    [
        lambda x: as_bytes(x, encoding="utf-8-sig"),
        lambda x: as_bytes(x, end="\r\n"),
        lambda x: as_bytes(x, end="\r\n", encoding="utf-8-sig"),
        lambda x: as_bytes(x).rstrip(b"\n"),
        lambda x: as_bytes([*x, "", ""]),
        lambda x: as_bytes([line.replace(",", " , ") for line in x]),
        lambda x: as_bytes([",".join(f'"{value}"' for value in line.split(",")) for line in x]),
    ],
    ids=["BOM", "CRLF", "BOM and CRLF", "no end of line", "blank lines", "spaces", "quotes"],
)
def test_t19_harmless_spellings_are_read_as_the_plain_file(
    accepted: Callable[[Lines], bytes], make_data: MakeData, csv_lines: Lines
) -> None:
    plain = read_data(make_data())
    spelt = read_data(make_data(accepted(csv_lines)))
    assert spelt.warnings == ()
    assert spelt.targets == plain.targets
    for name, split in plain.splits.items():
        assert spelt.splits[name].clips == split.clips
        np.testing.assert_array_equal(spelt.splits[name].ratings, split.ratings)


def test_t19_a_quoted_newline_is_part_of_its_cell(make_data: MakeData, csv_lines: Lines) -> None:
    data = read_data(make_data(cell(2, COUNTRY, '"United\nStates"')(csv_lines)))
    assert data.splits["Train"].clips[0].country == "United\nStates"
    assert [clip.line for clip in data.splits["Train"].clips] == [3, 4, 5, 6, 7, 8, 9, 10]  # a row's last line


def test_t19_a_row_that_stands_twice_is_taken_once_with_a_warning(make_data: MakeData, csv_lines: Lines) -> None:
    data = read_data(make_data([*csv_lines, csv_lines[2], csv_lines[2], csv_lines[9]]))
    assert [len(split.clips) for split in data.splits.values()] == [8, 4, 2]
    assert data.warnings == ("data_info.csv: 3 repeated rows are taken once (first: line 16)",)


def test_t19_files_without_a_row_are_ignored_with_a_warning(make_data: MakeData, csv_lines: Lines) -> None:
    data = read_data(make_data(csv_lines[:-2]))
    assert data.warnings == ("wav/: 2 files without a row in the CSV are ignored (first: 00012.wav)",)


def test_t19_train_refuses_the_csv_before_anything_is_made(make_data: MakeData, csv_lines: Lines, tmp_path: Path) -> None:
    """The installed command, as a user sees it."""
    folder = make_data(cell(5, AWE, "1.5")(csv_lines))
    command = [str(Path(sys.executable).with_name("rrtn")), "train", "--data", str(folder)]
    for options in (["--dry-run"], ["--epochs", "1"]):
        env = {**os.environ, "RRTN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, *options], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert_refused(Ended(done.returncode, done.stdout, done.stderr), 2, str(folder), "line 5 (1 in all)", "out of range")
        assert {path.name for path in tmp_path.iterdir()} == {"data"}


# --- T20: a speaker in two splits -------------------------------------------------------------------------------------


def test_t20_a_speaker_in_train_and_val_is_warned_of_loudly(
    rrtn: Callable[..., Ended], make_data: MakeData, csv_lines: Lines
) -> None:
    folder = make_data(
        both(cell(2, SUBJECT, "Anna"), cell(11, SUBJECT, "Anna"), cell(3, SUBJECT, "Bo"), cell(14, SUBJECT, "Bo"))(csv_lines)
    )
    warning = "SPEAKER LEAK: 2 speakers are in more than one split (first: Anna): validation figures will be too good"
    assert read_data(folder).warnings == (warning,)
    ended = rrtn("train", "--data", folder, "--dry-run", "--json")
    assert ended.code == 0
    assert ended.err.count(warning) == 1
    assert warning in json.loads(ended.out)["notes"]


# --- T16, T17, T18: audio and labels that arithmetic does not like ----------------------------------------------------


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_t16_audio_that_is_not_finite_is_refused_and_named(
    rrtn: Callable[..., Ended], make_data: MakeData, poison: float
) -> None:
    folder = make_data()
    samples = np.full(4800, 0.1, np.float32)
    samples[4000] = poison
    soundfile.write(folder / "wav/00003.wav", samples, 16_000, subtype="FLOAT")
    ended = rrtn("train", "--data", folder, "--batch-size", 4, "--epochs", 1, "--out", "run", "--device", "cpu")
    lines = ended.err.splitlines()
    assert (ended.code, ended.out) == (2, "")
    assert lines[-1].startswith("rrtn: 1 of 8 files cannot be decoded | 00003.wav: non_finite: ")
    assert not Path("run/checkpoints").exists()
    assert not Path("run/history.jsonl").exists()


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_t17_constant_labels_give_a_finite_loss_and_gradient(label: float) -> None:
    ratings = torch.full((8, 2), label)
    scores = torch.rand(8, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = ccc_loss(scores, ratings)
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-5)  # float32: the covariance is 0 within rounding
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_t17_constant_labels_and_equal_scores_give_no_gradient(label: float) -> None:
    scores = torch.full((8, 2), label, requires_grad=True)
    loss = ccc_loss(scores, torch.full((8, 2), label))
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-5)
    assert scores.grad.abs().max() < 1e-6


def test_t18_fewer_clips_than_a_batch_are_refused(rrtn: Callable[..., Ended], make_data: MakeData) -> None:
    ended = rrtn("train", "--data", make_data(), "--batch-size", 9)
    assert_refused(ended, 2, "--batch-size | 9 | 8 training clips: at most that many")
    assert not Path("runs").exists()


def test_t18_a_batch_of_one_is_refused(rrtn: Callable[..., Ended], make_data: MakeData) -> None:
    assert_refused(rrtn("train", "--data", make_data(), "--batch-size", 1), 2, "--batch-size", "at least 2 clips")


def test_t18_the_incomplete_last_batch_is_dropped(rrtn: Callable[..., Ended], make_data: MakeData) -> None:
    """Eight clips in batches of 7: the one that is left would be a batch of 1."""
    ended = rrtn("train", "--data", make_data(), "--batch-size", 7, "--epochs", 5, "--dry-run", "--json")
    assert (ended.code, ended.err) == (0, "")
    description = json.loads(ended.out)
    assert (description["steps_per_epoch"], description["steps"]) == (1, 5)


def test_t18_a_batch_of_two_has_finite_losses() -> None:
    """The smallest batch: every embedding is +-1 standard deviation, and a dimension that does not vary is 0."""
    z_a = torch.tensor([[1.0, 2.0, 5.0], [3.0, -1.0, 5.0]], requires_grad=True)
    z_b = torch.tensor([[0.0, 4.0, 2.0], [1.0, 8.0, 3.0]])
    correlation = cross_correlation(z_a, z_b)
    expected = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(correlation, expected, atol=1e-4, rtol=0)  # BatchNorm's eps of 1e-5 beside variances of 0.25
    bt_loss(correlation, off_diagonal=0.001).backward()
    assert torch.isfinite(z_a.grad).all()


# --- T7, T8, T9: checkpoints that are not what was written ------------------------------------------------------------


@pytest.fixture
def plan(make_data: MakeData) -> Plan:
    config = Config(data=DataConfig(dir=str(make_data())), optim=OptimConfig(batch_size=4, epochs=2), device="cpu")
    return plan_from_config(config)


def info_at(plan: Plan, epoch: int) -> CheckpointInfo:
    return CheckpointInfo(
        epoch=epoch,
        step=epoch * plan.steps_per_epoch,
        ccc=0.5,
        per_target={"Awe": 0.5, "Fear": 0.5},
        labels=list(plan.data.targets),
        config=plan.config.to_dict(),
        versions={},
    )


@pytest.fixture
def begun(plan: Plan, tmp_path: Path) -> Path:
    """A run after one of its two epochs, whose tensors are too small to be a network's."""
    run = tmp_path / "run"
    tensors = {"weights": {"head.weight": torch.randn(64, 64)}, "optimizer": {"0.step": torch.ones(500)}}
    for name in ("best", "last"):
        save_checkpoint(run / "checkpoints" / name, info_at(plan, 1), tensors)
    (run / "config.toml").write_text(plan.config.to_toml())
    (run / "history.jsonl").write_text('{"epoch": 1}\n')
    return run


def assert_hash_mismatch(folder: Path, path: Path, kind: str) -> None:
    listed = json.loads((folder / POINTER).read_text())["files"][kind]["sha256"]
    with pytest.raises(ModelError) as caught:
        load_checkpoint(folder, "weights", "optimizer")
    message = str(caught.value)
    assert message.startswith(f"{path} | sha256 {sha256_of(path)[:12]} | checkpoint.json lists {listed[:12]} | ")
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["weights", "optimizer"])
@pytest.mark.parametrize("left", [0.0, 0.5, 0.999])
def test_t7_a_truncated_checkpoint_is_refused_with_its_hash(begun: Path, kind: str, left: float) -> None:
    folder = begun / "checkpoints/last"
    path = folder / f"{kind}-0001.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    assert_hash_mismatch(folder, path, kind)


@pytest.mark.parametrize("kind", ["weights", "optimizer"])
@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.9999])
def test_t8_a_flipped_bit_is_refused_with_its_hash(begun: Path, kind: str, place: float) -> None:
    folder = begun / "checkpoints/last"
    path = folder / f"{kind}-0001.safetensors"
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)
    assert_hash_mismatch(folder, path, kind)


def test_t7_t8_resume_stops_at_the_changed_file_and_keeps_it(rrtn: Callable[..., Ended], begun: Path) -> None:
    path = begun / "checkpoints/last/weights-0001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    before = {file: file.read_bytes() for file in begun.rglob("*") if file.is_file()}
    ended = rrtn("train", "--resume", "--out", begun)
    assert_refused(ended, 5, str(path), sha256_of(path)[:12], "use another checkpoint")
    assert {file: file.read_bytes() for file in begun.rglob("*") if file.is_file()} == before


def test_t7_a_lost_file_is_named(rrtn: Callable[..., Ended], begun: Path) -> None:
    path = begun / "checkpoints/last/optimizer-0001.safetensors"
    path.unlink()
    assert_refused(rrtn("train", "--resume", "--out", begun), 5, f"{path} | not there | checkpoint.json lists ")


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("maker", ["pickle", "torch"])
def test_t9_a_pickle_is_refused_unopened_even_where_its_hash_is_listed(begun: Path, tmp_path: Path, maker: str) -> None:
    folder = begun / "checkpoints/last"
    path = folder / "weights-0001.safetensors"
    attack = Malicious(tmp_path / "marker")
    path.write_bytes(pickle.dumps(attack)) if maker == "pickle" else torch.save(attack, path)
    document = json.loads((folder / POINTER).read_text())
    document["files"]["weights"]["sha256"] = sha256_of(path)
    (folder / POINTER).write_text(json.dumps(document))
    with pytest.raises(ModelError, match="expected safetensors"):
        load_checkpoint(folder, "weights")
    assert not attack.marker.exists()


# --- T10, T13: resuming what must not, or need not, go on -------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "change"),
    [
        (("--lr", "0.5"), "optim.lr: 0.001 -> 0.5"),
        (("--batch-size", "2"), "optim.batch_size: 4 -> 2"),
        (("--encoder", "cnn10"), "model.encoder: 'resnet18' -> 'cnn10'"),
        (("--method", "vanilla"), "model.method: 'rrtn-ruwl' -> 'vanilla'"),
        (("--seed", "1"), "seed: 0 -> 1"),
        (("--epochs", "3"), "optim.epochs: 2 -> 3"),
        (("--targets", "Fear"), "data.targets: ('Awe', 'Fear') -> ('Fear',)"),
        (("--data", "."), "data.dir: "),
    ],
)
def test_t10_resuming_with_another_setting_is_refused_with_the_difference(
    rrtn: Callable[..., Ended], begun: Path, flags: tuple[str, str], change: str
) -> None:
    ended = rrtn("train", "--resume", "--out", begun, *flags)
    assert_refused(ended, 2, "--resume | other settings than the run's: ", change, "start a new run")


def test_t10_all_differences_are_listed(rrtn: Callable[..., Ended], begun: Path) -> None:
    ended = rrtn("train", "--resume", "--out", begun, "--lr", "0.5", "--seed", "7")
    assert_refused(ended, 2, "seed: 0 -> 7; optim.lr: 0.001 -> 0.5 |")


def test_t10_a_new_run_does_not_overwrite_one_that_is_there(plan: Plan, begun: Path) -> None:
    with pytest.raises(ConfigError, match="holds a run already"):
        train(plan, begun, resume=False)


def test_t13_resuming_a_finished_run_touches_nothing(plan: Plan, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished = replace(info_at(plan, 2), ccc=0.75)
    weights = {**network_from_config(plan.config).state_dict(), "ruwl.c": torch.tensor([1.0, 1.0, 0.01])}
    save_checkpoint(run / "checkpoints/best", finished, {"weights": weights})
    save_checkpoint(run / "checkpoints/last", finished, {"weights": weights, "optimizer": {}})
    (run / "config.toml").write_text(plan.config.to_toml())
    (run / "history.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.rglob("*")}
    result = train(plan, run, resume=True)
    assert (result.best.epoch, result.best.ccc, result.epochs) == (2, 0.75, 2)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.rglob("*")} == before
