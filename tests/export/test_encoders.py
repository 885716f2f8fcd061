"""What export asks of an encoder: every one of the registry has it, and so has one with other names.

B batch, T frames, M mels, C channels, D embedding.
"""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from rrtn.export.deployed_network import folded_encoder, half_encoder
from rrtn.export.graph import onnx_from_network
from rrtn.export.int8 import int8_for_cpu, int8_for_tensorrt
from rrtn.runtime import FrontendSpec
from rrtn.runtime.errors import ModelError
from rrtn.train.method.encoders import ENCODERS, Encoder, encoder_from_name
from rrtn.train.method.model import Head, TwinsNetwork
from torch import Tensor, nn

SPEC = FrontendSpec(frames=100)
LABELS = ("Awe", "Fear")
# Products with a folded weight are rounded otherwise; embeddings here are of the order of 1.
TOLERANCE = 1e-5


class Gated(nn.Module):
    """A convolution whose output is scaled channel by channel (squeeze and excite), with its BatchNorm first
    among the attributes.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(c_out)
        self.taps = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1)
        self.gate = nn.Conv2d(c_out, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, T, M] -> [B, c_out, T / 2, M / 2]."""
        x = F.relu(self.norm(self.taps(x)))
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class OtherNames(Encoder):
    """Nothing is called conv1 or bn1, a mean stands in the middle, and the last pooling is a maximum."""

    embedding_size = 16

    def __init__(self, n_mels: int) -> None:
        super().__init__(n_mels)
        self.entry = nn.ModuleDict({"mix": nn.Conv2d(1, 8, 3, stride=4), "scale": nn.BatchNorm2d(8)})
        self.stages = nn.ModuleList([Gated(8, 8), Gated(8, 16)])

    def forward(self, log_mel: Tensor) -> Tensor:
        x = F.relu(self.entry["scale"](self.entry["mix"](self.normalised(log_mel))))
        for stage in self.stages:
            x = stage(x)
        return x.amax((2, 3))


class NormFirst(OtherNames):
    """One BatchNorm stands in front of its convolution."""

    def forward(self, log_mel: Tensor) -> Tensor:
        x = self.normalised(log_mel)
        x = self.entry["mix"](x)
        x = self.stages[0].taps(self.entry["scale"](F.relu(x)))
        return x.amax((2, 3)).repeat(1, 2)


class SharedConv(OtherNames):
    """One convolution, called twice, each time with another BatchNorm behind it."""

    def __init__(self, n_mels: int) -> None:
        super().__init__(n_mels)
        self.second = nn.BatchNorm2d(8)

    def forward(self, log_mel: Tensor) -> Tensor:
        x = self.normalised(log_mel)
        mix = self.entry["mix"]
        return (self.entry["scale"](mix(x)) + self.second(mix(-x))).amax((2, 3)).repeat(1, 2)


class OneConv(OtherNames):
    """A single convolution."""

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.entry["mix"](self.normalised(log_mel)).amax((2, 3)).repeat(1, 2)


class NoConv(OtherNames):
    """Statistics over time, and nothing else."""

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.normalised(log_mel).mean((1, 2))[:, :16]


def settled(encoder: Encoder) -> Encoder:
    """In evaluation mode, with statistics and scales other than 0 and 1."""
    rng = torch.Generator().manual_seed(0)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
            ):
                with torch.no_grad():
                    tensor.uniform_(low, high, generator=rng)
    return encoder.eval()


def registered(name: str) -> Callable[[], Encoder]:
    return lambda: encoder_from_name(name, n_mels=SPEC.n_mels)


MAKERS = {
    **{name: registered(name) for name in ENCODERS},
    "other names": lambda: OtherNames(SPEC.n_mels),
}


@pytest.fixture(scope="module", params=list(MAKERS))
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    return settled(MAKERS[request.param]())


@pytest.fixture(scope="module")
def log_mels() -> Tensor:
    """[2, 1, T, M]."""
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, SPEC.frames, SPEC.n_mels, generator=rng)


def norms_of(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)]


def network_of(encoder: Encoder) -> TwinsNetwork:
    network = TwinsNetwork("resnet18", n_mels=SPEC.n_mels, n_targets=len(LABELS), projector_layers=0)
    network.encoder, network.head = encoder, Head(encoder.embedding_size, len(LABELS), "sigmoid")
    return network.eval()


def test_every_encoder_folds_and_computes_the_same(encoder: Encoder, log_mels: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    folded = folded_encoder(encoder, SPEC)
    assert norms_of(folded) == ["bn0"]
    with torch.no_grad():
        expected, came = encoder(log_mels), folded(log_mels)
    assert expected.std() > 100 * TOLERANCE
    np.testing.assert_allclose(came, expected, atol=TOLERANCE * float(expected.abs().max()), rtol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_float16_begins_behind_bn0(log_mels: Tensor) -> None:
    torch.manual_seed(0)
    encoder = settled(OtherNames(SPEC.n_mels))
    half = half_encoder(encoder, SPEC)
    kept = {name for name, tensor in half.named_parameters() if tensor.dtype == torch.float32}
    assert kept == {"bn0.0.weight", "bn0.0.bias"}
    with torch.no_grad():
        expected, came = encoder(log_mels), half(log_mels)
    assert came.dtype == torch.float16
    np.testing.assert_allclose(came.float(), expected, atol=0.01 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("resnet18", "cnn14"))) for name in MAKERS],
)
def test_every_encoder_has_its_convolutions_in_int8(name: str, log_mels: Tensor) -> None:
    torch.manual_seed(0)
    encoder = settled(MAKERS[name]())
    model = onnx_from_network(network_of(encoder), SPEC, LABELS)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in encoder.modules())
    means = [node for node in onnx.load_from_string(model).graph.node if node.op_type == "AveragePool"]
    convolutions += len(means)  # which become depthwise convolutions
    in_float = int(name != "resnet18")  # the first, where it has 9 weights a channel
    expected = {"int8": convolutions - in_float, "float": in_float}
    assert _convolutions(int8_for_cpu(model, log_mels.numpy())) == expected


@pytest.mark.parametrize(("made", "name"), [(NormFirst, "entry.scale"), (SharedConv, "entry.scale")], ids=str)
def test_a_batchnorm_that_does_not_fold_is_named(made: type[Encoder], name: str) -> None:
    with pytest.raises(ModelError, match="export without --fp16") as raised:
        folded_encoder(made(SPEC.n_mels), SPEC)
    assert raised.value.subject == f"{made.__name__}.{name}"


@pytest.mark.parametrize(
    ("made", "make", "found"),
    [(NoConv, int8_for_cpu, 0), (NoConv, int8_for_tensorrt, 0), (OneConv, int8_for_tensorrt, 1)],
)
def test_an_encoder_without_a_trunk_has_no_int8(
    made: type[Encoder], make: Callable[..., bytes], found: int, log_mels: Tensor
) -> None:
    torch.manual_seed(0)
    model = onnx_from_network(network_of(settled(made(SPEC.n_mels))), SPEC, LABELS)
    with pytest.raises(ModelError, match="export without --int8") as raised:
        make(model, log_mels.numpy())
    assert raised.value.came == f"the encoder has {found} two-dimensional convolutions"


def _convolutions(model: bytes) -> dict[str, int]:
    graph = onnx.load_from_string(model).graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    inputs = [node.input[:2] for node in graph.node if node.op_type == "Conv"]
    int8 = sum(set(names) <= dequantised for names in inputs)
    return {"int8": int8, "float": len(inputs) - int8}
