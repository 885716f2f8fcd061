"""The corpora that are there without any data: synthetic, small, and made once into the cache."""

import shutil
from pathlib import Path
from typing import Final

from ...runtime.progress import Progress
from ...runtime.system.cache import cache_folder
from ...runtime.system.locks import in_turn
from .corpus import synthesise

CLIPS: Final = 1000
DEMO_CLIPS: Final = 240  # of 36 speakers in Train, 18 in Val and 6 in Test
SPEAKERS: Final = 60
SPLIT: Final = (0.6, 0.3, 0.1)
SEED: Final = 1
EPOCHS: Final = 5  # a demonstration, not an experiment
_VERSION: Final = 1  # raise it whenever corpus or voice give other samples


def builtin_corpus() -> Path:
    """The folder of the built-in corpus, in the Hume-VB layout. The first call makes it."""
    return _made(cache_folder() / f"builtin-corpus-v{_VERSION}", clips=CLIPS)


def demo_corpus() -> Path:
    """The first clips of the built-in corpus: as many as `rrtn demo` learns from in a minute."""
    return _made(cache_folder() / f"demo-corpus-v{_VERSION}", clips=DEMO_CLIPS)


def _made(folder: Path, *, clips: int) -> Path:
    done = folder / "data_info.csv"  # is written last
    if done.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with in_turn(folder.with_name(f"{folder.name}.lock")):
        if done.exists():  # another process has made it meanwhile
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted synthesis
        with Progress("synthesise", clips, "clips") as bar:
            synthesise(
                folder,
                clips=clips,
                speakers=SPEAKERS,
                seed=SEED,
                split=SPLIT,
                progress=lambda done, _: bar.update(done),
            )
    return folder
