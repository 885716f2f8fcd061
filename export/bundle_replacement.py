"""A bundle takes the place of another one. A reader finds a whole bundle at every moment.

A new bundle is made in a folder beside `out`: `.<name>.<random>.tmp`. The process that makes it
holds the file `lock` in that folder for as long as the process lives. A folder whose lock nobody
holds was left by a killed export, and the next export removes it.
"""

import contextlib
import glob
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from ..runtime.bundle import MANIFEST, load_bundle
from ..runtime.errors import ModelError, StoppedError
from ..runtime.system.failpoints import failpoint
from ..runtime.system.files import atomic_path, fsync, left_in, left_of, takes_no_file, write_json
from ..runtime.system.locks import in_turn, is_held, locked

_LOCK: Final = "lock"  # beside the bundle in the making
_TURN: Final = ".rrtn-export.lock"  # in the folder that the bundle goes to: held while one takes its place
_SPARE: Final = ".spare"
_SPARE_DIGITS: Final = 16  # of the hash, in front of it
_SPARES: Final = f".{'?' * _SPARE_DIGITS}{_SPARE}"
_REPLACES: Final = "replaces"  # key in bundle.json while the files get their lasting names


def check_replaceable(out: Path) -> None:
    """Called before the work begins.

    Raises ModelError where `out` is no place for a bundle, StoppedError where it cannot be written
    to.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ModelError(
            str(out), "a link or a file", wanted="a folder, or nothing", fix="choose another --out"
        )
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ModelError(
            str(out), "holds other files", wanted="a bundle, or nothing", fix="choose another --out"
        )
    beside = next(folder for folder in out.absolute().parents if folder.exists())
    for folder in (out, beside):
        if folder.exists() and (reason := takes_no_file(folder)):
            raise StoppedError(
                str(folder),
                reason,
                wanted="a folder that takes the bundle",
                fix="make it writable, or choose another --out",
            )


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A new folder near `out`. It is removed at the end, unless it has become `out`."""
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with in_turn(parent / _TURN):
            _sweep(parent, out.name)
            workplace = Path(tempfile.mkdtemp(dir=parent, prefix=f".{out.name}.", suffix=".tmp"))
            held.callback(shutil.rmtree, workplace, ignore_errors=True)
            held.enter_context(locked(workplace / _LOCK, does="exports"))
        staging = workplace / "bundle"
        staging.mkdir()
        yield staging


def put_in_place(staging: Path, out: Path) -> None:
    """The bundle in `staging` becomes the one in `out`; other files there stay.

    Two exports take turns. One rename is enough where nothing is at `out`; otherwise see
    `_replace_files`.
    """
    fsync(staging)
    parent = out.absolute().parent
    with in_turn(parent / _TURN):
        failpoint("write.place")
        try:
            staging.replace(out)
        except OSError:
            if not out.is_dir():
                raise
            _replace_files(staging, out)
        failpoint("write.placed")
        fsync(parent)


def _replace_files(staging: Path, out: Path) -> None:
    """Replaces the files one by one. bundle.json lists whole files at every moment: all old or all new.

    A file cannot be replaced at the same moment as the JSON that has its hash. So each new file
    first gets a spare name, and bundle.json lists that name. Then each file gets its lasting name.
    At last bundle.json lists the lasting names.
    """
    new = load_bundle(staging)
    before = _ours(out)
    beside = {path.name for path in staging.iterdir()} - _listed(staging) - {MANIFEST}  # such as model.yaml
    spares = [replace(variant, file=f".{variant.sha256[:_SPARE_DIGITS]}{_SPARE}") for variant in new.variants]
    try:
        for variant, spare in zip(new.variants, spares, strict=True):
            _give_name(staging / variant.file, out / spare.file)
        write_json(
            out / MANIFEST, {**replace(new, variants=tuple(spares)).manifest(), _REPLACES: sorted(before)}
        )
        for variant, spare in zip(new.variants, spares, strict=True):
            _give_name(out / spare.file, out / variant.file)
        for name in sorted(beside):
            _give_name(staging / name, out / name)
        _remove(out, before - _listed(staging))
        write_json(out / MANIFEST, new.manifest())
    finally:
        given = {MANIFEST, *beside, *before, *_listed(staging)}
        left = {path.name for name in given for path in left_of(out / name)}
        left |= {path.name for path in (*out.glob(_SPARES), *left_in(out, _SPARES))}
        _remove(out, (before | left) - _listed(out))


def _give_name(source: Path, target: Path) -> None:
    """`target` becomes a second name of the same content.

    It is a copy where the file system has no hard links.
    """
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)


def _listed(out: Path) -> set[str]:
    try:
        return {variant.file for variant in load_bundle(out).variants}
    except ModelError:  # no whole bundle: no file there is known to be ours
        return set()


def _ours(out: Path) -> set[str]:
    """The files that bundle.json lists, and those that a killed export was about to remove."""
    if not (listed := _listed(out)):
        return set()
    replaced = json.loads((out / MANIFEST).read_bytes()).get(_REPLACES)
    names = replaced if isinstance(replaced, list) else []
    return listed | {name for name in names if isinstance(name, str) and Path(name).name == name}


def _remove(out: Path, names: Iterable[str]) -> None:
    for name in sorted(names):
        failpoint("remove")
        (out / name).unlink(missing_ok=True)


def _sweep(parent: Path, name: str) -> None:
    """Removes the folders of killed exports."""
    for left in parent.glob(f".{glob.escape(name)}.????????.tmp"):
        if left.is_dir() and not left.is_symlink() and not is_held(left / _LOCK):
            shutil.rmtree(left, ignore_errors=True)
