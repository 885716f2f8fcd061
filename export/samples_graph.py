"""Graphs that are made from one that takes log_mel, whatever its precision.

Above all the graph that takes a whole recording: samples [1, N] with N free -> scores [1, K]. Operators in
front of the log-Mel do all that `rrtn score` does to a mono recording at the spec's rate: they remove an
offset, set the level, round to 16 bits, trim, cut and pad (runtime/audio/mixdown.py, recording.py, sound.py).
All are standard operators, so that every runtime has them.

N samples, S samples of a clip, T frames, M mels, K labels, D embedding, P frames of 10 ms.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, compose, helper

from ..runtime.arrays import INT16_SCALE
from ..runtime.audio.mixdown import OFFSET_SHARE, SHORTEST_WITH_OFFSET, SILENCE_PEAK
from ..runtime.audio.sound import SOUND_RANGE, frame_samples
from ..runtime.bundle import METADATA_KEY, SAMPLES_SCHEMA
from ..runtime.bundle.onnx_file import onnx_metadata
from ..runtime.spec import FrontendSpec
from .graph import INPUT_NAMES, file_from_onnx
from .log_mel_graph import log_mel_graph
from .onnx_nodes import model_like
from .operators import Operators

_PREFIX: Final = "samples."  # no name of a node or a tensor may stand twice in the joined graph
_LOG_MEL: Final = f"{_PREFIX}frontend.log_mel"
_AXIS: Final = np.array([1])  # of the samples
_FLOAT, _DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE


def samples_from_log_mel(model: bytes, spec: FrontendSpec) -> bytes:
    """A file of ours that takes log_mel [B, 1, T, M] -> the file that takes samples [1, N] in its place.

    The outputs are those of one clip: scores [1, K], and the embedding [1, D] where `model` gives it. They
    are NaN where a sample is NaN or infinite. `model` may be of any precision.
    """
    body = onnx.load_from_string(model)
    samples, op = INPUT_NAMES["samples"], Operators(_PREFIX)
    log_mel = _log_mel_of_recording(op, samples, spec)
    not_finite = op("ReduceSum", op("Mul", samples, np.float32(0)), _AXIS)  # 0, or NaN: [1, 1]
    renamed = {output.name: _PREFIX + output.name for output in body.graph.output}
    nodes = [_renamed(node, {INPUT_NAMES["logmel"]: log_mel, **renamed}) for node in body.graph.node]
    op.nodes.extend(nodes)
    for name, inner in renamed.items():
        op("Add", inner, not_finite, called=name)
    joined = model_like(
        body,
        op.nodes,
        [helper.make_tensor_value_info(samples, _FLOAT, [1, "N"])],
        [_of_one_clip(output) for output in body.graph.output],
        [*op.constants, *body.graph.initializer],
    )
    return file_from_onnx(joined, _metadata(model, schema=SAMPLES_SCHEMA, input="samples"))


def waveform_from_log_mel(model: bytes, spec: FrontendSpec) -> bytes:
    """A file that takes log_mel -> one that takes waveform [B, S] with B free, whose level is set."""
    body, op = onnx.load_from_string(model), Operators(_PREFIX)
    frontend = log_mel_graph(spec)
    op.add_graph(compose.add_prefix_graph(frontend, f"{_PREFIX}frontend.", rename_inputs=False))
    op.nodes.extend(_renamed(node, {INPUT_NAMES["logmel"]: _LOG_MEL}) for node in body.graph.node)
    joined = model_like(
        body, op.nodes, frontend.input, body.graph.output, [*op.constants, *body.graph.initializer]
    )
    return file_from_onnx(joined, _metadata(model, input="waveform"))


def _log_mel_of_recording(op: Operators, samples: str, spec: FrontendSpec) -> str:
    """samples [1, N] -> log_mel [1, 1, T, M] of the clip that `rrtn score` scores."""
    length = op("Shape", samples, start=1, end=2)  # N, as all lengths an int64 [1]
    mono = op("Sub", samples, _offset(op, samples, length, spec))
    peak = op("ReduceMax", op("Abs", mono), _AXIS)
    sounds = op("GreaterOrEqual", peak, np.float32(SILENCE_PEAK))  # [1, 1]
    if spec.trim:
        mono, length = _trimmed(op, mono, length, sounds, spec)
    clip = _clip(op, mono, _gain(op, peak, sounds, spec), spec)
    op("Reshape", clip, [1, spec.clip_samples], called=f"{_PREFIX}frontend.waveform")
    op.add_graph(compose.add_prefix_graph(log_mel_graph(spec), f"{_PREFIX}frontend."))
    return _padded_in_decibels(op, _LOG_MEL, length, spec) if spec.pad == "zero_db" else _LOG_MEL


def _offset(op: Operators, samples: str, length: str, spec: FrontendSpec) -> str:
    """The mean [1, 1] where it is more than a share of the peak and the recording is long enough; else 0.

    The sum is float64: a float32 one drifts over minutes.
    """
    mean = op("Cast", op("ReduceMean", op("Cast", samples, to=_DOUBLE), _AXIS), to=_FLOAT)
    above = op("Sub", op("ReduceMax", samples, _AXIS), mean)
    below = op("Sub", mean, op("ReduceMin", samples, _AXIS))
    allowed = op("Mul", op("Max", above, below), np.float32(OFFSET_SHARE))
    is_large = op("Greater", op("Abs", mean), op("Max", allowed, np.float32(SILENCE_PEAK)))
    is_long = op("GreaterOrEqual", length, [math.ceil(SHORTEST_WITH_OFFSET * spec.sampling_rate)])
    return op("Where", op("And", is_large, is_long), mean, np.float32(0))


def _gain(op: Operators, peak: str, sounds: str, spec: FrontendSpec) -> str:
    """peak [1, 1] -> what brings the recording to the spec's peak in 16 bits; 0 for silence."""
    divisor = op("Where", sounds, peak, np.float32(1))
    return op("Where", sounds, op("Div", np.float32(INT16_SCALE * spec.peak), divisor), np.float32(0))


def _clip(op: Operators, mono: str, gain: str, spec: FrontendSpec) -> str:
    """mono [1, N] -> its first clip [1, S], levelled, rounded to 16 bits, with zeros behind a short one.

    It is padded before it is cut: tract takes no end behind the end.
    """
    s = spec.clip_samples
    clip = op("Slice", op("Pad", mono, [0, 0, 0, s]), [0], [s], _AXIS)
    return op("Div", op("Round", op("Mul", clip, gain)), INT16_SCALE)


def _trimmed(op: Operators, mono: str, length: str, sounds: str, spec: FrontendSpec) -> tuple[str, str]:
    """mono [1, N] -> what lies from the first frame with sound to the end of the last, and its length.

    Zeros fill the last frame and do not count in its power. A silent recording stays whole.
    """
    frame = frame_samples(spec.sampling_rate)
    lacking = op("Sub", [frame], op("Mod", length, [frame]))  # a whole frame where none would be needed
    filled = op("Pad", mono, op("Concat", [0, 0, 0], lacking, axis=0))
    framed = op("Reshape", filled, [-1, frame])
    sums = op("ReduceSum", op("Mul", framed, framed), _AXIS, keepdims=0)  # [P]
    count = op("Squeeze", op("Shape", sums))
    starts = op("Mul", op("Range", 0, count, 1), frame)
    sizes = op("Max", op("Min", op("Sub", length, starts), [frame]), [1])
    powers = op("Div", sums, op("Cast", sizes, to=_FLOAT))
    least = op("Mul", op("ReduceMax", powers, [0]), np.float32(SOUND_RANGE))
    is_sound = op("And", op("GreaterOrEqual", powers, least), op("Greater", powers, np.float32(0)))
    marks = op("Cast", is_sound, to=_FLOAT)
    first = op("ArgMax", marks, axis=0)
    last = op("ArgMax", marks, axis=0, select_last_index=1)
    trims = op("Squeeze", sounds, [0])  # [1]
    begin = op("Where", trims, op("Mul", first, frame), [0])
    end = op("Where", trims, op("Min", op("Mul", op("Add", last, 1), frame), length), length)
    return op("Slice", mono, begin, end, _AXIS), op("Sub", end, begin)


def _padded_in_decibels(op: Operators, log_mel: str, length: str, spec: FrontendSpec) -> str:
    """The frames [1, 1, T, M] behind a recording of this length become 0 dB."""
    frames = op("Add", op("Div", length, spec.hop), 1)
    index = np.arange(spec.frames).reshape(1, 1, -1, 1)
    return op("Where", op("Less", index, frames), log_mel, np.float32(0))


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """The node with other names for some tensors."""
    renamed = NodeProto()
    renamed.CopyFrom(node)
    for tensors in (renamed.input, renamed.output):
        tensors[:] = [names.get(name, name) for name in tensors]
    return renamed


def _of_one_clip(output: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """The output [B, ...] as [1, ...]."""
    sizes = [size.dim_value for size in output.type.tensor_type.shape.dim[1:]]
    return helper.make_tensor_value_info(output.name, _FLOAT, [1, *sizes])


def _metadata(model: bytes, **changes: Any) -> dict[str, str]:
    """The metadata of a file of ours, with changes."""
    document = json.loads(onnx_metadata(model)[METADATA_KEY])
    return {METADATA_KEY: json.dumps(document | changes)}
