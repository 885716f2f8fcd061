"""The log-Mel as operators of a graph.

B batch, N samples of a clip, T frames, F spectrum bins, M mels.
"""

import math
from functools import partial, reduce

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from ..runtime.arrays import Float64
from ..runtime.frontend import hann, mel_filterbank
from ..runtime.spec import FrontendSpec
from .graph import INPUT_NAMES
from .operators import Operators


def log_mel_graph(spec: FrontendSpec) -> GraphProto:
    """waveform [B, N] with B free -> log_mel [B, 1, T, M] in dB, both float32.

    By products with the windowed DFT basis. Not the operator STFT: it has no CUDA kernel in ONNX Runtime,
    and its CPU kernel is slow. Not a convolution either: with `prefer_nhwc`, which fp16 models want, cuDNN
    would run it in another layout and perhaps in TF32. The constants are made in float64 and rounded once.
    """
    op, names = Operators(), INPUT_NAMES
    real, imaginary = _spectrum(op, names["waveform"], spec)
    power = op("Add", op("Mul", real, real), op("Mul", imaginary, imaginary))
    mel = op("MatMul", power, mel_filterbank(spec).astype(np.float32))  # [B, T, M]
    nepers = op("Log", op("Clip", mel, np.float32(spec.power_floor)))
    decibels = op("Mul", nepers, np.float32(10 / math.log(10)))
    op("Unsqueeze", decibels, [1], called=names["logmel"])
    return helper.make_graph(
        op.nodes,
        "log_mel",
        [_float(names["waveform"], "batch", spec.clip_samples)],
        [_float(names["logmel"], "batch", 1, spec.frames, spec.n_mels)],
        op.constants,
    )


def _spectrum(op: Operators, waveform: str, spec: FrontendSpec) -> tuple[str, str]:
    """waveform [B, N] -> the real and the imaginary part of its spectrum, each [B, T, F].

    The sum of one product for each hop under the window: frames that overlap are never copied, and short
    sums round less than long ones.
    """
    half, hop, bins = spec.n_fft // 2, spec.hop, spec.n_bins
    bases = _bases(spec)
    blocks = spec.frames - 1 + len(bases)
    reflected = op("Pad", waveform, [0, half, 0, half], mode="reflect")
    behind = blocks * hop - (spec.clip_samples + 2 * half)
    blocked = op("Reshape", op("Pad", reflected, [0, 0, 0, behind]), [-1, blocks, hop])
    products = [
        op("MatMul", op("Slice", blocked, [i], [i + spec.frames], [1]), basis.astype(np.float32))
        for i, basis in enumerate(bases)
    ]
    spectrum = reduce(partial(op, "Add"), products)  # [B, T, 2 F]
    return op("Slice", spectrum, [0], [bins], [2]), op("Slice", spectrum, [bins], [2 * bins], [2])


def _bases(spec: FrontendSpec) -> list[Float64]:
    """The windowed DFT basis, cut into a matrix [hop, 2 F] for each hop that a window reaches over."""
    phase = 2 * np.pi * np.outer(np.arange(spec.n_fft), np.arange(spec.n_bins)) / spec.n_fft  # [n_fft, F]
    basis = np.concatenate([np.cos(phase), -np.sin(phase)], axis=1) * hann(spec.n_fft)[:, None]
    hops = math.ceil(spec.n_fft / spec.hop)
    return np.split(np.pad(basis, ((0, hops * spec.hop - spec.n_fft), (0, 0))), hops)


def _float(name: str, *shape: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
