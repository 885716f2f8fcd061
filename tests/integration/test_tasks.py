"""Each task of the challenges, the whole way: synth, check, train, export, score, evaluate, submission."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime import load_bundle
from rrtn.train.method.tasks import TASK_NAMES, task_of_name
from rrtn_processes import Ended, Server

SETTINGS = "[projector]\nunits = 16\n[frontend]\nframes = 64\n[optim]\nepochs = 1\nbatch_size = 16\n"
QUICK = "avb-two"  # the others take as long, and go under make soak
Rrtn = Callable[..., Ended]


@pytest.fixture
def rrtn(server: Server, tmp_path: Path) -> Rrtn:
    def run(*arguments: object) -> Ended:
        ended = server.start(*arguments, cwd=tmp_path, RRTN_CACHE=tmp_path / "cache").wait()
        assert ended.code == 0, ended.err
        return ended

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in TASK_NAMES[1:]]
)
def test_a_task_goes_the_whole_way(name: str, rrtn: Rrtn, tmp_path: Path) -> None:
    task = task_of_name(name)
    assert task is not None
    (tmp_path / "small.toml").write_text(SETTINGS)
    clips, speakers = (30, 15) if name == QUICK else (80, 40)
    size = ("--clips", clips, "--speakers", speakers, "--seed", 4, "--workers", 1)
    rrtn("data", "synth", "corpus", *size, "--task", name)
    checked = json.loads(rrtn("data", "check", "corpus", "--json").out)
    assert checked["targets"] == [*task.targets]
    assert [*checked.get("classes", {})] == [*task.class_targets]
    assert checked["verdict"].startswith("trains")
    rrtn("train", "--data", "corpus", "--config", "small.toml", "--device", "cpu", "--out", "run")
    rrtn("export", "run", "--fp16", "--int8", "--no-cpu-variant" if name == QUICK else "--trt")
    bundle = load_bundle(tmp_path / "run/export")
    assert {variant.precision for variant in bundle.variants} >= {"fp32", "fp16", "int8"}
    audio = tmp_path / ("corpus/audio/wav" if name.startswith("avb-") else "corpus/wav")
    rrtn("score", audio, "-m", "run/export", "--out", "scores.csv", "--backend", "cpu")
    scored = rows(tmp_path / "scores.csv")
    assert len(scored) == clips
    assert all(np.isfinite(float(row[label])) for row in scored for label in bundle.labels)
    found = json.loads(rrtn("evaluate", "run", "--submission", "test.csv", "--json").out)
    assert [*found["per_target"]] == [*task.targets]
    assert [*found.get("classes", {})] == [*task.class_targets]
    assert found.get("metric", "ccc") == task.metric
    submitted = rows(tmp_path / "test.csv")
    assert [*submitted[0]] == ["File_ID", *task.submitted]
    hidden = [row for row in rows(next(tmp_path.glob("corpus/**/*.csv"))) if row["Split"] == "Test"]
    assert [row["File_ID"] for row in submitted] == [row["File_ID"] for row in hidden]
