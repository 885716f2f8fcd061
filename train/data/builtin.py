"""The corpus that `rrtn train` takes when it is given no data: synthetic, small, made once into the cache."""

from pathlib import Path
from typing import Final

from ...runtime.progress import Progress
from .clip_cache import cache_folder
from .corpus import synthesise

CLIPS: Final = 1000
SPEAKERS: Final = 60
SPLIT: Final = (0.6, 0.3, 0.1)
SEED: Final = 1
EPOCHS: Final = 5  # a demonstration, not an experiment
_VERSION: Final = 1  # raise it whenever corpus or voice give other samples


def builtin_corpus() -> Path:
    """The folder of the built-in corpus, in the Hume-VB layout; the first call makes it."""
    folder = cache_folder() / f"builtin-corpus-v{_VERSION}"
    if not (folder / "data_info.csv").exists():
        _clear(folder)
        with Progress("synthesise", CLIPS, "clips") as bar:
            synthesise(
                folder,
                clips=CLIPS,
                speakers=SPEAKERS,
                seed=SEED,
                split=SPLIT,
                progress=lambda done, _: bar.update(done),
            )
    return folder


def _clear(folder: Path) -> None:
    """What an interrupted synthesis left."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
