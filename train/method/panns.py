"""A PANNs checkpoint (Kong et al. 2020) as initialisation of CNN10 or CNN14.

F spectrum bins, M mels. Such a file is {iteration, model, sampler}; `model` holds the encoder under
our keys, a classifier, and the frontend's constants, which tell whether the weights were trained on
what our frontend gives.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ...runtime.arrays import Float64
from ...runtime.errors import ConfigError, ModelError
from ...runtime.frontend import hann, mel_filterbank
from ...runtime.spec import FrontendSpec
from .encoders import ENCODERS, Encoder, PannsCnn

# Of the largest value. Right files differ by float32's rounding, 6e-8; an f_max that is 1 Hz off
# already makes 9e-4.
FRONTEND_TOLERANCE: Final = 1e-4
_MEL_WEIGHTS: Final = "logmel_extractor.melW"
_DROPPED: Final = ("spectrogram_extractor.", "logmel_extractor.", "fc_audioset.", "out.", "fc_transfer.")


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """What a checkpoint gives to an encoder."""

    weights: dict[str, Tensor]  # for encoder.load_state_dict, on the CPU
    used: tuple[str, ...]  # the encoder's keys that the file has
    dropped: tuple[str, ...]  # its classifier and frontend
    melw_difference: float | None  # max |melW - our filterbank|; None where the file has no melW


def initialisation_from_panns(path: Path, encoder: Encoder, spec: FrontendSpec) -> Initialisation:
    """Weights for `encoder`. Raises ConfigError, and ModelError where the file's frontend or layers
    are others.

    The hop is the one setting of a frontend that such a file does not hold.
    """
    if not isinstance(encoder, PannsCnn):
        fitting = [name for name, kind in ENCODERS.items() if issubclass(kind, PannsCnn)]
        raise ConfigError(
            "--init",
            f"a PANNs checkpoint does not fit the encoder {type(encoder).__name__}",
            fix=f"choose --encoder {' or --encoder '.join(fitting)}",
        )
    state = _state(path)
    differences = _frontend_differences(path, state, spec)
    expected: Mapping[str, Tensor] = encoder.state_dict()
    if misfits := _misfits(state, expected):
        raise ModelError(
            str(path),
            _first(misfits),
            wanted="the layers of this --encoder",
            fix="use the --encoder of the file",
        )
    weights = {key: state.get(key, torch.tensor(0)).detach().to(ours.dtype) for key, ours in expected.items()}
    if bad := [
        key
        for key, x in weights.items()
        if not x.isfinite().all() or (key.endswith("running_var") and x.min() < 0)
    ]:
        raise ModelError(
            str(path),
            _first(bad),
            wanted="finite values, no variance below 0",
            fix="use another checkpoint",
        )
    return Initialisation(
        weights=weights,
        used=tuple(key for key in expected if key in state),
        dropped=tuple(key for key in state if key not in expected),
        melw_difference=differences.get(_MEL_WEIGHTS),
    )


class _Inert:
    """Takes the place of NumPy's names, which the sampler needs, and does nothing.

    NumPy's own must not be allowed: its ndarray(1, "O", buffer) is an object at any address, and
    set() of it calls there.
    """

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_MULTIARRAY = [
    f"{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")
]
_RANDOM_STATE = [
    "__RandomState_ctor",
    "_pickle.__randomstate_ctor",
    "_pickle.__bit_generator_ctor",
    "_mt19937.MT19937",
]
_NUMPY: Final[list[Callable[..., Any] | tuple[Callable[..., Any], str]]] = [
    (_Inert, f"numpy.{name}")
    for name in ("ndarray", "dtype", *_MULTIARRAY, *(f"random.{name}" for name in _RANDOM_STATE))
]


def _state(path: Path) -> dict[str, Tensor]:
    """The state dict without `base.` and `module.` in front of its keys."""
    content = _content(path)
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and _is_plain(value) for key, value in state.items()
    ):
        came = (
            f"holds {_first([repr(key)[:80] for key in state])}"
            if isinstance(state, dict)
            else f"a {type(state).__name__}"
        )
        wanted = "a state dict of plain tensors, or one under `model`"
        raise ModelError(
            str(path), came, wanted=wanted, fix="use a checkpoint as PANNs saves it, like Cnn14_16k"
        )
    return {re.sub(r"^((base|module)\.)+", "", key): value for key, value in state.items()}


def _content(path: Path) -> object:
    """Whatever torch.load makes of the file without running anything from it."""
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_NUMPY):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(
            f"--init {path}", str(error.strerror or error), wanted="a PANNs checkpoint", fix="check the path"
        ) from error
    except Exception as error:  # a file made to break can bring about any
        # Around the cause, torch recommends loading the file unsafely.
        cause = str(error.__context__ or error).strip()
        if found := re.search(r"GLOBAL (\S+)", cause):
            raise ModelError(
                str(path),
                f"asks for Python's {found[1]!r}, and nothing of it was run",
                wanted="weights alone",
                fix="use a checkpoint from a source that you trust",
            ) from error
        detail = cause.partition("\n")[0] or type(error).__name__
        raise ModelError(str(path), detail, wanted="a file of torch.save", fix="download it again") from error


def _is_plain(x: object) -> bool:
    if not isinstance(x, Tensor) or x.layout is not torch.strided or x.device.type != "cpu":
        return False
    return not (x.is_nested or x.is_quantized or x.is_complex())


def _frontend_differences(path: Path, state: Mapping[str, Tensor], spec: FrontendSpec) -> dict[str, float]:
    """Max |theirs - ours| of each constant that the file has. Raises ModelError where it is not ours."""
    ours = (
        f"{spec.sampling_rate} Hz, window {spec.n_fft}, {spec.n_mels} mels, {spec.f_min:g} to "
        f"{spec.f_max:g} Hz"
    )
    remedy = "use the 16 kHz checkpoint Cnn14_16k with --encoder cnn14"
    constants = {key: constant for key, constant in _frontend(spec).items() if key in state}
    differences = {}
    for key, constant in constants.items():
        if (shape := tuple(state[key].shape)) != constant.shape:
            raise ModelError(str(path), f"{key} {shape}", wanted=f"{constant.shape}: {ours}", fix=remedy)
        differences[key] = float((state[key].double() - torch.from_numpy(constant)).abs().max())
        limit = FRONTEND_TOLERANCE * np.abs(constant).max()
        if not differences[key] <= limit:  # NaN is not, either
            raise ModelError(
                str(path),
                f"{key} is {differences[key]:.1e} off",
                wanted=f"{limit:.1e}: {ours}",
                fix=remedy,
            )
    return differences


def _frontend(spec: FrontendSpec) -> dict[str, Float64]:
    """PANNs' names for a frontend like ours: filterbank [F, M], and the windowed DFT as kernels [F,
    1, n_fft].
    """
    phase = 2 * np.pi * np.outer(np.arange(spec.n_bins), np.arange(spec.n_fft)) / spec.n_fft
    real, imaginary = np.cos(phase) * hann(spec.n_fft), -np.sin(phase) * hann(spec.n_fft)
    kernels = {"conv_real": real[:, None], "conv_imag": imaginary[:, None]}
    return {_MEL_WEIGHTS: mel_filterbank(spec)} | {
        f"spectrogram_extractor.stft.{k}.weight": v for k, v in kernels.items()
    }


def _misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What is lost, of another shape, or unknown. Files older than PyTorch 0.4.1 count no batches."""
    lost = [f"no {key}" for key in expected if key not in state and not key.endswith(".num_batches_tracked")]
    shapes = {
        key: (tuple(state[key].shape), tuple(ours.shape)) for key, ours in expected.items() if key in state
    }
    wrong = [f"{key} {theirs} for {ours}" for key, (theirs, ours) in shapes.items() if theirs != ours]
    unknown = [
        f"unknown {key[:80]!r}" for key in state if key not in expected and not key.startswith(_DROPPED)
    ]
    return lost + wrong + unknown


def _first(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
