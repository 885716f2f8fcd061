"""What a bundle may hold, and how each file of it is made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from ..runtime.arrays import Float32
from ..runtime.bundle import metadata_of
from ..runtime.frontend import clip_input, decibels_behind
from ..runtime.probe_sounds import extremes
from ..runtime.spec import InputKind
from .deployed_network import folded_encoder
from .engine import engine_from_onnx, installed_flavour
from .graph import file_from_onnx, onnx_from_network
from .int8 import int8_for_cpu, int8_for_tensorrt
from .mnn_file import mnn_from_onnx
from .parity import Probe, check_half_range
from .samples_graph import samples_from_log_mel, waveform_from_log_mel
from .source import Source
from .wanted import VARIANTS, Wanted
from .winograd.cpu_variant import CpuVariant, cpu_variant_of
from .winograd.int8_variant import cpu_int8_variant_of


class Made(NamedTuple):
    """A variant's file, and what bundle.json says about it."""

    content: bytes
    kind: Literal["onnx", "engine", "mnn"] = "onnx"
    plan: dict[str, Any] | None = None
    stamp: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What a file is made from."""

    source: Source
    probe: Probe
    file_of: Callable[[str], bytes]  # the file of a variant that was made before
    wanted: Wanted
    progress: Callable[[float, str], None] = lambda share, phase: None  # of a long step: share in [0, 1]

    @property
    def labels(self) -> tuple[str, ...]:
        """The L labels."""
        return tuple(self.source.info.labels)


@dataclass(frozen=True)
class Recipe:
    """One file of a bundle, and how it is made."""

    name: str
    file: str
    input: InputKind
    precision: str
    make: "Callable[[Recipe, Ingredients], Made]"
    source: str = ""  # the variant that it is made from; "" for the network itself


def _graph(recipe: Recipe, given: Ingredients) -> Made:
    """The network as ONNX. Raises ModelError where float16 does not hold its activations."""
    network, spec = given.source.network, given.source.config.frontend
    half = recipe.precision == "fp16"
    if half:
        check_half_range(folded_encoder(network.encoder, spec), spec, given.probe)
    embeddings = given.wanted.embeddings
    return Made(
        onnx_from_network(
            network,
            spec,
            given.labels,
            half=half,
            embeddings=embeddings,
            columns=given.source.columns,
            meaning=given.source.meaning,
        )
    )


def _graph_for_cpus(recipe: Recipe, given: Ingredients) -> Made:
    """fp32 without the silence behind a recording, and with fewer multiplications.

    Raises NotFasterError where that does not pay on this machine.
    """
    wanted = given.wanted
    made = cpu_variant_of(
        given.file_of(recipe.source),
        decibels_behind(given.source.config.frontend),
        tune=wanted.measure_convolutions,
        slower_too=recipe.name in wanted.require,
    )
    return _made_of_plan(recipe, given, made)


def _mnn(recipe: Recipe, given: Ingredients) -> Made:
    content, origin = mnn_from_onnx(given.file_of(recipe.source))
    meaning = given.source.meaning
    claims = {
        "labels": list(given.labels),
        "frontend": given.source.config.frontend.to_dict(),
        **({"meaning": meaning.to_dict()} if meaning else {}),
    }
    return Made(content, kind="mnn", stamp=origin | claims)


def _int8_for_cpus(recipe: Recipe, given: Ingredients) -> Made:
    return Made(int8_for_cpu(given.file_of(recipe.source), _calibration(given.source, "logmel")))


def _int8_graph_for_cpus(recipe: Recipe, given: Ingredients) -> Made:
    """int8 without the silence behind a recording, and with fewer multiplications.

    Raises NotFasterError where that does not pay on this machine.
    """
    slower_too = recipe.name in given.wanted.require
    calibration = _calibration(given.source, "logmel")
    silence = decibels_behind(given.source.config.frontend)
    made = cpu_int8_variant_of(
        given.file_of(FP32.name), given.file_of(recipe.source), calibration, silence, slower_too=slower_too
    )
    return _made_of_plan(recipe, given, made)


def _made_of_plan(recipe: Recipe, given: Ingredients, made: CpuVariant) -> Made:
    spec, meaning = given.source.config.frontend, given.source.meaning
    metadata = metadata_of(given.labels, spec, recipe.input, recipe.precision, made.plan, meaning)
    return Made(file_from_onnx(made.model, metadata), plan=made.plan | made.measured)


def _int8_for_engines(recipe: Recipe, given: Ingredients) -> Made:
    return Made(int8_for_tensorrt(given.file_of(recipe.source), _calibration(given.source, "waveform")))


def _calibration(source: Source, kind: InputKind) -> Float32:
    """[n, ...]: training clips and the extremes. Without the extremes, silence would leave the ranges."""
    spec = source.config.frontend
    sounds = [*source.training_sounds, *extremes(spec)]
    return np.array([clip_input(sound, spec, kind) for sound in sounds])


def _graph_of_waveforms(recipe: Recipe, given: Ingredients) -> Made:
    return Made(waveform_from_log_mel(given.file_of(recipe.source), given.source.config.frontend))


def _graph_of_recordings(recipe: Recipe, given: Ingredients) -> Made:
    return Made(samples_from_log_mel(given.file_of(recipe.source), given.source.config.frontend))


def _engine(recipe: Recipe, given: Ingredients) -> Made:
    flavour = installed_flavour()
    assert flavour is not None  # otherwise the recipe is skipped
    content, stamp = engine_from_onnx(
        given.file_of(recipe.source),
        flavour,
        precision=recipe.precision,
        options=given.wanted.engine,
        progress=given.progress,
    )
    return Made(content, kind="engine", stamp=stamp.to_dict())


# Engines are built from waveform graphs: on a GPU the log-Mel belongs there, too.
FP32: Final = Recipe("fp32", "model.onnx", "logmel", "fp32", _graph)
CPU: Final = Recipe("cpu", "model.cpu.onnx", "logmel", "fp32", _graph_for_cpus, "fp32")
MNN: Final = Recipe("mnn", "model.mnn", "logmel", "fp32", _mnn, "fp32")
INT8_FOR_ENGINES: Final = Recipe(
    "waveform-int8-trt", "model.waveform.int8.trt.onnx", "waveform", "int8", _int8_for_engines, "waveform"
)
CPU_INT8: Final = Recipe("cpu-int8", "model.cpu.int8.onnx", "logmel", "int8", _int8_graph_for_cpus, "int8")
GRAPHS: Final = (
    FP32,
    CPU,
    MNN,
    Recipe("waveform", "model.waveform.onnx", "waveform", "fp32", _graph_of_waveforms, "fp32"),
    Recipe("fp16", "model.fp16.onnx", "logmel", "fp16", _graph),
    Recipe("waveform-fp16", "model.waveform.fp16.onnx", "waveform", "fp16", _graph_of_waveforms, "fp16"),
    Recipe("int8", "model.int8.onnx", "logmel", "int8", _int8_for_cpus, "fp32"),
    CPU_INT8,
    Recipe("waveform-int8", "model.waveform.int8.onnx", "waveform", "int8", _graph_of_waveforms, "int8"),
    INT8_FOR_ENGINES,
    Recipe("samples", "model.samples.onnx", "samples", "fp32", _graph_of_recordings, "fp32"),
    Recipe("samples-int8", "model.samples.int8.onnx", "samples", "int8", _graph_of_recordings, "int8"),
)
ENGINES: Final = (
    Recipe("trt", "model.engine", "waveform", "fp32", _engine, "waveform"),
    Recipe("trt-fp16", "model.fp16.engine", "waveform", "fp16", _engine, "waveform-fp16"),
    Recipe("trt-int8", "model.int8.engine", "waveform", "int8", _engine, "waveform-int8-trt"),
)
ALL: Final = (*GRAPHS, *ENGINES)  # in the order in which they are made: a source before what is made from it
assert tuple(recipe.name for recipe in ALL) == VARIANTS


def recipes_of(wanted: Wanted) -> list[Recipe]:
    """In the order in which they are made."""
    needed = {name for required in wanted.require for name in _with_sources(required)}
    return [recipe for recipe in ALL if _asks_for(wanted, recipe) or recipe.name in needed]


def _asks_for(wanted: Wanted, recipe: Recipe) -> bool:
    """True if a flag or a default asks for it."""
    if recipe in ENGINES and not wanted.trt:
        return False
    if recipe in (CPU, CPU_INT8) and not wanted.cpu_variant:
        return False
    if recipe is MNN and not wanted.mnn:
        return False
    if recipe is INT8_FOR_ENGINES and not wanted.trt:  # engines alone are made from it
        return False
    has_precision = {"fp32": True, "fp16": wanted.fp16, "int8": wanted.int8}[recipe.precision]
    has_input = {"logmel": True, "waveform": wanted.waveform, "samples": wanted.samples}[recipe.input]
    return has_precision and has_input


def _with_sources(name: str) -> set[str]:
    recipe = next(recipe for recipe in ALL if recipe.name == name)
    return {name} | (_with_sources(recipe.source) if recipe.source else set())
