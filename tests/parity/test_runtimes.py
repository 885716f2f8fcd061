"""Every ONNX file of a bundle in other runtimes: it scores as in ONNX Runtime, or docs/hosts.md says why not.

benchmarks/load_everywhere.py makes the table there.
"""

import importlib.util
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import onnx
import pytest
from rrtn.export.int8 import int8_for_cpu
from rrtn.export.samples_graph import samples_from_log_mel, waveform_from_log_mel
from rrtn.export.winograd.int8_variant import int8_with_plan
from rrtn.export.winograd.rewriting import WinogradPlan, with_plan
from rrtn.runtime.arrays import Float32
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.frontend import decibels_behind

BENCHMARK = Path(__file__).parents[2] / "benchmarks/load_everywhere.py"
SAME_MODEL = 1e-4  # in score: float32 in another order
INT8 = 0.05  # int8 kernels round in their own ways
FLOAT = ("fp32", "cpu", "waveform", "samples")
INT8S = ("int8", "waveform-int8", "samples-int8")  # and cpu-int8, which OpenVINO alone loads


@pytest.fixture(scope="module")
def runtimes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("load_everywhere", BENCHMARK)
    assert spec and spec.loader
    module = sys.modules["load_everywhere"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(
    random_bundle: Bundle,
    noisy_log_mels: Float32,
    first_ways: WinogradPlan,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """Every variant that `rrtn export --samples --int8` makes, of a narrow CNN."""
    folder = tmp_path_factory.mktemp("runtimes")
    fp32, waveform = (random_bundle.read(variant) for variant in random_bundle.variants)
    int8 = int8_for_cpu(fp32, noisy_log_mels)
    whole, silence = onnx.load_from_string(fp32), decibels_behind(random_bundle.spec)
    later = dict(list(first_ways.items())[1:])
    contents = {
        "fp32": fp32,
        "cpu": with_plan(whole, first_ways, silence=silence).SerializeToString(),
        "cpu-int8": int8_with_plan(whole, later, noisy_log_mels, silence).SerializeToString(),
        "waveform": waveform,
        "int8": int8,
        "waveform-int8": waveform_from_log_mel(int8, random_bundle.spec),
        "samples": samples_from_log_mel(fp32, random_bundle.spec),
        "samples-int8": samples_from_log_mel(int8, random_bundle.spec),
    }
    return replace(
        random_bundle,
        path=folder,
        variants=tuple(_written(folder, name, content) for name, content in contents.items()),
    )


def _written(folder: Path, name: str, content: bytes) -> Variant:
    (folder / f"{name}.onnx").write_bytes(content)
    return Variant(
        name=name,
        file=f"{name}.onnx",
        kind="onnx",
        input="samples" if "samples" in name else "waveform" if "waveform" in name else "logmel",
        precision="int8" if "int8" in name else "fp32",
        sha256=sha256(content).hexdigest(),
        size=len(content),
    )


@pytest.mark.parametrize(
    ("runtime", "names"),
    [
        ("openvino", (*FLOAT, *INT8S, "cpu-int8")),
        ("tract", ("fp32", "waveform", "samples", *INT8S)),  # the frames of cpu are free
        ("mnn", FLOAT),
        ("ncnn", ("fp32", "waveform")),
    ],
)
def test_scores_are_those_of_onnx_runtime(
    runtime: str, names: tuple[str, ...], runtimes: ModuleType, bundle: Bundle
) -> None:
    if lacks := runtimes.missing(runtime):
        pytest.skip(f"not installed: {', '.join(lacks)}")
    for name in names:
        variant = bundle.variant(name)
        found = runtimes.cell(bundle, variant, runtime)
        assert found.get("difference", 1.0) <= (INT8 if "int8" in name else SAME_MODEL), (name, found)
