"""rrtn pack."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..runtime.errors import ConfigError
from ..runtime.system.files import resolved
from ..runtime.system.host import quoted
from ..runtime.text import counted
from .options import EXIT_SOME_ERRORS, Audio, Exclude, Json, Listed, spool_from_options
from .printing import print_json, say


def pack(
    audio: Audio = None,
    out: Annotated[Path, typer.Option(help="A folder for the packs.")] = Path("packs"),
    listed: Listed = None,
    exclude: Exclude = None,
    as_json: Json = False,
) -> None:
    """Put many small files into few Parquet files, which score the same.

    The files are kept byte for byte. The same command goes on where it was stopped.

    Example: rrtn pack recordings/ --out packs; rrtn score packs --out scores.csv
    """
    from ..runtime.audio.inputs import counts_text
    from ..runtime.audio.pack_writer import write_packs
    from ..runtime.progress import Progress

    _check_apart(audio or [], out)
    with spool_from_options(audio, listed, exclude) as spool, Progress("pack", spool.files, "files") as bar:
        packed = write_packs(spool, out, bar)
    errors = dict(sorted(packed.errors.items()))
    if as_json:
        counts = {"files": packed.files, "packs": packed.packs, "written_now": packed.written}
        print_json({**counts, "errors": errors, "left_out": dict(spool.left_out), "out": str(out)})
    wrong = "".join(f"; {code} {count}" for code, count in errors.items())
    files, packs = counted(packed.files, "file"), counted(packed.packs, "pack")
    done = f"{files} in {packs}, {packed.written} written now{wrong}"
    say(f"{done}. Next: rrtn score {quoted(out)}")
    if spool.left_out:
        say(f"left out: {counts_text(spool.left_out)}")
    if errors:
        raise typer.Exit(EXIT_SOME_ERRORS)


def _check_apart(audio: Sequence[str], out: Path) -> None:
    """Raises ConfigError for packs among the files that they hold: these would be scored twice."""
    folders = [Path(name) for name in audio if Path(name).is_dir()]
    if inside := [folder for folder in folders if resolved(out).is_relative_to(resolved(folder))]:
        came = f"is in {inside[0]}, which is packed"
        raise ConfigError(f"--out {out}", came, wanted="a folder beside it", fix="choose another --out")
