"""What scores the shards of a table: the scorer of this machine, or actors of Ray.

Both give the same rows, so either one finishes a table that the other has begun.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..audio.av_reader import second_reader
from ..audio.input_spool import InputSpool, Shard
from ..audio.voice_gate import gate_version
from ..backends.choice import BackendName, obstacle
from ..backends.registry import AUTO, BACKENDS, backend_kinds
from ..bundle import Bundle, LabelMeaning
from ..challenge import in_order_of_submission
from ..spec import FrontendSpec
from ..tables.rows import Row
from ..tables.top_rows import ZERO_TO_ONE, Scales
from .decoder_messages import Segment
from .scorer import Scorer
from .table_job import CHANNEL, F_MAX, SCALES, SCORING_RULES, settings_of_table

CountFile = Callable[[list[Row]], None]  # takes the rows of one file; may raise StoppedError


@dataclass(frozen=True)
class LoadedModel:
    """The model of an engine, and where it runs."""

    settings: dict[str, Any]  # all that a row depends on, besides its file
    file: str
    variant: str
    device: str
    batch_size: int
    embedding_size: int | None  # D where the rows carry embeddings
    meaning: LabelMeaning | None = None  # None: every score is a rating in 0 to 1

    @property
    def labels(self) -> tuple[str, ...]:
        """The K labels, in the order of the model's outputs."""
        return tuple(self.settings["labels"])

    @property
    def scales(self) -> Scales:
        """Label -> the lowest and the highest rating; labels that are not named are on 0 to 1."""
        return self.meaning.scales if self.meaning else ZERO_TO_ONE

    @property
    def bursts(self) -> str:
        """How the bursts of recordings are found; "" where whole recordings are scored."""
        found = self.settings.get("segment")
        return f"bursts by {found}" if found else ""

    @property
    def submitted(self) -> tuple[str, ...]:
        """The columns of a challenge's submission, behind File_ID."""
        return self.meaning.submitted if self.meaning else in_order_of_submission(self.labels)


class ScoringEngine(Protocol):
    """Scores shards of files. `folder.score_to_table` makes a table of what it gives."""

    @property
    def loaded(self) -> LoadedModel:
        """The model, and where it runs."""

    @property
    def description(self) -> str:
        """A phrase for the person: the bundle, the variant, the device."""

    def parts(
        self, spool: InputSpool, shards: Sequence[Shard], count: CountFile
    ) -> Iterator[tuple[Shard, bytes]]:
        """What `part_from_rows` gives for each shard, in the order in which the shards are done.

        Every file is given to `count` before the part of its shard comes. What `count` raises ends the
        scoring.
        """

    def in_work(self) -> str:
        """What is being scored, for the person; "" if unknown. Another thread may ask."""

    def busy(self, seconds: float) -> dict[str, float]:
        """For each part of the work, the share of `seconds` in which that part was busy; {} if unknown."""


class TableChoice(NamedTuple):
    """What a table is scored with; None where that is to be chosen."""

    backend: BackendName
    variant: str | None = None
    batch_size: int | None = None


def choice_of_table(bundle: Bundle, target: Path, backend: BackendName) -> TableChoice:
    """What the table `target` was begun with, where the bundle has that variant.

    A table keeps its variant: `auto` may take another one after `rrtn tune` or an update, or on another
    machine. A backend that cannot run here is left to the caller, whose settings then are others than the
    table's.
    """
    settings = settings_of_table(target)
    kept = next((one for one in bundle.variants if one.sha256 == settings.get("model")), None)
    if kept is None:
        return TableChoice(backend)
    kinds = BACKENDS if backend == AUTO else backend_kinds(backend)
    before, size = str(settings.get("backend")), settings.get("batch_size")
    if before not in [kind.name for kind in kinds] or obstacle(kept, before):
        return TableChoice(backend)
    return TableChoice(before, kept.name, size if isinstance(size, int) else None)


def model_of_scorer(scorer: Scorer) -> LoadedModel:
    """The scorer's model. Its batch size is the one that fits into the device's memory."""
    return LoadedModel(
        settings=settings_of_scorer(scorer),
        file=scorer.backend.variant.file,
        variant=scorer.backend.variant.name,
        device=scorer.backend.device,
        batch_size=scorer.model.batch_that_fits,
        embedding_size=scorer.embedding_size,
        meaning=scorer.bundle.meaning,
    )


def choice_of_scorer(scorer: Scorer) -> str:
    """A phrase for the person: the variant's file, the device, and why nothing faster was taken."""
    passed_over = "".join(f"; not {what}: {why}" for what, why in scorer.passed_over.items())
    remark = f" ({scorer.remark})" if scorer.remark else ""
    return f"{scorer.backend.variant.file} on {scorer.backend.device}{remark}{passed_over}"


def settings_of_scorer(scorer: Scorer) -> dict[str, Any]:
    """All that a row depends on, besides its file."""
    decoding, meaning, spec = scorer.decoding, scorer.bundle.meaning, scorer.bundle.spec
    frontend = json.dumps(spec.to_dict(), sort_keys=True)
    return {
        "scoring_rules": SCORING_RULES,
        "model": scorer.backend.variant.sha256,
        "backend": scorer.backend.device,
        "batch_size": scorer.batch_size,
        "labels": list(scorer.labels),
        "frontend": hashlib.sha256(frontend.encode()).hexdigest(),
        "window": decoding.window,
        "hop": decoding.hop,
        "max_seconds": None if decoding.window else decoding.max_seconds,
        "allow_truncated": decoding.allow_truncated,
        CHANNEL: decoding.channel,
        "embedding": scorer.embedding_size,
        **({"segment": _segment(decoding.segment)} if decoding.segment else {}),
        **({"second_reader": second_reader()} if second_reader() else {}),
        **({} if decoding.level == "file" else {"level": decoding.level}),
        **({} if spec.f_max == FrontendSpec.f_max else {F_MAX: spec.f_max}),
        **({SCALES: meaning.to_dict()["scales"]} if meaning and meaning.scales else {}),
    }


def _segment(segment: Segment) -> str:
    return f"level and {gate_version()}" if segment == "voice" else segment
