"""Every error that rrtn raises on purpose, as one small tree.

RrtnError                what the user can act on; one line: subject | what came | what was expected | what to do
├── ConfigError          a flag, a setting or an argument (also ValueError)           exit 2
├── DataError            a folder, a CSV or an audio set is refused (also ValueError) exit 2
├── MissingExtraError    a package that is not installed (also ImportError)           exit 2
├── AudioError           one audio file, with a stable `code` (also ValueError)       a row, never a stop
├── StoppedError         stopped by policy or by the storage; resumable (also RuntimeError)  exit 4, or 128 + signal
└── ModelError           a bundle, model or engine, or a parity gate (also RuntimeError)     exit 5
    ├── UnavailableError what this machine cannot run; another backend may, and `auto` goes on to it
    └── OutOfMemoryError one batch too large for the device; a smaller one may fit (also MemoryError)
"""


class RrtnError(Exception):
    """Base of the tree; `exit_code` is what the command line ends with."""

    exit_code = 2


class ConfigError(RrtnError, ValueError):
    """A flag, a setting or an argument that cannot be taken as it is."""


class DataError(RrtnError, ValueError):
    """A data set that cannot be used as it is."""


class MissingExtraError(RrtnError, ImportError):
    """A package that is not installed; the message names the pip command."""


class AudioError(RrtnError, ValueError):
    """One audio file that cannot be used. `code` is one of `audio.ERROR_CODES`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class StoppedError(RrtnError, RuntimeError):
    """Work stopped on purpose: what is done is safe, the same command goes on."""

    exit_code = 4

    def __init__(self, message: str, *, exit_code: int = 4) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # 128 + the signal where one has stopped it


class ModelError(RrtnError, RuntimeError):
    """A model, bundle or engine that must not be used."""

    exit_code = 5


class UnavailableError(ModelError):
    """A backend that this machine cannot run: no GPU, no library, an engine made elsewhere."""


class OutOfMemoryError(ModelError, MemoryError):
    """A batch that does not fit into the device's memory. The backend is as it was: try a smaller batch."""
