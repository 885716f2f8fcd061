"""A bundle that was made here scores the same on older processors: ONNX Runtime sees no AVX-512, or no AMX.

Its int8 code without VNNI adds products in 16 bits, where full weights of 8 bits saturate.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from rrtn.export.int8 import int8_for_cpu
from rrtn.export.winograd.int8_variant import int8_with_plan
from rrtn.export.winograd.rewriting import convolutions_of, ways_of, with_plan
from rrtn.runtime.arrays import Float32
from rrtn.runtime.bundle import Bundle
from rrtn.runtime.frontend import clip_log_mel

TOOL = Path(__file__).parents[2] / "benchmarks/older_cpu.py"
FLOAT, INT8 = 1e-6, 1e-4  # in score: sums in another order; and a rounding that falls the other way
SCORES = """
import sys
from pathlib import Path
import numpy as np
from rrtn.runtime.backends.ort_session import session_from_bytes
from rrtn.runtime.system.cpus import has_vnni, vector_extension
log_mels, *files = map(Path, sys.argv[1:])
for file in files:
    session = session_from_bytes(file.read_bytes(), file.name, "cpu", threads=1)
    (scores,) = session.run(None, {session.get_inputs()[0].name: np.load(log_mels)})
    np.save(file.with_suffix(".npy"), scores)
print(vector_extension(), has_vnni())
"""


@pytest.fixture(scope="module")
def older_cpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("older_cpu", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if lack := module.missing():
        pytest.skip(f"this machine lacks {lack}")
    return module


@pytest.fixture(scope="module")
def log_mels(random_bundle: Bundle) -> Float32:
    rng = np.random.default_rng(0)
    levels = np.repeat((0.01, 0.1, 1.0), 4)
    noises = [np.tanh(np.cumsum(rng.normal(0, 0.01, 39_840)) * level) for level in levels]
    return np.array([clip_log_mel(noise.astype(np.float32), random_bundle.spec)[None] for noise in noises])


@pytest.fixture(scope="module")
def files(random_bundle: Bundle, log_mels: Float32, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """fp32, `cpu`, int8 and `cpu-int8` of a narrow CNN."""
    folder = tmp_path_factory.mktemp("files")
    fp32 = random_bundle.read(random_bundle.variants[0])
    whole = onnx.load_from_string(fp32)
    plan = {layer.name: ways_of(layer)[0] for layer in convolutions_of(whole) if ways_of(layer)}
    later = dict(list(plan.items())[1:])  # at least one convolution stays direct
    assert later
    contents = {
        "fp32": fp32,
        "cpu": with_plan(whole, plan).SerializeToString(),
        "int8": int8_for_cpu(fp32, log_mels),
        "cpu-int8": int8_with_plan(whole, later, log_mels).SerializeToString(),
    }
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    np.save(folder / "log_mels.npy", log_mels)
    return [folder / f"{name}.onnx" for name in contents]


def scores_of(files: list[Path], *before: str) -> tuple[str, dict[str, Float32]]:
    """-> what the process printed, and the scores of each file."""
    command = [*before, sys.executable, "-c", SCORES, files[0].with_name("log_mels.npy"), *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), {file.stem: np.load(file.with_suffix(".npy")) for file in files}


@pytest.mark.parametrize(("kind", "sees"), [("avx2", "avx2 False"), ("vnni", "avx512f True")])
def test_scores_on_an_older_processor_are_those_of_this_one(
    kind: str, sees: str, older_cpu: ModuleType, files: list[Path]
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


def test_the_int8_code_there_is_another(older_cpu: ModuleType, files: list[Path], log_mels: Float32) -> None:
    """Weights of 8 bits saturate where AVX-512 VNNI is hidden: or the test above would compare nothing."""
    rng = np.random.default_rng(0)
    full = rng.choice(np.array([-127, 127], np.int8), (64, 64))
    ones = np.full((4, 64), 255, np.uint8)
    node = onnx.helper.make_node("MatMulInteger", ["x", "full"], ["y"])
    graph = onnx.helper.make_graph(
        [node],
        "full",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ones.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, ones.shape)],
        [onnx.numpy_helper.from_array(full, "full")],
    )
    folder = files[0].parent / "full"
    folder.mkdir()
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "full.onnx")
    np.save(folder / "log_mels.npy", ones)
    exact = ones.astype(np.int32) @ full.astype(np.int32)
    _, found = scores_of([folder / "full.onnx"], sys.executable, str(TOOL), "avx2")
    assert np.abs(found["full"] - exact).max() > 100
