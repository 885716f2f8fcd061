"""Which variant runs on what: the choice behind `--backend auto|cpu|cuda|trt` and `--variant`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, get_args

from ..arrays import Float32
from ..bundle import Bundle, Variant
from ..cpus import vector_extension
from ..errors import ConfigError, UnavailableError
from .engine_stamp import Machine, mismatch, this_machine
from .ort_backend import ModelBatch, Outputs, Spent, cuda_missing, ort_backend_from_bundle
from .trt_backend import trt_backend_from_bundle

DeviceName = Literal["cpu", "cuda", "trt"]
BackendName = Literal["auto", "cpu", "cuda", "trt"]
_FASTEST_FIRST: Final[tuple[DeviceName, ...]] = ("trt", "cuda", "cpu")
# On a GPU the frontend belongs into the graph; on a CPU NumPy's FFT is several times faster than
# the graph's convolution. What rounds more than float32 (fp16, int8) is taken where it is asked
# for: by name, or by having built an engine of it.
_PREFERRED: Final[dict[DeviceName, tuple[str, ...]]] = {
    "trt": ("trt-fp16", "trt"),
    "cuda": ("waveform", "fp32"),
    "cpu": ("cpu", "fp32", "waveform"),
}


class Backend(Protocol):
    """A variant, loaded on a device."""

    @property
    def variant(self) -> Variant:
        """What it runs; `variant.input` says what it takes."""

    @property
    def device(self) -> DeviceName:
        """What it runs on."""

    def run(self, batch: ModelBatch, spent: Spent | None = None) -> Outputs:
        """log_mel [B, 1, T, M], or waveform [B, N] as float32 or int16 -> scores [B, K], embedding [B,
        D] or None.

        Raises OutOfMemoryError for a batch that is too large, ModelError for one that the model
        does not take.
        """

    def scores(self, batch: ModelBatch) -> Float32:
        """The scores alone."""

    @property
    def embedding_size(self) -> int | None:
        """D; None where the model does not give embeddings."""


class Candidate(NamedTuple):
    """A variant and a device that may run it."""

    device: DeviceName
    variant: Variant


@dataclass(frozen=True)
class Choice:
    """The backend that was taken, and why nothing faster was."""

    backend: Backend
    passed_over: dict[str, str]  # device, or variant that could not be loaded -> one short line


def backend_from_bundle(
    bundle: Bundle, name: BackendName = "auto", *, variant: str | None = None, threads: int | None = None
) -> Backend:
    """`choose_backend` without its reasons."""
    return choose_backend(bundle, name, variant=variant, threads=threads).backend


def choose_backend(
    bundle: Bundle, name: BackendName = "auto", *, variant: str | None = None, threads: int | None = None
) -> Choice:
    """The backend asked for; for `auto` the fastest that can be loaded here. Never a silent fallback.

    Raises ConfigError for an unknown name or variant, UnavailableError where what was asked for
    cannot run here, ModelError for a file that is not the bundle's, be there another that would do.
    """
    candidates, reasons = candidates_of_bundle(bundle, name, variant=variant)
    for candidate in candidates:
        try:
            backend = backend_from_variant(bundle, candidate.variant, candidate.device, threads=threads)
        except UnavailableError as error:
            reasons[candidate.variant.name] = str(error).split(" | ")[1]  # what came
            continue
        slower = _FASTEST_FIRST[_FASTEST_FIRST.index(candidate.device) :]
        return Choice(backend, {what: reason for what, reason in reasons.items() if what not in slower})
    flags = f"--backend {name}" + (f" --variant {variant}" if variant else "")
    why = (
        "; ".join(reasons.values())
        if name != "auto"
        else "; ".join(f"{what}: {why}" for what, why in reasons.items())
    )
    raise UnavailableError(f"{flags} | {why} | {_WANTED[name]} | {_FIX[name]}, or see rrtn doctor")


_WANTED: Final = {
    "auto": "something that runs here",
    "cpu": "an ONNX file",
    "cuda": "a CUDA GPU",
    "trt": "an engine that fits",
}
_FIX: Final = {
    "auto": "export again",
    "cpu": "export again",
    "cuda": "use --backend cpu",
    "trt": "rrtn export --trt",
}


def candidates_of_bundle(
    bundle: Bundle,
    name: BackendName = "auto",
    *,
    variant: str | None = None,
    machine: Machine | None = None,
    cuda: str | None = None,
) -> tuple[list[Candidate], dict[str, str]]:
    """What to try, the fastest first, and for each device on which nothing is to be tried the reason.

    Nothing is loaded. `machine` and `cuda` (why ONNX Runtime cannot use it; "" where it can) are
    this machine's if not given.
    """
    if name not in get_args(BackendName):
        raise ConfigError(f"--backend | {name!r} | expected one of {', '.join(get_args(BackendName))}")
    chosen = _variant(bundle, variant) if variant else None
    machine = this_machine() if machine is None else machine
    cuda = cuda_missing() if cuda is None else cuda
    candidates: list[Candidate] = []
    passed_over: dict[str, str] = {}
    for device in _devices(chosen) if name == "auto" else (name,):
        found = [chosen] if chosen else _preferred(bundle, device)
        reasons = {every.name: obstacle(every, device, machine, cuda) for every in found}
        for every in found if not chosen else ():
            if reason := _slower_here(every):
                reasons[every.name] = passed_over[f"the variant {every.name}"] = reason
        candidates += [Candidate(device, every) for every in found if not reasons[every.name]]
        if all(reasons.values()):
            kind = "engine" if device == "trt" else "ONNX variant"
            none = f"no {kind} of {', '.join(_PREFERRED[device])} in the bundle"
            passed_over[device] = "; ".join(dict.fromkeys(reasons.values())) or none
    return candidates, passed_over


def candidates_of_variants(
    bundle: Bundle, names: Sequence[str] = ()
) -> tuple[list[Candidate], dict[str, str]]:
    """Every variant (or those named) on each device that can run it here; of those that none can
    run, the reason.
    """
    machine, cuda = this_machine(), cuda_missing()
    candidates: list[Candidate] = []
    reasons: dict[str, str] = {}
    for variant in [_variant(bundle, name) for name in names] or bundle.variants:
        obstacles = {device: obstacle(variant, device, machine, cuda) for device in _devices(variant)}
        candidates += [Candidate(device, variant) for device, reason in obstacles.items() if not reason]
        if all(obstacles.values()):
            reasons[variant.name] = "; ".join(obstacles.values())
    return candidates, reasons


def variants_for_backend(bundle: Bundle, name: str, *, variant: str | None = None) -> list[Variant]:
    """All that `choose_backend` may load on whatever machine: what has to travel with the bundle."""
    if name not in get_args(BackendName):
        raise ConfigError(f"--backend | {name!r} | expected one of {', '.join(get_args(BackendName))}")
    if variant:
        return [_variant(bundle, variant)]
    devices = [device for device in _FASTEST_FIRST if name in ("auto", device)]
    return list({one.name: one for device in devices for one in _preferred(bundle, device)}.values())


def obstacle(variant: Variant, device: DeviceName, machine: Machine, cuda: str) -> str:
    """Why a variant cannot run on a device, by what is known without loading it; "" where it should."""
    if device == "trt" and variant.kind != "engine":
        return f"{variant.name} is ONNX, no engine"
    if variant.plan and device == "cuda":
        return f"{variant.name} is made for CPUs"
    unfit = mismatch(variant.stamp, machine) if device == "trt" else ""
    return unfit or (cuda if device != "cpu" else "")  # engines use its memory


def backend_from_variant(
    bundle: Bundle, variant: Variant, device: DeviceName, *, threads: int | None = None
) -> Backend:
    """A given variant on a given device. Raises UnavailableError, ModelError."""
    if device == "trt":
        return trt_backend_from_bundle(bundle, variant)
    return ort_backend_from_bundle(bundle, variant, device=device, threads=threads)


def _slower_here(variant: Variant) -> str:
    """Why a variant may be slower here than fp32, although it was faster where it was made; ""
    where it should not.
    """
    if not variant.plan:
        return ""
    made_for, here = variant.plan["vector_extension"], vector_extension()
    return "" if made_for == here else f"made for a processor with {made_for}, this one has {here}"


def _variant(bundle: Bundle, name: str) -> Variant:
    if found := bundle.variant(name):
        return found
    raise ConfigError(
        f"--variant | {name!r} | {bundle.path} has {', '.join(every.name for every in bundle.variants)}"
    )


def _devices(variant: Variant | None) -> tuple[DeviceName, ...]:
    return tuple(device for device in _FASTEST_FIRST if variant is None or _is_for(variant, device))


def _preferred(bundle: Bundle, device: DeviceName) -> list[Variant]:
    """Of a single file, that file, whatever its precision: who gives one has named it."""
    if len(bundle.variants) == 1 and _is_for(bundle.variants[0], device):
        return list(bundle.variants)
    return [variant for name in _PREFERRED[device] if (variant := bundle.variant(name))]


def _is_for(variant: Variant, device: DeviceName) -> bool:
    return (variant.kind == "engine") == (device == "trt")
