"""Sections `step`, `paper-run` and `table2`: how fast it trains, and what comes of it."""

import contextlib
import dataclasses
import gc
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkout  # noqa: F401  # before rrtn
import numpy as np
import torch
from gpu_corpus import Item, corpus_of_bursts, read_from_memory, trained
from gpu_correct import config_of
from gpu_section import Place, Record, peak_memory_gb, seconds_of_blocks
from measure import ratio
from rrtn.runtime import FrontendSpec
from rrtn.runtime.errors import StoppedError
from rrtn.train.config import CompileMode, Config, Precision
from rrtn.train.data.device_clips import SplitClips, TrainingBatch, epoch_of_split
from rrtn.train.distributed import World
from rrtn.train.evidence.table2 import Table2, table_of_runs
from rrtn.train.evidence.table2_runs import ROWS, table_runs, train_rows
from rrtn.train.method.encoders import ENCODERS
from rrtn.train.method.flops import matmul_peak, step_flops
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.views import masked_view
from rrtn.train.plan import network_from_config
from rrtn.train.predict import mel_mean
from rrtn.train.step import Stepper
from train_step import split_of_noise

CLIPS = {"Train": 19_990, "Val": 19_396}  # of the paper
SPEAKERS = (571, 568)
TARGET_SHARE, TARGET_MINUTES = 0.4, 5.0  # design.md section 8
SHORTEST_RUN = 10.0  # s; with less to go, no other run of the table is begun


def section_step(place: Place, record: Record) -> None:
    """Eager against compiled with CUDA graphs in bf16, beside fp32 and tf32 eager.

    Batch 128, twins.
    """
    batch = place.size(128, 4)
    split = split_of_noise(4 * batch, FrontendSpec(), place.device)
    record.more |= {"batch_size": batch, "target_share": TARGET_SHARE, "ratios": {}}
    if place.smoke:  # torch.compile is called, and what it gives runs, but no compiler
        torch.compiler.set_stance("force_eager")
    for encoder in place.chosen(tuple(reversed(ENCODERS)), ("resnet18",)):
        steps_of_encoder(place, record, config_of(encoder, batch_size=batch), split)
        torch.compiler.reset()  # and the memory of its graphs
        gc.collect()
    torch.compiler.set_stance("default")


def steps_of_encoder(place: Place, record: Record, base: Config, split: SplitClips) -> None:
    """One line for each variant, timed in turn with the first: two of them are in memory at a time."""
    variants: list[tuple[Precision, CompileMode]] = [
        ("bf16", "off"),
        ("bf16", "default"),
        ("bf16", "reduce-overhead"),
        ("tf32", "off"),
        ("fp32", "off"),
    ]
    if place.device.type == "cpu":
        variants = [variant for variant in variants if variant[0] != "tf32"]
    encoder, device = base.model.encoder, place.device
    eager: stepping | None = None
    for precision, mode in variants:
        name = f"{encoder} {precision}" + ("" if mode == "off" else f" {mode}")
        if place.left() < 90:
            record.leave_out(name)
            continue
        with record.part(name):
            config = dataclasses.replace(base, precision=precision, compile=mode)
            step = time_step(place, record, name, config, split, beside=eager)
            eager = eager or (step if mode == "off" else None)
            del step
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    with record.part(f"{encoder} before the network"):
        parts_of_step(place, record, base, split)


def time_step(
    place: Place, record: Record, name: str, config: Config, split: SplitClips, *, beside: "stepping | None"
) -> "stepping":
    """Adds the line of one variant, and its ratio to `beside`, with which it takes turns."""
    device, batch_size = place.device, config.optim.batch_size
    peak_memory_gb(device)
    start = time.perf_counter()
    step = stepping(config, split)
    for _ in range(place.size(3, 1)):  # CUDA graphs are captured in the second
        step()
    step.check()
    first, memory = time.perf_counter() - start, peak_memory_gb(device)
    rounds, calls = place.size((7, 10), (3, 1))
    steps = {name: step} | ({"beside": beside} if beside else {})
    seconds = seconds_of_blocks(steps, device, rounds=rounds, calls=calls)
    step.check()
    flops = step_flops(network_from_config(config), spec=config.frontend, batch_size=batch_size)
    median, peak = float(np.median(seconds[name])), peak_of(name, device)
    record.add(
        name,
        ms=round(1e3 * median, 2),
        spread=round(float(np.std(seconds[name]) / np.mean(seconds[name])), 3),
        n=f"{rounds} x {calls} steps",
        clips_per_s=round(batch_size / median, 1),
        tflop_per_s=round(flops / median / 1e12, 2),
        peak_tflop_per_s=round(peak / 1e12, 1),
        share_of_matmul_peak=round(flops / median / peak, 3),
        memory_gb=memory,
        first_steps_s=round(first, 1),
    )
    if beside:
        over = f"{name} over {config.model.encoder} bf16"
        record.more["ratios"][over] = ratio(seconds["beside"], seconds[name])
    return step


class stepping:  # noqa: N801  # a function with a state
    """Each call gives one optimiser step to the device, and does not wait for it."""

    def __init__(self, config: Config, split: SplitClips) -> None:
        fill = mel_mean(split, LogMel(config.frontend).to(split.device))
        network = network_from_config(config)
        self.stepper = Stepper(config, network, fill, steps=10**6, steps_per_epoch=10**6, world=World())
        network.train()
        self.batches = self._batches(config, split)
        self.number = 0

    def __call__(self) -> None:
        self.stepper.step(next(self.batches), self.number)
        self.number += 1

    def check(self) -> None:
        """The loss of every step was finite; waits."""
        assert self.stepper.bad_step() is None, "a loss or gradient is not finite"

    @staticmethod
    def _batches(config: Config, split: SplitClips) -> Iterator[TrainingBatch]:
        for number in range(10**6):
            yield from epoch_of_split(split, config, number, World()).batches(0)


def peak_of(name: str, device: torch.device) -> float:
    """The measured matmul peak of a variant's dtype, FLOP/s; tf32's for tf32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = "tf32" in name
    try:
        return matmul_peak(device, torch.bfloat16 if "bf16" in name else torch.float32, seconds=0.5)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def parts_of_step(place: Place, record: Record, config: Config, split: SplitClips) -> None:
    """What comes before the network: clips out of memory, log-Mel, masks."""
    frontend = LogMel(config.frontend).to(place.device)
    fill = mel_mean(split, frontend)
    epoch = epoch_of_split(split, config, 0, World())
    batch = next(iter(epoch.batches(0)))
    clean = frontend(*batch.waveforms)
    functions = {
        "clips": lambda: next(iter(epoch.batches(0))),
        "log-Mel": lambda: frontend(*batch.waveforms),
        "masks": lambda: masked_view(clean, fill, batch.draws, config.augment),
    }
    seconds = seconds_of_blocks(functions, place.device, rounds=5, calls=place.size(20, 1))
    medians = {f"{name}_ms": round(1e3 * float(np.median(values)), 3) for name, values in seconds.items()}
    record.add(f"{config.model.encoder} before the network", **medians)


def section_paper_run(place: Place, record: Record) -> None:
    """`rrtn train` as it is, 60 epochs; stopped at the section's end where it takes longer, and
    then said so.
    """
    start = time.perf_counter()
    counts = {name: place.size(count, 12) for name, count in CLIPS.items()}
    items = corpus_of_bursts(
        counts["Train"], counts["Val"], FrontendSpec(), speakers=place.size(SPEAKERS, (3, 3))
    )
    record.add("corpus", **counts, seconds=round(time.perf_counter() - start, 1))
    epochs = place.size(60, 2)
    encoder = place.chosen(("cnn14",), ("resnet18",))[0]
    config = config_of(encoder, batch_size=place.size(128, 4), epochs=epochs)
    on_gpu = place.device.type == "cuda"
    precision: Precision = "bf16" if on_gpu else "fp32"
    mode: CompileMode = "default" if on_gpu else "off"
    config = dataclasses.replace(config, device=place.device_name, precision=precision, compile=mode)
    record.more |= {
        "target_minutes": TARGET_MINUTES,
        "encoder": encoder,
        "precision": precision,
        "compile": mode,
    }
    times, history, stopped = timed_run(config, items, stop_after=place.left())
    if stopped or not history:
        record.note(f"stopped after {len(history)} of {epochs} epochs, at the end of the section's time")
    if not history:
        record.failed.append("no epoch was finished")
        return
    later = times[1:] or times  # the first one compiles
    record.add(
        f"{encoder} rrtn-ruwl",
        epochs=len(history),
        minutes=round(sum(times) / 60, 2),
        first_epoch_s=round(times[0], 2),
        epoch_s=round(float(np.median(later)), 2),
        train_clips_per_s=round(
            counts["Train"] / float(np.median(later)), 1
        ),  # validation included in the time
        best_val_ccc=round(max(entry["val_ccc"] for entry in history), 4),
        memory_gb=peak_memory_gb(place.device),
        data="synthetic",
    )
    record.more["history"] = [{key: entry[key] for key in ("epoch", "loss", "val_ccc")} for entry in history]


def timed_run(
    config: Config, items: dict[str, list[Item]], *, stop_after: float
) -> tuple[list[float], list[dict[str, Any]], bool]:
    """-> seconds of each epoch (the first with all that comes before), its history, and whether it
    was stopped.
    """
    history: list[dict[str, Any]] = []
    times: list[float] = []
    last = time.perf_counter()

    def at_epoch(entry: dict[str, Any]) -> None:
        nonlocal last
        now = time.perf_counter()
        times.append(now - last)
        history.append(entry)
        last = now

    with tempfile.TemporaryDirectory() as name, stopping(stop_after):
        try:
            trained(config, items, Path(name) / "run", at_epoch=at_epoch)
        except StoppedError as error:
            if error.exit_code != 128 + signal.SIGTERM:
                raise
            return times, history, True
    return times, history, False


@contextlib.contextmanager
def stopping(seconds: float) -> Iterator[None]:
    """After so long, the signal on which a run saves and ends."""
    timer = threading.Timer(max(1.0, seconds), os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a run that has just ended no longer catches it
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGTERM, before)


def section_table2(place: Place, record: Record) -> None:
    """`rrtn table2` as it is, on a smaller corpus and in fewer epochs, seed by seed until the
    section's time is over.
    """
    train, val, epochs, batch = place.size((4000, 2000, 20, 128), (24, 12, 1, 4))
    items = corpus_of_bursts(train, val, FrontendSpec(), speakers=place.size((120, 60), (3, 3)))
    record.more |= {"clips": {"Train": train, "Val": val}, "epochs": epochs, "data": "synthetic"}
    config = config_of("resnet18", batch_size=batch, epochs=epochs)
    precision: Precision = "bf16" if place.device.type == "cuda" else "fp32"
    config = dataclasses.replace(config, device=place.device_name, precision=precision)
    with tempfile.TemporaryDirectory() as name, read_from_memory(items), stopping(place.left()):
        runs = table_runs(config, out=Path(name), seeds=place.size(5, 1), rows=place.size(ROWS, ROWS[:3]))

        def at_run() -> None:
            record_table(record, table_of_runs(runs))
            if place.left() < SHORTEST_RUN:
                raise StoppedError("table2", "no time for another run", exit_code=128 + signal.SIGTERM)

        try:
            train_rows(runs, say=print, at_run=at_run)
        except StoppedError as error:
            if error.exit_code != 128 + signal.SIGTERM:
                raise
            record.note(f"stopped at the end of the section's time: {error}")


def record_table(record: Record, table: Table2) -> None:
    """One line for each row that has a run."""
    for row in table.rows:
        if row.ccc:
            found = row.to_dict()
            names = ("ccc", "ccc_low", "ccc_high", "sd", "local_gain_percent", "global_gain_percent")
            values = {name: found[name] and round(found[name], 4) for name in names}
            record.add(row.row.name, seeds=len(row.ccc), **values, ccc_of_paper_on_hume_vb=row.row.paper_ccc)
    record.more["table2"] = table.to_dict()["rows"]
