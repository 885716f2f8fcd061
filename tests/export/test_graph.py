"""What `rrtn export` writes as ONNX, from networks with random weights and statistics."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rrtn.export.graph import onnx_from_network
from rrtn.export.samples_graph import waveform_from_log_mel
from rrtn.runtime import FrontendSpec, load_bundle
from rrtn.runtime.errors import ModelError
from rrtn.runtime.spec import InputKind
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.model import Head, TwinsNetwork

SPEC = FrontendSpec()
LABELS = ("Awe", "Fear", "Joy")
# Of an eighth of the channels, which is as deep a graph. The real ones are slow; ResNet18 is also
# the main job's (tests/integration/test_main_job.py, tests/parity/test_main_job_parity.py).
NARROW = {"cnn10": (8, 16, 32, 64), "cnn14": (8, 16, 32, 64, 128, 256)}
EXPORTED = [
    ("cnn10", "waveform", "narrow"),
    ("cnn14", "logmel", "narrow"),
    *(
        pytest.param((encoder, kind, "whole"), marks=pytest.mark.slow)
        for encoder in ("resnet18", *NARROW)
        for kind in ("logmel", "waveform")
    ),
]
# fp32 sums in another order, through up to 14 layers; the gate's own limit is 1e-4.
TOLERANCE = 2e-5


def random_network(encoder: str, *, narrow: bool = False) -> TwinsNetwork:
    """BatchNorm statistics from a forward pass, so that signals neither vanish nor explode behind a
    few layers.
    """
    torch.manual_seed(0)
    network = TwinsNetwork("resnet18" if narrow else encoder, n_mels=64, n_targets=3)
    if narrow:
        channels = NARROW[encoder]
        network.encoder = PannsCnn(64, channels=channels, pooled_blocks=min(5, len(channels)))
        network.head = Head(channels[-1], 3, "sigmoid")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of what comes
    with torch.no_grad():
        network.train()(LogMel(SPEC)(torch.from_numpy(clips(8))))
        network.head.weight.mul_(5)
    return network.eval()


def clips(count: int) -> np.ndarray:
    """Tones with noise, each at its own pitch and level."""
    rng = np.random.default_rng(0)
    time = np.arange(SPEC.clip_samples) / SPEC.sampling_rate
    tones = [np.sin(2 * np.pi * 100 * 1.5**i * time) * 0.7 ** (i + 1) for i in range(count)]
    return (np.array(tones) + rng.normal(0, 0.01, (count, SPEC.clip_samples))).astype(np.float32)


@pytest.fixture(scope="module", params=EXPORTED, ids=lambda made: "-".join(map(str, made)))
def exported(request: pytest.FixtureRequest) -> tuple[TwinsNetwork, bytes, InputKind]:
    encoder, kind, width = request.param
    network = random_network(encoder, narrow=width == "narrow")
    model = onnx_from_network(network, SPEC, LABELS)
    return network, model if kind == "logmel" else waveform_from_log_mel(model, SPEC), kind


def test_scores_are_pytorchs_at_any_batch_size(exported: tuple[TwinsNetwork, bytes, InputKind]) -> None:
    network, model, kind = exported
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    log_mels = LogMel(SPEC)(torch.from_numpy(clips(7)))
    with torch.no_grad():
        expected = network(log_mels).scores.numpy()
    assert np.ptp(expected, axis=0).max() > 1e-4
    name = session.get_inputs()[0].name
    for batch in (1, 2, 7):
        inputs = log_mels.numpy() if kind == "logmel" else clips(7)
        came = session.run(["scores"], {name: inputs[:batch]})[0]
        np.testing.assert_allclose(came, expected[:batch], atol=TOLERANCE, rtol=0)


def test_graph_is_self_contained_and_has_no_projector(
    exported: tuple[TwinsNetwork, bytes, InputKind],
) -> None:
    network, content, kind = exported
    model = onnx.load_from_string(content)
    tensors = [*model.graph.initializer]
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in tensors)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 18)}
    assert "STFT" not in {node.op_type for node in model.graph.node}
    deployed = sum(np.prod(tensor.dims) for tensor in tensors if np.prod(tensor.dims) > 1000)
    counts = network.parameter_counts()
    assert (
        deployed < counts["encoder"] + counts["head"] + 600_000
    )  # the DFT basis of the waveform graph has 263,168
    shape = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == (["batch", 1, 250, 64] if kind == "logmel" else ["batch", 39_840])


def test_bare_file_carries_labels_and_frontend(
    exported: tuple[TwinsNetwork, bytes, InputKind], tmp_path: Path
) -> None:
    path = tmp_path / "any name.onnx"
    path.write_bytes(exported[1])
    bundle = load_bundle(path)
    assert (bundle.labels, bundle.spec, bundle.variants[0].input) == (LABELS, SPEC, exported[2])


def test_a_linear_head_stays_linear() -> None:
    """Its scores leave [0, 1]; a sigmoid on the way would bring them back."""
    torch.manual_seed(0)
    network = TwinsNetwork("cnn10", n_mels=64, n_targets=3, activation="linear").eval()
    network.encoder = PannsCnn(64, channels=(8, 16), pooled_blocks=2).eval()
    network.head = Head(16, 3, "linear")
    log_mels = LogMel(SPEC)(torch.from_numpy(clips(4)))
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([3.0, -2.0, 0.5]))
        expected = network(log_mels).scores.numpy()
    assert expected.min() < -1
    assert expected.max() > 2
    model = onnx_from_network(network, SPEC, LABELS)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    came = session.run(["scores"], {"log_mel": log_mels.numpy()})[0]
    np.testing.assert_allclose(came, expected, atol=TOLERANCE, rtol=0)


def test_weights_that_are_not_finite_are_refused() -> None:
    """E5."""
    network = random_network("cnn10", narrow=True)
    with torch.no_grad():
        network.head.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"head\.weight"):
        onnx_from_network(network, SPEC, LABELS)
