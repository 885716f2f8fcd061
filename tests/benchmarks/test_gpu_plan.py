"""The plan for minutes with a GPU: its order, its budget, what it resumes, and the wheels that it needs."""

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from rrtn.train.config import Config

from .test_gpu_suite import module

# In the place of gpu_suite.py: notes its call, and ends as SECTIONS says.
SUITE = """
import json, os, pathlib, signal, sys, time
section = sys.argv[sys.argv.index("--section") + 1]
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
with (pathlib.Path(__file__).parent / "calls").open("a") as file:
    file.write(" ".join([section, *sys.argv[sys.argv.index("--encoders") + 1:]][:3]) + "\\n"
               if "--encoders" in sys.argv else section + "\\n")
how = json.loads((pathlib.Path(__file__).parent / "how.json").read_text()).get(section, 0)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "hangs":
    time.sleep(600)
sys.exit(how)
"""
ORDER = ["probe", "correct", "step", "paper-run", "ranks", "infer", "folder", "step", "table2"]


class Rehearsal:
    """gpu_plan.py over a suite that does nothing."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.plan = folder, module("gpu_plan", monkeypatch)
        (folder / "suite.py").write_text(SUITE)
        monkeypatch.setattr(self.plan, "SUITE", folder / "suite.py")
        self.sections()

    def sections(self, **how: object) -> None:
        """How each section ends; 0 where it is not named."""
        (self.folder / "how.json").write_text(json.dumps(how))

    def run(self, **options: Any) -> Any:
        options = {"minutes": 29.0, "call_minutes": float("inf"), "smoke": False, "packages": None} | options
        place = {"out": self.folder / "out", "scratch": self.folder / "scratch"}
        return self.plan.carried_out(argparse.Namespace(**place, **options))

    def calls(self) -> list[str]:
        """Sections that were called, in order."""
        file = self.folder / "calls"
        return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    return Rehearsal(tmp_path, monkeypatch)


def test_sections_run_in_their_order_of_worth_and_once(rehearsal: Rehearsal) -> None:
    progress = rehearsal.run()
    assert rehearsal.calls() == ORDER
    assert set(progress.done.values()) == {0}
    rehearsal.run()
    assert rehearsal.calls() == ORDER


@pytest.mark.parametrize("lost", ["out", "scratch"])
def test_one_of_the_two_folders_may_be_lost_between_calls(rehearsal: Rehearsal, lost: str) -> None:
    rehearsal.run()
    shutil.rmtree(rehearsal.folder / lost)
    rehearsal.run()
    assert rehearsal.calls() == ORDER


def test_a_section_that_fails_or_is_killed_ends_no_other(rehearsal: Rehearsal) -> None:
    rehearsal.sections(probe="killed", step=1)
    progress = rehearsal.run()
    assert rehearsal.calls() == ORDER
    assert progress.done["step"] == 1
    assert "probe" not in progress.done


def test_what_was_killed_is_tried_once_more(rehearsal: Rehearsal) -> None:
    rehearsal.sections(probe="killed")
    for _ in range(3):
        progress = rehearsal.run()
    assert rehearsal.calls() == [*ORDER, "probe"]
    assert progress.tries["probe"] == 2


def test_a_section_that_hangs_is_killed(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsal.sections(probe="hangs")
    monkeypatch.setattr(rehearsal.plan, "GRACE", 0.0)
    monkeypatch.setattr(
        rehearsal.plan, "PLAN", [part._replace(minutes=0.05, least=0.0) for part in rehearsal.plan.PLAN[:2]]
    )
    progress = rehearsal.run()
    assert rehearsal.calls()[0] == "probe"
    assert "probe" not in progress.done


def test_a_short_call_begins_only_what_fits_and_the_next_goes_on(rehearsal: Rehearsal) -> None:
    """5 minutes, less those that a section may take to end: the paper's run needs 5."""
    rehearsal.run(call_minutes=5.0)
    assert "paper-run" not in rehearsal.calls()
    assert rehearsal.calls()[:3] == ["probe", "correct", "step"]
    rehearsal.run()
    assert sorted(rehearsal.calls()) == sorted(ORDER)


def test_the_minutes_are_of_all_calls_together(rehearsal: Rehearsal) -> None:
    rehearsal.plan.Progress(spent=28.9 * 60).write([rehearsal.folder / "out"])
    rehearsal.run()
    assert rehearsal.calls() == []


def wheel(folder: Path, name: str) -> None:
    """A wheel with one module."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"NAME = {name!r}\n" + "# " + "x" * 900 + "\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_wheels_that_come_in_parts_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_pack = module("gpu_pack", monkeypatch)
    wheels, parts, scratch, to = (tmp_path / name for name in ("wheels", "parts", "scratch", "to"))
    wheels.mkdir()
    for name in ("first_brought", "second_brought"):
        wheel(wheels, name)
    gpu_pack.make(wheels, parts, part_bytes=4096)
    made = sorted(path.name for path in parts.glob("part-*"))
    assert len(made) > 2
    for name in made[:-1]:  # all but the last, with the list
        once = tmp_path / f"call-{name}"
        once.mkdir()
        for file in (name, gpu_pack.LIST):
            (once / file).write_bytes((parts / file).read_bytes())
        missing = gpu_pack.join(once, to, scratch)
    assert missing == [made[-1]]
    assert not to.exists()
    assert gpu_pack.join(parts, to, scratch) == []
    code = "import first_brought, second_brought; print(first_brought.NAME, second_brought.NAME)"
    said = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(to)}, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["first_brought", "second_brought"]
    (scratch / made[0]).write_bytes(b"x")
    (parts / made[0]).write_bytes(b"x")
    with pytest.raises(ValueError, match=made[0]):
        gpu_pack.join(parts, to, scratch)


def test_settings_that_the_stand_in_writes_read_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parents[2] / "benchmarks/stand_ins/tomli_w.py"
    spec: dict[str, Any] = {}
    exec(path.read_text(), spec)
    document = Config().to_dict()
    assert tomllib.loads(spec["dumps"](document, indent=0)) == document
