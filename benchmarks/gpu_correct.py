"""Section `correct`: the device computes what the CPU does.

References are in float64 on the CPU. What float32 on the device is held against is float32 on the
CPU, which is wrong, too: it may be further from the reference by a factor, not by more. B batch, T
frames, M mels.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import checkout  # noqa: F401  # before rrtn
import numpy as np
import torch
from gpu_corpus import items_of_corpus, split_of_items, trained
from gpu_section import Place, Record, peak_memory_gb
from rrtn.runtime import FrontendSpec
from rrtn.runtime.challenge import EMOTIONS
from rrtn.runtime.frontend import clip_log_mel
from rrtn.runtime.probe_sounds import extremes
from rrtn.train.config import Config, TrainingDevice, config_from_dict
from rrtn.train.data.device_clips import SplitClips, epoch_of_split
from rrtn.train.host_copy import HostCopy
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.losses import bt_loss, ccc_loss, cross_correlation, ruwl_loss
from rrtn.train.method.views import masked_view
from rrtn.train.plan import network_from_config
from rrtn.train.predict import mel_mean
from rrtn.train.step import loss_from_config, set_float32_precision
from torch import Tensor

FRONTEND_DB = 1e-3  # design.md section 3
FACTOR, FLOOR = (
    30.0,
    1e-5,
)  # float32 on the device against float32 on the CPU; convolutions add up in another order
BF16_LOSS, BF16_ANGLE = 0.03, 0.1  # relative; 1 - cosine of the gradients. bf16 has 8 bits
EPOCH_LOSS, EPOCH_CCC = 0.02, 0.03  # after an epoch of AdamW, which makes whole steps of rounding errors


def config_of(encoder: EncoderName, *, batch_size: int, **more: Any) -> Config:
    """fp32, the paper's best method, nothing left open."""
    document = {
        "model": {"encoder": encoder, "method": more.pop("method", "rrtn-ruwl")},
        "data": {"targets": list(EMOTIONS)},
        "optim": {"epochs": more.pop("epochs", 1), "batch_size": batch_size},
        "precision": "fp32",
    }
    return config_from_dict(document | more, source="gpu_suite")


def section_correct(place: Place, record: Record) -> None:
    """Frontend, losses, gradients, bf16, compile, clips in the device's memory, an epoch."""
    spec = FrontendSpec()
    items = items_of_corpus(place.size(256, 24), speakers=12, spec=spec)
    with record.part("frontend"):
        check_frontend(place, record, items)
    with record.part("clips"):
        check_clips(place, record, items)
    with record.part("losses"):
        check_losses(place, record)
    for encoder in place.chosen(tuple(ENCODERS), ("resnet18",)):
        with record.part(f"{encoder} gradients"):
            check_gradients(place, record, encoder, split_of_items(items, spec, torch.device("cpu")))
    with record.part("checkpoint"):
        check_copies(place, record)
    with record.part("epoch"):
        check_epoch(place, record, items)
    record.more["peak_memory_gb"] = peak_memory_gb(place.device)


def check_frontend(place: Place, record: Record, items: list[Any]) -> None:
    """Log-Mel on the device against NumPy's, as `rrtn score` computes it: bursts, silence, a click,
    noise, a square wave.
    """
    spec = FrontendSpec()
    split = split_of_items(items, spec, torch.device("cpu"))
    chosen = np.arange(place.size(64, 8))
    bursts = split.clips(chosen, np.zeros_like(chosen)).samples.numpy()
    for name, clips in {"bursts": bursts, "extremes": extremes(spec)}.items():
        reference = np.array([clip_log_mel(clip, spec) for clip in clips])
        on_device = (
            LogMel(spec).to(place.device)(torch.from_numpy(clips).to(place.device))[:, 0].cpu().numpy()
        )
        record.check(
            f"frontend, {name}: max dB",
            float(np.abs(on_device - reference).max()),
            FRONTEND_DB,
            clips=len(clips),
        )


def check_clips(place: Place, record: Record, items: list[Any]) -> None:
    """Batches gathered on the device equal those that are copied there, bit for bit."""
    spec, config = FrontendSpec(), config_of("resnet18", batch_size=8)
    there, copied = (
        split_of_items(items, spec, place.device, resident=resident) for resident in (True, False)
    )
    different = 0
    for a, b in zip(
        *(epoch_of_split(split, config, 0, loop_world()).batches(0) for split in (there, copied)), strict=True
    ):
        pairs = [*zip(a.waveforms, b.waveforms, strict=True), (a.ratings, b.ratings), (a.draws, b.draws)]
        different += sum(not torch.equal(x, y) for x, y in pairs)
    record.check("clips in the device's memory: different batches", different, 0)


def check_copies(place: Place, record: Record) -> None:
    """Copies for a checkpoint hold what the tensors were, though they are changed at once."""
    count = place.size(20_000_000, 1000)
    tensors = {str(i): torch.full((count,), float(i), device=place.device) for i in range(8)}
    copy = HostCopy(tensors)
    for tensor in tensors.values():
        tensor.fill_(-1.0)
    wrong = sum(int((found != float(name)).sum()) for name, found in copy.tensors().items())
    record.check("checkpoint: values of another step", wrong, 0)


def loop_world() -> Any:
    from rrtn.train.distributed import World

    return World()


def check_losses(place: Place, record: Record) -> None:
    """Each loss in float32 on the device against float64 on the CPU."""
    torch.manual_seed(0)
    size, units = place.size((128, 2048), (16, 64))
    x, y = torch.rand(2, size, len(EMOTIONS), dtype=torch.float64)
    z_a = torch.randn(size, units, dtype=torch.float64)
    z_b = z_a + torch.randn(size, units, dtype=torch.float64)
    terms, c, lambdas = (
        torch.tensor(row, dtype=torch.float64) for row in ([0.9, 0.8, 2000.0], [1, 1, 0.01], [1, 1, 1e-8])
    )
    functions: dict[str, Callable[[Callable[[Tensor], Tensor]], Tensor]] = {
        "ccc": lambda to: ccc_loss(to(x), to(y)),
        "cross-correlation": lambda to: cross_correlation(to(z_a), to(z_b)),
        "bt": lambda to: bt_loss(cross_correlation(to(z_a), to(z_b)), off_diagonal=0.001),
        "ruwl": lambda to: ruwl_loss(to(terms), to(c), to(lambdas)),
    }
    for name, function in functions.items():
        reference, found = function(lambda t: t), function(lambda t: t.float().to(place.device))
        record.check(f"loss {name}: relative", difference(found, reference), FLOOR)


def check_gradients(place: Place, record: Record, encoder: EncoderName, split: SplitClips) -> None:
    """One twin-view step without dropout, whose random numbers are each device's own."""
    cpu = torch.device("cpu")
    config = config_of(encoder, batch_size=place.size(16, 6))
    views = views_of(config, split)
    exact = gradients(config, views, cpu, torch.float64)
    fp32 = gradients(config, views, cpu, torch.float32)
    found = gradients(config, views, place.device, torch.float32)
    backend = place.size("inductor", "aot_eager")  # the smoke has no minutes for a compiler
    at_once = dataclasses.replace(config, compile="default")  # both views in one batch
    compiled = gradients(at_once, views, place.device, torch.float32, backend=backend)
    for i, what in enumerate(("loss terms", "gradient")):
        limit = max(FLOOR, FACTOR * difference(fp32[i], exact[i]))
        record.check(f"{encoder} fp32 {what}: relative", difference(found[i], exact[i]), limit)
        record.check(f"{encoder} {backend} fp32 {what}: relative", difference(compiled[i], exact[i]), limit)
    in_bf16 = gradients(dataclasses.replace(config, precision="bf16"), views, place.device, torch.float32)
    record.check(f"{encoder} bf16 loss terms: relative", difference(in_bf16[0], exact[0]), BF16_LOSS)
    record.check(f"{encoder} bf16 gradient: 1 - cosine", 1 - cosine(in_bf16[1], exact[1]), BF16_ANGLE)


def views_of(config: Config, split: SplitClips) -> tuple[Tensor, Tensor, Tensor]:
    """Both views [B, 1, T, M] and the ratings of an epoch's first batch, on the CPU."""
    batch = next(iter(epoch_of_split(split, config, 0, loop_world()).batches(0)))
    frontend = LogMel(config.frontend)
    clean = frontend(*batch.waveforms)
    return clean, masked_view(clean, mel_mean(split, frontend), batch.draws, config.augment), batch.ratings


def gradients(
    config: Config,
    views: tuple[Tensor, Tensor, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    *,
    backend: str = "",
) -> tuple[Tensor, Tensor]:
    """The three terms, and the gradient of the loss for all weights in one vector."""
    set_float32_precision(config)
    network = network_from_config(config).to(device, dtype).train()
    loss = loss_from_config(config, network).to(device, dtype)
    forward = torch.compile(loss, backend=backend) if backend else loss
    with without_dropout():
        terms, total = forward(*(view.to(device, dtype) for view in views))
        total.backward()
    return terms, torch.cat([p.grad.flatten() for p in loss.parameters() if p.grad is not None])


@contextlib.contextmanager
def without_dropout() -> Iterator[None]:
    with mock.patch.object(torch.nn.functional, "dropout", lambda x, p=0.5, training=True, inplace=False: x):
        try:
            yield
        finally:
            torch.compiler.reset()


def difference(found: Tensor, reference: Tensor) -> float:
    """Norm of the difference by the norm of the reference."""
    a, b = found.detach().cpu().double(), reference.detach().cpu().double()
    return float((a - b).norm() / b.norm())


def cosine(found: Tensor, reference: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(found.cpu().double(), reference.cpu().double(), dim=0))


def check_epoch(place: Place, record: Record, items: list[Any]) -> None:
    """`rrtn train` for an epoch of ResNet18, which has no dropout: on the CPU, on the device, and
    there once more.
    """
    half = len(items) * 2 // 3
    splits = {"Train": items[:half], "Val": items[half:]}
    config = config_of("resnet18", batch_size=place.size(32, 4))
    with tempfile.TemporaryDirectory() as name:
        devices: dict[str, TrainingDevice] = {
            "cpu": "cpu",
            "device": place.device_name,
            "again": place.device_name,
        }
        runs = {}
        for run, device in devices.items():
            result = trained(dataclasses.replace(config, device=device), splits, Path(name) / run)
            runs[run] = result.best.history[-1]
    for term in ("l_ccc", "l_bt", "loss"):
        a, b = runs["cpu"][term], runs["device"][term]
        record.check(f"epoch {term}: relative to the CPU's", abs(b - a) / abs(a), EPOCH_LOSS)
    change = abs(runs["device"]["val_ccc"] - runs["cpu"]["val_ccc"])
    record.check("epoch Val CCC: difference to the CPU's", change, EPOCH_CCC)
    # Promised on CPUs alone.
    record.add("epoch again on the device", same_history=runs["device"] == runs["again"])
