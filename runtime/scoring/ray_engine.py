"""The shards of a table as work for Ray, on this machine or on a cluster: placing and starting again
are Ray's.

Actors score whole shards and give back the parts, in any order; this process alone writes them,
into the same folder as the local engine: either one finishes what the other has begun. The model
travels through Ray's object store, where its hash is checked on arrival, so only the audio has to
be visible on the nodes, under the same paths.

Needs ray, the extra `ray`.
"""

import contextlib
import itertools
import math
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

from ..audio.input_spool import InputSpool, Shard
from ..audio.sources import AudioSource, PackedFile
from ..backends.choice import variants_for_backend
from ..backends.cpu import CPU
from ..backends.registry import AUTO, backend_kind, backend_kinds
from ..bundle import Bundle, Variant
from ..errors import ConfigError, RrtnError, StoppedError, UnavailableError
from ..progress import Bar
from .error_budget import ErrorBudget
from .folder import settings_of_scorer
from .part_file import part_from_rows, rows_from_part
from .ray_session import connected_ray, imported_ray, last_line
from .scorer import Scorer
from .table_job import TableJob

_MOST_CPUS: Final = 8  # of an actor, by default: one Python process feeds no more lanes and decoders well
_RETRIES: Final = 3  # of a call whose actor has died
_CALLS: Final = 2  # that an actor has at a time, so that it does not wait for this process
_SHARDS_A_CALL: Final = 32  # on a GPU, where a shard takes a blink
_FIRST_ACTOR: Final = 600.0  # s to wait until Ray has room for it

MakeScorer = Callable[..., Scorer]  # bundle, and `backend`, `workers` and `lanes` by name


class Share(NamedTuple):
    """What an actor takes of a node."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Loaded:
    """What an actor has loaded, and where. All of them must have the same settings."""

    settings: dict[str, Any]
    file: str
    variant: str
    device: str
    batch_size: int
    embedding_size: int | None
    node: str


@dataclass(frozen=True, kw_only=True)
class _SentBundle(Bundle):
    """A bundle whose files come from the object store."""

    contents: dict[str, Any]  # object references of the variants, by name

    def _content(self, variant: Variant) -> bytes:
        content: bytes = imported_ray().get(self.contents[variant.name])
        return content


class RayEngine:
    """A number of actors. `loaded` is what the first of them has; the others may still be on their way."""

    def __init__(self, actors: Sequence[Any], contents: dict[str, Any]) -> None:
        """`contents`: object references of the files of the bundle's variants, by the variants' names."""
        self._ray, self._contents = imported_ray(), contents
        self.actors = len(actors)
        self._starting = {actor.start.remote(contents): actor for actor in actors}
        self._ready: list[Any] = []
        done, _ = self._ray.wait(list(self._starting), timeout=_FIRST_ACTOR)
        if not done:
            raise StoppedError(
                f"--engine ray | no actor in {_FIRST_ACTOR:g} s | free CPUs or GPUs | see: ray status"
            )
        self.loaded: Loaded = self._value(done[0])
        self.labels = tuple(self.loaded.settings["labels"])
        self._ready.append(self._starting.pop(done[0]))

    def parts(
        self, shards: Sequence[Shard], sources: Callable[[Shard], list[AudioSource]]
    ) -> Iterator[tuple[Shard, bytes]]:
        """What `part_from_rows` gives for each shard, as they are done.

        Raises StoppedError where the storage fails.
        """
        groups = self._groups(shards)
        running: dict[Any, tuple[Any, list[Shard]]] = {}
        while True:
            for actor in self._hungry(actor for actor, _ in running.values()):
                if group := next(groups, None):
                    running[
                        actor.score.remote(self._contents, [_absolute(sources(shard)) for shard in group])
                    ] = actor, group
            if not running:
                return
            (done, *_), _ = self._ray.wait([*running, *self._starting])
            if done in self._starting:
                self._join(done)
            else:
                _, group = running.pop(done)
                yield from zip(group, self._value(done), strict=True)

    def _groups(self, shards: Sequence[Shard]) -> Iterator[list[Shard]]:
        """What an actor gets at a time."""
        fair = math.ceil(len(shards) / self.actors / _CALLS)
        on_gpu = backend_kind(self.loaded.device).needs_gpu
        size = min(_SHARDS_A_CALL, max(1, fair)) if on_gpu else 1
        rest = iter(shards)
        while group := list(islice(rest, size)):
            yield group

    def _hungry(self, busy: Iterable[Any]) -> Iterator[Any]:
        """Actors that have too few calls, those with none first, each as often as it lacks one."""
        calls = Counter(id(actor) for actor in busy)
        for had in range(_CALLS):
            yield from (actor for actor in self._ready if calls[id(actor)] <= had)

    def _join(self, started: Any) -> None:
        """One more that is ready."""
        other: Loaded = self._value(started)
        if changed := [
            name for name, value in self.loaded.settings.items() if other.settings.get(name) != value
        ]:
            here, there = (
                {name: loaded.settings.get(name) for name in changed} for loaded in (self.loaded, other)
            )
            raise ConfigError(
                f"--engine ray | {other.node} has {there}, {self.loaded.node} {here} | the same on all nodes | "
                "give --backend and --variant, and install one version of rrtn"
            )
        self._ready.append(self._starting.pop(started))

    def _value(self, reference: Any) -> Any:
        """Of a call that is done."""
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError:  # a bug in an actor
            raise
        except errors.RayError as error:
            raise StoppedError(
                f"--engine ray | {last_line(error)} | actors that live on | run the command again"
            ) from error
        if isinstance(value, RrtnError):
            raise value
        return value


class ScoringActor:
    """Keeps a scorer. A call can be repeated: it changes nothing outside."""

    def __init__(self, bundle: Bundle, make_scorer: MakeScorer, share: Share, failpoint: str | None) -> None:
        self._make = make_scorer, bundle, share
        self._scorer: Scorer | None = None
        if failpoint:
            os.environ["RRTN_FAILPOINT"] = failpoint

    def start(self, contents: dict[str, Any]) -> Loaded | RrtnError:
        """Loads the model.

        Not in __init__: what kills the process here is tried a few times, and not for ever.
        """
        try:
            scorer = self._loaded(contents)
        except RrtnError as error:
            return error
        variant, device = scorer.backend.variant, scorer.backend.device
        settings, node = settings_of_scorer(scorer), socket.gethostname()
        return Loaded(
            settings, variant.file, variant.name, device, scorer.batch_size, scorer.embedding_size, node
        )

    def score(self, contents: dict[str, Any], shards: list[list[AudioSource]]) -> list[bytes] | RrtnError:
        """The files of each shard -> its part. An error of ours is a value, since Ray would wrap it."""
        try:
            scorer = self._loaded(contents)
            files = scorer.rows_of_files(itertools.chain.from_iterable(shards))
            parts = [
                part_from_rows(
                    list(islice(files, len(sources))), scorer.labels, embedding_size=scorer.embedding_size
                )
                for sources in shards
            ]
            deque(files, maxlen=0)  # to its end: one that is dropped ends the decoders
        except RrtnError as error:
            return error
        return parts

    def _loaded(self, contents: dict[str, Any]) -> Scorer:
        if self._scorer is None:
            make, bundle, share = self._make
            sent = _SentBundle(**vars(bundle), contents=contents)
            self._scorer = make(sent, workers=max(1, share.cpus), lanes=max(1, share.cpus))
        return self._scorer


@contextlib.contextmanager
def ray_engine(
    bundle: Bundle,
    make_scorer: MakeScorer,
    *,
    address: str | None = None,
    backend: str = "auto",
    variant: str | None = None,
    workers: int | None = None,
) -> Iterator[RayEngine]:
    """Actors with what `make_scorer` gives for the bundle: one on each GPU, or where no node has one,
    shares of the CPUs.

    `address` of a running cluster, else $RAY_ADDRESS, else a Ray of this process's own, which ends
    with it. `workers` is the number of CPUs of an actor. Raises MissingExtraError, ConfigError,
    UnavailableError, and what loading raises.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers | {workers} | expected a number above 0")
    sent = variants_for_backend(bundle, backend, variant=variant)
    with connected_ray(address, sum(one.size for one in sent), gpus=_may_use_gpu(backend)) as ray:
        shares = _shares(ray.nodes(), backend, workers)
        if backend == AUTO and not shares[0].gpus:
            backend = CPU.name  # a GPU that Ray does not count is not ours
        contents = {one.name: ray.put(bundle.read(one)) for one in sent}
        sent_bundle = replace(bundle, variants=tuple(sent))
        yield RayEngine([_actor(ray, share, sent_bundle, make_scorer, backend) for share in shares], contents)


def score_shards_with_ray(
    engine: RayEngine,
    job: TableJob,
    spool: InputSpool,
    shards: Sequence[Shard],
    bad_files: ErrorBudget,
    bar: Bar,
) -> None:
    """As `folder.score_shards`; the order of the shards is the order in which they are done."""
    for shard, content in engine.parts(shards, spool.sources):
        for rows in rows_from_part(content, spool.sources(shard), engine.labels):
            bad_files.count(rows)
        job.put(shard, content)
        bar.advance(shard.files, note=f"{bad_files.bad} errors" if bad_files.bad else "")
    bad_files.finish()


def shares_of_node(cpus: int, gpus: int, workers: int | None) -> list[Share]:
    """One share for each GPU; on a node without, of `workers` CPUs, or as few equal ones as have at
    most 8.
    """
    if gpus:
        return [Share(min(workers or cpus, cpus // gpus), 1)] * gpus
    number = max(1, cpus // workers) if workers else math.ceil(cpus / _MOST_CPUS)
    return [Share(min(workers or cpus, cpus // max(1, number)), 0)] * number if cpus else []


def _shares(nodes: Iterable[dict[str, Any]], backend: str, workers: int | None) -> list[Share]:
    counts = [
        (int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in nodes
        if node.get("Alive")
    ]
    has_gpus = any(gpus for _, gpus in counts)
    if backend != AUTO and backend_kind(backend).needs_gpu and not has_gpus:
        raise UnavailableError(f"--backend {backend} | Ray counts no GPU | a node with one | see: ray status")
    with_gpus = has_gpus and _may_use_gpu(backend)
    shares = [
        share
        for cpus, gpus in counts
        if gpus or not with_gpus
        for share in shares_of_node(cpus, gpus if with_gpus else 0, workers)
    ]
    if not shares:
        raise UnavailableError("--engine ray | Ray counts no CPU | a node with one | see: ray status")
    return shares


def _may_use_gpu(backend: str) -> bool:
    return any(kind.needs_gpu for kind in backend_kinds(backend))


def _actor(ray: Any, share: Share, bundle: Bundle, make_scorer: MakeScorer, backend: str) -> Any:
    made = ray.remote(ScoringActor).options(
        num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=-1, max_task_retries=_RETRIES
    )
    return made.remote(bundle, partial(make_scorer, backend=backend), share, os.environ.get("RRTN_FAILPOINT"))


def _absolute(sources: list[AudioSource]) -> list[AudioSource]:
    """An actor is in another folder."""
    here = os.getcwdb()
    return [
        source._replace(pack=os.path.join(here, source.pack))
        if isinstance(source, PackedFile)
        else os.path.join(here, source)
        for source in sources
    ]
