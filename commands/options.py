"""Options and arguments that several commands have, and what is taken when they are left out."""

import gc
import importlib
import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..runtime.backends.registry import backend_names
from ..runtime.errors import ConfigError
from ..runtime.system.files import resolved
from ..runtime.system.host import quoted
from ..runtime.text import counted
from ..train.method.tasks import TASK_NAMES
from .printing import say

if TYPE_CHECKING:
    from ..runtime.audio.input_spool import InputSpool
    from ..runtime.audio.path_list import PathList
    from ..runtime.bundle import Bundle
    from ..runtime.scoring.decoder_messages import Window
    from ..runtime.scoring.scorer_settings import ScorerSettings
    from ..runtime.spec import FrontendSpec
    from ..train.config import Config

EXIT_SOME_ERRORS = 3  # done, but some files are errors

Channel = Annotated[
    Optional[int],
    typer.Option(
        min=1, help="Take this channel of each file, 1 is the first; default: their mean.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; all else on stderr.")]
DataDir = Annotated[
    Optional[Path],
    typer.Option("--data", help="Folder with data_info.csv and wav/ (Hume-VB layout).", show_default=False),
]
CsvFile = Annotated[
    Optional[Path],
    typer.Option("--csv", help="The table: CSV, TSV or with semicolons.", metavar="FILE", show_default=False),
]
AudioDir = Annotated[
    Optional[Path],
    typer.Option(
        "--audio", help="Folder of the recordings; default: wav/.", metavar="DIR", show_default=False
    ),
]
FileColumn = Annotated[
    Optional[str],
    typer.Option(help="Default: File_ID, file, filename, path, ...", metavar="NAME", show_default=False),
]
SplitColumn = Annotated[
    Optional[str],
    typer.Option(help="Default: Split, partition, subset or set.", metavar="NAME", show_default=False),
]
SpeakerColumn = Annotated[
    Optional[str],
    typer.Option(help="Default: Subject_ID, speaker, participant, ...", metavar="NAME", show_default=False),
]
Targets = Annotated[
    Optional[str],
    typer.Option(
        help="Target columns, with commas; default: every numeric column that is not metadata.",
        show_default=False,
    ),
]
Scale = Annotated[
    Optional[str],
    typer.Option(
        help="Rating scale of the labels: 1:9, or Valence=-1:1,Arousal=1:5, or auto; default 0:1.",
        metavar="LOW:HIGH",
        show_default=False,
    ),
]
ClassTarget = Annotated[
    Optional[str],
    typer.Option(help="Columns with a class for each clip, with commas.", metavar="NAME", show_default=False),
]
Task = Annotated[
    Optional[str],
    typer.Option(
        help=f"A challenge's targets, scale, metric and submission: {', '.join(TASK_NAMES[1:])}.",
        metavar="NAME",
        show_default=False,
    ),
]
Epochs = Annotated[
    Optional[int], typer.Option(min=1, help="Default 60; 5 on the built-in corpus.", show_default=False)
]
Fraction = Annotated[
    Optional[float],
    typer.Option(
        help="Share of the training clips to use; whole speakers, whom the seed draws.", show_default=False
    ),
]
BatchSize = Annotated[
    Optional[int], typer.Option(min=1, help="Default 128; less for under 1,280 clips.", show_default=False)
]
Device = Annotated[Optional[str], typer.Option(help="auto (default), cpu or cuda.", show_default=False)]
Precision = Annotated[
    Optional[str],
    typer.Option(
        help="fp32, tf32, bf16 or fp16; default: bf16 or fp16 on GPUs that have it.", show_default=False
    ),
]
RunArgument = Annotated[
    Optional[Path],
    typer.Argument(
        metavar="RUN", help="A run's folder; default: the newest under runs/.", show_default=False
    ),
]
BundleArgument = Annotated[
    Optional[Path],
    typer.Argument(metavar="BUNDLE|ONNX|RUN", help="Default: the newest run's export/.", show_default=False),
]
ModelOption = Annotated[
    Optional[Path],
    typer.Option(
        "--model",
        "-m",
        help="A bundle, a run or an .onnx of ours; default: the newest run's export/.",
        show_default=False,
    ),
]
BackendOption = Annotated[str, typer.Option(help=f"{backend_names()}.")]
VariantOption = Annotated[
    Optional[str], typer.Option(help="Of the bundle: fp32, int8, fp16, ...", show_default=False)
]
Audio = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="AUDIO", help='Audio files, folders of them (recursive), patterns like "**/*.wav".'
    ),
]
Listed = Annotated[
    Optional[str],
    typer.Option("--list", help="A file with one path a line, or NUL between; -: stdin.", show_default=False),
]
Exclude = Annotated[
    Optional[list[str]],
    typer.Option(
        help='Leave out files and folders of this name, like "*_noise.wav"; may be given again.',
        metavar="PATTERN",
        show_default=False,
    ),
]


def load_torch(module: str) -> None:
    """Imports torch, and a module of ours that needs it, under a bar: that takes seconds.

    Values are checked before it. Torch alone would start a thread for each core of the machine, whatever
    the quota of a container is. What is imported stays: to look through it for garbage, again and again,
    would take a fifth of the time.
    """
    from ..runtime.progress import Progress
    from ..runtime.system.cpus import usable_cpus

    gc.disable()
    try:
        with Progress("load torch"):
            import torch

            torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))
            importlib.import_module(f"..{module}", __package__)
    finally:
        gc.freeze()
        gc.enable()


def place_settings(
    data: Path | None,
    csv: Path | None,
    audio: Path | None,
    file_column: str | None = None,
    split_column: str | None = None,
    speaker_column: str | None = None,
) -> dict[str, str | None]:
    """The options of where data lie, as settings of [data]. --csv alone has its folder as --data."""
    return {
        "dir": absolute(data or (csv.absolute().parent if csv else None)),
        "csv": absolute(csv),
        "audio": absolute(audio),
        "file_column": file_column,
        "split_column": split_column,
        "speaker_column": speaker_column,
    }


def labels_from_options(
    targets: str | None,
    scale: str | None = None,
    class_target: str | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """The options of what is learned, as settings of [data]."""
    named = {"targets": targets, "scale": scale, "class_targets": class_target}
    return {**{name: names_with_commas(text) for name, text in named.items()}, "task": task}


def split_option(text: str) -> str:
    """Val for val, dev, ... Raises ConfigError for what is no split."""
    from ..train.data.column_names import SPLITS, split_of

    if (split := split_of(text)) not in SPLITS:
        raise ConfigError("--split", text, wanted=f"one of {', '.join(SPLITS)}")
    return split


def say_gaps(spec: "FrontendSpec", settings: "ScorerSettings") -> None:
    """A note where windows do not reach each other: what lies between them is not heard.

    Raises ConfigError for windows that a scorer refuses.
    """
    from ..runtime.scoring.scorer_settings import check_window, window_of

    window, hop = window_of(settings.window, settings.segment), settings.hop
    check_window(window, hop, spec)
    length = spec.clip_seconds if window in (None, "auto") else float(window or 0)
    if hop and hop > length:
        between = f"the {hop - length:g} s between them are not scored"
        say(f"note: windows of {length:g} s, {hop:g} s apart: {between}")


def say_other_channel(bundle: "Bundle", channel: int | None) -> None:
    """A note where a model that learned one channel of its files hears the mean of all."""
    learned = bundle.provenance.get("channel")
    if learned and channel is None:
        say(f"note: the model learned channel {learned} of its files; of these the mean is scored: --channel")


def window_from_option(option: str | None) -> "Window | None":
    """Seconds, or auto. Raises ConfigError."""
    if option is None:
        return None
    try:
        return "auto" if option == "auto" else float(option)
    except ValueError:
        raise ConfigError("--window", repr(option), wanted="seconds, or auto") from None


def absolute(path: Path | None) -> str | None:
    """A path as it is kept in a config.toml."""
    return str(resolved(path)) if path else None


def names_with_commas(text: str | None) -> list[str] | None:
    """The names in "a, b"; None if nothing was given. Raises ConfigError for commas alone."""
    if not text:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(repr(text), "no name", wanted="names, with commas between")
    return names


def numbers_with_commas(flag: str, text: str, count: int | None = None) -> tuple[int, ...]:
    """The numbers in "1,16". Raises ConfigError unless all are above 0, and there are `count`."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1 or (count and len(numbers) != count):
        wanted = f"{count or 'some'} whole numbers above 0, with commas between"
        raise ConfigError(flag, repr(text), wanted=wanted)
    return numbers


def check_device(config: "Config", command: str) -> None:
    """For commands that train several runs, one behind the other, before anything is trained.

    Raises ConfigError under torchrun, and for a device that is not there.
    """
    from ..train.device import device_from_config
    from ..train.distributed import world_from_environment

    if (world := world_from_environment()).size > 1:
        came = f"{world.size} processes, and {command} trains with one"
        raise ConfigError("torchrun", came, fix="start it without torchrun")
    device_from_config(config, world)


def existing_run(run: Path | None) -> Path:
    """RUN, or the newest run. Raises ConfigError if there is none."""
    from ..train.run_folder import RunFolder, newest_run, runs_below, runs_in

    found = run or newest_run()
    if found is None or not found.is_dir():
        came = str(found or "no run under runs/")
        raise ConfigError("RUN", came, wanted="a folder that rrtn train made", fix="rrtn train")
    if RunFolder(found).is_begun() or runs_in(found):
        return found
    above = next((folder for folder in found.absolute().parents if RunFolder(folder).is_begun()), None)
    came = f"is in the run {above}" if above else "is no run: no config.toml in it"
    fix = f"name the run: {quoted(above)}" if above else "name one, or leave RUN out for the newest"
    if inside := runs_below(found):
        fix = f"name one in it, such as {quoted(inside[0].parent)}"
    raise ConfigError(f"RUN {found}", came, wanted="a folder that rrtn train made", fix=fix)


def single_run(run: Path | None) -> Path:
    """RUN, or the newest run, where no folder of several runs will do. Raises ConfigError for one, too."""
    if run:
        check_is_single(run)
    return existing_run(run)


def check_is_single(run: Path) -> None:
    """Raises ConfigError for a folder of several runs."""
    from ..train.run_folder import RunFolder, runs_below

    if not RunFolder(run).is_begun() and (inside := runs_below(run)):
        raise _several(run, inside, fix=f"name one, such as {quoted(inside[0])}")


def _several(folder: Path, runs: list[Path], *, fix: str) -> ConfigError:
    return ConfigError(str(folder), f"holds {counted(len(runs), 'run')}", wanted="one run", fix=fix)


def run_named(run: Path) -> str:
    """How a command names this run: "" where it is the one that is taken when none is named."""
    from ..train.run_folder import newest_run

    newest = newest_run()
    return "" if newest and newest.resolve() == run.resolve() else f" {quoted(run)}"


def bundle_named(bundle: Path) -> str:
    """How a command names this bundle: "" where it is the one that is taken when none is named."""
    try:
        is_newest = newest_bundle().resolve() == bundle.resolve()
    except ConfigError:
        is_newest = False
    return "" if is_newest else f" --model {quoted(bundle)}"


def bundle_place(model: Path | None) -> Path:
    """What is named as a model, or the newest bundle. Raises ConfigError for a folder of several runs."""
    from ..train.run_folder import RunFolder, newest_run, runs_below

    if model is None:
        bundle, newest = newest_bundle(), newest_run()
        if newest and not _has_bundle(newest):
            say(f"note: {newest} is newer than {bundle}, and was not exported: rrtn export {quoted(newest)}")
        return bundle
    with suppress(OSError):  # a name that no file can have: `load_bundle` refuses it
        is_one = RunFolder(model).is_begun() or _has_bundle(model)
        if not is_one and (inside := runs_below(model)):
            exported = [run for run in inside if _has_bundle(run)]
            fix = f"name one, such as {quoted(exported[0])}" if exported else ""
            raise _several(model, inside, fix=fix or f"rrtn export {quoted(inside[0])}, then name that run")
    return model


def _has_bundle(folder: Path) -> bool:
    """Whether the folder is a bundle, or a run that was exported."""
    from ..runtime.bundle import MANIFEST
    from ..train.run_folder import RunFolder

    return any((place / MANIFEST).exists() for place in (folder, RunFolder(folder).export))


def newest_bundle() -> Path:
    """The export that was written last, of the runs in runs/. Raises ConfigError if none has one."""
    from ..runtime.bundle import MANIFEST
    from ..train.run_folder import RunFolder, newest_run

    run = newest_run(having=lambda run: run.export / MANIFEST)
    if run is None:
        raise ConfigError(
            "--model",
            "not given, and there is no bundle under runs/*/export",
            fix="rrtn export, or give -m BUNDLE",
        )
    return RunFolder(run).export


@contextmanager
def spool_from_options(
    audio: list[str] | None,
    listed: str | None,
    exclude: list[str] | None = None,
    outputs: "Mapping[tuple[int, int], str] | None" = None,
) -> Iterator["InputSpool"]:
    """The files that AUDIO... and --list name, each once. `outputs` are files that must not be among them.

    Raises DataError if there are none.
    """
    from ..runtime.audio.input_spool import InputSpool
    from ..runtime.audio.inputs import InputChoice, inputs_from_arguments, inputs_from_list, no_audio
    from ..runtime.audio.path_list import PathList

    choice = InputChoice(exclude=exclude or (), outputs=outputs or {})
    paths = PathList(listed) if listed else None
    found = [
        *([inputs_from_arguments(audio, choice)] if audio else []),
        *([inputs_from_list(paths, choice)] if paths else []),
    ]
    with InputSpool(itertools.chain(*found), choice.left_out) as spool:
        for note in [*choice.notes(), *(paths.notes() if paths else [])]:
            say(note)
        if not spool.files:
            raise no_audio([*(audio or []), *([paths.subject] if paths else [])], choice)
        spool.named = named_inputs(audio, paths)
        yield spool


def named_inputs(audio: list[str] | None, paths: "PathList | None") -> tuple[str, ...]:
    """What AUDIO... and --list name, resolved: the same for the same command in another folder."""
    named = {os.path.realpath(argument) for argument in audio or ()}
    return tuple(sorted(named | ({paths.identity} if paths else set())))
