"""Ray as a scoring engine, on this machine or on a cluster. Ray places the actors and starts them again.

Each actor scores whole shards and gives back their parts, in any order. Only this process writes the parts,
into the same folder as the local engine, so either engine finishes what the other has begun. The model
travels through Ray's object store, and its hash is checked on arrival. So only the audio has to be visible
on the nodes, under the same paths.

Needs ray, the extra `ray`.
"""

import contextlib
import itertools
import math
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NamedTuple

from ..audio.input_spool import InputSpool, Shard
from ..audio.sources import AudioSource, PackedFile
from ..backends.choice import variants_for_backend
from ..backends.cpu import CPU
from ..backends.registry import AUTO, backend_kind, backend_kinds
from ..bundle import Bundle, Variant
from ..errors import ConfigError, RrtnError, StoppedError, UnavailableError
from ..text import counted
from .engine import CountFile, LoadedModel, choice_of_scorer, model_of_scorer
from .local_engine import parts_of_files, scorer_within_budget
from .part_file import rows_from_part
from .ray_session import connected_ray, imported_ray, last_line
from .scorer import Scorer
from .scorer_settings import ScorerSettings

_MOST_CPUS: Final = 8  # of an actor, by default: one Python process feeds no more lanes and decoders well
_RETRIES: Final = 3  # of a call whose actor has died
_CALLS: Final = 2  # that an actor has at a time, so that it does not wait for this process
_SHARDS_A_CALL: Final = 32  # on a GPU, which scores a shard in an instant
_FIRST_ACTOR: Final = 600.0  # s to wait until Ray has room for it


class Share(NamedTuple):
    """What an actor takes of a node."""

    cpus: int
    gpus: int


class StartedActor(NamedTuple):
    """The answer of an actor that is ready. All actors must have the same settings."""

    model: LoadedModel
    node: str
    choice: str  # what it has loaded, and why nothing faster; for the person


@dataclass(frozen=True, kw_only=True)
class _SentBundle(Bundle):
    """A bundle whose files come from the object store."""

    contents: dict[str, Any]  # object references of the variants, by name

    def _content(self, variant: Variant) -> bytes:
        content: bytes = imported_ray().get(self.contents[variant.name])
        return content


class RayEngine:
    """A ScoringEngine of several actors. It is ready with the first one; the others may still be starting."""

    def __init__(self, actors: Sequence[Any], contents: dict[str, Any], *, name: str) -> None:
        """`contents` has object references of the bundle's files, by the names of the variants.

        `name` is what the description calls the bundle.
        """
        self._ray, self._contents, self._name = imported_ray(), contents, name
        self.actors = len(actors)
        self._starting = {actor.start.remote(contents): actor for actor in actors}
        self._ready: list[Any] = []
        self._first = self._wait_for_first()

    @property
    def loaded(self) -> LoadedModel:
        """The model of the first actor."""
        return self._first.model

    @property
    def description(self) -> str:
        """Bundle, number of actors, what the first of them has loaded, and why nothing faster."""
        bursts = f"; {found}" if (found := self.loaded.bursts) else ""
        return f"{self._name}: {counted(self.actors, 'Ray actor')}, {self._first.choice}{bursts}"

    def in_work(self) -> str:
        """Nothing is known of the files of the actors."""
        return ""

    def busy(self, seconds: float) -> dict[str, float]:
        """Nothing is known of the actors' time."""
        return {}

    def parts(
        self, spool: InputSpool, shards: Sequence[Shard], count: CountFile
    ) -> Iterator[tuple[Shard, bytes]]:
        """The part of each shard, in the order in which the shards are done.

        Raises StoppedError if the storage fails or Ray cannot keep actors alive.
        """
        for shard, content in self._scored(spool, shards):
            for rows in rows_from_part(content, spool.sources(shard), self.loaded.labels):
                count(rows)
            yield shard, content

    def _scored(self, spool: InputSpool, shards: Sequence[Shard]) -> Iterator[tuple[Shard, bytes]]:
        groups = self._groups(shards)
        running: dict[Any, tuple[Any, list[Shard]]] = {}
        while True:
            for actor in self._hungry(actor for actor, _ in running.values()):
                if group := next(groups, None):
                    files = [_absolute(spool.sources(shard)) for shard in group]
                    running[actor.score.remote(self._contents, files)] = actor, group
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
        """Actors with too few calls, those without any first, each once for every call it lacks."""
        calls = Counter(id(actor) for actor in busy)
        for had in range(_CALLS):
            yield from (actor for actor in self._ready if calls[id(actor)] <= had)

    def _wait_for_first(self) -> StartedActor:
        done, _ = self._ray.wait(list(self._starting), timeout=_FIRST_ACTOR)
        if not done:
            raise StoppedError(
                "--engine ray",
                f"no actor has started within {_FIRST_ACTOR:g} s",
                wanted="free CPUs or GPUs",
                fix="ray status",
            )
        first: StartedActor = self._value(done[0])
        self._ready.append(self._starting.pop(done[0]))
        return first

    def _join(self, started: Any) -> None:
        """Takes one more actor that is ready. Raises ConfigError if it has other settings than the first."""
        other: StartedActor = self._value(started)
        ours, theirs = self.loaded.settings, other.model.settings
        if changed := [name for name, value in ours.items() if theirs.get(name) != value]:
            here, there = ({name: found.get(name) for name in changed} for found in (ours, theirs))
            raise ConfigError(
                "--engine ray",
                f"{other.node} has {there}, {self._first.node} has {here}",
                wanted="the same on all nodes",
                fix="give --backend and --variant, and install one version of rrtn on all nodes",
            )
        self._ready.append(self._starting.pop(started))

    def _value(self, reference: Any) -> Any:
        """The value of a call that is done. Raises an error of ours that came in its place."""
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError:  # a bug in an actor
            raise
        except errors.RayError as error:
            raise StoppedError(
                "--engine ray", last_line(error), wanted="actors that live on", fix="run the command again"
            ) from error
        if isinstance(value, RrtnError):
            raise value
        return value


class ScoringActor:
    """Keeps a scorer. A call can be repeated: it changes nothing outside."""

    def __init__(self, bundle: Bundle, settings: ScorerSettings, share: Share, failpoint: str | None) -> None:
        self._bundle, self._settings, self._share = bundle, settings, share
        self._scorer: Scorer | None = None
        if failpoint:
            os.environ["RRTN_FAILPOINT"] = failpoint

    def start(self, contents: dict[str, Any]) -> StartedActor | RrtnError:
        """Loads the model.

        This is not done in __init__: Ray would restart for ever an actor that dies there.
        """
        try:
            scorer = self._loaded(contents)
        except RrtnError as error:
            return error
        return StartedActor(model_of_scorer(scorer), socket.gethostname(), choice_of_scorer(scorer))

    def score(self, contents: dict[str, Any], shards: list[list[AudioSource]]) -> list[bytes] | RrtnError:
        """The files of each shard -> its part. An error of ours is a value, since Ray would wrap it."""
        try:
            return self._parts(self._loaded(contents), shards)
        except RrtnError as error:
            return error

    def _parts(self, scorer: Scorer, shards: list[list[AudioSource]]) -> list[bytes]:
        files = scorer.rows_of_files(itertools.chain.from_iterable(shards))
        return list(parts_of_files(scorer, files, [len(sources) for sources in shards]))

    def _loaded(self, contents: dict[str, Any]) -> Scorer:
        if self._scorer is None:
            sent = _SentBundle(**vars(self._bundle), contents=contents)
            cpus = max(1, self._share.cpus)
            settings = replace(self._settings, workers=cpus, lanes=cpus)
            self._scorer = scorer_within_budget(sent, settings)
        return self._scorer


@contextlib.contextmanager
def ray_engine(
    bundle: Bundle,
    settings: ScorerSettings,
    *,
    address: str | None = None,
) -> Iterator[RayEngine]:
    """Actors that each keep a scorer.

    There is one actor for each GPU. If no node has a GPU, the actors share the CPUs. `settings.workers` is
    the number of CPUs of an actor. `address` is that of a running cluster; without it $RAY_ADDRESS is taken,
    and without that a Ray is started which ends with this process.

    Raises MissingExtraError, ConfigError, UnavailableError, and what loading the model raises.
    """
    backend, workers = settings.backend, settings.workers
    if workers is not None and workers < 1:
        raise ConfigError("--workers", f"{workers}", wanted="a whole number above 0")
    sent = variants_for_backend(bundle, backend, variant=settings.variant)
    with connected_ray(address, sum(one.size for one in sent), gpus=_may_use_gpu(backend)) as ray:
        shares = _shares(ray.nodes(), backend, workers)
        if backend == AUTO and not shares[0].gpus:
            backend = CPU.name  # a GPU that Ray does not count is not ours
        contents = {one.name: ray.put(bundle.read(one)) for one in sent}
        sent_bundle = replace(bundle, variants=tuple(sent))
        settings = replace(settings, backend=backend)
        actors = [_actor(ray, share, sent_bundle, settings) for share in shares]
        yield RayEngine(actors, contents, name=str(bundle.path))


def shares_of_node(cpus: int, gpus: int, workers: int | None) -> list[Share]:
    """One share for each GPU. Without GPUs, shares of `workers` CPUs, or few equal ones of at most 8."""
    if gpus:
        return [Share(min(workers or cpus, cpus // gpus), 1)] * gpus
    if not cpus:
        return []
    number = max(1, cpus // workers) if workers else math.ceil(cpus / _MOST_CPUS)
    return [Share(min(workers or cpus, cpus // number), 0)] * number


def _shares(nodes: Iterable[dict[str, Any]], backend: str, workers: int | None) -> list[Share]:
    """The shares of all nodes. Where one node has a GPU, nodes without one are left out."""
    counts = [_cpus_and_gpus(node) for node in nodes if node.get("Alive")]
    has_gpu = any(gpus for _, gpus in counts)
    if backend != AUTO and backend_kind(backend).needs_gpu and not has_gpu:
        raise UnavailableError(
            f"--backend {backend}", "Ray counts no GPU", wanted="a node with one", fix="ray status"
        )
    if has_gpu and _may_use_gpu(backend):
        shares = [share for cpus, gpus in counts if gpus for share in shares_of_node(cpus, gpus, workers)]
    else:
        shares = [share for cpus, _ in counts for share in shares_of_node(cpus, 0, workers)]
    if not shares:
        raise UnavailableError(
            "--engine ray", "Ray counts no CPU", wanted="a node with one", fix="ray status"
        )
    return shares


def _may_use_gpu(backend: str) -> bool:
    return any(kind.needs_gpu for kind in backend_kinds(backend))


def _cpus_and_gpus(node: dict[str, Any]) -> tuple[int, int]:
    resources = node["Resources"]
    return int(resources.get("CPU", 0)), int(resources.get("GPU", 0))


def _actor(ray: Any, share: Share, bundle: Bundle, settings: ScorerSettings) -> Any:
    made = ray.remote(ScoringActor).options(
        num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=-1, max_task_retries=_RETRIES
    )
    return made.remote(bundle, settings, share, os.environ.get("RRTN_FAILPOINT"))


def _absolute(sources: list[AudioSource]) -> list[AudioSource]:
    """Files as an actor finds them, whose working directory is another one."""
    here = os.getcwdb()
    return [
        source._replace(pack=os.path.join(here, source.pack))
        if isinstance(source, PackedFile)
        else os.path.join(here, source)
        for source in sources
    ]
