"""Batches for models that take the frames with sound only: clips of about the same length run together.

B batch, T frames of a whole clip, M mels.
"""

from typing import Final, NamedTuple

import numpy as np

from ..arrays import Float32, Int64

_STEP: Final = 16  # frames: ONNX Runtime keeps a plan of its memory for each shape
_TOGETHER: Final = 4  # clips: fewer cost more each


class SoundingClips(NamedTuple):
    """Clips of a batch, of which no frame from `frames` on has any sound."""

    clips: Int64  # their places in the batch
    frames: int


def parts_by_sound(log_mel: Float32, silence: float) -> list[SoundingClips]:
    """log_mel [B, 1, T, M] -> the clips from the shortest to the longest, four or more together.

    Frames are silent where every value is `silence`, in dB. Neighbours that take as many frames are one part.
    """
    frames = _sounding(log_mel, silence)
    order = np.argsort(frames, kind="stable")
    parts: list[SoundingClips] = []
    for clips in np.split(order, range(len(order) % _TOGETHER or _TOGETHER, len(order), _TOGETHER)):
        most = int(frames[clips[-1]])
        if parts and parts[-1].frames == most:
            clips = np.concatenate([parts.pop().clips, clips])  # noqa: PLW2901
        parts.append(SoundingClips(clips, most))
    return parts


def _sounding(log_mel: Float32, silence: float) -> Int64:
    """[B]: frames up to the last one with sound, in whole steps; at least one step, at most T."""
    total = log_mel.shape[2]
    sounds = (log_mel != silence).any(axis=(1, 3))  # [B, T]
    frames = np.where(sounds.any(1), total - sounds[:, ::-1].argmax(1), 1)
    stepped: Int64 = np.minimum(-(-frames // _STEP) * _STEP, total)
    return stepped
