"""N9, N10, N27: what `rrtn score` writes takes the place of nothing else; links and others' folders stay."""

import csv
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rrtn.cli import app
from rrtn.runtime.errors import RrtnError

Score = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def score(start_process: Callable[..., Any], tiny_model: Path) -> Score:
    """`rrtn score ... -m tiny.onnx` in the test's own folder, to its end."""

    def run(*arguments: object, **options: Any) -> Any:
        return start_process("score", *arguments, "-m", tiny_model, **options).wait()

    return run


@pytest.fixture
def refused(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The same in this process, for what is refused before anything is scored; -> its error."""

    def run(*arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(RrtnError) as caught:
            app(["score", *map(str, arguments), "-m", str(tiny_model)], standalone_mode=False)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


@pytest.fixture
def folders(tmp_path: Path) -> None:
    """in/ has six files, other/ two."""
    for folder, count in (("in", 6), ("other", 2)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            noise = np.random.default_rng(i).uniform(-0.5, 0.5, 800)
            soundfile.write(tmp_path / folder / f"{folder}{i}.wav", noise, 16_000)


pytestmark = pytest.mark.usefixtures("folders")


def files_of(table: Path) -> list[str]:
    with table.open(newline="", encoding="utf-8") as file:
        return [Path(row["file"]).name for row in csv.DictReader(file)]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file and its content."""
    skip = (".out", ".err")  # of the processes
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in skip)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def ok(ended: Any) -> Any:
    assert ended.code == 0, ended.err
    return ended


IN = [f"in{i}.wav" for i in range(6)]
OTHER = ["other0.wav", "other1.wav"]
SUFFIXES = ["csv", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in ("jsonl", "parquet"))]
OTHER_APPENDED = [("jsonl", "there"), ("parquet", "there"), ("csv", "gone"), ("jsonl", "gone")]
FLAGS = [("--overwrite",), *(pytest.param(flag, marks=pytest.mark.slow) for flag in ((), ("--append",)))]


# N9: other inputs


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_n9_a_table_of_other_inputs_is_refused(
    tmp_path: Path, score: Score, refused: Refused, suffix: str
) -> None:
    (tmp_path / "list").write_text("in/in0.wav\n")
    ok(score("in", "--out", f"x.{suffix}"))
    before = snapshot(tmp_path)
    for others in (("other",), ("in/in0.wav",), ("in", "other"), ("--list", "list"), ("in/*.wav",)):
        error = refused(*others, "--out", f"x.{suffix}")
        for words in ("has the scores of", "--append", "--overwrite"):
            assert words in error
    assert snapshot(tmp_path) == before


def test_n9_the_same_inputs_are_brought_up_to_date(tmp_path: Path, score: Score) -> None:
    """Spelled otherwise, from another folder; a folder that grew or shrank is the same."""
    (tmp_path / "list").write_text("other/other0.wav\n")
    ok(score("in", "--list", "list", "--out", "x.csv"))
    (tmp_path / "in/in0.wav").unlink()
    shutil.copy(tmp_path / "in/in1.wav", tmp_path / "in/in9.wav")
    (tmp_path / "list").write_text("other/other1.wav\n")
    ok(score("./other/../in/", "--list", tmp_path / "list", "--out", "x.csv"))
    assert files_of(tmp_path / "x.csv") == [*IN[1:], "in9.wav", "other1.wav"]
    (tmp_path / "link").symlink_to("in")
    ok(score("../link", "--list", "../list", "--out", "../x.csv", cwd=tmp_path / "other"))
    ok(score("in", "in", "--list", "list", "--out", "x.csv"))


def test_n9_a_file_that_rrtn_did_not_write_is_refused(tmp_path: Path, score: Score, refused: Refused) -> None:
    for content in ("file,score\n", "", "my notes"):
        (tmp_path / "x.csv").write_text(content)
        assert "is there already" in refused("in", "--out", "x.csv")
        assert (tmp_path / "x.csv").read_text() == content
    ok(score("in", "--out", "x.csv", "--overwrite"))
    assert files_of(tmp_path / "x.csv") == IN


def test_n9_a_table_without_its_folder_is_not_known_to_be_the_same(
    tmp_path: Path, score: Score, refused: Refused
) -> None:
    ok(score("in", "--out", "x.csv"))
    shutil.rmtree(tmp_path / ".x.csv.rrtn")
    refused("in", "--out", "x.csv")
    assert files_of(tmp_path / "x.csv") == IN


def test_n9_a_stopped_table_of_other_inputs_is_refused_too(
    tmp_path: Path, score: Score, refused: Refused
) -> None:
    stopped = score("in", "--out", "x.csv", RRTN_FAILPOINT="write.replace:sigkill:2")
    assert stopped.code == -9
    assert not (tmp_path / "x.csv").exists()
    refused("other", "--out", "x.csv")
    ok(score("in", "--out", "x.csv"))
    assert files_of(tmp_path / "x.csv") == IN


def piped(command: str, cwd: Path, model: Path) -> "subprocess.CompletedProcess[str]":
    from rrtn_processes import sys

    program = f"{command.replace('rrtn', f'{sys.executable} -m rrtn')} -m {model}"
    return subprocess.run(["bash", "-c", program], cwd=cwd, capture_output=True, text=True, check=False)


def test_n9_of_a_pipe_the_content_counts(tmp_path: Path, tiny_model: Path) -> None:
    ls = "ls {}/*.wav | rrtn score --list - --out x.csv"
    for folder, code in (("in", 0), ("in", 0), ("other", 2)):
        done = piped(ls.format(folder), tmp_path, tiny_model)
        assert done.returncode == code, done.stderr
    assert files_of(tmp_path / "x.csv") == IN


# N9: --overwrite and --append


def test_n9_overwrite_begins_anew(tmp_path: Path, score: Score, refused: Refused) -> None:
    ok(score("in", "--out", "x.csv"))
    ended = ok(score("other", "--out", "x.csv", "--overwrite", "--json"))
    assert ended.summary["scored_now"] == 2
    assert files_of(tmp_path / "x.csv") == OTHER
    refused("in", "--out", "x.csv")
    ok(score("other", "--out", "x.csv"))


@pytest.mark.parametrize(
    ("suffix", "folder"),
    [
        *(("csv", "there"), ("parquet", "gone")),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in OTHER_APPENDED),
    ],
)
def test_n9_append_keeps_the_rows(
    tmp_path: Path, score: Score, refused: Refused, suffix: str, folder: str
) -> None:
    """To the last digit, also where the old files and the folder beside the table are gone."""
    (tmp_path / "in/in6.wav").write_text("no audio")
    table = tmp_path / f"x.{suffix}"
    ok_codes = [
        score(*names, "--out", out).code
        for names, out in ((("in",), table), (("in", "other"), "y." + suffix))
    ]
    assert ok_codes == [3, 3]
    expected = (tmp_path / f"y.{suffix}").read_bytes()
    shutil.move(tmp_path / "in", tmp_path / "away")
    if folder == "gone":
        shutil.rmtree(tmp_path / f".x.{suffix}.rrtn")
    for now in (2, 0):
        ended = ok(score("other", "--out", table, "--append", "--json"))
        assert (ended.summary["kept_rows"], ended.summary["files"]) == (7, 2)
        assert ended.summary["scored_now"] == now
        assert ended.summary["kept_rows_checked"] == (folder == "there")
        assert ("may be of another model" in ended.err) == (folder == "gone")
        assert table.read_bytes() == expected
    refused("other", "--out", table)
    assert table.read_bytes() == expected
    if folder == "there":
        shutil.move(tmp_path / "away", tmp_path / "in")
        ended = score("other", "in", "--out", table, "--json")
        assert (ended.code, ended.summary["files"]) == (3, 9)


def test_n9_append_gives_a_file_one_row(tmp_path: Path, score: Score) -> None:
    ok(score("in", "--out", "x.csv"))
    before = (tmp_path / "x.csv").read_text().splitlines()
    shutil.copy(tmp_path / "other/other1.wav", tmp_path / "in/in3.wav")  # other sounds
    ok(score("./in/in3.wav", "in/../other/other0.wav", "--out", "x.csv", "--append"))
    after = (tmp_path / "x.csv").read_text().splitlines()
    assert files_of(tmp_path / "x.csv") == [*IN[:3], *IN[4:], "in3.wav", "other0.wav"]
    assert after[:4] == before[:4]
    assert after[6].partition(",")[2] != before[4].partition(",")[2]


@pytest.mark.slow
def test_n9_append_with_windows_and_to_nothing(tmp_path: Path, score: Score) -> None:
    windows = ("--window", 0.02)
    ok(score("in", "--out", "x.jsonl", "--append", *windows))
    ok(score("other", "--out", "x.jsonl", "--append", *windows))
    ok(score("in", "other", "--out", "y.jsonl", *windows))
    assert (tmp_path / "x.jsonl").read_bytes() == (tmp_path / "y.jsonl").read_bytes()


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "file,start,end,Awe,error,flags\n", "\0\xff"])
def test_n9_append_to_another_file_is_refused(tmp_path: Path, refused: Refused, content: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    assert "a table of rrtn score" in refused("in", "--out", "x.csv", "--append")
    assert (tmp_path / "x.csv").read_text() == content


def test_n9_append_keeps_to_the_settings_of_the_table(tmp_path: Path, score: Score, refused: Refused) -> None:
    ok(score("in", "--out", "x.csv"))
    window = refused("other", "--out", "x.csv", "--append", "--window", 0.02)
    assert "begun with window none, now 0.02" in window
    assert "exclude each other" in refused("in", "--out", "x.csv", "--append", "--overwrite")
    assert "--out" in refused("in", "--append")


# N9: never an input, never one file twice

PRECIOUS = "File_ID,Split,Awe\n[00001],Train,0.5\n"


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--submission", "in/in0.wav"), "in/in0.wav"),
        (("--submission", "in/../in/in0.wav"), "in0.wav"),
        (("--submission", "hard"), "is one of the files to read"),
        (("--submission", "soft"), "is one of the files to read"),
        (("--submission", "list"), "is list, which is read"),
        (("--submission", "tiny.onnx"), "tiny.onnx, which is read"),
        (("--submission", "x.csv"), "is also"),
        (("--submission", "./X.CSV"), "is also"),
        (("--submission", "data_info.csv"), "holds ratings"),
        (("--submission", "ratings.csv"), "holds ratings"),
    ],
)
def test_n9_no_flag_ever_touches_an_input(
    tmp_path: Path, refused: Refused, arguments: tuple[str, ...], said: str, flag: tuple[str, ...]
) -> None:
    (tmp_path / "list").write_text("other/other0.wav\n")
    (tmp_path / "hard").hardlink_to(tmp_path / "in/in0.wav")
    (tmp_path / "soft").symlink_to("in/in0.wav")
    for name in ("data_info.csv", "ratings.csv"):
        (tmp_path / name).write_text(PRECIOUS)
    before = snapshot(tmp_path)
    assert said in refused("in", "--list", "list", "--out", "x.csv", *arguments, *flag)
    after = snapshot(tmp_path)
    assert {name: content for name, content in after.items() if ".x.csv.rrtn" not in name} == before


@pytest.mark.parametrize("flag", [(), ("--overwrite",), ("--append",)])
@pytest.mark.parametrize("name", ["data_info.csv", "Ratings.csv"])
def test_n9_ratings_are_never_a_table(
    tmp_path: Path, refused: Refused, name: str, flag: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(f"\ufeff{PRECIOUS}")
    refused("in", "--out", name, *flag)
    assert (tmp_path / name).read_text() == f"\ufeff{PRECIOUS}"


def test_n9_a_list_or_an_input_is_never_a_table(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "list.csv").write_text("in/in0.wav\n")
    assert "which is read" in refused("--list", "list.csv", "--out", "list.csv", "--overwrite")
    shutil.copy(tmp_path / "in/in0.wav", tmp_path / "odd.csv")
    assert "files to read" in refused("odd.csv", "--out", "odd.csv", "--overwrite")
    assert (tmp_path / "odd.csv").read_bytes() == (tmp_path / "in/in0.wav").read_bytes()


# N9: submissions


def test_n9_a_submission_of_other_files_is_refused(tmp_path: Path, score: Score, refused: Refused) -> None:
    ok(score("in", "--submission", "s.csv"))
    mine = (tmp_path / "s.csv").read_bytes()
    assert "no submission of these files" in refused("other", "--submission", "s.csv")
    assert (tmp_path / "s.csv").read_bytes() == mine
    ok(score("in", "--submission", "s.csv"))
    ok(score("in", "other", "--submission", "s.csv"))  # no row is lost
    ok(score("other", "--submission", "s.csv", "--overwrite"))
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 3


def test_n9_a_submission_follows_its_table(tmp_path: Path, score: Score, refused: Refused) -> None:
    ok(score("in", "--out", "x.csv", "--submission", "s.csv"))
    (tmp_path / "in/in0.wav").unlink()
    ok(score("in", "--out", "x.csv", "--submission", "s.csv"))
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 6
    ok(score("other", "--out", "y.csv"))
    refused("other", "--out", "y.csv", "--submission", "s.csv")
    ok(score("other", "--out", "x.csv", "--submission", "s.csv", "--append"))
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 8
    (tmp_path / "s.csv").write_text("my notes")
    refused("in", "other", "--out", "x.csv", "--submission", "s.csv")
    assert (tmp_path / "s.csv").read_text() == "my notes"


# N27


@pytest.mark.parametrize(
    "arguments",
    [
        ("--submission", "nodir/s.csv"),
        ("--out", "x.csv", "--submission", "nodir/s.csv"),
        ("--out", "nodir/x.csv"),
        ("--submission", "in"),
        ("--submission", "in/in0.wav/s.csv"),
        ("--submission", "pipe"),
    ],
)
def test_n27_a_place_that_takes_no_file_is_refused_before_the_work(
    tmp_path: Path, refused: Refused, arguments: tuple[str, ...], watch: Callable[[Path], Any]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    watched = watch(tmp_path / "in/in0.wav")
    assert arguments[-1] in refused("in", *arguments)
    assert watched.opened() == 0
    assert not (tmp_path / ".x.csv.rrtn").exists()


# N10


@pytest.mark.parametrize("flag", [(), ("--overwrite",), ("--append",)])
@pytest.mark.parametrize("way", ["a link", "a link to nothing", "a folder of someone's", "a file", "a pipe"])
def test_n10_the_folder_beside_the_table_is_never_followed_or_emptied(
    tmp_path: Path, refused: Refused, way: str, flag: tuple[str, ...]
) -> None:
    beside, precious = tmp_path / ".s.csv.rrtn", tmp_path / "precious"
    (precious / "sub").mkdir(parents=True)
    for name in ("thesis.txt", "sub/a.part", "b.part"):
        (precious / name).write_text("precious")
    match way:
        case "a link":
            beside.symlink_to("precious")
        case "a link to nothing":
            beside.symlink_to("nothing")
        case "a folder of someone's":
            shutil.copytree(precious, beside)
        case "a file":
            beside.write_text("precious")
        case "a pipe":
            os.mkfifo(beside)
    before = snapshot(tmp_path)
    assert ".s.csv.rrtn" in refused("in", "--out", "s.csv", *flag)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "nothing").exists()


def test_n10_what_lies_in_that_folder_is_ours_or_in_the_way(
    tmp_path: Path, score: Score, refused: Refused
) -> None:
    ok(score("in", "--out", "s.csv"))
    (tmp_path / "precious").write_text("precious")
    for name in ("job.json", "lock", "0123-45.part", "x.tmp"):
        place = tmp_path / ".s.csv.rrtn" / name
        kept = place.read_bytes() if place.exists() else None
        for put in (lambda path: path.symlink_to(tmp_path / "precious"), Path.mkdir, os.mkfifo):
            place.unlink(missing_ok=True)
            put(place)
            for flag in ((), ("--overwrite",)):
                assert name in refused("in", "--out", "s.csv", *flag)
            place.rmdir() if place.is_dir() else place.unlink()
        if kept is not None:
            place.write_bytes(kept)
    assert (tmp_path / "precious").read_text() == "precious"
    ok(score("in", "--out", "s.csv"))


def test_n10_a_file_of_someones_in_that_folder_stays(tmp_path: Path, score: Score) -> None:
    ok(score("in", "--out", "s.csv"))
    (tmp_path / ".s.csv.rrtn/.DS_Store").write_text("precious")
    ok(score("in", "--out", "s.csv"))
    ok(score("in", "--out", "s.csv", "--overwrite"))
    assert (tmp_path / ".s.csv.rrtn/.DS_Store").read_text() == "precious"
