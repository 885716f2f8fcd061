"""What a model's input is made from: a signal of any length and rate, as programs other than `rrtn
score` hold it.

N samples, C channels, T frames, M mels.
"""

import importlib
import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Float32
from .audio.reader import audio_from_array
from .errors import ConfigError
from .frontend import clip_input
from .spec import FrontendSpec, InputKind

# Where audonnx is installed, so is audobject: a transform that is an Object can be written to YAML
# again with its model.
_Object: Any = (
    importlib.import_module("audobject").Object if importlib.util.find_spec("audobject") else object
)


class ModelInput(_Object):  # type: ignore[misc]
    """The transform that model.yaml names for audonnx, and what a client of a Triton server calls
    before it sends.

    `frontend` has the fields of FrontendSpec, as the model's file carries them.
    """

    def __init__(self, input: InputKind, frontend: dict[str, Any]) -> None:
        self.input = input
        self.frontend = frontend
        self._spec = FrontendSpec.from_dict(frontend)

    def __call__(self, signal: npt.ArrayLike, sampling_rate: int | None = None) -> Float32:
        """signal [N] or [C, N] of any scale -> waveform [clip_samples] or log_mel [T, M] of its first
        clip, levelled.

        Raises AudioError for NaN or no samples, ConfigError for a rate or shape that is none.
        """
        if sampling_rate is None:
            raise ConfigError(
                "sampling_rate | not given | expected the signal's, in Hz | model(signal, sampling_rate)"
            )
        audio = audio_from_array(np.transpose(signal), sampling_rate, self._spec)
        clip = clip_input(audio.waveform, self._spec, self.input)
        return clip if clip.ndim == 1 else clip[0]
