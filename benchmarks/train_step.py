"""One training step of rrtn from waveforms, against a plain loop from features, in one run.

    python benchmarks/train_step.py --encoders resnet18 cnn10 --methods vanilla rrtn-ruwl
        --batch-size 128 --steps 5

The plain loop is the one that a researcher would write: a DataLoader over log-Mels that were
computed beforehand, eager, fp32, torch.optim.AdamW with its defaults, SpecAugment one clip after the
other as in torchlibrosa, and loss.item() for the progress line. rrtn's step starts from int16
waveforms: its time includes crop, level, log-Mel in float64, and masks.
"""

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from measure import Ratio, ratio, report
from rrtn.runtime import FrontendSpec
from rrtn.train.config import Config, config_from_dict
from rrtn.train.data.clip_cache import CacheShard, ClipStore
from rrtn.train.data.device_clips import SplitClips, epoch_of_split
from rrtn.train.distributed import World
from rrtn.train.method.flops import matmul_peak, step_flops
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.losses import bt_loss, ccc_loss, cross_correlation, ruwl_loss
from rrtn.train.plan import network_from_config
from rrtn.train.predict import log_mels, mel_mean
from rrtn.train.step import Stepper
from torch import Tensor

TARGETS = 10


def split_of_noise(clips: int, spec: FrontendSpec, device: torch.device) -> SplitClips:
    """Recordings of 1 to 4 s, as bursts are, with random ratings."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(spec.sampling_rate, 4 * spec.sampling_rate, clips)
    samples = rng.integers(-8000, 8000, int(lengths.sum()), dtype=np.int16)
    store = ClipStore(
        [
            CacheShard.in_memory(samples[begin:end], np.cumsum([0, *part]))
            for begin, end, part in _groups(lengths)
        ]
    )
    ratings = torch.from_numpy(rng.uniform(0, 1, (clips, TARGETS)).astype(np.float32)).to(device)
    return SplitClips(store, ratings, [str(i) for i in range(clips)], spec, resident=device.type == "cuda")


def _groups(
    lengths: "np.typing.NDArray[np.int64]",
) -> Iterator[tuple[int, int, "np.typing.NDArray[np.int64]"]]:
    end = 0
    for i in range(0, len(lengths), 512):
        begin, end = end, end + int(lengths[i : i + 512].sum())
        yield begin, end, lengths[i : i + 512]


def our_steps(config: Config, split: SplitClips) -> Iterator[None]:
    """One optimiser step each time it is asked."""
    fill = mel_mean(split, LogMel(config.frontend).to(split.device))
    network = network_from_config(config)
    stepper = Stepper(config, network, fill, steps=10**6, steps_per_epoch=10**6, world=World())
    network.train()
    number = 0
    while True:
        for batch in epoch_of_split(split, config, number, World()).batches(0):
            stepper.step(batch, number)
            number += 1
            if stepper.bad_step() is not None:
                raise SystemExit("the benchmark's loss is not finite")
            yield


def plain_steps(config: Config, split: SplitClips) -> Iterator[None]:
    """The same method by hand."""
    device = split.device
    features = torch.cat(
        [batch.cpu() for batch in log_mels(split, LogMel(config.frontend).to(device), np.arange(len(split)))]
    )
    data = torch.utils.data.TensorDataset(features, split.ratings.cpu())
    loader = torch.utils.data.DataLoader(
        data, batch_size=config.optim.batch_size, shuffle=True, drop_last=True
    )
    network = network_from_config(config).to(device).train()
    c = torch.nn.Parameter(torch.tensor(config.ruwl.c, device=device))
    lambdas = torch.tensor(config.ruwl.lambdas, device=device)
    optimizer = torch.optim.AdamW(
        [*network.parameters(), c], lr=config.optim.lr, weight_decay=config.optim.weight_decay
    )
    while True:
        for log_mel, ratings in loader:
            x, y = log_mel.to(device), ratings.to(device)
            prediction = network(x)
            loss = ccc_loss(prediction.scores, y)
            if config.model.method != "vanilla":
                augmented = network(spec_augment(x))
                correlation = cross_correlation(
                    network.project(prediction.embedding), network.project(augmented.embedding)
                )
                terms = torch.stack(
                    [loss, ccc_loss(augmented.scores, y), bt_loss(correlation, off_diagonal=0.001)]
                )
                loss = ruwl_loss(terms, c, lambdas)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            yield


def spec_augment(log_mel: Tensor) -> Tensor:
    """Two stripes in time and two in frequency for each clip [B, 1, T, M], as torchlibrosa does it."""
    masked = log_mel.clone()
    for clip in masked:
        for dim, widest in ((1, 64), (1, 64), (2, 8), (2, 8)):
            width = int(torch.randint(0, widest, (1,)))
            start = int(torch.randint(0, clip.shape[dim] - width, (1,)))
            clip.narrow(dim, start, width).fill_(0)
    return masked


def timed(steps: Iterator[None], device: torch.device) -> float:
    start = time.perf_counter()
    next(steps)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(
    makers: dict[str, Callable[[], Iterator[None]]], *, warm_up: int, steps: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each step, the variants in turn."""
    running = {name: make() for name, make in makers.items()}
    for iterator in running.values():
        for _ in range(warm_up):
            timed(iterator, device)
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(steps):
        for name, iterator in running.items():
            seconds[name].append(timed(iterator, device))
    return seconds


def results_of(
    base: Config, split: SplitClips, arguments: argparse.Namespace
) -> tuple[dict[str, dict[str, float | int | str]], dict[str, Ratio]]:
    """One line for each variant of one encoder and method, and how many times faster than the plain
    loop it is.
    """
    device, batch = split.device, base.optim.batch_size
    plain = dataclasses.replace(base, precision="fp32", compile="off")
    makers: dict[str, Callable[[], Iterator[None]]] = {
        "plain PyTorch loop fp32": lambda: plain_steps(plain, split)
    }
    for precision in arguments.precisions:
        for mode in arguments.compile:
            config = dataclasses.replace(base, precision=precision, compile=mode)
            name = f"rrtn {precision}" + ("" if mode == "off" else f" compile {mode}")
            makers[name] = functools.partial(our_steps, config, split)
    seconds = measure(makers, warm_up=arguments.warm_up, steps=arguments.steps, device=device)
    flops = step_flops(network_from_config(base), spec=base.frontend, batch_size=batch)
    plain_seconds = seconds["plain PyTorch loop fp32"]
    which = f"{base.model.encoder} {base.model.method}"
    ratios = {f"{which}: {name} over plain": ratio(plain_seconds, values) for name, values in seconds.items()}
    del ratios[f"{which}: plain PyTorch loop fp32 over plain"]
    results: dict[str, dict[str, float | int | str]] = {}
    for name, values in seconds.items():
        dtype = torch.bfloat16 if "bf16" in name else torch.float32
        median, peak = float(np.median(values)), matmul_peak(device, dtype, seconds=1.0)
        results[f"{which}: {name}"] = {
            "ms": round(1e3 * median, 1),
            "spread": round(float(np.std(values) / np.mean(values)), 3),
            "n": len(values),
            "clips_per_s": round(batch / median, 1),
            "gflop_per_s": round(flops / median / 1e9, 1),
            "share_of_matmul_peak": round(flops / median / peak, 3),
        }
    return results, ratios


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", default=["resnet18"])
    parser.add_argument("--methods", nargs="+", default=["vanilla", "rrtn-ruwl"])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--compile", nargs="+", default=["off"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    split = split_of_noise(4 * arguments.batch_size, FrontendSpec(), device)
    results: dict[str, dict[str, float | int | str]] = {}
    ratios: dict[str, Ratio] = {}
    for encoder in arguments.encoders:
        for method in arguments.methods:
            config = config_from_dict(
                {
                    "model": {"encoder": encoder, "method": method},
                    "data": {"targets": [f"t{i}" for i in range(TARGETS)]},
                    "optim": {"epochs": 1, "batch_size": arguments.batch_size},
                },
                source="benchmark",
            )
            of_config, of_pairs = results_of(config, split, arguments)
            results |= of_config
            ratios |= of_pairs
    report(
        "training step",
        results,
        ratios=ratios,
        batch_size=arguments.batch_size,
        warm_up=arguments.warm_up,
        device=str(device),
    )


if __name__ == "__main__":
    main()
