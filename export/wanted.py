"""What `rrtn export` was asked for. No torch: wrong values are refused before its import."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ..runtime.errors import ConfigError

MAX_BATCH: Final = 1024
# In the order in which recipes.py makes them.
VARIANTS: Final = (
    "fp32",
    "cpu",
    "mnn",
    "waveform",
    "fp16",
    "waveform-fp16",
    "int8",
    "cpu-int8",
    "waveform-int8",
    "waveform-int8-trt",
    "samples",
    "samples-int8",
    "trt",
    "trt-fp16",
    "trt-int8",
)


def with_commas(numbers: Iterable[int]) -> str:
    """As the command line takes them."""
    return ",".join(map(str, numbers))


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What an engine is built for."""

    batch_profile: tuple[int, int, int] = (1, 32, 256)  # smallest, tuned-for and largest batch
    targets: tuple[int, ...] = (80, 86, 89, 120)  # compute capabilities times ten, for TensorRT-RTX

    def __post_init__(self) -> None:
        smallest, tuned, largest = self.batch_profile
        if not 1 <= smallest <= tuned <= largest <= MAX_BATCH:
            raise ConfigError(
                "--batch-profile",
                with_commas(self.batch_profile),
                wanted=f"1 <= smallest <= tuned <= largest <= {MAX_BATCH}",
                fix=f"for example --batch-profile {with_commas(EngineOptions.batch_profile)}",
            )


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `rrtn export` was asked for, besides fp32."""

    fp16: bool = False
    int8: bool = False
    cpu_variant: bool = True
    measure_convolutions: bool = False
    mnn: bool = False
    waveform: bool = True
    samples: bool = False
    trt: bool = False
    embeddings: bool = False
    require: tuple[str, ...] = ()
    engine: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.require if name not in VARIANTS]:
            raise ConfigError(
                f"--require {', '.join(unknown)}", "no such variant", wanted=f"some of {', '.join(VARIANTS)}"
            )
        if self.trt and not self.waveform:
            raise ConfigError(
                "--trt",
                "given with --no-waveform, but engines are built from the waveform graph",
                fix="leave out one of the two",
            )
        makes_engines = self.trt or any(name.startswith("trt") for name in self.require)
        if self.engine != EngineOptions() and not makes_engines:
            raise ConfigError(
                "--batch-profile, --targets", "are for engines, and none is made", fix="add --trt"
            )
        if self.measure_convolutions and not self.cpu_variant and "cpu" not in self.require:
            raise ConfigError(
                "--measure-convolutions", "given with --no-cpu-variant", fix="leave out one of the two"
            )
