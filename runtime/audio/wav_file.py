"""A WAV file of samples at hand.

N samples, C channels.
"""

import io

import numpy as np
import numpy.typing as npt


def wav_bytes(samples: npt.ArrayLike, rate: int, *, subtype: str = "PCM_16") -> bytes:
    """Samples [N] or [N, C], int16 or floats in [-1, 1], at `rate` Hz -> a WAV file of that subtype.

    In memory, because soundfile does not say that a disk is full: whoever writes the bytes does.
    """
    import soundfile  # not above: only what writes files needs it

    content = io.BytesIO()
    soundfile.write(content, np.asarray(samples), rate, format="WAV", subtype=subtype)
    return content.getvalue()
