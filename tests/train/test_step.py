"""One optimiser step: equal to a step written out, guarded against NaN, resumable to the bit.

B batch, N samples, M mels, K targets.
"""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rrtn.train import run_state
from rrtn.train.checkpoint import CheckpointInfo
from rrtn.train.config import Config, config_from_dict
from rrtn.train.data.device_clips import TrainingBatch, Waveforms
from rrtn.train.distributed import World
from rrtn.train.loss_scale import LossScale
from rrtn.train.method import losses, model, views
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.model import TwinsNetwork
from rrtn.train.plan import network_from_config
from rrtn.train.run_folder import RunFolder
from rrtn.train.step import (
    Stepper,
    loss_from_config,
    products_as_convolutions,
    set_float32_precision,
    sums_of_config,
)
from torch import Tensor

TARGETS = ["Awe", "Fear", "Joy"]
B = 4

# Of torch's own compiler: its use of deprecated parts of torch.
torch_compile = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script_method:DeprecationWarning",
    "ignore:.*torch._prims_common.check:FutureWarning",
    "ignore:.*should not be instantiated:DeprecationWarning",  # of an autograd function, by dynamo
)


@pytest.fixture(autouse=True)
def _one_thread_and_float32_settings() -> Iterator[None]:
    torch.set_num_threads(1)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def config(**sections: Any) -> Config:
    document: dict[str, Any] = {
        "data": {"targets": TARGETS},
        "frontend": {"frames": 32},
        "optim": {"batch_size": B},
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section} if isinstance(section, dict) else section
    return config_from_dict(document, source="test")


def stepper_of(settings: Config, network: TwinsNetwork | None = None) -> Stepper:
    network = network or network_from_config(settings)
    return Stepper(settings, network, torch.full((64,), -40.0), steps=100, steps_per_epoch=10, world=World())


def small_network(settings: Config) -> TwinsNetwork:
    """A few channels of CNN10, with its dropout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            model,
            "encoder_from_name",
            lambda name, *, n_mels: PannsCnn(n_mels, channels=(4, 8, 8, 16), pooled_blocks=4),
        )
        return network_from_config(settings)


def batch_of(settings: Config, number: int) -> TrainingBatch:
    """Tones that swell and fade, each at its own pitch, with noise and ratings."""
    generator = torch.Generator().manual_seed(number)
    time = torch.arange(settings.frontend.clip_samples) / settings.frontend.sampling_rate
    pitch, rate = (low + high * torch.rand(B, 1, generator=generator) for low, high in ((100, 900), (2, 8)))
    noise = 2 * torch.rand(B, len(time), generator=generator) - 1
    tones = torch.sin(2 * math.pi * pitch * time) * (1 + torch.sin(2 * math.pi * rate * time)) / 2
    lengths = torch.full((B,), len(time))
    draws = torch.rand(B, 8, generator=generator, dtype=torch.float64)
    ratings = torch.rand(B, len(TARGETS), generator=generator)
    return TrainingBatch(Waveforms(0.4 * tones + 0.02 * noise, lengths), ratings, draws)


def in_float64(stepper: Stepper) -> Stepper:
    """The same weights.

    In float32 a sum in another order flips a ReLU now and then, and moves a gradient by a percent.
    """
    stepper.loss.double()
    frontend = stepper.frontend
    stepper.frontend = lambda *waveforms: frontend(*waveforms).double()
    return stepper


def written_out(settings: Config, network: TwinsNetwork, steps: int) -> tuple[Tensor, list[list[float]]]:
    """The paper's step with plain AdamW in the usual memory format; changes `network`. -> c [3],
    and each step's sums.
    """
    method, optim = settings.model.method, settings.optim
    lambdas = torch.tensor(settings.ruwl.lambdas).double()
    c = torch.tensor(settings.ruwl.c).double().requires_grad_()
    groups = [
        {"params": [*network.parameters()]},
        {"params": [c], "lr": settings.ruwl.lr, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=optim.lr, eps=optim.eps, weight_decay=optim.weight_decay, foreach=False, fused=False
    )
    frontend, seen = LogMel(settings.frontend), []
    for number in range(steps):
        batch = batch_of(settings, number)
        x = frontend(batch.waveforms.samples).double()
        x_a = views.masked_view(x, torch.full((64,), -40.0), batch.draws, settings.augment)
        y = batch.ratings.double()
        optimizer.zero_grad()
        scores, embedding = network.train()(x)
        terms = torch.stack([losses.ccc_loss(scores, y), torch.zeros(()), torch.zeros(())])
        loss = terms[0]
        if method != "vanilla":
            scores_a, embedding_a = network(x_a)
            correlation = losses.cross_correlation(
                network.projector(embedding), network.projector(embedding_a)
            )
            l_bt = losses.bt_loss(correlation, off_diagonal=settings.loss.off_diagonal)
            terms = torch.stack([loss, losses.ccc_loss(scores_a, y), l_bt])
            fixed = lambdas / c.detach() ** 2  # 1, 1, 1e-4
            loss = losses.ruwl_loss(terms, c, lambdas) if method == "rrtn-ruwl" else terms @ fixed
        loss.backward()
        gradients = [p.grad for p in (*network.parameters(), c) if p.grad is not None]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        optimizer.step()
        seen.append([*terms.tolist(), loss.item(), norm.item()])
    return c.detach(), seen


@pytest.mark.parametrize("method", ["vanilla", "rrtn", "rrtn-ruwl"])
def test_steps_are_those_written_out(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, so that what differs is the code; 1e-9 because AdamW divides gradients of 1e-15
    by an eps of 1e-8.
    """
    monkeypatch.setattr(F, "dropout", lambda x, *_, **__: x)  # whose masks are the stepper's own
    settings = config(model={"method": method})
    network = small_network(settings)
    reference = copy.deepcopy(network).double()
    before = copy.deepcopy(reference.state_dict())
    stepper = in_float64(stepper_of(settings, network))
    for number in range(2):
        batch = batch_of(settings, number)
        stepper.step(batch._replace(ratings=batch.ratings.double()), number)
    c, seen = written_out(settings, reference, steps=2)
    came, expected = stepper.network.state_dict(), reference.state_dict()
    for name in expected:
        torch.testing.assert_close(
            came[name], expected[name], rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )
    still = {name for name, _ in network.named_parameters() if (came[name] - before[name]).abs().max() < 1e-3}
    assert still <= {"projector.bias"}  # centring takes its gradient away
    torch.testing.assert_close(stepper.loss.weighting.c, c, rtol=0, atol=1e-9)
    assert (abs(c[0] - 1) > 1e-4) == (method == "rrtn-ruwl")
    torch.testing.assert_close(stepper.sums, torch.tensor(seen).sum(0), rtol=1e-5, atol=1e-5)
    assert len(sums_of_config(Config())) == len(seen[0])


class TestGuard:
    """A step whose loss or gradient is not finite, and all steps after it."""

    @pytest.mark.parametrize("poison", ["waveform", "rating", "gradient"])
    def test_leaves_weights_moments_and_counts_as_they_are(self, poison: str) -> None:
        settings = config()
        stepper = stepper_of(settings, small_network(settings))
        for number in (7, 8):
            stepper.step(batch_of(settings, number), number)
        assert stepper.bad_step() is None
        before = self.state(stepper)
        bad = batch_of(settings, 9)
        if poison == "gradient":  # of one weight; the loss is finite
            handle = stepper.network.head.weight.register_hook(
                lambda gradient: gradient.clone().fill_(float("inf"))
            )
        else:
            {"waveform": bad.waveforms.samples, "rating": bad.ratings}[poison][2, 1] = float("nan")
        stepper.step(bad, 9)
        if poison == "gradient":
            handle.remove()
        stepper.step(batch_of(settings, 10), 10)
        assert stepper.bad_step() == 9
        after = self.state(stepper)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)

    @staticmethod
    def state(stepper: Stepper) -> dict[str, Tensor]:
        """Parameters and the optimiser's tensors; BatchNorm's statistics follow each forward pass."""
        entries = stepper.optimizer.state_dict()["state"].items()
        moments = {f"{i}.{key}": value.clone() for i, entry in entries for key, value in entry.items()}
        return {**moments, **{name: p.detach().clone() for name, p in stepper.loss.named_parameters()}}

    def test_counts_the_first_bad_step_only(self) -> None:
        settings = config()
        stepper = stepper_of(settings, small_network(settings))
        for number in (3, 4):
            bad = batch_of(settings, number)
            bad.ratings.fill_(float("inf"))
            stepper.step(bad, number)
        assert stepper.bad_step() == 3


class TestLearningRate:
    """At 10 steps an epoch, 100 in all."""

    @pytest.mark.parametrize(
        ("optim", "expected"),
        [
            ({}, {0: 1.0, 50: 1.0, 99: 1.0}),
            ({"warmup_epochs": 2.0}, {0: 1 / 20, 9: 0.5, 19: 1.0, 60: 1.0}),
            ({"warmup_epochs": 0.25}, {0: 1 / 2.5, 1: 2 / 2.5, 2: 1.0}),
            ({"schedule": "cosine"}, {0: 1.0, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 100: 0.0}),
            (
                {"schedule": "cosine", "warmup_epochs": 5.0},
                {0: 1 / 50, 50: 0.5, 75: (1 - math.sqrt(0.5)) / 2},
            ),
        ],
        ids=["constant", "warmup", "less than an epoch", "cosine", "both"],
    )
    def test_is_the_formulas(self, optim: dict[str, Any], expected: dict[int, float]) -> None:
        settings = config(optim={"lr": 0.01, **optim})
        stepper = stepper_of(settings, small_network(settings))
        for number, factor in expected.items():
            assert stepper.lr_of(number) == pytest.approx(0.01 * factor, abs=1e-12)

    def test_a_step_takes_it_and_ruwls_own_stays(self) -> None:
        settings = config(optim={"schedule": "cosine"}, ruwl={"lr": 0.5})
        stepper = stepper_of(settings, small_network(settings))
        stepper.step(batch_of(settings, 0), 50)
        assert [group["lr"] for group in stepper.optimizer.param_groups] == pytest.approx([5e-4, 0.5])

    def test_weight_decay_spares_ruwls_parameters(self) -> None:
        network, ruwl = stepper_of(config()).optimizer.param_groups
        assert (network["weight_decay"], network["lr"], network["eps"]) == (0.01, 1e-3, 1e-8)
        assert [p.shape for p in ruwl["params"]] == [(3,)]
        assert ruwl["weight_decay"] == 0

    @pytest.mark.parametrize("sections", [{"model": {"method": "rrtn"}}, {"ruwl": {"mode": "fixed"}}])
    def test_ruwls_parameters_are_trained_where_they_are_learned_only(self, sections: dict[str, Any]) -> None:
        assert len(stepper_of(config(**sections)).optimizer.param_groups) == 1


class TestRestored:
    def test_moments_lie_as_their_parameters_and_the_next_step_is_the_unbroken_ones(
        self, tmp_path: Path
    ) -> None:
        """The file has them in the usual order; the fused kernel pairs moment and weight by their
        place in memory.
        """
        settings = config()
        whole = stepper_of(settings, small_network(settings))
        for number in range(2):
            whole.step(batch_of(settings, number), number)
        info = CheckpointInfo(
            epoch=0, step=2, history=[], labels=TARGETS, config={}, data_sha256="", versions={}
        )
        folder = RunFolder(tmp_path)
        run_state.save_job(folder, info, whole)()
        torch.manual_seed(9)
        resumed = stepper_of(settings, small_network(config(seed=9)))
        assert run_state.restored(folder, info, resumed, strict=True, say=pytest.fail) == info
        assert any(not p.is_contiguous() for p in resumed.network.parameters())
        for parameter, entry in resumed.optimizer.state.items():
            assert entry["exp_avg"].stride() == entry["exp_avg_sq"].stride() == parameter.stride()
        for stepper in (whole, resumed):
            stepper.step(batch_of(settings, 2), 2)
        expected, came = whole.loss.state_dict(), resumed.loss.state_dict()
        assert all(torch.equal(came[name], expected[name]) for name in expected)
        assert torch.equal(whole.sums, resumed.sums)


def test_a_steps_random_numbers_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout's masks follow from seed and step, whatever was drawn before."""
    settings = config()
    start = small_network(settings)
    weights = []
    for before, number in ((0, 5), (1, 5), (0, 6)):
        stepper = stepper_of(settings, copy.deepcopy(start))
        torch.manual_seed(before)
        stepper.step(batch_of(settings, 0), number)
        weights.append(stepper.network.encoder.fc1.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("precision", "convolutions"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_tf32_is_for_convolutions_alone_and_only_where_it_is_asked_for(
    precision: str, convolutions: bool
) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    set_float32_precision(config(precision=precision))
    assert torch.backends.cudnn.allow_tf32 == convolutions
    assert not torch.backends.cuda.matmul.allow_tf32
    with products_as_convolutions(config(precision=precision)):  # the ceiling that the display divides by
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == convolutions
    assert not torch.backends.cuda.matmul.allow_tf32


def test_bf16_is_close_to_fp32() -> None:
    """bfloat16 has 8 bits: 0.4% a rounding, of which 2048 squares of 1 - C_ii make several.

    Gradients stay float32.
    """
    sums = {}
    for precision in ("fp32", "bf16"):
        settings = config(precision=precision)
        stepper = stepper_of(settings)
        stepper.step(batch_of(settings, 0), 0)
        sums[precision] = stepper.sums
        assert {p.grad.dtype for p in stepper.loss.parameters()} == {torch.float32}
    assert not torch.equal(sums["bf16"], sums["fp32"])
    torch.testing.assert_close(sums["bf16"][:2], sums["fp32"][:2], rtol=0.02, atol=0)  # l_ccc, l_ccc_a
    torch.testing.assert_close(sums["bf16"][2:4], sums["fp32"][2:4], rtol=0.1, atol=0)  # l_bt, loss


class TestLossScale:
    """Precision fp16."""

    def test_a_step_is_that_of_fp32_within_what_float16_rounds(self) -> None:
        sums = {}
        for precision in ("fp32", "fp16"):
            settings = config(precision=precision)
            stepper = stepper_of(settings)
            if stepper.loss_scale:
                stepper.loss_scale.factor.fill_(256.0)  # the first one is too large for this batch
            stepper.step(batch_of(settings, 0), 0)
            sums[precision] = stepper.sums
        assert not torch.equal(sums["fp16"], sums["fp32"])
        torch.testing.assert_close(sums["fp16"][:4], sums["fp32"][:4], rtol=0.02, atol=0)
        torch.testing.assert_close(sums["fp16"][4], sums["fp32"][4], rtol=0.1, atol=0)  # without the factor

    def test_the_factor_changes_no_weight(self) -> None:
        """It is a power of two; in float32 passes nothing is lost, and AdamW divides it away."""
        settings = config()
        start = small_network(settings)
        weights = []
        for scaled in (False, True):
            stepper = stepper_of(settings, copy.deepcopy(start))
            if scaled:
                stepper.loss_scale = LossScale(torch.device("cpu"))
            for number in range(2):
                stepper.step(batch_of(settings, number), number)
            weights.append(stepper.network.state_dict())
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_a_gradient_that_overflows_is_left_out_and_halves_the_factor(self) -> None:
        settings = config(precision="fp16")
        stepper = stepper_of(settings, small_network(settings))
        assert stepper.loss_scale
        stepper.step(batch_of(settings, 0), 0)
        before, norm = TestGuard.state(stepper), stepper.sums[-1].clone()
        handle = stepper.network.head.weight.register_hook(lambda gradient: gradient * float("inf"))
        stepper.step(batch_of(settings, 1), 1)
        handle.remove()
        after = TestGuard.state(stepper)
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert torch.equal(stepper.sums[-1], norm)
        assert (stepper.bad_step(), float(stepper.loss_scale.factor)) == (None, 2.0**15)
        stepper.step(batch_of(settings, 2), 2)
        after = TestGuard.state(stepper)
        assert not torch.equal(before["network.head.weight"], after["network.head.weight"])

    def test_an_overflow_at_the_least_factor_stops(self) -> None:
        settings = config(precision="fp16")
        stepper = stepper_of(settings, small_network(settings))
        assert stepper.loss_scale
        stepper.loss_scale.factor.fill_(1.0)
        stepper.network.head.weight.register_hook(lambda gradient: gradient * float("inf"))
        stepper.step(batch_of(settings, 0), 4)
        assert stepper.bad_step() == 4

    @pytest.mark.parametrize("poison", ["waveform", "rating"])
    def test_a_loss_that_is_not_finite_stops_at_once(self, poison: str) -> None:
        settings = config(precision="fp16")
        stepper = stepper_of(settings, small_network(settings))
        bad = batch_of(settings, 0)
        {"waveform": bad.waveforms.samples, "rating": bad.ratings}[poison][2, 1] = float("nan")
        stepper.step(bad, 6)
        assert stepper.bad_step() == 6

    def test_many_good_steps_double_it_up_to_the_most(self) -> None:
        scale, good, bad = LossScale(torch.device("cpu")), torch.tensor(False), torch.tensor(True)
        for _ in range(1999):
            scale.update(good)
        scale.update(bad)
        for _ in range(2000):
            scale.update(good)
        assert float(scale.factor) == 2.0**16
        scale.steps.fill_(1999)
        scale.factor.fill_(2.0**24)
        scale.update(good)
        assert (float(scale.factor), int(scale.steps)) == (2.0**24, 0)

    def test_a_resumed_run_goes_on_with_it(self, tmp_path: Path) -> None:
        settings = config(precision="fp16")
        whole = stepper_of(settings, small_network(settings))
        assert whole.loss_scale
        whole.loss_scale.update(torch.tensor(True))
        whole.step(batch_of(settings, 0), 0)
        info = CheckpointInfo(
            epoch=0, step=1, history=[], labels=TARGETS, config={}, data_sha256="", versions={}
        )
        run_state.save_job(RunFolder(tmp_path), info, whole)()
        resumed = stepper_of(settings, small_network(config(seed=9)))
        run_state.restored(RunFolder(tmp_path), info, resumed, strict=True, say=pytest.fail)
        assert resumed.loss_scale
        assert (float(resumed.loss_scale.factor), int(resumed.loss_scale.steps)) == (2.0**15, 1)
        for stepper in (whole, resumed):
            stepper.step(batch_of(settings, 1), 1)
        expected, came = whole.loss.state_dict(), resumed.loss.state_dict()
        assert all(torch.equal(came[name], expected[name]) for name in expected)


@torch_compile
@pytest.mark.slow
def test_so_they_are_with_blanks_and_classes() -> None:
    torch.compiler.reset()
    labels = {"class_targets": ["Type"], "classes": ["Type=Cry", "Type=Laugh"]}
    settings = config(data=labels, compile="default")
    loss = loss_from_config(settings, small_network(settings), has_blanks=True)
    views_of_noise = torch.randn(2, B, 1, 32, 64, generator=torch.Generator().manual_seed(0))
    ratings = torch.hstack([batch_of(settings, 0).ratings, torch.arange(B)[:, None] % 2])
    ratings[::3] = torch.nan
    compiled = torch.compile(loss.eval(), backend="eager", fullgraph=True)(*views_of_noise, ratings)
    torch.testing.assert_close(compiled, loss(*views_of_noise, ratings))
    assert torch.isfinite(compiled[0]).all()


@torch_compile
@pytest.mark.parametrize("encoder", ["resnet18", "cnn10"])  # CNN14 has two blocks more
def test_both_views_and_losses_are_one_graph(encoder: str) -> None:
    """Nothing in them makes the compiler fall back to Python, nor trace a second graph."""
    torch.compiler.reset()
    settings = config(model={"encoder": encoder}, compile="default")
    network = small_network(settings) if encoder != "resnet18" else network_from_config(settings)
    loss = loss_from_config(settings, network)
    views_of_noise = torch.randn(2, B, 1, 32, 64, generator=torch.Generator().manual_seed(0))
    graphs: list[torch.fx.GraphModule] = []

    def counted(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(loss, backend=counted, fullgraph=True)
    for seed in range(3):
        compiled(*views_of_noise, batch_of(settings, seed).ratings)
    assert len(graphs) == 1


@torch_compile
@pytest.mark.slow  # a minute of C++ compiler, several on a busy machine
@pytest.mark.timeout(1200)
def test_compiled_steps_are_the_eager_ones() -> None:
    """The first step's losses, and the size of its gradient, which in float32 jumps where a ReLU flips."""
    sums = []
    for mode in ("off", "default"):
        settings = config(compile=mode)
        stepper = stepper_of(settings)
        stepper.step(batch_of(settings, 0), 0)
        sums.append(stepper.sums)
    torch.testing.assert_close(sums[1][:4], sums[0][:4], rtol=1e-4, atol=0)
    torch.testing.assert_close(sums[1][4], sums[0][4], rtol=0.02, atol=0)
