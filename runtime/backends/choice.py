"""Which variant runs on which backend: the choice behind `--backend` and `--variant`.

This file works on the records in registry.py and knows no backend by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..bundle import Bundle, Variant
from ..errors import ConfigError, ModelError, OutOfMemoryError, UnavailableError
from .base import Backend, BackendKind
from .registry import AUTO, BACKENDS, backend_kind, backend_kinds, kinds_for_variant
from .tuning_file import Tuning, Way, tuning_of

BackendName = str  # "auto", or the name of a record in registry.BACKENDS
BeforeLoad = Callable[[Variant, int], object]  # takes the variant that is tried, and the batch it would run
_FILES = {"onnx": "an ONNX file", "engine": "an engine", "mnn": "a file of MNN"}


class Candidate(NamedTuple):
    """A variant, and a backend that may run it."""

    kind: BackendKind
    variant: Variant

    @property
    def device(self) -> str:
        """The backend's name."""
        return self.kind.name

    @property
    def precision(self) -> str:
        """In which the scores are computed."""
        return self.kind.precision or self.variant.precision

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.variant.name} on {self.device}"


@dataclass(frozen=True)
class Choice:
    """The backend that was chosen, and why nothing faster was."""

    backend: Backend
    passed_over: dict[str, str]  # a backend, or a variant that could not be loaded -> one short line
    remark: str = ""  # on a variant that nobody has named
    tuning: Tuning | None = None  # what `rrtn tune` has found, where that was followed
    way: Way | None = None  # the one of it that was followed


def choose_backend(
    bundle: Bundle,
    name: BackendName = AUTO,
    *,
    variant: str | None = None,
    threads: int | None = None,
    single: bool = False,
    tuned: bool = False,
    before_load: BeforeLoad = lambda variant, batch_size: None,
) -> Choice:
    """Loads the backend that was asked for; with `auto`, the fastest that runs here.

    `single` asks for the fastest for single clips, in place of batches. With `tuned`, `auto` takes what
    `rrtn tune` has found, where nobody has named a variant: `threads` are then those of the way.
    `before_load` is told what is tried, so that other work can begin meanwhile. It never falls back silently.

    Raises ConfigError for an unknown name or variant, and UnavailableError if this machine cannot run what
    was asked for. Raises ModelError for a file that was changed, even if another one would do.
    """
    if bundle.variants and not any(map(_takes_clips, bundle.variants)):
        raise _not_for_clips(str(bundle.path / bundle.variants[0].file), _CLIPS)
    remarks: list[str] = []
    may_take_tuned = tuned and name == AUTO and variant is None
    if may_take_tuned and (choice := _choice_of_tuning(bundle, single, remarks, before_load)):
        return choice
    candidates, reasons = candidates_of_bundle(bundle, name, variant=variant, single=single)
    failures: dict[str, ModelError] = {}
    for candidate in candidates:
        before_load(candidate.variant, candidate.kind.batch_size)
        try:
            backend = candidate.kind.load(bundle, candidate.variant, threads)
        except (UnavailableError, OutOfMemoryError) as error:  # a GPU that others have filled
            failures[candidate.name] = error
            continue
        told = _reasons_for(candidate.kind, reasons, bundle, variant)
        remarks.append("" if is_named(bundle, variant) else candidate.kind.remark(candidate.variant))
        return Choice(backend, told | _failed_to_load(failures), "; ".join(filter(None, remarks)))
    raise _nothing_runs(
        bundle, name, variant, reasons | {what: error.came for what, error in failures.items()}
    )


def is_named(bundle: Bundle, variant: str | None) -> bool:
    """Whether the user has chosen the variant, by its name or by a bundle that has no other."""
    return variant is not None or len(bundle.variants) == 1


def _choice_of_tuning(
    bundle: Bundle, single: bool, remarks: list[str], before_load: BeforeLoad
) -> Choice | None:
    """What `rrtn tune` has found to be the fastest; None, with a remark, where that cannot be taken."""
    found = tuning_of(bundle)
    if found.tuning is None:
        remarks.append(found.remark)
        return None
    way = found.tuning.clips if single else found.tuning.folders
    try:
        variant, kind = _variant_for_clips(bundle, way.variant), backend_kind(way.backend)
        before_load(variant, way.batch_size)
        backend = kind.load(bundle, variant, way.threads)
    except (ConfigError, UnavailableError, OutOfMemoryError) as error:
        remarks.append(f"not the fastest of the tuning, {way.variant} on {way.backend}: {error.came}")
        return None
    remark = f"the fastest of the tuning of {found.tuning.made[:10]}"
    return Choice(backend, {}, remark, found.tuning, way)


def _reasons_for(
    chosen: BackendKind, reasons: dict[str, str], bundle: Bundle, variant: str | None
) -> dict[str, str]:
    """The reasons to tell the user.

    Slower backends need no reason, and neither do those that the bundle has no file for.
    """
    faster = BACKENDS[: BACKENDS.index(chosen)]
    tried = [kind for kind in faster if variant is not None or _preferred(bundle, kind)]
    silent = {kind.name for kind in BACKENDS if kind not in tried}
    return {what: reason for what, reason in reasons.items() if what not in silent}


def _failed_to_load(failures: dict[str, ModelError]) -> dict[str, str]:
    return {
        what: f"{error.came} ({error.fix})" if error.fix else error.came for what, error in failures.items()
    }


def _nothing_runs(
    bundle: Bundle, name: str, variant: str | None, reasons: dict[str, str]
) -> UnavailableError:
    subject = f"--backend {name} --variant {variant}" if variant is not None else f"--backend {name}"
    if name == AUTO:
        why = "; ".join(f"{what}: {reason}" for what, reason in reasons.items())
        wanted, fix = "a backend that runs here", bundle.export_again()
    else:
        why = "; ".join(dict.fromkeys(reasons.values()))
        wanted, fix = backend_kind(name).wanted, backend_kind(name).what_to_do(bundle)
    return UnavailableError(subject, why, wanted=wanted, fix=f"{fix}, or see: rrtn doctor")


def candidates_of_bundle(
    bundle: Bundle, name: BackendName = AUTO, *, variant: str | None = None, single: bool = False
) -> tuple[list[Candidate], dict[str, str]]:
    """What to try, the fastest first, and a reason for each backend on which nothing can run.

    The fastest for batches, or for `single` clips. Nothing is loaded. Raises ConfigError for an unknown name
    or variant.
    """
    kinds = backend_kinds(name)
    chosen = _variant_for_clips(bundle, variant) if variant is not None else None
    if chosen and name == AUTO:
        kinds = [kind for kind in kinds if kind.takes(chosen)] or kinds_for_variant(chosen)
    candidates: list[Candidate] = []
    reasons: dict[str, str] = {}
    for kind in kinds:
        found = [chosen] if chosen else _preferred(bundle, kind)
        obstacles = {every.name: _obstacle(every, kind) for every in found}
        runnable = [every for every in found if not obstacles[every.name]]
        by_itself = name == AUTO and not is_named(bundle, variant)
        unproven = {every.name: kind.unproven(every) if by_itself else "" for every in runnable}
        proven = [every for every in runnable if not unproven[every.name]]
        if not proven:
            none = f"no variant {' or '.join(kind.preferred)} in the bundle"
            why = dict.fromkeys([*obstacles.values(), *unproven.values()])
            reasons[kind.name] = "; ".join(filter(None, why)) or none
        best, drawbacks = _without_drawbacks(proven, kind, single)
        candidates += [Candidate(kind, every) for every in best]
        left_out = {**unproven, **drawbacks} if proven else {}
        reasons |= {f"the variant {other}": reason for other, reason in left_out.items() if reason}
    return candidates, reasons


def candidates_of_variants(
    bundle: Bundle, names: Sequence[str] = (), *, on_all: bool = False
) -> tuple[list[Candidate], dict[str, str]]:
    """Every variant (or those named) on the backends that `auto` chooses from, or `on_all` that run it here.

    A variant that no backend can run has a reason instead.
    """
    candidates: list[Candidate] = []
    reasons: dict[str, str] = {}
    for variant in [_variant(bundle, name) for name in names] or bundle.variants:
        kinds = kinds_for_variant(variant)
        kinds = kinds if on_all else [kind for kind in kinds if kind.chosen_by_auto] or kinds
        obstacles = [(kind, _obstacle(variant, kind)) for kind in kinds]
        runnable = [Candidate(kind, variant) for kind, reason in obstacles if not reason]
        candidates += runnable
        if not runnable:
            reasons[variant.name] = "; ".join(reason for _, reason in obstacles)
    return candidates, reasons


def variants_for_backend(bundle: Bundle, name: BackendName, *, variant: str | None = None) -> list[Variant]:
    """All variants that `choose_backend` may load on some machine: they travel with the bundle."""
    kinds = backend_kinds(name)
    if variant is not None:
        return [_variant_for_clips(bundle, variant)]
    return list({one.name: one for kind in kinds for one in _preferred(bundle, kind)}.values())


def obstacle(variant: Variant, name: str) -> str:
    """Why the backend `name` cannot run a variant here, or "" if it should. Loads nothing."""
    return _obstacle(variant, backend_kind(name))


def obstacle_of_way(bundle: Bundle, way: Way) -> str:
    """Why a way that `rrtn tune` has found cannot be taken here, or "" if it should. Loads nothing."""
    try:
        return obstacle(_variant_for_clips(bundle, way.variant), way.backend)
    except ConfigError as error:
        return error.came


def backend_from_variant(
    bundle: Bundle, variant: Variant, name: str, *, threads: int | None = None
) -> Backend:
    """Loads a given variant on the backend `name`.

    Raises ConfigError, UnavailableError, ModelError.
    """
    return backend_kind(name).load(bundle, variant, threads)


def _obstacle(variant: Variant, kind: BackendKind) -> str:
    if kind.takes(variant):
        return kind.obstacle(variant)
    return f"{variant.name} is {_FILES[variant.kind]}, not {_FILES[kind.file_kind]}"


def _without_drawbacks(
    variants: Sequence[Variant], kind: BackendKind, single: bool
) -> tuple[Sequence[Variant], dict[str, str]]:
    """Leaves out the variants that are probably slow here, unless all are; and the reasons."""
    drawbacks = {variant.name: reason for variant in variants if (reason := kind.drawback(variant, single))}
    good = [variant for variant in variants if variant.name not in drawbacks]
    return (good, drawbacks) if good else (variants, {})


def _preferred(bundle: Bundle, kind: BackendKind) -> list[Variant]:
    """The variants that a backend may choose by itself, the best first.

    A bundle with a single file is used as it is: naming the file is choosing it.
    """
    if len(bundle.variants) == 1 and kind.takes(bundle.variants[0]) and _takes_clips(bundle.variants[0]):
        return list(bundle.variants)
    found = [variant for name in kind.preferred if (variant := bundle.variant(name))]
    return [variant for variant in found if kind.may_choose(variant)]


def _variant_for_clips(bundle: Bundle, name: str) -> Variant:
    """Raises ConfigError for a variant that takes whole recordings: scoring runs batches of clips."""
    found = _variant(bundle, name)
    if not _takes_clips(found):
        names = ", ".join(variant.name for variant in bundle.variants if _takes_clips(variant))
        raise _not_for_clips(f"--variant {name}", f"one of {names}" if names else _CLIPS)
    return found


_CLIPS: Final = "a variant that takes clips"


def _takes_clips(variant: Variant) -> bool:
    return variant.input != "samples"


def _not_for_clips(subject: str, wanted: str) -> ConfigError:
    return ConfigError(
        subject,
        "takes one whole recording at a time, for programs that have no rrtn",
        wanted=wanted,
        fix="score with the bundle's folder, or with its model.onnx",
    )


def _variant(bundle: Bundle, name: str) -> Variant:
    if found := bundle.variant(name):
        return found
    names = ", ".join(variant.name for variant in bundle.variants)
    raise ConfigError("--variant", f"{name!r} is not in {bundle.path}", wanted=f"one of {names}")
