"""What killed writers have left."""

import os
from pathlib import Path

from rrtn.runtime.system.files import temporary_name


def abandon(target: Path, *inside: str) -> None:
    """A temporary file beside `target` that is two days old, or a folder with files of these names."""
    path = temporary_name(target)
    path.mkdir() if inside else path.touch()
    for name in inside:
        (path / name).touch()
    two_days_ago = path.stat().st_mtime - 48 * 3600
    os.utime(path, (two_days_ago, two_days_ago))
