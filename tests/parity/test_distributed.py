"""Two processes train as one: loss, gradients, weights and BatchNorm's buffers are those of a single
process, in float64.

Run as one of two ranks, this file is the worker: at every step each rank trains its half of the
batch as the loop does, and beside it the same network over the whole batch as a single process
does, and notes how far they are apart. B global batch, T frames, M mels, K targets.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from rrtn.runtime import FrontendSpec
from rrtn.train import distributed
from rrtn.train.config import Config, DataConfig, ModelConfig, ProjectorConfig, RuwlConfig
from rrtn.train.distributed import World
from rrtn.train.method import losses, model
from rrtn.train.method import twins_loss as twins
from rrtn.train.method.encoders import BasicBlock, Encoder, PannsCnn
from rrtn.train.method.twins_loss import TwinsLoss
from rrtn.train.plan import network_from_config
from rrtn.train.step import loss_from_config
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

CPU = torch.device("cpu")
TOLERANCE = 1e-9
B, T, M = 8, 24, 32
TARGETS = ("Awe", "Fear", "Joy")
CLASSES = ("Type=Cry", "Type=Gasp", "Type=Laugh")
# The clips that are rated for each target: most; those of the first process and one more; one, which is no
# CCC. A class has a clip of each process, and all but one of the others.
RATED = [[0, 2, 3, 4, 5, 7], [0, 1, 2, 3, 6], [5]]
OF_CLASS = [0, 1, float("nan"), 2, 2, 1, 0, 0]
# lambda / c^2 of the one term; for gradients of about 1 in each, because AdamW moves what has a
# gradient of rounding errors only (the projector's bias: Barlow Twins does not see it) by lr / eps
# times them, which is 1e-9 where bt counts 1.
ALONE = {"ccc": (1.0, 0.0, 0.0), "ccc_a": (0.0, 1.0, 0.0), "bt": (0.0, 0.0, 0.01)}
WHAT = ("loss", "terms", "gradients", "weights", "buffers")


@dataclass(frozen=True)
class Case:
    """Encoders are thin ones, for speed, without dropout."""

    term: str  # one alone, or the method that has all
    encoder: model.EncoderName = "cnn10"
    layers: int = 1
    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW
    steps: int = 2
    fault: str = ""
    has_blanks: bool = False
    classes: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """Equal apart from what the case is about."""
        return Config(
            data=DataConfig(
                targets=TARGETS, class_targets=("Type",) if self.classes else (), classes=self.classes
            ),
            model=ModelConfig(encoder=self.encoder, method="rrtn" if self.term in ALONE else self.term),
            projector=ProjectorConfig()
            if self.term == "vanilla"
            else ProjectorConfig(layers=self.layers, units=64),
            ruwl=RuwlConfig(lambdas=ALONE[self.term], c=(1, 1, 1)) if self.term in ALONE else RuwlConfig(),
            frontend=FrontendSpec(n_mels=M),
        )


RIGHT = {
    **{f"{term} of a ResNet": Case(term, "resnet18") for term in ("bt", "rrtn-ruwl")},
    **{term: Case(term) for term in ("vanilla", "ccc", "ccc_a", "bt", "rrtn", "rrtn-ruwl")},
    **{f"{term} with SGD": Case(term, optimizer=torch.optim.SGD) for term in ("ccc", "bt", "rrtn-ruwl")},
    "projector with BatchNorm": Case("rrtn-ruwl", layers=2),
    "blanks": Case("rrtn-ruwl", has_blanks=True),
    "blanks, CCC alone": Case("ccc", has_blanks=True),
    "classes": Case("rrtn-ruwl", classes=CLASSES),
    "vanilla with blanks and classes": Case("vanilla", has_blanks=True, classes=CLASSES),
    "blanks and classes": Case("rrtn-ruwl", has_blanks=True, classes=CLASSES),
}
FAULTS = {
    "gather whose backward gives the own gradient": ("ccc", "bt"),
    "plain all_reduce of C": ("bt",),
    "plain all_reduce in BatchNorm": ("ccc", "bt"),
    "local BatchNorm": ("ccc", "bt"),
    "local CCC": ("ccc",),
    "sum of the gradients": ("ccc", "bt"),
}
WRONG = {
    f"{term}, {fault}": Case(term, optimizer=torch.optim.SGD, steps=1, fault=fault)
    for fault, terms in FAULTS.items()
    for term in terms
}
WRONG |= {
    fault: Case("vanilla", optimizer=torch.optim.SGD, steps=1, fault=fault, has_blanks=True, classes=CLASSES)
    for fault in ("local CCC of rated", "local cross-entropy")
}


@pytest.fixture(scope="module")
def apart(server: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, float]]]:
    """What two processes found for all cases, of each rank."""
    folder = tmp_path_factory.mktemp("ranks")
    for ended in server.run_as_ranks(Path(__file__), folder):
        assert ended.code == 0, ended.err[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", RIGHT)
def test_two_processes_equal_one(apart: list[dict[str, dict[str, float]]], name: str) -> None:
    for rank in apart:
        assert rank[name]["largest gradient"] > 0.01
        assert {what: rank[name][what] for what in WHAT if not rank[name][what] < TOLERANCE} == {}


@pytest.mark.parametrize("name", WRONG)
def test_every_known_mistake_is_seen_in_the_gradients(
    apart: list[dict[str, dict[str, float]]], name: str
) -> None:
    """Off by a part of the largest gradient, not by rounding errors."""
    for rank in apart:
        assert rank[name]["gradients"] > 0.05 * rank[name]["largest gradient"] > 1e6 * TOLERANCE


def test_a_plain_all_reduce_leaves_the_loss_right(apart: list[dict[str, dict[str, float]]]) -> None:
    """Which is why the gradients are compared."""
    for fault in (
        "plain all_reduce of C",
        "gather whose backward gives the own gradient",
        "sum of the gradients",
    ):
        assert all(rank[f"bt, {fault}"][what] < TOLERANCE for rank in apart for what in ("loss", "buffers"))


def test_local_batchnorm_is_seen_in_the_buffers(apart: list[dict[str, dict[str, float]]]) -> None:
    assert all(rank["ccc, local BatchNorm"]["buffers"] > 1e-3 for rank in apart)


def differences(case: Case, world: World) -> dict[str, float]:
    """How far both are apart, for each of WHAT: the worst step."""
    single, ours = loss_module(case), loss_module(case)
    with fault_put_in(case.fault):
        distributed.with_global_batchnorm(ours, CPU)
        parallel = DistributedDataParallel(ours, broadcast_buffers=False, gradient_as_bucket_view=True)
    if case.fault == "sum of the gradients":
        parallel.register_comm_hook(None, sum_of_bucket)
    parameters = [[p for p in module.parameters() if p.requires_grad] for module in (single, ours)]
    optimizers = [case.optimizer(own, lr=1e-3, fused=True) for own in parameters]
    steps = []
    for step in range(case.steps):
        batch = random_batch(step, case)
        with mock.patch.object(dist, "is_initialized", return_value=False):
            expected = trained(single, optimizers[0], batch)
        with fault_put_in(case.fault):
            came = trained(parallel, optimizers[1], [part[world.slice_of(B)] for part in batch])
        found = {what: apart_by(came[what], expected[what]) for what in WHAT}
        steps.append({**found, "largest gradient": float(max(g.abs().max() for g in expected["gradients"]))})
    return {what: float(np.max([step[what] for step in steps])) for what in steps[0]}  # NaN where a step is


def loss_module(case: Case) -> TwinsLoss:
    torch.manual_seed(0)
    with mock.patch.object(model, "encoder_from_name", thin_encoder):
        network = network_from_config(case.config)
        return loss_from_config(case.config, network, has_blanks=case.has_blanks).double()


def thin_encoder(name: model.EncoderName, *, n_mels: int) -> Encoder:
    return PannsCnn(n_mels, channels=(8, 16, 32), pooled_blocks=2) if name == "cnn10" else ThinResNet(n_mels)


class ThinResNet(Encoder):
    """ResNet18's stem, one block with an identity shortcut and one with a projected shortcut."""

    embedding_size = 16

    def __init__(self, n_mels: int) -> None:
        super().__init__(n_mels)
        stem = nn.Conv2d(1, 8, 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(BasicBlock(8, 8, stride=1), BasicBlock(8, 16, stride=2))

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.blocks(self.stem(self.normalised(log_mel))).mean((2, 3))


def random_batch(step: int, case: Case) -> list[Tensor]:
    """Views [B, 1, T, M], labels [B, K + J]; each clip has its own level and spectrum, so that half a
    batch is not the whole.
    """
    generator = torch.Generator().manual_seed(step)
    noise, spectrum = (torch.randn(B, 1, t, M, generator=generator, dtype=torch.float64) for t in (T, 1))
    clean = 15 * noise + 10 * spectrum - 50
    augmented = clean.clone()
    for i in range(B):
        augmented[i, :, 2 * i : 2 * i + 8] = -50
    labels = torch.rand(B, len(TARGETS), generator=generator, dtype=torch.float64)
    if case.has_blanks:
        for k, rows in enumerate(RATED):
            blank = [row for row in range(B) if row not in rows]
            labels[blank, k] = torch.nan
    if case.classes:
        labels = torch.hstack([labels, torch.tensor(OF_CLASS, dtype=torch.float64)[:, None]])
    return [clean, augmented, labels]


def trained(
    module: nn.Module, optimizer: torch.optim.Optimizer, batch: list[Tensor]
) -> dict[str, list[Tensor]]:
    """One step."""
    clean, augmented, ratings = batch
    inner = getattr(module, "module", module)
    terms, loss = module(clean, augmented if inner.network.projector else None, ratings)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    gradients = [p.grad for p in inner.parameters() if p.requires_grad]
    state = {"weights": [p.detach() for p in inner.parameters()], "buffers": list(inner.buffers())}
    return {"loss": [loss.detach()], "terms": [terms], "gradients": gradients, **state}


def apart_by(came: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """The largest difference, over tensors that reach above 1 relative to their largest value."""
    pairs = zip(came, expected, strict=True)
    return float(torch.stack([(a - b).abs().max() / b.abs().max().clamp(min=1) for a, b in pairs]).max())


@contextlib.contextmanager
def fault_put_in(name: str) -> Iterator[None]:
    patches = {
        "gather whose backward gives the own gradient": (
            distributed._Gather,
            "backward",
            staticmethod(own_gradient),
        ),
        "plain all_reduce of C": (twins, "cross_correlation", cross_correlation_with_plain_all_reduce),
        "plain all_reduce in BatchNorm": (
            distributed._Sum,
            "backward",
            staticmethod(lambda ctx, gradient: gradient),
        ),
        "local BatchNorm": (distributed, "with_global_batchnorm", lambda network, device: network),
        "local CCC": (twins, "ccc_loss", lambda x, y: losses.ccc_loss(own_rows(x), own_rows(y))),
        "local CCC of rated": (
            twins,
            "ccc_loss_of_rated",
            lambda x, y: losses.ccc_loss_of_rated(own_rows(x), own_rows(y)),
        ),
        "local cross-entropy": (
            twins,
            "class_loss",
            lambda logits, classes: losses.class_loss(own_rows(logits), own_rows(classes)),
        ),
    }
    with mock.patch.object(*patches[name]) if name in patches else contextlib.nullcontext():
        yield


def own_rows(x: Tensor) -> Tensor:
    return x.chunk(dist.get_world_size())[dist.get_rank()]


def own_gradient(ctx: object, gradient: Tensor) -> Tensor:
    return own_rows(gradient)


def cross_correlation_with_plain_all_reduce(z_a: Tensor, z_b: Tensor) -> Tensor:
    """As lightly and others: what the other ranks add has no gradient."""
    own = own_rows(losses._standardised(z_a)).T @ own_rows(losses._standardised(z_b)) / len(z_a)
    total = own.detach().clone()
    dist.all_reduce(total)
    return own + (total - own).detach()


def sum_of_bucket(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def main(folder: Path) -> None:
    world = distributed.world_from_environment()
    with distributed.joined(world, CPU), mock.patch.object(F, "dropout", lambda x, *_, **__: x):
        found = {name: differences(case, world) for name, case in {**RIGHT, **WRONG}.items()}
    assert not dist.is_initialized()
    (folder / f"{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # Gloo's threads may abort a normal end; rrtn itself leaves so, too
