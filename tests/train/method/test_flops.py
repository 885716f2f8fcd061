"""A step's arithmetic against sums over the layers written out; the peak against scripted devices
and another timer.
"""

import math
from collections.abc import Iterator
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.utils.benchmark
from rrtn.runtime import FrontendSpec
from rrtn.train.method import flops
from rrtn.train.method.encoders import ENCODERS
from rrtn.train.method.flops import matmul_peak, step_flops
from rrtn.train.method.losses import bt_loss, ccc_loss, cross_correlation, ruwl_loss
from rrtn.train.method.model import TwinsNetwork
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

CPU = torch.device("cpu")
TARGETS = 10
UNITS = 2048
SMALL = FrontendSpec(n_mels=40, frames=117)  # no power of two: pooling and strides leave remainders
PANNS_CHANNELS = {"cnn10": [64, 128, 256, 512], "cnn14": [64, 128, 256, 512, 1024, 2048]}
PANNS_POOLED = {"cnn10": 4, "cnn14": 5}
WIDTH = {"resnet18": 512, "cnn10": 512, "cnn14": 2048}


def network_on(device: str, encoder: str, *, projector_layers: int, spec: FrontendSpec) -> TwinsNetwork:
    with torch.device(device):
        return TwinsNetwork(
            encoder,
            n_mels=spec.n_mels,
            n_targets=TARGETS,
            projector_layers=projector_layers,
            projector_units=UNITS,
        )


def panns_flops(encoder: str, frames: int, mels: int) -> int:
    """Forward of one clip: 2 C_in C_out 9 T M a convolution, 2 D D for fc1."""
    total, c_in = 0, 1
    for block, c_out in enumerate(PANNS_CHANNELS[encoder], start=1):
        total += 2 * 9 * (c_in * c_out + c_out * c_out) * frames * mels
        if block <= PANNS_POOLED[encoder]:
            frames, mels = frames // 2, mels // 2
        c_in = c_out
    return total + 2 * c_in * c_in


def resnet18_flops(frames: int, mels: int) -> int:
    """Forward of one clip: the stem, then four stages of four 3x3 convolutions, three with a 1x1 shortcut."""

    def halved(side: int) -> int:
        return math.ceil(side / 2)

    frames, mels = halved(frames), halved(mels)
    total = 2 * 49 * 64 * frames * mels
    frames, mels = halved(frames), halved(mels)  # max pooling
    total += 4 * 2 * 9 * 64 * 64 * frames * mels
    for c_in, c_out in ((64, 128), (128, 256), (256, 512)):
        frames, mels = halved(frames), halved(mels)
        total += 2 * (9 * c_in * c_out + 3 * 9 * c_out * c_out + c_in * c_out) * frames * mels
    return total


def forward_flops(encoder: str, spec: FrontendSpec) -> int:
    """Encoder and head on one clip."""
    if encoder == "resnet18":
        return resnet18_flops(spec.frames, spec.n_mels) + 2 * WIDTH[encoder] * TARGETS
    return panns_flops(encoder, spec.frames, spec.n_mels) + 2 * WIDTH[encoder] * TARGETS


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("shape", [FrontendSpec(), SMALL], ids=["paper", "odd"])
def test_vanilla_step_is_three_times_the_forward_pass_of_each_clip(encoder: str, shape: FrontendSpec) -> None:
    """Three: each product has two gradients. The first convolution too, since bn0 in front of it learns."""
    network = network_on("meta", encoder, projector_layers=0, spec=shape)
    assert step_flops(network, spec=shape, batch_size=6) == 3 * 6 * forward_flops(encoder, shape)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("shape", "layers"), [(FrontendSpec(), 1), (SMALL, 3)], ids=["paper", "odd"])
def test_twins_step_adds_a_view_the_projector_and_the_correlation(
    encoder: str, shape: FrontendSpec, layers: int
) -> None:
    network = network_on("meta", encoder, projector_layers=layers, spec=shape)
    projector = 2 * WIDTH[encoder] * UNITS + (layers - 1) * 2 * UNITS * UNITS
    correlation = 2 * UNITS * UNITS  # [P, B] times [B, P], a clip
    expected = 2 * (forward_flops(encoder, shape) + projector) + correlation
    assert step_flops(network, spec=shape, batch_size=6) == 3 * 6 * expected


def test_cnn14_is_9_77_gflop_forward_and_58_6_for_a_clip_of_two_views(spec: FrontendSpec) -> None:
    step = step_flops(network_on("meta", "cnn14", projector_layers=0, spec=spec), spec=spec, batch_size=128)
    assert step / 3 / 128 == pytest.approx(9.77e9, abs=0.005e9)
    assert step * 2 / 128 == pytest.approx(58.6e9, abs=0.05e9)


@pytest.mark.parametrize("twins", [False, True])
def test_equals_a_count_of_the_real_losses_on_real_numbers(twins: bool) -> None:
    network = network_on("cpu", "resnet18", projector_layers=int(twins), spec=SMALL)
    log_mel, ratings = torch.randn(3, 1, SMALL.frames, SMALL.n_mels), torch.rand(3, TARGETS)
    with FlopCounterMode(display=False) as counter:
        x = network(log_mel)
        loss = ccc_loss(x.scores, ratings)
        if twins:
            x_a = network(log_mel + 1)
            correlation = cross_correlation(network.project(x.embedding), network.project(x_a.embedding))
            losses = torch.stack(
                [loss, ccc_loss(x_a.scores, ratings), bt_loss(correlation, off_diagonal=0.001)]
            )
            loss = ruwl_loss(losses, nn.Parameter(torch.ones(3)), torch.ones(3))
        loss.backward()
    assert step_flops(network, spec=SMALL, batch_size=3) == counter.get_total_flops()


class Devices(TorchDispatchMode):
    """Where the results of all operations lie."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen |= {
            leaf.device.type for leaf in torch.utils._pytree.tree_leaves(out) if isinstance(leaf, Tensor)
        }
        return out


def test_counting_computes_nothing_and_copies_no_weight() -> None:
    network = network_on("cpu", "cnn10", projector_layers=1, spec=SMALL)
    with Devices() as devices:
        step_flops(network, spec=SMALL, batch_size=128)
    assert devices.seen == {"meta"}


def refuse(*_: object) -> None:
    raise AssertionError("the count has started the compiler")


def test_counting_leaves_the_network_and_the_random_numbers_alone() -> None:
    network = network_on("cpu", "cnn10", projector_layers=1, spec=SMALL).to(memory_format=torch.channels_last)
    network.encoder.compile(backend=refuse)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    count = step_flops(network, spec=SMALL, batch_size=2)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].device == CPU and torch.equal(before[name], after[name]) for name in before)
    assert all(isinstance(p, nn.Parameter) and p.grad is None for p in network.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert count == step_flops(network.eval(), spec=SMALL, batch_size=2)


class ScriptedDevice:
    """A clock that only products move: each takes 2 S^3 over the next of `rates`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *rates: float) -> None:
        self.now = 0.0
        self.sides: list[int] = []
        self.rates: Iterator[float] = cycle(rates)
        monkeypatch.setattr(flops, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(torch, "mm", self.mm)

    def mm(self, a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        assert a.shape == b.shape == out.shape == (len(a), len(a))
        assert a.data_ptr() != b.data_ptr() != out.data_ptr()
        self.sides.append(len(a))
        self.now += 2 * len(a) ** 3 / next(self.rates)
        return out


def test_peak_is_the_best_rate_and_not_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    ScriptedDevice(monkeypatch, 80e9, 20e9, 100e9, 60e9)
    assert matmul_peak(CPU, torch.float32) == pytest.approx(100e9, rel=1e-9)


@pytest.mark.parametrize(("rate", "side"), [(2e8, 256), (2e9, 512), (60e9, 1024), (2e12, 2048)])
def test_slow_devices_get_smaller_matrices_and_the_time_holds(
    monkeypatch: pytest.MonkeyPatch, rate: float, side: int
) -> None:
    device = ScriptedDevice(monkeypatch, rate)
    assert matmul_peak(CPU, torch.float32, seconds=0.3) == pytest.approx(rate, rel=1e-9)
    assert max(device.sides) == side
    assert 0.3 <= device.now < 0.6


def test_a_timing_of_several_products_gives_the_rate_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA."""
    monkeypatch.setitem(flops._PRODUCTS_A_TIMING, "cpu", 10)
    ScriptedDevice(monkeypatch, 70e9)
    assert matmul_peak(CPU, torch.float32) == pytest.approx(70e9, rel=1e-9)


def test_peak_agrees_with_torchs_own_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both on the scripted clock."""
    device = ScriptedDevice(monkeypatch, 70e9)
    a, b, out = torch.rand(3, 512, 512)
    names = {"mm": device.mm, "a": a, "b": b, "out": out}
    timer = torch.utils.benchmark.Timer("mm(a, b, out=out)", globals=names, timer=lambda: device.now)
    took = timer.blocked_autorange(min_run_time=0.1).median
    assert matmul_peak(CPU, torch.float32) == pytest.approx(2 * 512**3 / took, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_peak_of_this_machine_is_that_of_a_computer(dtype: torch.dtype) -> None:
    """Without float16 instructions a product of side 2048 takes some 20 s; the sides hold the time,
    see above.
    """
    assert 1e6 < matmul_peak(CPU, dtype, seconds=0.05) < 1e15


def test_peak_leaves_the_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    matmul_peak(CPU, torch.float32, seconds=0.01)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_on_cuda_agrees_with_its_own_events(dtype: torch.dtype) -> None:
    peak = matmul_peak(torch.device("cuda"), dtype)
    a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(50):
        a @ a
    end.record()
    torch.cuda.synchronize()
    assert 0.6 < peak / (50 * 2 * 8192**3 / (1e-3 * start.elapsed_time(end))) < 1.6
