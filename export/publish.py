"""From a run to a bundle: export, gate, and only then the folder that others load."""

import datetime
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from .. import __version__
from ..runtime.backends.choice import backend_from_variant, obstacle
from ..runtime.backends.ort_backend import ort_backend_from_bundle
from ..runtime.backends.registry import kinds_for_variant
from ..runtime.backends.trt import TRT
from ..runtime.bundle import MANIFEST, Bundle, Variant, metadata_of
from ..runtime.errors import ModelError, UnavailableError
from ..runtime.files import sha256_of, write_bytes, write_json
from ..runtime.frontend import log_mel
from ..runtime.progress import Progress
from ..train.checkpoint import POINTER
from ..train.config import Config
from ..train.method.flops import scoring_flops
from ..train.run_folder import RunFolder
from .audeering import audonnx_yaml_from_bundle
from .bundle_replacement import check_replaceable, put_in_place, staged
from .deployed_network import folded_encoder
from .engine import INSTALL_HINT, EngineOptions, engine_from_onnx, installed_flavour
from .graph import file_from_onnx, onnx_from_network
from .int8 import int8_for_cpu, int8_for_tensorrt
from .parity import Parity, Probe, check_half_range, check_parity, extremes, parity_of_backend
from .recipes import ENGINES, Recipe, Wanted
from .source import Source, clips_of_split, probe_of_source, source_of_run
from .winograd.cpu_variant import NotFasterError, cpu_variant_of

_CALIBRATION_CLIPS: Final = 128  # of the training split


@dataclass(frozen=True)
class Published:
    """The bundle, what could not be made here with the reason, and what did not pass the gate."""

    bundle: Bundle
    skipped: dict[str, str]
    failed: dict[str, str]


# frozen
def publish(run: Path, *, out: Path | None = None, wanted: Wanted = Wanted()) -> Published:  # noqa: B008
    """Exports the best checkpoint of `run` to `out` (default: run/export), replacing a bundle that is
    there.

    Every ONNX file passes the parity gate in a folder beside, before anything is replaced; one that
    does not is left out. Raises ModelError for a broken checkpoint, an fp32 graph that does not
    pass, or a required variant that could not be made.
    """
    out = out or RunFolder(run).export
    check_replaceable(out)
    source = source_of_run(run)
    probe = probe_of_source(source)
    with staged(out) as staging:
        bundle = Bundle(
            path=staging,
            labels=tuple(source.info.labels),
            spec=source.config.frontend,
            variants=(),
            provenance=_provenance(run, source),
        )
        published = _with_variants(bundle, source, probe, wanted, worst_to=RunFolder(run).parity_worst)
        if missing := [name for name in wanted.require if published.bundle.variant(name) is None]:
            reasons = {**published.skipped, **published.failed}
            why = "; ".join(f"{name}: {reasons.get(name, 'its source was not made')}" for name in missing)
            raise ModelError(f"--require {', '.join(missing)} | {why} | nothing was published")
        audonnx_yaml_from_bundle(published.bundle)
        write_json(staging / MANIFEST, published.bundle.manifest())
        put_in_place(staging, out)
    return replace(published, bundle=replace(published.bundle, path=out))


def _with_variants(
    bundle: Bundle, source: Source, probe: Probe, wanted: Wanted, *, worst_to: Path
) -> Published:
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    recipes = wanted.recipes()
    with Progress("export", len(recipes), "variants") as bar:
        for done, recipe in enumerate(recipes):
            if reason := _impossible(recipe, bundle, source.config):
                skipped[recipe.name] = reason
                continue
            before = bundle
            try:
                if recipe in ENGINES:
                    bundle = _with_engine(
                        bundle, recipe, wanted.engine, _build_progress(bar, done, recipe.name)
                    )
                    bundle = _with_parity(bundle, recipe.name, probe, worst_to=worst_to)
                elif recipe.name == "cpu":
                    bundle = _with_cpu_variant(bundle, recipe, probe, wanted, worst_to=worst_to)
                else:
                    bundle = _with_onnx(
                        bundle, recipe, source, probe, embeddings=wanted.embeddings, worst_to=worst_to
                    )
            except NotFasterError as error:
                skipped[recipe.name] = str(error).split(" | ")[1]
            except ModelError as error:
                if recipe.name == "fp32":
                    raise
                bundle, failed[recipe.name] = before, str(error)
                (bundle.path / recipe.file).unlink(missing_ok=True)
            bar.update(done + 1, recipe.name)
    return Published(bundle, skipped, failed)


def _impossible(recipe: Recipe, bundle: Bundle, config: Config) -> str:
    """Why a variant cannot be made; "" where it can."""
    if recipe.input == "waveform" and config.frontend.pad == "zero_db":
        return "frontend.pad is zero_db, and a graph that takes waveforms cannot know where a short recording ends"
    if recipe in ENGINES and installed_flavour() is None:
        return f"no TensorRT is installed here: {INSTALL_HINT}"
    if recipe.source and bundle.variant(recipe.source) is None:
        return f"it is made from {recipe.source}, which was not made"
    return ""


def _with_onnx(
    bundle: Bundle, recipe: Recipe, source: Source, probe: Probe, *, embeddings: bool, worst_to: Path
) -> Bundle:
    content = _onnx(bundle, recipe, source, probe, embeddings=embeddings)
    return _gated(bundle, _variant(bundle, recipe, content, kind="onnx"), probe, worst_to=worst_to)


def _with_cpu_variant(
    bundle: Bundle, recipe: Recipe, probe: Probe, wanted: Wanted, *, worst_to: Path
) -> Bundle:
    fp32 = bundle.variant(recipe.source)
    assert fp32 is not None
    made = cpu_variant_of(bundle.read(fp32), tune=wanted.tune, slower_too=recipe.name in wanted.require)
    metadata = metadata_of(bundle.labels, bundle.spec, recipe.input, recipe.precision, made.plan)
    variant = _variant(bundle, recipe, file_from_onnx(made.model, metadata), kind="onnx", plan=made.plan)
    return _gated(bundle, variant, probe, worst_to=worst_to)


def _gated(bundle: Bundle, variant: Variant, probe: Probe, *, worst_to: Path) -> Bundle:
    backend = ort_backend_from_bundle(bundle, variant, device="cpu")
    parity = check_parity(backend, bundle.spec, probe, worst_to=worst_to)
    return replace(bundle, variants=(*bundle.variants, replace(variant, parity=parity.to_dict())))


def _onnx(bundle: Bundle, recipe: Recipe, source: Source, probe: Probe, *, embeddings: bool) -> bytes:
    spec = bundle.spec
    if recipe.precision != "int8":
        half = recipe.precision == "fp16"
        if half:
            check_half_range(folded_encoder(source.network.encoder, spec), spec, probe.clips)
        return onnx_from_network(
            source.network, spec, bundle.labels, recipe.input, half=half, embeddings=embeddings
        )
    fp32 = bundle.variant(recipe.source)
    assert fp32 is not None
    training, _, _ = clips_of_split(source.config, "Train", _CALIBRATION_CLIPS)
    clips = np.concatenate([training, extremes(spec)])  # or silence would leave the ranges
    if recipe.input == "waveform":
        return int8_for_tensorrt(bundle.read(fp32), clips)
    return int8_for_cpu(bundle.read(fp32), np.array([log_mel(clip, spec)[None] for clip in clips]))


def _with_engine(
    bundle: Bundle,
    recipe: Recipe,
    options: EngineOptions,
    progress: Callable[[float, str], None] = lambda share, phase: None,
) -> Bundle:
    """Built from a waveform graph: on a GPU the log-Mel belongs there too."""
    flavour, source = installed_flavour(), bundle.variant(recipe.source)
    assert flavour is not None and source is not None
    plan, stamp = engine_from_onnx(
        bundle.read(source), flavour, precision=recipe.precision, options=options, progress=progress
    )
    variant = _variant(bundle, recipe, plan, kind="engine", stamp=stamp.to_dict())
    return replace(bundle, variants=(*bundle.variants, variant))


def _with_parity(bundle: Bundle, engine: str, probe: Probe, *, worst_to: Path) -> Bundle:
    """The gate for an engine, where it fits this machine; elsewhere its parity stays unknown."""
    variant = bundle.variant(engine)
    assert variant is not None
    if obstacle(variant, TRT.name):
        return bundle
    try:
        backend = backend_from_variant(bundle, variant, TRT.name)
    except UnavailableError:
        return bundle
    parity = check_parity(backend, bundle.spec, probe, worst_to=worst_to)
    return replace(bundle, variants=(*bundle.variants[:-1], replace(variant, parity=parity.to_dict())))


def _build_progress(bar: Progress, done: int, name: str) -> Callable[[float, str], None]:
    return lambda share, phase: bar.update(done, f"{name} {share:.0%}, {phase.lower()}")


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """One variant on one device of this machine."""

    variant: Variant
    device: str
    parity: Parity | None  # None where it cannot run here
    problem: str

    @property
    def failed(self) -> bool:
        """It ran, and should not be trusted."""
        return bool(self.parity and self.parity.failure)

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
    """Every variant on every device that is here, against the run's checkpoint.

    Raises ModelError where that is not the one that was exported.
    """
    source = source_of_run(run or _run_of(bundle))
    if sha256_of(source.checkpoint / POINTER) != bundle.provenance.get("checkpoint_sha256"):
        wrong = f"{source.checkpoint} | another checkpoint than {bundle.path} was made from"
        raise ModelError(f"{wrong} | expected its own | export again, or --run RUN")
    probe = probe_of_source(source)
    return [
        _result(bundle, variant, device, probe) for variant in bundle.variants for device in _devices(variant)
    ]


def _devices(variant: Variant) -> list[str]:
    """The backends that can run a variant here; if none can, those that it is made for."""
    kinds = kinds_for_variant(variant)
    here = [kind for kind in kinds if not kind.obstacle(variant)]
    return [kind.name for kind in reversed(here or kinds)]


def _result(bundle: Bundle, variant: Variant, device: str, probe: Probe) -> ParityResult:
    try:
        backend = backend_from_variant(bundle, variant, device)
        parity, _ = parity_of_backend(backend, bundle.spec, probe)
    except ModelError as error:
        return ParityResult(variant=variant, device=device, parity=None, problem=str(error).split(" | ")[1])
    return ParityResult(variant=variant, device=device, parity=parity, problem=parity.failure)


def _run_of(bundle: Bundle) -> Path:
    beside = bundle.path.parent
    return beside if RunFolder(beside).checkpoints.is_dir() else Path(bundle.provenance.get("run", ""))


def _variant(bundle: Bundle, recipe: Recipe, content: bytes, **fields: Any) -> Variant:
    """Writes the file into the bundle's folder and describes it."""
    write_bytes(bundle.path / recipe.file, content)
    return Variant(
        name=recipe.name,
        file=recipe.file,
        input=recipe.input,
        precision=recipe.precision,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        **fields,
    )


def _provenance(run: Path, source: Source) -> dict[str, Any]:
    info, config = source.info, source.config
    return {
        "run": str(run),
        "encoder": config.model.encoder,
        "method": config.model.method,
        "epoch": info.epoch,
        "flops_per_clip": scoring_flops(source.network, spec=config.frontend),
        "val_ccc": info.ccc,
        "val_ccc_per_target": info.per_target,
        "checkpoint_sha256": sha256_of(source.checkpoint / POINTER),
        "versions": {**info.versions, "exported_by": __version__},
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
