"""int8 graphs of small networks with the operators of ours: residuals and pools, with and without the
frontend inside.

B batch, n clips, K targets.
"""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from rrtn.export.engine import engine_from_onnx
from rrtn.export.graph import onnx_from_network
from rrtn.export.int8 import graph_outputs, int8_for_cpu, int8_for_tensorrt
from rrtn.export.samples_graph import waveform_from_log_mel
from rrtn.export.winograd.rewriting import with_plan
from rrtn.runtime import FrontendSpec, load_bundle
from rrtn.runtime.errors import ModelError
from rrtn.runtime.frontend import decibels_behind, log_mel
from rrtn.runtime.spec import InputKind
from rrtn.train.method.encoders import BasicBlock, Encoder, PannsCnn
from rrtn.train.method.metrics import ccc_biased
from rrtn.train.method.model import Head, TwinsNetwork
from torch import nn

SPEC = FrontendSpec(frames=120)
SILENCE = decibels_behind(SPEC)
LABELS = ("Awe", "Fear", "Joy")
N_CONVS = {"resnet": 6, "cnn": 4, "waveform": 4}
# Of the scores' standard deviation over clips: the noise of 7-bit weights and 8-bit activations;
# seen here: 0.02 to 0.10.
RMS_SHARE = 0.15
MAKERS = {"cpu": int8_for_cpu, "tensorrt": int8_for_tensorrt}


def rms_share(scores: np.ndarray, reference: np.ndarray) -> float:
    """The rms of the difference [n, K] over the scores' standard deviation, of the worst target."""
    rms = np.sqrt(np.square(scores.astype(np.float64) - reference).mean(0))
    return float((rms / reference.std(0, dtype=np.float64)).max())


class SmallResNet(Encoder):
    """ResNet18's stem, one block with an identity shortcut and one with a projected shortcut."""

    embedding_size = 64

    def __init__(self) -> None:
        super().__init__(SPEC.n_mels)
        self.stem = nn.Sequential(
            nn.Conv2d(1, 32, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.blocks = nn.Sequential(BasicBlock(32, 32, stride=1), BasicBlock(32, 64, stride=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.stem(self.normalised(x))).mean((2, 3))


def clips(count: int, *, seed: int) -> np.ndarray:
    """Tones with noise, each at its own pitch and level: [n, N]."""
    rng = np.random.default_rng(seed)
    time = np.arange(SPEC.clip_samples) / SPEC.sampling_rate
    pitches, levels = 100 * 2 ** rng.uniform(0, 5, (count, 1)), 10 ** rng.uniform(-2, 0, (count, 1))
    noise = rng.normal(0, 1, (count, SPEC.clip_samples)) * 10 ** rng.uniform(-4, -1, (count, 1))
    return (levels * np.sin(2 * np.pi * pitches * time) + noise).clip(-1, 1).astype(np.float32)


def inputs_of(kind: InputKind, waveforms: np.ndarray) -> np.ndarray:
    return waveforms if kind == "waveform" else np.array([log_mel(clip, SPEC)[None] for clip in waveforms])


TRAINING, HELD_OUT = clips(16, seed=0), clips(12, seed=1)


class Exported:
    """A small fp32 graph with its int8 graphs, and the clips as its input takes them."""

    def __init__(self, name: str) -> None:
        self.convs = N_CONVS[name]
        self.kind: InputKind = "waveform" if name == "waveform" else "logmel"
        self.calibration, self.held_out = inputs_of(self.kind, TRAINING), inputs_of(self.kind, HELD_OUT)
        log_mel_graph = onnx_from_network(small_network(name), SPEC, LABELS)
        self.fp32 = waveform_from_log_mel(log_mel_graph, SPEC) if name == "waveform" else log_mel_graph
        self.int8 = {target: make(self.fp32, self.calibration) for target, make in MAKERS.items()}
        self.expected = graph_outputs(self.fp32, "scores", self.held_out)


def small_network(name: str) -> TwinsNetwork:
    """Random weights; BatchNorm's statistics and offsets as after training, the head spreads its scores."""
    torch.manual_seed(0)
    network = TwinsNetwork("resnet18", n_mels=SPEC.n_mels, n_targets=len(LABELS), projector_layers=0)
    network.encoder = (
        SmallResNet() if name == "resnet" else PannsCnn(SPEC.n_mels, channels=(32, 64), pooled_blocks=2)
    )
    network.head = Head(64, len(LABELS), "sigmoid")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of what comes
            nn.init.normal_(module.bias, 0, 0.2)
    with torch.no_grad():
        network.train()(torch.from_numpy(inputs_of("logmel", TRAINING)))
        embedding = network.eval()(torch.from_numpy(inputs_of("logmel", TRAINING))).embedding
        network.head.weight.div_(embedding.std(0).mean())
        network.head.bias.copy_(-network.head.weight @ embedding.mean(0) + torch.tensor([-1.0, 0.0, 1.0]))
    return network.eval()


@functools.cache
def exported_as(name: str) -> Exported:
    return Exported(name)


@pytest.fixture(params=list(N_CONVS))
def exported(request: pytest.FixtureRequest) -> Exported:
    return exported_as(request.param)


@pytest.fixture
def resnet() -> Exported:
    return exported_as("resnet")


def tensors_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def convs_of(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, bool]]:
    """Every convolution, and whether int8 goes in."""
    by = producers(model)
    quantised = lambda name: name in by and by[name].op_type == "DequantizeLinear"  # noqa: E731
    return [
        (node, all(map(quantised, node.input[:2]))) for node in model.graph.node if node.op_type == "Conv"
    ]


def optimised(model: bytes) -> Counter[str]:
    """How many nodes of each kind ONNX Runtime makes of a graph."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.log_severity_level = 3  # it warns that the file is for this CPU
        onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize("target", MAKERS)
def test_scores_on_held_out_clips_are_close_to_fp32(exported: Exported, target: str) -> None:
    scores = graph_outputs(exported.int8[target], "scores", exported.held_out)
    assert exported.expected.std(0).min() > 0.05
    assert 1e-3 < rms_share(scores, exported.expected) < RMS_SHARE


@pytest.mark.parametrize("target", MAKERS)
def test_no_shift_or_stretch_is_left_on_the_calibration_clips(exported: Exported, target: str) -> None:
    """The line of least squares from int8 logits to fp32 ones is the identity."""
    logits = [
        np.log(scores) - np.log1p(-scores)
        for model in (exported.int8[target], exported.fp32)
        for scores in [graph_outputs(model, "scores", exported.calibration).astype(np.float64)]
    ]
    lines = np.array([np.polyfit(int8, fp32, 1) for int8, fp32 in zip(*(z.T for z in logits), strict=True)])
    np.testing.assert_allclose(lines, np.tile([1, 0], (len(LABELS), 1)), atol=1e-4)


def starts_in_float(fp32: onnx.ModelProto) -> bool:
    first = next(node for node in fp32.graph.node if node.op_type == "Conv")
    return bool(tensors_of(fp32)[first.input[1]][0].size < 16)


def test_cpu_runs_the_trunk_in_int8_from_end_to_end(exported: Exported) -> None:
    """One quantisation at its beginning and one dequantisation at its end; means are convolutions, too.

    A first convolution of 9 weights a channel lies before it.
    """
    nodes = optimised(exported.int8["cpu"])
    fp32 = onnx.load_from_string(exported.fp32)
    operators = [node.op_type for node in fp32.graph.node]
    is_float = starts_in_float(fp32)
    assert nodes["QLinearConv"] == exported.convs - is_float + operators.count("AveragePool")
    assert nodes["QLinearAveragePool"] + nodes["AveragePool"] == 0
    assert nodes["Conv"] + nodes["FusedConv"] == is_float
    assert (nodes["QuantizeLinear"], nodes["DequantizeLinear"]) == (1, 1)


def test_cpu_products_cannot_saturate_16_bits(exported: Exported) -> None:
    """u8 by s8, two products at a time, as CPUs without VNNI add them (vpmaddubsw); one scale for
    each channel.
    """
    model = onnx.load_from_string(exported.int8["cpu"])
    tensors, by = tensors_of(model), producers(model)
    begin, *behind = convs_of(model)
    assert begin[1] != starts_in_float(onnx.load_from_string(exported.fp32))
    for node, is_quantised in behind:
        assert is_quantised
        activation, weight = (by[name] for name in node.input[:2])
        assert tensors[activation.input[2]].dtype == np.uint8
        values = tensors[weight.input[0]]
        assert values.dtype == np.int8
        assert 50 < np.abs(values.astype(int)).max() and 2 * 255 * np.abs(values.astype(int)).max() <= 32767
        assert tensors[weight.input[1]].shape == (len(values),)


def test_tensorrt_graph_has_no_zero_points_and_float_biases(exported: Exported) -> None:
    model = onnx.load_from_string(exported.int8["tensorrt"])
    tensors, by = tensors_of(model), producers(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert tensors[node.input[2]].dtype == np.int8 and not tensors[node.input[2]].any()
        if node.op_type == "QuantizeLinear":
            assert by[node.input[0]].op_type != "Conv"
    convs = convs_of(model)
    assert [is_quantised for _, is_quantised in convs].count(True) == exported.convs - 1
    assert not convs[0][1]  # the encoder's first one
    assert all(tensors[node.input[2]].dtype == np.float32 for node, _ in convs if len(node.input) > 2)


def dft_products(model: onnx.ModelProto) -> list[Any]:
    """The weights of each product with the DFT's basis. They are float32, and no input is quantised."""
    tensors, by = tensors_of(model), producers(model)
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    weights = [(node, tensors.get(node.input[1])) for node in products]
    found = [(node, w) for node, w in weights if w is not None and w.shape == (160, 514)]
    assert all(w.dtype == np.float32 for _, w in found)
    assert all(by[node.input[0]].op_type not in ("QuantizeLinear", "DequantizeLinear") for node, _ in found)
    return [w for _, w in found]


def test_frontend_inside_the_graph_stays_float() -> None:
    exported = exported_as("waveform")
    for content in exported.int8.values():
        fp32, int8 = (onnx.load_from_string(model) for model in (exported.fp32, content))
        bases = [dft_products(model) for model in (fp32, int8)]
        assert len(bases[0]) == 4  # hops of 160 samples under a window of 512
        np.testing.assert_array_equal(*bases)


@pytest.mark.parametrize("target", MAKERS)
def test_a_score_does_not_depend_on_its_batch(exported: Exported, target: str) -> None:
    session = onnxruntime.InferenceSession(exported.int8[target], providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    whole = graph_outputs(exported.int8[target], "scores", exported.held_out)
    for batch in (1, 2, 7):
        came = session.run(["scores"], {name: exported.held_out[:batch]})[0]
        np.testing.assert_allclose(came, whole[:batch], atol=1e-5, rtol=0)


def test_without_the_silence_behind_a_recording_the_scores_are_equal_to_the_last_bit(
    exported: Exported,
) -> None:
    if exported.kind == "waveform":
        pytest.skip("its frames are made in the graph")
    whole = onnx.load_model_from_string(exported.int8["cpu"])
    made = with_plan(whole, {}, silence=SILENCE).SerializeToString()
    for sounding in (1, 30, 70, 71, 118, 120):
        log_mels = exported.held_out[:4].copy()
        log_mels[:, :, sounding:] = SILENCE
        expected = graph_outputs(exported.int8["cpu"], "scores", log_mels)
        scores = graph_outputs(made, "scores", np.ascontiguousarray(log_mels[:, :, :sounding]))
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("target", MAKERS)
def test_bare_file_says_what_it_is(exported: Exported, target: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.int8[target])
    bundle = load_bundle(path)
    (variant,) = bundle.variants
    assert (bundle.labels, bundle.spec, variant.input, variant.precision) == (
        LABELS,
        SPEC,
        exported.kind,
        "int8",
    )
    model = onnx.load(path)
    assert {entry.key for entry in model.metadata_props} == {"rrtn", "rrtn.sha256"}
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert [entry.domain for entry in model.opset_import] == [""]


def test_same_bytes_in_every_process(resnet: Exported, tmp_path: Path) -> None:
    """The quantiser iterates over sets of strings, whose order changes with the hash seed."""
    (tmp_path / "fp32.onnx").write_bytes(resnet.fp32)
    np.save(tmp_path / "calibration.npy", resnet.calibration)
    script = (
        "import hashlib, numpy; from pathlib import Path; from rrtn.export.int8 import int8_for_cpu;"
        "model = int8_for_cpu(Path('fp32.onnx').read_bytes(), numpy.load('calibration.npy'));"
        "print(hashlib.sha256(model).hexdigest())"
    )
    environment = dict(os.environ, PYTHONHASHSEED="1")
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [hashlib.sha256(resnet.int8["cpu"]).hexdigest()]
    assert int8_for_cpu(resnet.fp32, resnet.calibration) == resnet.int8["cpu"]
    assert not run.stderr


def test_tensorrt_builds_its_graph_and_refuses_the_cpus(resnet: Exported) -> None:
    """Why there are two."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    plan, _ = engine_from_onnx(resnet.int8["tensorrt"], "tensorrt_rtx", precision="int8")
    assert plan.startswith(b"vtrt")
    with pytest.raises(ModelError, match=r"Int32|zero point"):
        engine_from_onnx(resnet.int8["cpu"], "tensorrt_rtx")


@pytest.mark.parametrize("target", MAKERS)
def test_a_saturated_layer_shows(exported: Exported, target: str) -> None:
    """Wherever it is: the CCC of its scores with the fp32 ones is far from 1."""
    healthy = graph_outputs(exported.int8[target], "scores", exported.held_out)
    assert ccc_biased(healthy, exported.expected).min() > 0.99
    layers = [
        node
        for node in onnx.load_from_string(exported.int8[target]).graph.node
        if node.op_type == "QuantizeLinear"
    ]
    assert (
        len(layers) >= {"cpu": exported.convs, "tensorrt": exported.convs - 2}[target]
    )  # two convs may share an input
    for layer in range(len(layers)):
        scores = graph_outputs(
            with_saturated_layer(exported.int8[target], layer), "scores", exported.held_out
        )
        assert ccc_biased(scores, exported.expected).min() < 0.9, layers[layer].name
        assert rms_share(scores, exported.expected) > 3 * RMS_SHARE, layers[layer].name


def with_saturated_layer(model: bytes, layer: int) -> bytes:
    """The scale of one QuantizeLinear, and of the DequantizeLinear behind it, 50 times too small:
    values are cut off.
    """
    graph = onnx.load_from_string(model)
    node = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"][layer]
    (scale,) = [tensor for tensor in graph.graph.initializer if tensor.name == node.input[1]]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) / np.float32(50), scale.name))
    return graph.SerializeToString()
