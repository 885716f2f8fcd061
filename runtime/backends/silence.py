"""Batches for models that take the frames with sound only: clips of about the same length run together.

B batch, T frames of a whole clip, M mels.
"""

from typing import Final, NamedTuple

import numpy as np

from ..arrays import Float32, Int64

CHOICE: Final = 4  # batches' worth of clips, out of which those of about the same length are put together
_STEP: Final = 16  # frames: ONNX Runtime keeps a plan of its memory for each shape
# What each part costs besides its frames, in whole clips: 0.1 to 1 in int8; in fp32 0.4 with CNN10, 3 to 5
# with CNN14 and ResNet18, whose weights are packed each time. There 0.7 and 4 differ by 4% (Zen 5, bursts).
_EACH_PART: Final = 0.7


class SoundingClips(NamedTuple):
    """Clips of a batch, of which no frame from `frames` on has any sound."""

    clips: Int64  # their places in the batch
    frames: int


def parts_by_sound(log_mel: Float32, silence: float) -> list[SoundingClips]:
    """log_mel [B, 1, T, M] -> the clips from the shortest to the longest, in the parts that cost least.

    Frames are silent where every value is `silence`, in dB. A part costs as many frames as its longest clip
    has, for each of its clips, and _EACH_PART. Clips that take as many frames are in one part.
    """
    frames = _sounding(log_mel, silence)
    order = np.argsort(frames, kind="stable")
    lengths, counts = np.unique(frames, return_counts=True)
    ends = [0, *np.cumsum(counts).tolist()]  # in the order; a part ends with the last clip of a length
    each, least, begins = _EACH_PART * log_mel.shape[2], [0.0], [0]
    for i, most in enumerate(lengths.tolist()):  # the best parts up to each end, by those before it
        costs = [least[j] + each + (ends[i + 1] - ends[j]) * most for j in range(i + 1)]
        least.append(min(costs))
        begins.append(costs.index(least[-1]))
    parts, last = list[SoundingClips](), len(lengths)
    while last:
        begin = begins[last]
        parts.append(SoundingClips(order[ends[begin] : ends[last]], int(lengths[last - 1])))
        last = begin
    return parts[::-1]


def _sounding(log_mel: Float32, silence: float) -> Int64:
    """[B]: frames up to the last one with sound, in whole steps; at least one step, at most T."""
    total = log_mel.shape[2]
    sounds = (log_mel != silence).any(axis=(1, 3))  # [B, T]
    frames = np.where(sounds.any(1), total - sounds[:, ::-1].argmax(1), 1)
    stepped: Int64 = np.minimum(-(-frames // _STEP) * _STEP, total)
    return stepped
