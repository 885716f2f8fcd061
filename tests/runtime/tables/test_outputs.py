"""Files that a command is to write take the place of nothing that it did not write."""

import os
from pathlib import Path

import pytest
from rrtn.cli import app
from rrtn.runtime.bench_report import CHART_MARK
from rrtn.runtime.errors import ConfigError, RrtnError, StoppedError
from rrtn.runtime.tables.outputs import check_new, check_outputs, identities

TEMPLATE = Path(__file__).parents[3] / "train/evidence/templates/report.html.j2"


def test_n9_outputs_are_apart_from_each_other_and_from_inputs(tmp_path: Path) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    check_outputs({one: "--out", other: "--submission"}, [tmp_path / "gone", tmp_path])
    one.touch()
    other.hardlink_to(one)
    with pytest.raises(ConfigError, match=r"--submission \| is also --out"):
        check_outputs({one: "--out", other: "--submission"})
    with pytest.raises(ConfigError, match=r"--submission \| is also --out"):
        check_outputs({one: "--out", tmp_path / "A.CSV": "--submission"})
    with pytest.raises(ConfigError, match=r"--out \| is .*b.csv, which is read"):
        check_outputs({one: "--out"}, [other])
    assert identities({one: "--out", tmp_path / "gone": "x"}) == {
        (one.stat().st_dev, one.stat().st_ino): "--out"
    }


@pytest.mark.parametrize(
    "header",
    ["File_ID,Split,Awe", "file_id;split;awe", '"Split","File_ID"', "\ufeffFile_ID,Subject_ID,Split\r"],
)
def test_n9_ratings_are_known_by_their_columns(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n1,Train,0.5\n")
    with pytest.raises(ConfigError, match="holds ratings"):
        check_outputs({tmp_path / "a.csv": "--out"})


@pytest.mark.parametrize("header", ["File_ID,Awe", "file,start,end,Awe,error,flags", "", "Split"])
def test_n9_other_tables_are_no_ratings(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n")
    check_outputs({tmp_path / "a.csv": "--out"})


def test_n9_a_file_without_the_mark_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    check_new(page, "--out", mark=b"ours")
    page.write_text("<html>ours</html>")
    check_new(page, "--out", mark=b"ours")
    check_new(page, "--out", overwrite=True)
    for mark in (b"theirs", b""):
        with pytest.raises(ConfigError, match="is there already"):
            check_new(page, "--out", mark=mark)


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "RUN", "--submission"),
        ("report", "RUN", "--out"),
        ("bench", "BUNDLE", "--chart"),
    ],
)
def test_n9_n27_other_commands_refuse_before_the_work(
    tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run and the bundle are not even looked for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("my notes")
    (tmp_path / "data_info.csv").write_text("File_ID,Split\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    name = "a.svg" if arguments[-1] == "--chart" else "a.csv"
    (tmp_path / name).write_text("my notes")
    (tmp_path / "pipe.svg").symlink_to("pipe")
    (tmp_path / "folder.svg").mkdir()
    others = ("pipe.svg", "folder.svg") if name == "a.svg" else ("data_info.csv", "pipe", "folder")
    for place in (name, *others, f"nodir/{name}", f"{name}/b{name[1:]}"):
        with pytest.raises(RrtnError) as caught:
            app([*arguments, place], standalone_mode=False)
        assert (caught.value.exit_code, caught.value.subject) == (2, f"{arguments[-1]} {place}")
    assert (tmp_path / name).read_text() == "my notes"
    with pytest.raises(StoppedError):
        app([*arguments, f"/proc/{name}"], standalone_mode=False)


def test_what_is_ours_has_the_mark() -> None:
    assert 'content="rrtn report"' in TEMPLATE.read_text()[:400]
    assert CHART_MARK.startswith(b"<desc>")
