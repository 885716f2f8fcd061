"""The folder for what may be made again."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from ..errors import ConfigError
from .host import user_number


def cache_folder() -> Path:
    """$RRTN_CACHE, else the user's cache folder, else a private one in the system's temporary folder.

    Raises ConfigError where that one is not the user's own: what is there is trained on, or run.
    """
    if chosen := os.environ.get("RRTN_CACHE"):
        return Path(chosen)
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: no home is known
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rrtn"
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(base, os.W_OK | os.X_OK):
            return base
    temporary, user = Path(tempfile.gettempdir()), user_number()
    if user is None:
        return temporary / "rrtn-cache"
    return _private_folder(temporary / f"rrtn-cache-{user}", user)


def _private_folder(folder: Path, user: int) -> Path:
    """Others can write to the folder around it, so its name alone says nothing."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == user
    if not is_ours or status.st_mode & 0o077:
        raise ConfigError(
            str(folder),
            "not a folder that is yours alone",
            wanted="a cache that no other user can write to",
            fix="set RRTN_CACHE to a folder of your own",
        )
    return folder
