"""From a run to a bundle: export, gate, and only then the folder that others load."""

import contextlib
import datetime
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from ..runtime.backends.base import Backend
from ..runtime.backends.choice import backend_from_variant, obstacle
from ..runtime.backends.cpu import CPU
from ..runtime.backends.mnn_kind import MNN_KIND, mnn_missing
from ..runtime.backends.trt import TRT
from ..runtime.bundle import MANIFEST, Bundle, Variant
from ..runtime.errors import ModelError, UnavailableError, install_command
from ..runtime.progress import Progress, print_above
from ..runtime.spec import FrontendSpec
from ..runtime.system.files import write_bytes, write_json
from ..runtime.text import printable
from ..train.config import Config
from ..train.method.flops import scoring_flops
from ..train.run_folder import RunFolder
from .audeering import audonnx_yaml_from_bundle, check_model_yaml
from .bundle_replacement import check_replaceable, put_in_place, staged
from .engine import check_targets, installed_flavour
from .parity import Probe, check_parity
from .recipes import ENGINES, FP32, MNN, Ingredients, Made, Recipe, recipes_of
from .source import Source, probe_of_source, source_of_run
from .wanted import Wanted
from .winograd.cpu_variant import NotFasterError


@dataclass(frozen=True)
class Published:
    """The bundle, what could not be made here and why, and what did not pass the gate."""

    bundle: Bundle
    skipped: dict[str, str]
    failed: dict[str, str]
    notes: tuple[str, ...] = ()  # what to know of the run's figures before they are taken for the model's


# The default is frozen.
def publish(run: Path, *, out: Path | None = None, wanted: Wanted = Wanted()) -> Published:  # noqa: B008
    """Exports the best checkpoint of `run` to `out` (default: run/export), in place of a bundle there.

    Every ONNX file passes the parity gate in a folder beside `out`, before anything is replaced. A
    file that does not pass is left out. Raises ModelError for a broken checkpoint, for an fp32
    graph that does not pass, and for a required variant that could not be made; ConfigError for targets
    that no engine can have.
    """
    out = out or RunFolder(run).export
    check_replaceable(out)
    check_model_yaml(out)
    _check_engine_options(wanted)
    with Progress("read the run"):
        source = source_of_run(run)
        spec, recipes = source.config.frontend, recipes_of(wanted)
        _check_required(wanted, {recipe.name: _obstacle(recipe, spec) for recipe in recipes})
        takes_samples = any(recipe.input == "samples" for recipe in recipes)
        probe = probe_of_source(source, recordings=takes_samples)
    with staged(out) as staging:
        empty = Bundle(
            path=staging,
            labels=tuple(source.info.labels),
            spec=spec,
            variants=(),
            provenance=_provenance(run, source),
            meaning=source.meaning,
        )
        gate = Gate(probe, RunFolder(run).parity_worst)
        published = _with_variants(empty, source, wanted, gate)
        made = {variant.name: "" for variant in published.bundle.variants}
        not_made = dict.fromkeys(wanted.require, "its source was not made")
        _check_required(wanted, not_made | published.skipped | published.failed | made)
        audonnx_yaml_from_bundle(published.bundle)
        write_json(staging / MANIFEST, published.bundle.manifest())
        put_in_place(staging, out)
    return replace(published, bundle=replace(published.bundle, path=out), notes=_notes(source.config))


def _check_engine_options(wanted: Wanted) -> None:
    """Before any work. Where TensorRT-RTX does not load, the engine's own failure says so."""
    if any(recipe in ENGINES for recipe in recipes_of(wanted)) and installed_flavour() == "tensorrt_rtx":
        with contextlib.suppress(UnavailableError):
            check_targets(wanted.engine.targets)


def _notes(config: Config) -> tuple[str, ...]:
    if config.eval.crop == "clip":
        return ()
    heard = f"this model hears the first {config.frontend.clip_seconds:g} s"
    return (
        f"eval.crop is full: the run was judged on whole recordings, of which {heard}; with --window the "
        "scores are means over windows, and these differ as well",
    )


def _check_required(wanted: Wanted, reasons: dict[str, str]) -> None:
    """Raises ModelError where a required variant has a reason why there is none."""
    missing = [name for name in wanted.require if reasons[name]]
    if missing:
        why = "; ".join(f"{name}: {reasons[name]}" for name in missing)
        raise ModelError(
            f"--require {', '.join(missing)}",
            f"{why}; nothing was published",
            fix="fix the cause, or export without --require",
        )


@dataclass(frozen=True)
class Gate:
    """Judges files before they are published."""

    probe: Probe
    worst_to: Path  # takes the worst clip of a variant that does not pass

    def judged(self, bundle: Bundle, variant: Variant) -> Variant:
        """The variant with its figures.

        An engine that this machine cannot run keeps none. Raises ModelError where the scores are
        not PyTorch's.
        """
        backend = _backend(bundle, variant)
        if backend is None:
            return variant
        parity = check_parity(backend, bundle.spec, self.probe, worst_to=self.worst_to)
        return replace(variant, parity=parity.to_dict())


def _backend(bundle: Bundle, variant: Variant) -> Backend | None:
    """ONNX and MNN on the CPU, an engine on the GPU; None for an engine that does not fit this machine."""
    if variant.kind != "engine":
        name = CPU.name if variant.kind == "onnx" else MNN_KIND.name
        return backend_from_variant(bundle, variant, name)
    if obstacle(variant, TRT.name):
        return None
    try:
        return backend_from_variant(bundle, variant, TRT.name)
    except UnavailableError as error:
        print_above(f"rrtn: note: {variant.name} is not compared with PyTorch: {printable(error.came)}")
        return None


def _with_variants(bundle: Bundle, source: Source, wanted: Wanted, gate: Gate) -> Published:
    """Makes the variants one after the other.

    A variant that is skipped or fails does not stop the others, unless it is fp32.
    """
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    recipes = recipes_of(wanted)
    with Progress("export", len(recipes), "variants") as bar:
        for done, recipe in enumerate(recipes):
            bar.update(done, recipe.name)
            if reason := _obstacle(recipe, bundle.spec) or _without_source(recipe, bundle):
                skipped[recipe.name] = reason
                continue
            given = Ingredients(
                source=source,
                probe=gate.probe,
                file_of=partial(_file_of, bundle),
                wanted=wanted,
                progress=_build_progress(bar, done, recipe.name),
            )
            try:
                variant = _written(bundle, recipe, recipe.make(recipe, given))
                bundle = replace(bundle, variants=(*bundle.variants, gate.judged(bundle, variant)))
            except NotFasterError as error:
                skipped[recipe.name] = error.came
            except ModelError as error:
                if recipe is FP32:
                    raise
                failed[recipe.name] = str(error)
                (bundle.path / recipe.file).unlink(missing_ok=True)
    return Published(bundle, skipped, failed)


def _obstacle(recipe: Recipe, spec: FrontendSpec) -> str:
    """Why a variant cannot be made of such a run on this machine; "" where it can."""
    if recipe.input == "waveform" and spec.pad == "zero_db":
        return (
            "frontend.pad is zero_db: a graph that takes waveforms cannot know where a short recording ends"
        )
    if recipe in ENGINES and installed_flavour() is None:
        without_gpu, with_gpu = install_command("rtx"), install_command("trt")
        return f"no TensorRT is installed here: {without_gpu} (no GPU needed), or on a GPU machine {with_gpu}"
    if recipe is MNN and (missing := mnn_missing()):
        return f"{missing} here: {install_command(MNN_KIND.extra)}"
    return ""


def _without_source(recipe: Recipe, bundle: Bundle) -> str:
    if recipe.source and bundle.variant(recipe.source) is None:
        return f"it is made from {recipe.source}, which was not made"
    return ""


def _file_of(bundle: Bundle, name: str) -> bytes:
    """The content of the file of a variant that is there."""
    variant = bundle.variant(name)
    assert variant, name
    return bundle.read(variant)


def _written(bundle: Bundle, recipe: Recipe, made: Made) -> Variant:
    """Writes the file into the bundle's folder; -> its entry in bundle.json."""
    write_bytes(bundle.path / recipe.file, made.content)
    return Variant(
        name=recipe.name,
        file=recipe.file,
        kind=made.kind,
        input=recipe.input,
        precision=recipe.precision,
        sha256=hashlib.sha256(made.content).hexdigest(),
        size=len(made.content),
        plan=made.plan,
        stamp=made.stamp,
    )


def _build_progress(bar: Progress, done: int, name: str) -> Callable[[float, str], None]:
    return lambda share, phase: bar.update(done, f"{name} {share:.0%}, {phase.lower()}")


def _provenance(run: Path, source: Source) -> dict[str, Any]:
    info, config = source.info, source.config
    return {
        "run": str(run),
        "encoder": config.model.encoder,
        "method": config.model.method,
        **({"channel": config.data.channel} if config.data.channel else {}),
        "epoch": info.epoch,
        "flops_per_clip": scoring_flops(source.network, spec=config.frontend),
        "val_ccc": info.ccc,
        "val_ccc_per_target": info.per_target,
        **({"val_metric": info.metric, "val_score": info.score} if info.metric != "ccc" else {}),
        "checkpoint_sha256": source.digest,
        "versions": {**info.versions, "exported_by": __version__},
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
