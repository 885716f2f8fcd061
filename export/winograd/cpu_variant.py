"""The variant `cpu`, and how much faster than fp32 it is.

It has fewer multiplications, and does not compute the silence behind a recording. It is made where it pays
on the machine that exports: at least 1.1 times as fast as fp32 with clips of which half is silence, and 0.95
times with whole ones.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import onnx

from ...runtime.arrays import Float32
from ...runtime.backends.backend_errors import ort_errors
from ...runtime.backends.cpu import CPU
from ...runtime.backends.model_batch import takes_sound_only
from ...runtime.backends.ort_session import session_from_bytes
from ...runtime.errors import ModelError
from ...runtime.progress import Progress
from ...runtime.system.cpus import cpu_model, vector_extension
from ..graph import INPUT_NAMES
from .conv_cost import Convolution, measured_ms, thread_ms
from .rewriting import WinogradPlan, convolutions_of, plan_of, ways_of, with_plan
from .slot_layout import Axes

BATCH: Final = CPU.batch_size  # clips of a run: enough rows for the products of the deepest layers
_ENOUGH: Final = 1.1
_HARDLY_SLOWER: Final = 0.95
_TURNS: Final = 4  # the first is not counted


class NotFasterError(ModelError):
    """A variant that does not pay on this machine."""


class CpuVariant(NamedTuple):
    """A graph and its plan; for bundle.json alone, how fast it was on which processor."""

    model: onnx.ModelProto
    plan: dict[str, Any]
    measured: dict[str, Any]


def cpu_variant_of(
    fp32: bytes, silence: float, *, tune: bool = False, slower_too: bool = False
) -> CpuVariant:
    """Makes the variant from the file of the variant fp32; `silence` is what is behind a recording, in dB.

    The way of computing each convolution is found by counting or, with `tune`, by measuring each
    way on this machine. Raises NotFasterError where the result is not faster here, unless
    `slower_too`.
    """
    model = onnx.load_model_from_string(fp32)
    plan = _tuned_plan(model) if tune else plan_of(model, BATCH)
    made = with_plan(model, plan, silence=silence)
    return measured_variant("cpu", made, plan, ("fp32", fp32), slower_too=slower_too, tuned=tune)


def measured_variant(
    name: str,
    made: onnx.ModelProto,
    plan: WinogradPlan,
    other: tuple[str, bytes],
    *,
    slower_too: bool,
    tuned: bool = False,
) -> CpuVariant:
    """Measures how much faster `made` is than the other variant, whose name and file are given.

    Raises NotFasterError where it does not pay, unless `slower_too`.
    """
    whole, half = _speedups(other[1], made.SerializeToString())
    for speedup, least, clips in (
        (half, _ENOUGH, "clips of which half is silence"),
        (whole, _HARDLY_SLOWER, "whole clips"),
    ):
        if speedup < least and not slower_too:
            raise NotFasterError(
                name,
                f"{speedup:.2f} times as fast as {other[0]} with {clips} on this machine",
                wanted=f"at least {least} times",
                fix=f"use the variant {other[0]}",
            )
    measured = {"speedup": round(whole, 2), "speedup_half_silent": round(half, 2), "cpu": cpu_model()}
    return CpuVariant(made, _facts(plan, tuned=tuned), measured)


def _facts(plan: WinogradPlan, *, tuned: bool) -> dict[str, Any]:
    """What the file says of itself: no time, so that the same checkpoint gives the same file again."""
    return {
        "batch": BATCH,
        "vector_extension": vector_extension(),
        "tuned": tuned,
        "convolutions": {
            name.removesuffix(".weight"): f"{axes[0].name} x {axes[1].name}" for name, axes in plan.items()
        },
    }


def _tuned_plan(model: onnx.ModelProto) -> WinogradPlan:
    """Measures each way of each convolution once: layers of the same shape share a measurement."""
    known: dict[tuple[Any, ...], float] = {}
    ways = sum(len(ways_of(layer)) + 1 for layer in convolutions_of(model))
    with Progress("measure", ways, "ways") as bar:

        def cost(layer: Convolution, axes: Axes | None, batch: int) -> float:
            key = (replace(layer, name=""), axes)
            if key not in known:
                known[key] = measured_ms(layer, axes, batch)
            bar.advance(1, layer.name)
            return known[key]

        return plan_of(model, BATCH, cost)


def _speedups(other: bytes, made: bytes) -> tuple[float, float]:
    """How many times as fast `made` is: with whole clips, and with those of which half is silence.

    On one thread: `rrtn score` runs a batch on each core.
    """
    sessions = [session_from_bytes(content, "cpu variant", "cpu", threads=1) for content in (other, made)]
    shapes = [session.get_inputs()[0].shape for session in sessions]
    clips = np.zeros((BATCH, *shapes[0][1:]), np.float32)
    halves = np.ascontiguousarray(clips[:, :, : clips.shape[2] // 2])
    with ort_errors("cpu variant"):
        whole = _ratio_of_times(sessions, (clips, clips))
        return whole, _ratio_of_times(sessions, (clips, halves)) if takes_sound_only(shapes[1]) else whole


def _ratio_of_times(sessions: Sequence[Any], inputs: Sequence[Float32]) -> float:
    """The shortest time of the first session's batch over that of the second's, taken in turns."""
    runs = [
        partial(session.run, None, {INPUT_NAMES["logmel"]: given})
        for session, given in zip(sessions, inputs, strict=True)
    ]
    turns = [[thread_ms(run) for run in runs] for _ in range(_TURNS)]
    return min(direct for direct, _ in turns[1:]) / min(fast for _, fast in turns[1:])
