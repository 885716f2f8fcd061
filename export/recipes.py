"""What a bundle may hold, and what is made of what."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..runtime.errors import ConfigError
from ..runtime.spec import InputKind
from .engine import EngineOptions


class Recipe(NamedTuple):
    """One file of a bundle, and what it is made of."""

    name: str
    file: str
    input: InputKind
    precision: str
    source: str = ""  # the variant that it is made from; "" for the network itself


ONNX: Final = (
    Recipe("fp32", "model.onnx", "logmel", "fp32"),
    Recipe("cpu", "model.cpu.onnx", "logmel", "fp32", "fp32"),
    Recipe("waveform", "model.waveform.onnx", "waveform", "fp32"),
    Recipe("fp16", "model.fp16.onnx", "logmel", "fp16"),
    Recipe("waveform-fp16", "model.waveform.fp16.onnx", "waveform", "fp16"),
    Recipe("int8", "model.int8.onnx", "logmel", "int8", "fp32"),
    Recipe("waveform-int8", "model.waveform.int8.onnx", "waveform", "int8", "waveform"),
)
ENGINES: Final = (
    Recipe("trt", "model.engine", "waveform", "fp32", "waveform"),
    Recipe("trt-fp16", "model.fp16.engine", "waveform", "fp16", "waveform-fp16"),
    Recipe("trt-int8", "model.int8.engine", "waveform", "int8", "waveform-int8"),
)
VARIANTS: Final = tuple(recipe.name for recipe in (*ONNX, *ENGINES))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `rrtn export` was asked for, beside fp32."""

    fp16: bool = False
    int8: bool = False
    cpu_variant: bool = True
    tune: bool = False
    waveform: bool = True
    trt: bool = False
    embeddings: bool = False
    require: tuple[str, ...] = ()
    engine: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.require if name not in VARIANTS]:
            raise ConfigError(
                f"--require {', '.join(unknown)} | no such variant | expected of {', '.join(VARIANTS)}"
            )
        if self.trt and not self.waveform:
            raise ConfigError(
                "--trt | with --no-waveform | engines are built from the waveform graph | leave one out"
            )

    def recipes(self) -> list[Recipe]:
        """In the order in which they are made: a source before what is made of it."""
        precisions = {"fp32", *(["fp16"] if self.fp16 else []), *(["int8"] if self.int8 else [])}
        chosen = [
            recipe
            for recipe in (*ONNX, *ENGINES)
            if recipe.precision in precisions
            and (recipe.input == "logmel" or self.waveform)
            and (recipe.name != "cpu" or self.cpu_variant)
            and (
                recipe.name != "waveform-int8" or self.trt
            )  # for engines alone: on CPUs the log-Mel one is faster
            and (recipe not in ENGINES or self.trt)
        ]
        needed = {name for required in self.require for name in _with_sources(required)}
        return [recipe for recipe in (*ONNX, *ENGINES) if recipe in chosen or recipe.name in needed]


def _with_sources(name: str) -> set[str]:
    recipe = next(recipe for recipe in (*ONNX, *ENGINES) if recipe.name == name)
    return {name} | (_with_sources(recipe.source) if recipe.source else set())
