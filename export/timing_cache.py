"""TensorRT's timings of kernels, kept between builds.

With them, the second build of a model takes seconds instead of minutes. The user's cache folder has
one file for each version of TensorRT and kind of GPU: 32 bytes of sha256, then what TensorRT
serialised. A file that is broken, or that TensorRT refuses, is left out with a note and written
anew. TensorRT-RTX has no such timings. The tests run this file against a stand-in for
TensorRT's calls.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

from ..runtime.system.files import read_regular, write_output

_DIGEST: Final = 32  # bytes of sha256


def timing_cache_file(folder: Path, version: str, capability: int) -> Path:
    """The file for this version of TensorRT and this kind of GPU."""
    return folder / "tensorrt" / f"{version}-sm{capability}.timing"


def attach_timing_cache(config: Any, file: Path) -> str:
    """Gives the timings in `file` to a builder's config, or an empty cache to fill.

    -> a note; "" where all is well.
    """
    content, note = _read(file)
    cache = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, False):  # False for the timings of another GPU
        return note
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return f"{file} holds no timings that this TensorRT takes for this GPU; measuring anew"


def store_timing_cache(config: Any, file: Path) -> str:
    """Writes what was measured; -> a note where that failed. The engine is not lost."""
    cache = config.get_timing_cache()
    if cache is None:
        return ""
    content = bytes(cache.serialize())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_output(file, hashlib.sha256(content).digest() + content)
    except OSError as error:
        return f"{file}: {error.strerror}; the next build will measure again"
    return ""


def _read(file: Path) -> tuple[bytes, str]:
    try:
        stored = read_regular(file)
    except FileNotFoundError:
        return b"", ""
    except OSError as error:
        return b"", f"{file}: {error.strerror}; measuring anew"
    content = stored[_DIGEST:]
    if hashlib.sha256(content).digest() != stored[:_DIGEST]:
        return b"", f"{file} was changed or cut; measuring anew"
    return content, ""
