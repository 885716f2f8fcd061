"""Every error that rrtn raises on purpose, as one small tree.

RrtnError                the user can act on it                                      exit 2
├── ConfigError          a flag, a setting or an argument (also ValueError)          exit 2
├── DataError            a folder, a CSV or an audio set is refused (also ValueError) exit 2
├── MissingExtraError    a package that is not installed (also ImportError)          exit 2
├── NotPicklableError    an object that cannot travel to another process (also TypeError)   exit 2
├── AudioError           one audio file, with a stable `code` (also ValueError)      a row, never a stop
├── StoppedError         stopped by policy or by the storage; resumable (also RuntimeError)
│                        exit 4, or 128 + signal
└── ModelError           a bundle, model or engine, or a parity gate (also RuntimeError) exit 5
    ├── UnavailableError this machine cannot run it; another backend may, and `auto` tries that
    └── OutOfMemoryError one batch is too large for the device; a smaller one may fit (also MemoryError)
"""

from typing import Any


class RrtnError(Exception):
    """Base of every error that rrtn raises on purpose.

    Programs read the fields: `subject`, `came`, `wanted`, `fix` and `exit_code`. `str(error)` joins them to
    one line, which the command line prints before it ends with `exit_code`.
    """

    exit_code = 2

    def __init__(
        self, subject: str, came: str = "", *, wanted: str = "", fix: str = "", exit_code: int | None = None
    ) -> None:
        """`subject` is what the error is about: a file, a flag, a setting. `came` says what is wrong with it.

        `wanted` completes the words "expected ..."; `fix` is what to do, if possible a command to paste.
        """
        super().__init__(subject, came)
        self.subject, self.came, self.wanted, self.fix = subject, came, wanted, fix
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        """One line: subject | what came | what was expected | what to do."""
        parts = (self.subject, self.came, self.wanted and f"expected {self.wanted}", self.fix)
        return " | ".join(filter(None, parts))

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "subject": self.subject,
            "came": self.came,
            "wanted": self.wanted,
            "fix": self.fix,
            "exit_code": self.exit_code,
        }


class ConfigError(RrtnError, ValueError):
    """A flag, a setting or an argument that cannot be used as it is. Also a ValueError."""


class DataError(RrtnError, ValueError):
    """A folder, a CSV or a set of audio files that cannot be used as it is. Also a ValueError."""


class MissingExtraError(RrtnError, ImportError):
    """A package that is not installed; `fix` is the pip command that installs it. Also an ImportError."""

    @classmethod
    def of(cls, package: str, extra: str, needed_by: str) -> "MissingExtraError":
        """`package` is one of rrtn's `extra`; `needed_by` is what cannot be done without it."""
        return cls(package, f"not installed, and {needed_by} needs it", fix=install_command(extra))


def install_command(extra: str) -> str:
    """The pip command that installs the packages of one of rrtn's extras.

    It names these packages, and never `rrtn[extra]`: an index may have no rrtn, or a stranger's.
    """
    import importlib.metadata  # not above: few errors need it

    try:
        requirements = importlib.metadata.requires("rrtn") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    condition = f'; extra == "{extra}"'
    named = [line.removesuffix(condition) for line in requirements if line.endswith(condition)]
    if not named:
        return f'in the checkout of rrtn: pip install ".[{extra}]"'
    return " ".join(["pip install", *(f'"{package}"' for package in named)])


class NotPicklableError(RrtnError, TypeError):
    """An object that cannot travel to another process. Also a TypeError, as for the locks of Python."""


class AudioError(RrtnError, ValueError):
    """One audio file that cannot be used. Also a ValueError.

    `code` is one of `audio.codes.ERROR_CODES`, and `detail` says more. `rrtn score` never stops for it: the
    file's row of scores has the code.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    @classmethod
    def of_fault(cls, fault: Exception) -> "AudioError":
        """A fault of ours, or of a reader, that nobody thought of, as an error of the file that met it."""
        return cls("crashed", f"{type(fault).__name__}: {fault}")

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class StoppedError(RrtnError, RuntimeError):
    """Work that was stopped on purpose, or that the storage stopped. Also a RuntimeError.

    What is done is safe, and the same command continues. `exit_code` is 128 + the signal's number where a
    signal stopped the work.
    """

    exit_code = 4


class ModelError(RrtnError, RuntimeError):
    """A model, bundle or engine that must not be used. Also a RuntimeError."""

    exit_code = 5


class UnavailableError(ModelError):
    """A backend that this machine cannot run: no GPU, no library, an engine made elsewhere."""


class OutOfMemoryError(ModelError, MemoryError):
    """A batch that does not fit into the device's memory. Also a MemoryError.

    The backend is as it was before, and may score a smaller batch.
    """
