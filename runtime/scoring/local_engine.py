"""The scoring engine of this machine."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from ..audio.input_spool import InputSpool, Shard
from ..backends.registry import backend_kind
from ..bundle import Bundle
from ..system.memory import MEMORY_BUDGET, limit_memory, most_memory
from ..tables.rows import Row
from .engine import CountFile, LoadedModel, choice_of_scorer, model_of_scorer
from .part_file import part_from_rows
from .scorer import Scorer
from .scorer_settings import ScorerSettings
from .scoring_model import Timing

_A_CLIP: Final = 32 << 20  # bytes that the model may take for each clip of each batch that runs


def scorer_within_budget(bundle: Bundle, settings: ScorerSettings) -> Scorer:
    """A scorer for a process that does nothing else: from here on the process has a budget of memory.

    Raises what `Scorer` raises.
    """
    model_bytes = max(variant.size for variant in bundle.variants)
    limit_memory(MEMORY_BUDGET + 4 * model_bytes, of="data")
    scorer = Scorer(bundle, **vars(settings))
    a_lane = scorer.batch_size * _A_CLIP + backend_kind(scorer.backend.device).copies * model_bytes
    limit_memory(int(min(MEMORY_BUDGET + scorer.lanes * a_lane, most_memory())), of="data")
    return scorer


def parts_of_files(
    scorer: Scorer,
    files: Iterator[list[Row]],
    lengths: Sequence[int],
    count: CountFile = lambda rows: None,
) -> Iterator[bytes]:
    """Rows of files -> the part of each shard, which has so many files."""
    for length in lengths:
        rows = []
        for of_file in islice(files, length):
            count(of_file)
            rows.append(of_file)
        yield part_from_rows(rows, scorer.labels, embedding_size=scorer.embedding_size)
    deque(files, maxlen=0)  # to its end: an iterator that is dropped ends the decoders


class LocalEngine:
    """A scorer as a ScoringEngine."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._before = Timing()

    @property
    def loaded(self) -> LoadedModel:
        """The model, and where it runs."""
        return model_of_scorer(self.scorer)

    @property
    def description(self) -> str:
        """Bundle, variant and device, and why nothing faster was taken."""
        bursts = f"; {found}" if (found := self.loaded.bursts) else ""
        return f"{self.scorer.bundle.path}: {choice_of_scorer(self.scorer)}{bursts}"

    def files(self, spool: InputSpool, shards: Sequence[Shard]) -> Iterator[list[Row]]:
        """The rows of each file, in order, without a pause between the shards."""
        self._before = replace(self.scorer.timing)
        return self.scorer.rows_of_files(source for shard in shards for source in spool.sources(shard))

    def parts(
        self, spool: InputSpool, shards: Sequence[Shard], count: CountFile
    ) -> Iterator[tuple[Shard, bytes]]:
        """The part of each shard, in the order of the shards."""
        parts = parts_of_files(self.scorer, self.files(spool, shards), [one.files for one in shards], count)
        for part, shard in zip(parts, shards, strict=True):  # the parts first, to their end
            yield shard, part

    def in_work(self) -> str:
        """How far a long recording has been scored."""
        return self.scorer.in_work()

    def busy(self, seconds: float) -> dict[str, float]:
        """The shares of the decoders, of the features and of the model."""
        scorer, now, before = self.scorer, self.scorer.timing, self._before
        return {
            "reading and decoding": (now.decoding - before.decoding) / seconds / scorer.workers,
            "features": (now.features - before.features) / seconds / scorer.workers,
            "model": (now.model - before.model) / seconds / scorer.lanes,
        }
