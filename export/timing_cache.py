"""TensorRT's timings of kernels, kept between builds: the second build of a model takes seconds
instead of minutes.

A file of the user's cache folder for each TensorRT and kind of GPU: 32 bytes of sha256, then what
TensorRT serialised. It saves time and nothing else: one that is broken, or that TensorRT does not
take, is left out with a note and written anew. TensorRT-RTX has none. Not yet run on a GPU; what
has run is all of the file, against a stand-in for TensorRT's calls.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

from ..runtime.files import write_bytes

_DIGEST: Final = 32  # bytes of sha256


def timing_cache_file(folder: Path, version: str, capability: int) -> Path:
    """Where the timings of this TensorRT on this kind of GPU are."""
    return folder / "tensorrt" / f"{version}-sm{capability}.timing"


def attach_timing_cache(config: Any, file: Path) -> str:
    """Gives a builder's config the timings of `file`, or an empty cache to fill; -> a note, ""
    where all is well.
    """
    content, note = _read(file)
    cache = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, False):  # it does not take another GPU's
        return note
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return f"{file} holds no timings that this TensorRT takes for this GPU; measuring anew"


def store_timing_cache(config: Any, file: Path) -> str:
    """Writes what was measured; -> a note where that failed, which is no reason to lose an engine."""
    cache = config.get_timing_cache()
    if cache is None:
        return ""
    content = bytes(cache.serialize())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, hashlib.sha256(content).digest() + content)
    except OSError as error:
        return f"{file}: {error.strerror}; the next build will measure again"
    return ""


def _read(file: Path) -> tuple[bytes, str]:
    try:
        stored = file.read_bytes()
    except FileNotFoundError:
        return b"", ""
    except OSError as error:
        return b"", f"{file}: {error.strerror}; measuring anew"
    content = stored[_DIGEST:]
    if hashlib.sha256(content).digest() != stored[:_DIGEST]:
        return b"", f"{file} was changed or cut; measuring anew"
    return content, ""
