"""Makes a model's input from a signal of any length and rate, for programs other than `rrtn score`.

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

# audobject is installed with audonnx. A transform that is an audobject.Object can be written to
# YAML together with its model.
_Object: Any = (
    importlib.import_module("audobject").Object if importlib.util.find_spec("audobject") else object
)


class ModelInput(_Object):  # type: ignore[misc]
    """The transform that model.yaml names for audonnx. Clients of a Triton server call it, too.

    `frontend` has the fields of FrontendSpec, as the model's file carries them.
    """

    def __init__(self, input: InputKind, frontend: dict[str, Any]) -> None:
        self.input = input
        self.frontend = frontend
        self._spec = FrontendSpec.from_dict(frontend)

    def __call__(self, signal: npt.ArrayLike, sampling_rate: int | None = None) -> Float32:
        """signal [N] or [C, N] of any scale -> waveform [clip_samples] or log_mel [T, M], levelled.

        Only the first clip of the signal is used. Raises AudioError for NaN or no samples, and
        ConfigError for an impossible rate or shape.
        """
        if sampling_rate is None:
            raise ConfigError(
                "sampling_rate",
                "not given",
                wanted="the rate of the signal in Hz",
                fix="call model(signal, sampling_rate)",
            )
        audio = audio_from_array(np.transpose(signal), sampling_rate, self._spec)
        clip = clip_input(audio.waveform, self._spec, self.input)
        return clip if clip.ndim == 1 else clip[0]
