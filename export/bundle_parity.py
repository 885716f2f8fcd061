"""The variants of a bundle on this machine, compared with the checkpoint that they were made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.backends.choice import backend_from_variant
from ..runtime.backends.registry import kinds_for_variant
from ..runtime.bundle import Bundle, Variant
from ..runtime.errors import ModelError, UnavailableError
from ..runtime.progress import Progress
from ..train.run_folder import RunFolder
from .parity import Parity, Probe, parity_of_backend
from .source import probe_of_source, source_of_run


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """One variant on one device of this machine."""

    variant: Variant
    device: str
    parity: Parity | None  # None where it did not run
    problem: str
    is_refused: bool = False  # its file is not there, was changed, or does not load

    @property
    def failed(self) -> bool:
        """True if the variant was refused, or ran and its scores are not PyTorch's."""
        return self.is_refused or bool(self.parity and self.parity.failure)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        figures = self.parity.to_dict() if self.parity else None
        return {
            "variant": self.variant.name,
            "device": self.device,
            "parity": figures,
            "problem": self.problem,
        }


def parity_of_bundle(bundle: Bundle, *, run: Path | None = None) -> list[ParityResult]:
    """Compares every variant, on every device of this machine, with the run's checkpoint.

    Raises ModelError where the run is not here, or its checkpoint is not the exported one.
    """
    with Progress("read the run"):
        source = source_of_run(run or _run_of(bundle))
        if not bundle.provenance:
            came = "a file alone, which does not say its checkpoint"
            raise ModelError(str(bundle.path), came, wanted="a bundle's folder", fix="name the folder")
        if source.digest != bundle.provenance.get("checkpoint_sha256"):
            raise ModelError(
                str(source.checkpoint),
                f"{bundle.path} was made from another checkpoint",
                fix="export again, or name the bundle's run with --run RUN",
            )
        takes_samples = any(variant.input == "samples" for variant in bundle.variants)
        probe = probe_of_source(source, recordings=takes_samples)
    results = []
    ways = [(variant, device) for variant in bundle.variants for device in _devices(variant)]
    with Progress("compare", len(ways), "variants") as bar:
        for done, (variant, device) in enumerate(ways):
            bar.update(done, f"{variant.name} on {device}")
            results.append(_result(bundle, variant, device, probe))
    return results


def _devices(variant: Variant) -> list[str]:
    """The backends that can run a variant here; if none can, those that the variant is made for."""
    kinds = [kind for kind in kinds_for_variant(variant) if not kind.precision]  # what the file says
    here = [kind for kind in kinds if not kind.obstacle(variant)]
    return [kind.name for kind in reversed(here or kinds)]


def _result(bundle: Bundle, variant: Variant, device: str, probe: Probe) -> ParityResult:
    try:
        backend = backend_from_variant(bundle, variant, device)
        parity, _ = parity_of_backend(backend, bundle.spec, probe)
    except ModelError as error:
        refused = not isinstance(error, UnavailableError)
        return ParityResult(
            variant=variant, device=device, parity=None, problem=error.came, is_refused=refused
        )
    return ParityResult(variant=variant, device=device, parity=parity, problem=parity.failure)


def _run_of(bundle: Bundle) -> Path:
    recorded = bundle.provenance.get("run", "")
    for run in (bundle.path.parent, Path(recorded)):
        if RunFolder(run).checkpoints.is_dir():
            return run
    raise ModelError(
        str(bundle.path),
        f"its run, {recorded}, is not here" if recorded else "it does not say of which run it is",
        wanted="the run that it was exported from, since the scores are compared with its checkpoint's",
        fix="name it with --run RUN",
    )
