"""The twin-view training loop.

B batch, N samples, T frames, M mels, K targets. Terms of the loss are in the order ccc, ccc_a, bt.
"""

import json
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from ..runtime.errors import ConfigError, StoppedError
from ..runtime.files import write_bytes
from ..runtime.progress import Progress
from . import views
from .checkpoint import CheckpointInfo, Tensors, load_checkpoint, read_info, save_checkpoint
from .config import Config
from .frontend import LogMel
from .losses import bt_loss, ccc_loss, cross_correlation, ruwl_loss, ruwl_weights
from .metrics import ccc_challenge
from .model import TwinsNetwork
from .plan import Plan, network_from_config
from .predict import mel_mean, predict, split_clips, waveform_batch


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What `rrtn train --json` ends with."""

    run: Path
    best: CheckpointInfo
    epochs: int


def train(plan: Plan, run: Path, *, resume: bool) -> TrainResult:
    """Trains into the folder `run`; `resume` goes on behind its last checkpoint and gives the bits of an unbroken run.

    Raises DataError for audio that cannot be decoded, StoppedError for a loss that is not finite.
    """
    config = plan.config
    device = device_from_name(config.device)
    network = network_from_config(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    c = nn.Parameter(torch.tensor(config.loss.ruwl_c, device=device))
    optimizer = optimizer_from_config(config, network, c)
    frontend = LogMel(config.frontend).to(device)
    _check_vacant(run, resume=resume)
    training, validation = (split_clips(plan.data, name, config.frontend, device) for name in ("Train", "Val"))
    done = _restore(run, network, c, optimizer) if resume else _start(run, config)
    fill = mel_mean(training, frontend)
    best_ccc = read_info(run / "checkpoints/best").ccc if done else -np.inf
    batch_size = config.optim.batch_size

    for epoch in range(done, config.optim.epochs):
        order = views.epoch_order(config.seed, epoch, len(training.store))
        sums = torch.zeros(4, device=device)
        network.train()
        with Progress(f"epoch {epoch + 1}/{config.optim.epochs}", plan.steps_per_epoch * batch_size, "clips") as bar:
            for step in range(plan.steps_per_epoch):
                samples = order[step * batch_size : (step + 1) * batch_size]
                torch.manual_seed(views.step_seed(config.seed, epoch * plan.steps_per_epoch + step))
                clean = frontend(waveform_batch(training, samples, seed=config.seed, epoch=epoch))
                augmented = None
                if config.model.method != "vanilla":
                    draws = views.mask_draws(config.seed, epoch, samples, config.augment).to(device)
                    augmented = views.masked_view(clean, fill, draws, config.augment)
                losses, loss = _losses(config, network, c, clean, augmented, training.ratings[samples])
                if not torch.isfinite(loss):  # sync point
                    names = ", ".join(training.names[i] for i in samples[:8])
                    raise StoppedError(f"epoch {epoch + 1}, step {step + 1} | loss {loss.item()} | clips {names}, ...")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                sums += torch.cat([losses.detach(), loss.detach()[None]])
                bar.advance(batch_size)

        scores = predict(network, frontend, validation)
        per_target = ccc_challenge(scores, validation.ratings.cpu())
        if not np.isfinite(per_target).all():
            raise StoppedError(f"epoch {epoch + 1} | Val CCC is not finite: {per_target} | the last checkpoint is whole")
        info = _info(plan, epoch + 1, per_target)
        weights = ruwl_weights(c.detach(), c.new_tensor(config.loss.ruwl_lambda))
        record = _record(info, (sums / plan.steps_per_epoch).tolist(), weights.tolist(), config)
        is_best = info.ccc > best_ccc
        best_ccc = max(best_ccc, info.ccc)
        _append_history(run, record)
        _save(run, info, network, c, optimizer, is_best=is_best)
        print(_line(record, config.optim.epochs, bar.rate, is_best=is_best), file=sys.stderr, flush=True)

    return TrainResult(run=run, best=read_info(run / "checkpoints/best"), epochs=config.optim.epochs)


def device_from_name(name: str) -> torch.device:
    """`auto` is CUDA where it is there. Raises ConfigError for a CUDA that is not."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda | torch sees no CUDA GPU | see: rrtn doctor, or use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def optimizer_from_config(config: Config, network: TwinsNetwork, c: nn.Parameter) -> torch.optim.AdamW:
    """AdamW over the network; RUWL's c has its own learning rate and no weight decay."""
    ours = {"params": list(network.parameters()), "weight_decay": config.optim.weight_decay}
    ruwl = {"params": [c], "lr": config.optim.ruwl_lr, "weight_decay": 0.0}
    return torch.optim.AdamW([ours, ruwl], lr=config.optim.lr, eps=config.optim.eps)


def _losses(
    config: Config, network: TwinsNetwork, c: Tensor, clean: Tensor, augmented: Tensor | None, ratings: Tensor
) -> tuple[Tensor, Tensor]:
    """The views' log_mel [B, 1, T, M], ratings [B, K] -> the three terms [3], and the loss that is minimised."""
    x = network(clean)
    l_ccc = ccc_loss(x.scores, ratings)
    if augmented is None:
        return torch.stack([l_ccc, l_ccc.new_zeros(()), l_ccc.new_zeros(())]), l_ccc
    x_a = network(augmented)
    l_ccc_a = ccc_loss(x_a.scores, ratings)
    correlation = cross_correlation(network.project(x.embedding), network.project(x_a.embedding))
    l_bt = bt_loss(correlation, off_diagonal=config.loss.off_diagonal)
    losses = torch.stack([l_ccc, l_ccc_a, l_bt])
    lambdas = losses.new_tensor(config.loss.ruwl_lambda)
    if config.model.method == "rrtn":  # without RUWL: its initial weights, fixed
        return losses, (ruwl_weights(losses.new_tensor(config.loss.ruwl_c), lambdas) * losses).sum()
    return losses, ruwl_loss(losses, c, lambdas)


def _check_vacant(run: Path, *, resume: bool) -> None:
    if not resume and (run / "config.toml").exists():
        raise ConfigError(f"--out {run} | holds a run already | go on with --resume, or choose another folder")


def _start(run: Path, config: Config) -> int:
    run.mkdir(parents=True, exist_ok=True)
    write_bytes(run / "config.toml", config.to_toml().encode())
    return 0


def _restore(run: Path, network: TwinsNetwork, c: nn.Parameter, optimizer: torch.optim.AdamW) -> int:
    """Loads the last checkpoint and cuts the history behind it; -> epochs done (0 where none was finished)."""
    last = run / "checkpoints/last"
    if not (last / "checkpoint.json").exists():
        (run / "history.jsonl").unlink(missing_ok=True)
        return 0
    info, tensors = load_checkpoint(last, "weights", "optimizer")
    weights = dict(tensors["weights"])
    with torch.no_grad():
        c.copy_(weights.pop("ruwl.c"))
    network.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _unflattened(tensors["optimizer"])})
    lines = (run / "history.jsonl").read_bytes().splitlines(keepends=True)
    if len(lines) > info.epoch:
        write_bytes(run / "history.jsonl", b"".join(lines[: info.epoch]))
    return info.epoch


def _save(
    run: Path,
    info: CheckpointInfo,
    network: TwinsNetwork,
    c: nn.Parameter,
    optimizer: torch.optim.AdamW,
    *,
    is_best: bool,
) -> None:
    """`best` first: where a kill falls between the two, the epoch is trained again and gives the same best."""
    weights = {**network.state_dict(), "ruwl.c": c}
    if is_best:
        save_checkpoint(run / "checkpoints/best", info, {"weights": weights})
    state = {f"{i}.{key}": value for i, entry in optimizer.state_dict()["state"].items() for key, value in entry.items()}
    save_checkpoint(run / "checkpoints/last", info, {"weights": weights, "optimizer": state})


def _unflattened(flat: Tensors) -> dict[int, Tensors]:
    state: dict[int, Tensors] = {}
    for name, tensor in flat.items():
        number, key = name.split(".")
        state.setdefault(int(number), {})[key] = tensor
    return state


def _info(plan: Plan, epochs_done: int, per_target: Any) -> CheckpointInfo:
    return CheckpointInfo(
        epoch=epochs_done,
        step=epochs_done * plan.steps_per_epoch,
        ccc=float(per_target.mean()),
        per_target=dict(zip(plan.data.targets, per_target.tolist(), strict=True)),
        labels=list(plan.data.targets),
        config=plan.config.to_dict(),
        versions={"rrtn": __version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def _record(info: CheckpointInfo, means: list[float], weights: list[float], config: Config) -> dict[str, Any]:
    """One line of history.jsonl: no times in it, so that equal runs have equal histories."""
    record: dict[str, Any] = {"epoch": info.epoch, "step": info.step, "loss": means[3], "l_ccc": means[0]}
    if config.model.method != "vanilla":
        record |= {"l_ccc_a": means[1], "l_bt": means[2], "weights": weights}
    return {**record, "val_ccc": info.ccc, "val_ccc_per_target": info.per_target}


def _append_history(run: Path, record: dict[str, Any]) -> None:
    with (run / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _line(record: dict[str, Any], epochs: int, rate: float, *, is_best: bool) -> str:
    twins = f"  ccc_a {record['l_ccc_a']:.3f}  bt {record['l_bt']:.0f}" if "l_bt" in record else ""
    marker = "  best" if is_best else ""
    return (
        f"epoch {record['epoch']:3d}/{epochs}  loss {record['loss']:.3f}  ccc {record['l_ccc']:.3f}{twins}"
        f"  |  Val CCC {record['val_ccc']:.3f}{marker}  |  {rate:.1f} clips/s"
    )
