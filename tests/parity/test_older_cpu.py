"""A bundle that was made here scores the same on older processors: ONNX Runtime sees no AVX-512, or no AMX.

Its int8 code without VNNI adds products in 16 bits, where full weights of 8 bits saturate.
"""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from rrtn.export.int8 import int8_for_cpu
from rrtn.export.winograd.int8_variant import int8_with_plan
from rrtn.export.winograd.rewriting import WinogradPlan, with_plan
from rrtn.runtime.arrays import Float32
from rrtn.runtime.bundle import Bundle
from rrtn.runtime.frontend import decibels_behind

TOOL = Path(__file__).parents[2] / "benchmarks/older_cpu.py"
FLOAT, INT8 = 1e-6, 1e-4  # in score: sums in another order; and a rounding that falls the other way
SCORES = """
import sys
from pathlib import Path
import numpy as np
from rrtn.runtime.backends.ort_session import session_from_bytes
from rrtn.runtime.system.cpus import has_vnni, vector_extension
inputs, *files = map(Path, sys.argv[1:])
log_mels = np.load(inputs)
for file in files:
    session = session_from_bytes(file.read_bytes(), file.name, "cpu", threads=1)
    (scores,) = session.run(None, {"log_mel": log_mels})
    np.save(file.with_suffix(".npy"), scores)
    if file.stem == "cpu":
        whole = np.load(inputs.with_name("silent_behind_70.npy"))
        first, second = (session.run(None, {"log_mel": x})[0] for x in (whole[:, :, :70], whole))
        assert (first == second).all(), "70 frames do not score as the clip with silence behind them"
print(vector_extension(), has_vnni())
"""


@pytest.fixture
def older_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips where a processor cannot be shown as an older one."""
    monkeypatch.syspath_prepend(str(TOOL.parent))
    if lack := importlib.import_module("older_cpu").missing():
        pytest.skip(f"this machine lacks {lack}")


@pytest.fixture(scope="module")
def files(
    random_bundle: Bundle,
    noisy_log_mels: Float32,
    first_ways: WinogradPlan,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    """fp32, `cpu`, int8 and `cpu-int8` of a narrow CNN; one convolution of the last one is direct."""
    folder = tmp_path_factory.mktemp("files")
    fp32 = random_bundle.read(random_bundle.variants[0])
    whole = onnx.load_from_string(fp32)
    silence = decibels_behind(random_bundle.spec)
    later = dict(list(first_ways.items())[1:])
    contents = {
        "fp32": fp32,
        "cpu": with_plan(whole, first_ways, silence=silence).SerializeToString(),
        "int8": int8_for_cpu(fp32, noisy_log_mels),
        "cpu-int8": int8_with_plan(whole, later, noisy_log_mels).SerializeToString(),
    }
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    np.save(folder / "inputs.npy", noisy_log_mels)
    silent = noisy_log_mels.copy()
    silent[:, :, 70:] = silence
    np.save(folder / "silent_behind_70.npy", silent)
    return [folder / f"{name}.onnx" for name in contents]


def scores_of(files: list[Path], *before: str) -> tuple[str, dict[str, Float32]]:
    """-> what the process printed, and the scores of each file."""
    command = [*before, sys.executable, "-c", SCORES, files[0].with_name("inputs.npy"), *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), {file.stem: np.load(file.with_suffix(".npy")) for file in files}


@pytest.mark.parametrize(("kind", "sees"), [("avx2", "avx2 False"), ("vnni", "avx512f True")])
def test_scores_on_an_older_processor_are_those_of_this_one(
    kind: str, sees: str, older_cpu: None, files: list[Path]
) -> None:
    here, expected = scores_of(files)
    if kind == "vnni" and here != sees:
        pytest.skip(f"this processor has {here} itself")
    said, found = scores_of(files, sys.executable, str(TOOL), kind)
    assert said == sees
    for name, scores in expected.items():
        assert np.ptp(scores, axis=0).max() > 0.01, name  # clips differ
        difference = np.abs(found[name] - scores).max()
        assert difference <= (INT8 if "int8" in name else FLOAT), (name, difference)


def test_the_int8_code_there_is_another(older_cpu: None, tmp_path: Path) -> None:
    """Weights of 8 bits saturate where AVX-512 VNNI is hidden: or the test above would compare nothing."""
    rng = np.random.default_rng(0)
    full = rng.choice(np.array([-127, 127], np.int8), (64, 64))
    ones = np.full((4, 64), 255, np.uint8)
    node = onnx.helper.make_node("MatMulInteger", ["log_mel", "full"], ["y"])
    graph = onnx.helper.make_graph(
        [node],
        "full",
        [onnx.helper.make_tensor_value_info("log_mel", onnx.TensorProto.UINT8, ones.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, ones.shape)],
        [onnx.numpy_helper.from_array(full, "full")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "full.onnx")
    np.save(tmp_path / "inputs.npy", ones)
    exact = ones.astype(np.int32) @ full.astype(np.int32)
    _, found = scores_of([tmp_path / "full.onnx"], sys.executable, str(TOOL), "avx2")
    assert np.abs(found["full"] - exact).max() > 100
