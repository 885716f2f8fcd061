"""Files that matter: each is written to a temporary name beside it, fsync-ed, renamed and hashed."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from ..errors import ConfigError, RrtnError, StoppedError
from .failpoints import failpoint
from .host import FileInUseError, open_to_read, replace
from .host import fsync as fsync_anything

_NAME: Final = "a name that a file can have"
# What is wrong with a name, whatever the state of the storage -> what is expected.
_NO_NAME: Final = {
    errno.ENAMETOOLONG: _NAME,
    errno.ELOOP: _NAME,
    errno.ENOTDIR: "no file where a folder must be",
    errno.EISDIR: "a file",
    errno.EEXIST: "a folder, or nothing",
}
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_OLD: Final = ".old"  # suffix of the folder that holds the one before while another takes its place
_BEFORE: Final = "before"
_ABANDONED: Final = 24 * 3600.0  # s: no writer takes so long
_TOKEN: Final = 8  # hexadecimal digits that tell the temporary files of a target apart
_LONG: Final = 40  # characters of a name, so that more can be put behind it
# What Samba, vboxsf, FAT and FUSE answer to a call that they do not have: nothing is wrong with the disk.
_NOT_SUPPORTED: Final = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path) -> BufferedReader:
    """A regular file, opened for reading.

    Raises OSError at once for a pipe, a device, a socket or a folder: reading them may never end.
    """
    descriptor = open_to_read(path)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path) -> bytes:
    """The content of a regular file. Raises OSError, at once for anything else than a file."""
    with open_regular(path) as file:
        return file.read()


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path that becomes `target` on success; on failure it is removed."""
    temporary = temporary_name(target)
    # Not mkstemp: its files are the owner's alone, and who else may read is for the umask to say.
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except OSError as error:
        error.filename = str(target)  # the name that somebody has asked for
        raise
    try:
        failpoint("write.begin")
        yield temporary
        failpoint("write.fsync")
        fsync(temporary)
        failpoint("write.replace")
        replace(temporary, target)
        failpoint("write.done")
        fsync(target.parent)
    except OSError as error:
        error.filename = error.filename or str(target)  # a full disk does not say where
        raise
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(target: Path) -> Path:
    """A new name beside `target`, by which `left_of` knows what a killed process has left."""
    target = target.absolute()
    return target.with_name(f".{_stem(target.name)}.{secrets.token_hex(_TOKEN // 2)}.tmp")


def remove_abandoned(*targets: Path) -> None:
    """Removes what killed writers of these files and folders have left beside them a day ago or earlier.

    What is younger may be a living writer's, of this machine or of another one: not every file system has
    locks that would tell.
    """
    stems: dict[Path, set[str]] = {}
    for target in (target.absolute() for target in targets):
        stems.setdefault(target.parent, set()).add(_stem(target.name))
    for folder, names in stems.items():
        for path in folder.glob(f".*.{'[0-9a-f]' * _TOKEN}.tmp"):
            if path.name[1 : -_TOKEN - len("..tmp")] in names and not path.is_symlink() and _is_old(path):
                _remove(path)


def _is_old(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _ABANDONED
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def left_of(target: Path) -> list[Path]:
    """The temporary files of killed writers of this file, and of no other: only who locks it may ask."""
    return left_in(target.parent, glob.escape(_stem(target.name)))


def left_in(folder: Path, names: str) -> list[Path]:
    """The same of all files whose names match a pattern; of a long name it sees the beginning alone."""
    found = folder.glob(f".{names}.????????.tmp")
    return [path for path in found if path.is_file() and not path.is_symlink()]


def remove_left(target: Path) -> None:
    """Removes what `left_of` finds."""
    for path in left_of(target):
        path.unlink(missing_ok=True)


def _stem(name: str) -> str:
    """The name; of a long one its beginning, and a hash that tells it from others that begin so."""
    return name if len(name) <= _LONG else f"{name[:31]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def check_takes_files(folder: Path) -> None:
    """Raises OSError where no file can be made in a folder, whatever its mode says."""
    tempfile.TemporaryFile(dir=folder).close()


def takes_no_file(folder: Path) -> str:
    """Why no file can be made there; empty where one can. /proc says that it is writable, and is not.

    Raises NotADirectoryError for a file.
    """
    if folder.is_file():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        return "not writable"
    try:
        check_takes_files(folder)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def write_bytes(target: Path, content: bytes) -> None:
    """Writes a whole file, or nothing."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_output(target: Path, content: bytes) -> None:
    """The same of a file that stands among others, which have no lock: see `remove_abandoned`."""
    remove_abandoned(target)
    write_bytes(target, content)


def write_json(target: Path, document: Any) -> None:
    """Writes a whole JSON document, or nothing. Raises ValueError for NaN, which is not JSON."""
    write_bytes(target, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def replace_folder(target: Path, staging: Path) -> None:
    """The folder `staging` becomes `target`. Killed in between, `mend_folder` gives the one before back."""
    fsync(staging)
    if target.exists():
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=_OLD))
        replace(target, old / _BEFORE)
        failpoint("folder.replace")
        replace(staging, target)
        shutil.rmtree(old)
    else:
        replace(staging, target)
    fsync(target.parent)


def mend_folder(target: Path) -> None:
    """Undoes what a killed `replace_folder` has left beside `target`."""
    for old in sorted(target.parent.glob(f".{glob.escape(target.name)}.*{_OLD}")):
        if not target.exists() and (old / _BEFORE).is_dir():
            replace(old / _BEFORE, target)
        shutil.rmtree(old, ignore_errors=True)


def resolved(path: Path) -> Path:
    """The path without links. Path.resolve has a RuntimeError for a link to itself before Python 3.13."""
    return Path(os.path.realpath(path))


def name_refused(name: str | bytes | Path, error: OSError) -> ConfigError | None:
    """The error for a name that no file can have, or that is of something else; None for any other error."""
    if (wanted := _NO_NAME.get(error.errno or 0)) is None:
        return None
    fix = "" if wanted == _NAME else "check the path"
    return ConfigError(os.fsdecode(name), error.strerror or str(error), wanted=wanted, fix=fix)


def write_refused(target: Path, error: OSError, *, elsewhere: str = "choose another folder") -> RrtnError:
    """The error for a file that the storage does not take, or whose name it does not take.

    `elsewhere` says how the command is told another place.
    """
    if refused := name_refused(target, error):
        return refused
    if isinstance(error, FileInUseError):
        return StoppedError(
            str(target),
            str(error.strerror),
            wanted="a file that can be replaced",
            fix="close it there, and run the command again",
        )
    wanted, fix = "a folder with free space that can be written to", f"make room there, or {elsewhere}"
    if error.errno in _NOT_ALLOWED:
        wanted, fix = "a folder that can be written to", f"{elsewhere}, or allow writing there"
    came = error.strerror or str(error)
    return StoppedError(str(target), came, wanted=wanted, fix=f"{fix}, and run the command again")


def fsync(path: Path) -> None:
    """Forces a file's content, or a folder's entries, to the disk, where the file system can do that."""
    # PermissionError: a folder that takes files, but that nobody may list; or any folder on Windows.
    with contextlib.suppress(PermissionError):
        try:
            fsync_anything(path)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
