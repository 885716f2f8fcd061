"""A PANNs checkpoint (Kong et al. 2020) as initialisation of CNN10 or CNN14.

Such a file is {iteration, model, sampler}. `model` has the encoder under the keys of `PannsCnn`, a
classifier, and the constants of a frontend. The constants tell whether the weights were trained on
log-Mels like those of our frontend. F spectrum bins, M mels.
"""

import re
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ...runtime.arrays import Float64
from ...runtime.errors import ConfigError, ModelError, RrtnError
from ...runtime.frontend import hann, mel_filterbank
from ...runtime.spec import FrontendSpec
from ...runtime.system.files import open_regular
from ...runtime.system.memory import memory_limited
from ...runtime.text import first_of
from .encoders import ENCODERS, Encoder, PannsCnn

# A share of the largest value. Float32's rounding gives right files a difference of 6e-8; an f_max
# that is 1 Hz off gives 9e-4.
FRONTEND_TOLERANCE: Final = 1e-4
_SPARE_MEMORY: Final = 1 << 30  # bytes that reading a file may take beside four times its size
_MEL_WEIGHTS: Final = "logmel_extractor.melW"
_DROPPED: Final = ("spectrogram_extractor.", "logmel_extractor.", "fc_audioset.", "out.", "fc_transfer.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Initialisation:
    """What an encoder gets from a checkpoint."""

    weights: dict[str, Tensor]  # for encoder.load_state_dict, on the CPU
    used: tuple[str, ...]  # the encoder's keys that the file has
    dropped: tuple[str, ...]  # its classifier and frontend
    melw_difference: float | None  # max |melW - our filterbank|; None where the file has no melW


def initialisation_from_panns(path: Path, encoder: Encoder, spec: FrontendSpec) -> Initialisation:
    """Weights for `encoder` from a file of PANNs.

    Raises ConfigError if the encoder is none of PANNs, ModelError if the file has another frontend or
    other layers. The hop is the one setting of a frontend that such a file does not have.
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
            first_of(misfits),
            wanted="the layers of this --encoder",
            fix="use the --encoder of the file",
        )
    weights = {key: state.get(key, torch.tensor(0)).detach().to(ours.dtype) for key, ours in expected.items()}
    if bad := [key for key, x in weights.items() if _is_wrong(key, x)]:
        raise ModelError(
            str(path),
            first_of(bad),
            wanted="finite values, no variance below 0",
            fix="use another checkpoint",
        )
    return Initialisation(
        weights=weights,
        used=tuple(key for key in expected if key in state),
        dropped=tuple(key for key in state if key not in expected),
        melw_difference=differences.get(_MEL_WEIGHTS),
    )


def _is_wrong(key: str, x: Tensor) -> bool:
    return not x.isfinite().all() or (key.endswith("running_var") and bool(x.min() < 0))


class _Inert:
    """Stands for the names of NumPy that the sampler needs, and does nothing.

    NumPy's own names must not be allowed: ndarray(1, "O", buffer) makes an object at any address, and
    a set() of it calls code there.
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
    """The state dict, with neither `base.` nor `module.` in front of its keys."""
    content = _content(path)
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise _no_state_dict(path, f"a {type(state).__name__}")
    if not all(isinstance(key, str) and _is_plain(value) for key, value in state.items()):
        raise _no_state_dict(path, f"holds {first_of([repr(key)[:80] for key in state])}")
    return {re.sub(r"^((base|module)\.)+", "", key): value for key, value in state.items()}


def _no_state_dict(path: Path, came: str) -> ModelError:
    return ModelError(
        str(path),
        came,
        wanted="a state dict of plain tensors, or one under `model`",
        fix="use a checkpoint as PANNs saves it, like Cnn14_16k",
    )


def _content(path: Path) -> object:
    """What torch.load makes of the file. Nothing in the file is run."""
    try:
        _check_archive(path)
        with (
            open_regular(path) as file,
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(_NUMPY),
            memory_limited(_SPARE_MEMORY + 4 * path.stat().st_size),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        came = error.strerror or str(error)
        raise ConfigError(
            f"--init {path}", came, wanted="a PANNs checkpoint", fix="check the path"
        ) from error
    except RrtnError:
        raise
    except Exception as error:  # a file that is made to break torch.load can raise anything
        raise _not_loaded(path, error) from error


def _check_archive(path: Path) -> None:
    """Refuses what torch.load would wait for, unpack, or explain at length. Raises OSError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        came = "Is a directory" if path.is_dir() else "a pipe, socket or device"
        raise ConfigError(f"--init {path}", came, wanted="a PANNs checkpoint", fix="check the path")
    if tarfile.is_tarfile(path):
        raise ModelError(
            str(path),
            "a tar archive",
            wanted="a file of torch.save",
            fix="unpack it, and name the .pth inside",
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(record.file_size for record in archive.infolist())
        if unpacked > status.st_size:  # torch.save compresses nothing
            raise ModelError(
                str(path),
                f"{status.st_size:,} bytes that unfold to {unpacked:,}",
                wanted="a file of torch.save, which is not compressed",
                fix="use a checkpoint from a source that you trust",
            )


def _not_loaded(path: Path, error: Exception) -> ModelError:
    """The refusal of a file that torch.load refuses."""
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return ModelError(
            str(path),
            "asks for far more memory than its size",
            wanted="a file of torch.save",
            fix="use a checkpoint from a source that you trust",
        )
    cause = str(
        error.__context__ or error
    ).strip()  # the error around it recommends to load the file unsafely
    if found := re.search(r"GLOBAL (\S+)", cause):
        return ModelError(
            str(path),
            f"asks for Python's {found[1]!r}, and nothing of it was run",
            wanted="weights alone",
            fix="use a checkpoint from a source that you trust",
        )
    detail = cause.partition("\n")[0] or type(error).__name__
    return ModelError(str(path), detail, wanted="a file of torch.save", fix="download it again")


def _is_plain(x: object) -> bool:
    if not isinstance(x, Tensor) or x.layout is not torch.strided or x.device.type != "cpu":
        return False
    return not (x.is_nested or x.is_quantized or x.is_complex())


def _frontend_differences(path: Path, state: Mapping[str, Tensor], spec: FrontendSpec) -> dict[str, float]:
    """Max |theirs - ours| of each constant in the file. Raises ModelError for another frontend than ours."""
    ours = f"{spec.sampling_rate} Hz, window {spec.n_fft}, {spec.n_mels} mels, "
    ours += f"{spec.f_min:g} to {spec.f_max:g} Hz"
    fix = "use the 16 kHz checkpoint Cnn14_16k with --encoder cnn14"
    constants = {key: constant for key, constant in _frontend(spec).items() if key in state}
    differences = {}
    for key, constant in constants.items():
        if (shape := tuple(state[key].shape)) != constant.shape:
            raise ModelError(str(path), f"{key} {shape}", wanted=f"{constant.shape}: {ours}", fix=fix)
        differences[key] = float((state[key].double() - torch.from_numpy(constant)).abs().max())
        limit = FRONTEND_TOLERANCE * np.abs(constant).max()
        if not differences[key] <= limit:  # NaN is not, either
            came = f"{key} is {differences[key]:.1e} off"
            raise ModelError(str(path), came, wanted=f"{limit:.1e}: {ours}", fix=fix)
    return differences


def _frontend(spec: FrontendSpec) -> dict[str, Float64]:
    """Our frontend under PANNs' names: filterbank [F, M], and the windowed DFT as kernels [F, 1, n_fft]."""
    phase = 2 * np.pi * np.outer(np.arange(spec.n_bins), np.arange(spec.n_fft)) / spec.n_fft
    real, imaginary = np.cos(phase) * hann(spec.n_fft), -np.sin(phase) * hann(spec.n_fft)
    kernels = {"conv_real": real[:, None], "conv_imag": imaginary[:, None]}
    return {_MEL_WEIGHTS: mel_filterbank(spec)} | {
        f"spectrogram_extractor.stft.{k}.weight": v for k, v in kernels.items()
    }


def _misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """The keys that are missing, of another shape, or unknown, in words."""
    # Files older than PyTorch 0.4.1 count no batches.
    lost = [f"no {key}" for key in expected if key not in state and not key.endswith(".num_batches_tracked")]
    shapes = {
        key: (tuple(state[key].shape), tuple(ours.shape)) for key, ours in expected.items() if key in state
    }
    wrong = [f"{key} {theirs} for {ours}" for key, (theirs, ours) in shapes.items() if theirs != ours]
    unknown = [
        f"unknown {key[:80]!r}" for key in state if key not in expected and not key.startswith(_DROPPED)
    ]
    return lost + wrong + unknown
