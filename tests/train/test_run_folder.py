"""Which folders are runs, which is the newest, and that nobody else writes down where a run's files are."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rrtn.train.run_folder import RunFolder, free_name, newest_run, runs_in

ROOT = Path(__file__).parents[2]
ROOMS = ("cli.py", "commands", "export", "train", "runtime")
# Whole strings, or a path that begins or ends with one of them.
OF_A_RUN = re.compile(
    r"(^|/)(config\.toml|history\.jsonl|checkpoints|predictions|report\.html|run\.lock"
    r"|parity-worst\.npz)(/|$)"
    r"|(^|/)checkpoints/"
    r"|^export/bundle\.json$"
)


def make_run(folder: Path, name: str, *, age: int = 0) -> Path:
    run = folder / name
    run.mkdir()
    (run / "config.toml").touch()
    os.utime(run / "config.toml", ns=(0, 10**18 - age))
    return run


def test_the_newest_run_is_the_one_whose_file_was_written_last(tmp_path: Path) -> None:
    for age, name in enumerate(["c", "a", "b"]):
        make_run(tmp_path, name, age=age)
    (tmp_path / "newer, but no run").mkdir()
    assert newest_run(runs=tmp_path) == tmp_path / "c"
    assert newest_run(having=lambda run: run.export / "bundle.json", runs=tmp_path) is None
    (tmp_path / "b/export").mkdir()
    (tmp_path / "b/export/bundle.json").touch()
    assert newest_run(having=lambda run: run.export / "bundle.json", runs=tmp_path) == tmp_path / "b"
    assert newest_run(runs=tmp_path / "gone") is None


def test_runs_in_a_folder_are_those_with_settings_by_name(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, name) for name in ("seed1", "seed0")]
    (tmp_path / "notes").mkdir()
    (tmp_path / "config.toml.txt").touch()
    assert runs_in(tmp_path) == sorted(runs)
    assert RunFolder(runs[0]).is_begun()
    assert not RunFolder(tmp_path).is_begun()
    assert runs_in(tmp_path / "gone") == []


def test_its_paths_need_no_torch() -> None:
    """`rrtn score` finds the newest bundle in an installation without the extra `train`."""
    code = "import sys; sys.modules['torch'] = None; import rrtn.train.run_folder"
    subprocess.run([sys.executable, "-c", code], check=True)


def strings_of(path: Path) -> Iterator[str]:
    """Every string of a module that is no docstring and no part of a message."""
    tree = ast.parse(path.read_text())
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def test_no_other_module_knows_where_a_runs_files_are() -> None:
    modules = [
        path for room in ROOMS for path in [ROOT / room, *(ROOT / room).rglob("*.py")] if path.is_file()
    ]
    found = {
        f"{path.relative_to(ROOT)}: {text}"
        for path in modules
        for text in strings_of(path)
        if OF_A_RUN.search(text) and path != ROOT / "train/run_folder.py"
    }
    assert found == set()


@pytest.mark.parametrize("text", ["config.toml", "*/config.toml", "checkpoints/best", "export/bundle.json"])
def test_the_check_would_see_a_path(text: str) -> None:
    assert OF_A_RUN.search(text)


def test_two_runs_of_one_second_have_two_names(tmp_path: Path) -> None:
    for expected in ("now", "now-2", "now-3"):
        assert free_name(tmp_path, "now") == expected
        (tmp_path / expected).mkdir()
