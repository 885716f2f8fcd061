"""The main job on whatever system this is, by the installed package: `python tests/platforms/main_job.py`.

Trains, is killed and resumes, exports, scores, is killed and resumes, packs. The tables must agree with each
other byte for byte, and the scores of a model that is made here number by number with those of Linux on
x86-64 (main_job.csv) to the gate's 1e-4.

    python tests/platforms/main_job.py --record    writes main_job.csv
"""

import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime import FrontendSpec
from rrtn.runtime.bundle import metadata_of
from rrtn.runtime.bundle.onnx_file import sealed

HERE = Path(__file__).parent
BURSTS = HERE.parent / "fixtures/bursts"
EXPECTED = HERE / "main_job.csv"
LABELS = ("Awe", "Fear", "Joy")
TOLERANCE = 1e-4  # the gate's
TRAIN = ("train", "--data", "corpus", "--epochs", "2", "--batch-size", "8", "--device", "cpu", "--out", "run")
KILLED = 300.0  # s after which a command that is to be killed should have done something


def rrtn(*arguments: object) -> None:
    print("rrtn", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "rrtn", *map(str, arguments)], check=True)


def killed(*arguments: object, once: str) -> None:
    """A command that is killed as soon as something matches the pattern."""
    print("rrtn", *arguments, "- to be killed", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "rrtn", *map(str, arguments)])
    latest = time.monotonic() + KILLED
    while process.poll() is None and not [*Path().glob(once)] and time.monotonic() < latest:
        time.sleep(0.02)
    process.kill()
    process.wait()


def model_of_means(path: Path) -> Path:
    """scores = sigmoid(mean over frames of log_mel @ W): as tests/conftest.py makes it."""
    spec = FrontendSpec()
    weights = np.random.default_rng(0).normal(0, 0.005, (spec.n_mels, len(LABELS))).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["log_mel", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
    ]
    shape = ["batch", 1, spec.frames, spec.n_mels]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata_of(LABELS, spec, "logmel", "fp32"))
    onnx.checker.check_model(model)
    path.write_bytes(sealed(model.SerializeToString()))
    return path


def rows(table: Path) -> list[dict[str, str]]:
    """Each file by its name alone: the folder is another one on each system."""
    with table.open(encoding="utf-8", newline="") as file:
        return [{**row, "file": row["file"].rpartition("/")[2]} for row in csv.DictReader(file)]


def assert_close(found: list[dict[str, str]], expected: list[dict[str, str]]) -> float:
    worst = 0.0
    for row, other in zip(found, expected, strict=True):
        for name in row:
            if name in LABELS:
                worst = max(worst, math.fabs(float(row[name]) - float(other[name])))
            else:
                assert row[name] == other[name], (row["file"], name, row[name], other[name])
    assert worst <= TOLERANCE, worst
    return worst


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["RRTN_CACHE"] = str(Path(folder, "cache"))
        model = model_of_means(Path("means.onnx"))
        rrtn("score", BURSTS, "-m", model, "--out", "means.csv")
        if "--record" in sys.argv:
            EXPECTED.write_bytes(Path("means.csv").read_bytes().replace(os.fsencode(f"{BURSTS}/"), b""))
            os.chdir(HERE)
            return
        worst = assert_close(rows(Path("means.csv")), rows(EXPECTED))
        print(f"{len(rows(EXPECTED))} files, worst difference to Linux {worst:.1e}")
        rrtn("data", "synth", "corpus", "--clips", 48, "--speakers", 9, "--seed", 5)
        killed(*TRAIN, once="run/checkpoints/last/checkpoint.json")
        rrtn("train", "--resume", "--out", "run")
        rrtn("export", "run", "--no-cpu-variant")
        score = ("score", "corpus", BURSTS, "-m", "run/export", "--out")
        rrtn(*score, "whole.csv")
        killed(*score, "killed.csv", once=".killed.csv.rrtn/*.part")
        rrtn(*score, "killed.csv")
        assert Path("killed.csv").read_bytes() == Path("whole.csv").read_bytes()
        rrtn("pack", "corpus", BURSTS, "--out", "packs")
        rrtn("score", "packs", "-m", "run/export", "--out", "packed.csv")
        assert rows(Path("packed.csv")) == rows(Path("whole.csv"))
        os.chdir(HERE)
    print("the main job gives the same tables, killed or not, packed or not")


if __name__ == "__main__":
    main()
