"""One optimiser step, all on the device: log-Mel, masks, both passes, losses, AdamW.

B batch of this rank, M mels.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..runtime.errors import StoppedError
from ..runtime.system.cache import cache_folder
from .config import Config, terms_of_config, weighting_from_config
from .data.device_clips import TrainingBatch
from .distributed import World, with_global_batchnorm
from .loss_scale import LossScale
from .method import views
from .method.frontend import LogMel
from .method.model import TwinsNetwork
from .method.twins_loss import TwinsLoss

HALF: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}  # precision -> dtype of the passes
_NONE: Final = -1

# Inductor writes an intermediate result to memory when it has more inputs or operators than these. The
# gradients of BatchNorm, ReLU, pooling and dropout together have more than by default, and each result
# that is written costs more than it saves (benchmarks/step_bytes.py).
INDUCTOR_OPTIONS: Final = {
    "realize_reads_threshold": 16,
    "realize_opcount_threshold": 100,
    "realize_acc_reads_threshold": 32,
}


class Stepper:
    """The network with its loss and optimiser, and the sums of an epoch.

    `step` never waits for the device.
    """

    def __init__(
        self,
        config: Config,
        network: TwinsNetwork,
        fill: Tensor,
        *,
        steps: int,
        steps_per_epoch: int,
        world: World,
        has_blanks: bool = False,
    ):
        """`fill` [M] replaces what masks cover; the learning rate's schedule needs the run's `steps`.

        `has_blanks` says that ratings may be missing.
        """
        device = fill.device
        set_float32_precision(config)
        torch.backends.cudnn.benchmark = True  # the shapes of a run's batches are few
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if world.size > 1:
            with_global_batchnorm(network, device)
        self.config, self.network, self.fill = config, network, fill
        self.frontend = LogMel(config.frontend).to(device)
        self.loss = loss_from_config(config, network, has_blanks=has_blanks).to(device)
        self.optimizer = optimizer_from_config(config, self.loss)
        self.sums = torch.zeros(len(sums_of_config(config)), device=device)
        self.loss_scale = LossScale(device) if config.precision == "fp16" else None
        self._bad_step = torch.full((), _NONE, dtype=torch.int64, device=device)
        self._forward = _wrapped(self.loss, config, device, world)
        self.scoring: nn.Module = _compiled(network, config, device) if config.is_compiled else network
        self._rank, self._steps = world.rank, steps
        self._warmup = config.optim.warmup_epochs * steps_per_epoch

    def step(self, batch: TrainingBatch, number: int) -> None:
        """Step `number` of the run, counted from 0.

        If loss or gradient is not finite, this step and all later ones change no weight. In float16 a
        gradient may overflow: that step alone changes no weight, its gradient counts as 0 in the epoch's
        sums, and the next loss has a smaller factor.
        """
        _seed(views.step_seed(self.config.seed, number) + self._rank, self.fill.device)
        self.optimizer.param_groups[0]["lr"] = self.lr_of(number)
        clean = self.frontend(*batch.waveforms)
        augmented = None
        if self.config.model.has_second_view:
            augmented = views.masked_view(clean, self.fill, batch.draws, self.config.augment)
        self.optimizer.zero_grad(set_to_none=True)
        if self.config.is_compiled:
            torch.compiler.cudagraph_mark_step_begin()
        losses, loss = self._forward(clean, augmented, batch.ratings)
        (loss if self.loss_scale is None else loss * self.loss_scale.factor).backward()
        norm = nn.utils.get_total_norm([p.grad for p in self.loss.parameters() if p.grad is not None])
        if self.loss_scale is None:
            self._guard(torch.isfinite(loss.detach()) & torch.isfinite(norm), number)
        else:
            norm = self._guard_scaled(self.loss_scale, loss.detach(), norm, number)
        self.optimizer.step()
        self.sums += torch.cat([losses.float(), torch.stack([loss.detach(), norm]).float()])

    def bad_step(self) -> int | None:
        """The first step whose loss or gradient was not finite. This is a sync point."""
        number = int(self._bad_step.item())
        return None if number == _NONE else number

    def lr_of(self, number: int) -> float:
        """The network's learning rate in step `number`."""
        optim = self.config.optim
        factor = min(1.0, (number + 1) / self._warmup) if self._warmup else 1.0
        if optim.schedule == "cosine":
            factor *= 0.5 * (1 + math.cos(math.pi * number / self._steps))
        return optim.lr * factor

    def _guard(self, finite: Tensor, number: int) -> None:
        """AdamW's fused kernel changes nothing while `found_inf` is 1, as under a GradScaler."""
        first = (self._bad_step == _NONE) & ~finite
        self._bad_step = torch.where(first, number, self._bad_step)
        self.optimizer.found_inf = (self._bad_step != _NONE).float()  # type: ignore[attr-defined]

    def _guard_scaled(self, scale: LossScale, loss: Tensor, norm: Tensor, number: int) -> Tensor:
        """The guard of a loss with a factor; -> the norm without it. AdamW divides its gradients itself."""
        overflowed = torch.isfinite(loss) & ~torch.isfinite(norm) & scale.may_fall()
        self._guard(torch.isfinite(loss) & (torch.isfinite(norm) | overflowed), number)
        self.optimizer.found_inf = torch.maximum(self.optimizer.found_inf, overflowed.float())  # type: ignore[attr-defined]
        self.optimizer.grad_scale = scale.factor  # type: ignore[attr-defined]
        norm = torch.where(overflowed, 0.0, norm / scale.factor)
        scale.update(overflowed)
        return norm


@contextlib.contextmanager
def compiler_for_run(config: Config) -> Iterator[None]:
    """A compiler that has compiled nothing, while the block makes a Stepper and trains with it.

    torch.compile makes a few graphs of the same code, those of a process's earlier runs among them, and then
    runs it eagerly. Raises StoppedError instead.
    """
    if not config.is_compiled:
        yield
        return
    torch.compiler.reset()
    try:
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            yield
    except torch._dynamo.exc.FailOnRecompileLimitHit as error:
        came = f"would not compile all steps: {str(error.__cause__ or error).splitlines()[0]}"
        raise StoppedError("torch.compile", came, fix="continue with --resume --compile off") from error


def sums_of_config(config: Config) -> tuple[str, ...]:
    """What is summed up over an epoch's steps."""
    return (*terms_of_config(config), "loss", "grad_norm")


def loss_from_config(config: Config, network: TwinsNetwork, *, has_blanks: bool = False) -> TwinsLoss:
    """What a step differentiates, around `network`."""
    return TwinsLoss(
        network,
        weighting_from_config(config),
        off_diagonal=config.loss.off_diagonal,
        autocast_to=HALF.get(config.precision),
        has_blanks=has_blanks,
        in_one_batch=config.is_compiled and config.model.has_second_view,
    )


def optimizer_from_config(config: Config, loss: TwinsLoss) -> torch.optim.AdamW:
    """Fused AdamW over the network and over what the weighting learns."""
    groups: list[dict[str, Any]] = [{"params": list(loss.network.parameters())}]
    if learned := [p for p in loss.weighting.parameters() if p.requires_grad]:
        groups.append({"params": learned, "lr": loss.weighting.lr, "weight_decay": 0.0})
    optim = config.optim
    return torch.optim.AdamW(groups, lr=optim.lr, eps=optim.eps, weight_decay=optim.weight_decay, fused=True)


def set_float32_precision(config: Config) -> None:
    """Allows TF32 for convolutions, and nowhere else.

    Linear layers, CCC moments and the cross-correlation always stay in full float32.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = config.precision == "tf32"


@contextlib.contextmanager
def products_as_convolutions(config: Config) -> Iterator[None]:
    """Matrix products in the precision of the convolutions, which are most of a step: for its ceiling."""
    torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
    try:
        yield
    finally:
        set_float32_precision(config)


def _seed(seed: int, device: torch.device) -> None:
    """torch.manual_seed without the devices that are not here: for each it notes how it was called."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _wrapped(loss: TwinsLoss, config: Config, device: torch.device, world: World) -> nn.Module:
    module: nn.Module = loss
    if world.size > 1:
        devices = [device.index] if device.type == "cuda" else None
        module = nn.parallel.DistributedDataParallel(
            module, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    return _compiled(module, config, device) if config.is_compiled else module


def _compiled(module: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """The module as torch.compile makes it when it is first called. Its kernels stay in rrtn's cache."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    mode = config.compile
    options: dict[str, Any] = {} if mode == "default" else torch._inductor.list_mode_options(mode)
    if device.type == "cuda":
        options |= INDUCTOR_OPTIONS
    compiled: nn.Module = torch.compile(module, dynamic=False, options=options)  # type: ignore[assignment]
    return compiled
