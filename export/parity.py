"""The gate: no ONNX file is published whose scores are not PyTorch's.

n clips, N samples, B batch, K targets.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ..runtime.errors import ModelError
from ..runtime.frontend import Float32, log_mel
from ..runtime.ort_backend import OrtBackend
from ..runtime.spec import FrontendSpec
from ..train.frontend import LogMel
from ..train.model import TwinsNetwork

FP32_LIMIT: Final = 1e-4  # largest difference of a score
_BATCHES: Final = (1, 2, 7)  # beside all clips at once


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a variant's scores are from PyTorch's."""

    clips: int
    batches: tuple[int, ...]
    max_abs: float
    p999_abs: float
    limit: float

    def to_dict(self) -> dict[str, Any]:
        """For bundle.json."""
        return asdict(self)


def probe_clips(validation: Float32, spec: FrontendSpec) -> Float32:
    """Validation clips [n, N] with the extremes added: silence, a click, full-scale noise and a square wave."""
    rng = np.random.default_rng(0)
    time = np.arange(spec.clip_samples) / spec.sampling_rate
    click = np.zeros(spec.clip_samples)
    click[spec.clip_samples // 2] = 1
    extremes = [np.zeros_like(time), click, rng.uniform(-1, 1, len(time)), np.sign(np.sin(2 * np.pi * 220 * time))]
    return np.concatenate([validation, np.array(extremes, dtype=np.float32)])


def torch_scores(network: TwinsNetwork, spec: FrontendSpec, clips: Float32) -> Float32:
    """The reference: training's own frontend and network, in evaluation mode. clips [n, N] -> [n, K]."""
    network = network.cpu().eval()
    frontend = LogMel(spec)
    with torch.no_grad():
        parts = [network(frontend(part)).scores for part in torch.from_numpy(clips).split(16)]
    return torch.cat(parts).numpy()


def check_parity(
    backend: OrtBackend, spec: FrontendSpec, clips: Float32, reference: Float32, *, limit: float, worst_to: Path
) -> Parity:
    """Runs the clips [n, N] through the variant as scoring would, in several batch sizes and permuted.

    Raises ModelError where a score is NaN or further than `limit` from the reference [n, K]; the worst clip is then
    saved to `worst_to` (npz: waveform, expected, came).
    """
    order = np.random.default_rng(1).permutation(len(clips))
    sizes = (*_BATCHES, len(clips))
    results = [_run(backend, spec, clips, size) for size in sizes]
    results.append(_run(backend, spec, clips[order], len(clips))[np.argsort(order)])
    differences = np.abs(np.array(results) - reference)  # [runs, n, K]
    parity = Parity(
        clips=len(clips),
        batches=sizes,
        max_abs=float(differences.max()),
        p999_abs=float(np.quantile(differences, 0.999)),
        limit=limit,
    )
    if not parity.max_abs <= limit:  # also where it is NaN
        run, clip, _ = np.unravel_index(np.argmax(np.nan_to_num(differences, nan=np.inf)), differences.shape)
        np.savez(worst_to, waveform=clips[clip], expected=reference[clip], came=results[run][clip])
        raise ModelError(
            f"{backend.variant.file} | scores differ from PyTorch's by {parity.max_abs:.2e} | at most {limit:.0e} | "
            f"not published; worst clip in {worst_to}"
        )
    return parity


def _run(backend: OrtBackend, spec: FrontendSpec, clips: Float32, size: int) -> Float32:
    prepare: Callable[[Float32], npt.NDArray[np.float32]] = (
        (lambda clip: clip) if backend.variant.input == "waveform" else (lambda clip: log_mel(clip, spec)[None])
    )
    features = np.array([prepare(clip) for clip in clips])
    return np.concatenate([backend.scores(features[i : i + size]) for i in range(0, len(features), size)])
