"""The deployable model: a folder with bundle.json and its variants, or a bare .onnx of ours."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from msgspec import Meta

from ..documents import Count, Name, Sha256, converted, parsed
from ..errors import ModelError
from ..spec import FrontendSpec, InputKind
from ..system.files import read_regular
from ..system.host import quoted
from ..text import counted, printable, short
from .onnx_file import check_onnx, check_seal, onnx_metadata, onnx_metadata_of_file

# The number that a bundle has, by what is in it. A reader refuses numbers that it does not know.
SCHEMA: Final = 1
MEANING_SCHEMA: Final = 2  # scores have scales or are classes
SAMPLES_SCHEMA: Final = 3  # a graph takes samples
MNN_SCHEMA: Final = 4  # a file is in MNN's format
_SCHEMAS: Final = (SCHEMA, MEANING_SCHEMA, SAMPLES_SCHEMA, MNN_SCHEMA)
MANIFEST: Final = "bundle.json"
_OF_RUN: Final = "export"  # the bundle's folder in a run
METADATA_KEY: Final = "rrtn"  # one JSON document under this key of the ONNX metadata_props

_EXPORTED: Final = "what rrtn export writes"
_EXPORT_AGAIN: Final = "export its run again"


# Part of file names, of Triton's too.
PrecisionName = Annotated[str, Meta(pattern="^[a-z0-9]{1,16}$")]


class _Parity(TypedDict, total=False):
    clips: Count
    max_abs: float
    p999_abs: float
    limit: float | None
    ccc_change: float | None
    of: str | None


class _Plan(TypedDict):
    vector_extension: str
    # In bundle.json alone: as measured at the export, over fp32, and of `cpu-int8` over int8.
    speedup: NotRequired[float]
    speedup_half_silent: NotRequired[float]
    cpu: NotRequired[str]


class _Stamp(TypedDict, total=False):
    flavour: str
    version: str
    targets: list[Count]
    gpu: str | None
    driver: str | None
    onnx_sha256: str
    batch_profile: list[Count]
    convolutions: dict[str, Count]
    labels: list[str]
    meaning: dict[str, Any]
    frontend: dict[str, Any]


class _Provenance(TypedDict, total=False):
    run: str
    encoder: str
    method: str
    channel: Count  # of the training files, counted from 1; without it the mean of all
    epoch: Count
    flops_per_clip: Count | None
    val_ccc: float | None
    val_ccc_per_target: dict[str, float | None]
    checkpoint_sha256: str
    versions: dict[str, str]
    exported: str


class _Variant(TypedDict):
    name: Name
    file: Name
    kind: Literal["onnx", "engine", "mnn"]
    input: InputKind
    precision: PrecisionName
    sha256: Sha256
    size: Count


class _Measured(TypedDict, total=False):
    parity: _Parity | None
    stamp: _Stamp | None
    plan: _Plan | None


class _Meaning(TypedDict):
    scales: dict[str, tuple[float, float]]
    classes: dict[str, list[str]]
    submitted: list[str]


class _Model(TypedDict):
    """What bundle.json and the metadata of an ONNX file both say."""

    labels: list[str]
    frontend: dict[str, Any]
    meaning: NotRequired[_Meaning | None]


class _Manifest(_Model):
    provenance: _Provenance
    variants: list[_Variant]


class _Metadata(_Model):
    input: InputKind
    precision: PrecisionName


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One file of a bundle. All variants of a bundle are the same model."""

    name: str  # what --require and messages call it: fp32, waveform, trt
    file: str
    kind: Literal["onnx", "engine", "mnn"]
    input: InputKind
    precision: str
    sha256: str
    size: int  # bytes
    parity: dict[str, Any] | None = None  # against PyTorch; None where it could not run
    stamp: dict[str, Any] | None = None  # of what is no ONNX: what built it, from which ONNX, for which GPUs
    # Of the variant cpu: its convolutions; in bundle.json also how fast it was on which processor.
    plan: dict[str, Any] | None = None

    @property
    def passed_gate(self) -> bool:
        """True if its scores were compared with PyTorch's, under a limit that they kept."""
        largest, limit = ((self.parity or {}).get(name) for name in ("max_abs", "limit"))
        return largest is not None and limit is not None and largest <= limit


@dataclass(frozen=True, kw_only=True)
class LabelMeaning:
    """What the scores are, where they are not ratings in 0 to 1 alone."""

    scales: dict[str, tuple[float, float]]  # rated label -> the lowest and the highest rating
    classes: dict[str, tuple[str, ...]]  # class target -> its classes; label "Type=Laugh" is a probability
    submitted: tuple[str, ...]  # columns of a challenge's submission: rated labels and class targets

    def to_dict(self) -> dict[str, Any]:
        """For bundle.json."""
        return {
            "scales": {name: list(ends) for name, ends in self.scales.items()},
            "classes": {name: list(classes) for name, classes in self.classes.items()},
            "submitted": list(self.submitted),
        }


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a model needs to be used: K labels, the frontend, the variants, and where it comes from."""

    path: Path  # the folder
    labels: tuple[str, ...]  # K, in the order of the model's scores
    spec: FrontendSpec
    variants: tuple[Variant, ...]
    provenance: dict[str, Any]  # the run, its data and versions; empty for a bare .onnx
    meaning: LabelMeaning | None = None  # None: every score is a rating in 0 to 1

    def variant(self, name: str) -> Variant | None:
        """The variant of this name; None where the bundle has no such variant."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def export_again(self, flags: str = "") -> str:
        """What to do about a file that it lacks, or that is broken: the run around it, or that it names."""
        flags = f" {flags}" if flags else ""
        if self.path.name == _OF_RUN:
            return f"rrtn export {quoted(self.path.parent)}{flags}"
        run = self.provenance.get("run")
        if run is None or not os.path.isdir(run):
            return _EXPORT_AGAIN + (flags and f" with{flags}")
        return f"rrtn export {quoted(run)}{flags} --out {quoted(self.path)}"

    def read(self, variant: Variant) -> bytes:
        """The content of the variant's file, once it is checked.

        Its hash must be the one that the bundle lists. An ONNX file must hold standard operators, with all
        weights inside, and have the labels and the frontend of the bundle. Raises ModelError otherwise.
        Every runtime gets its models from here.
        """
        path = self.path / variant.file
        content = self._content(variant)
        digest = hashlib.sha256(content).hexdigest()
        if digest != variant.sha256:
            raise ModelError(
                str(path),
                f"sha256 {digest[:12]}, {counted(len(content), 'byte')}",
                wanted=f"what {MANIFEST} lists: "
                f"sha256 {variant.sha256[:12]}, {counted(variant.size, 'byte')}",
                fix=f"the file was changed or cut off: {self.export_again()}",
            )
        if variant.kind == "onnx":
            check_onnx(content, str(path))
            self._check_agreement(path, variant, onnx_metadata(content, str(path)))
        return content

    def check_agreement(self) -> None:
        """Raises ModelError where a file of the bundle has other labels or another frontend than bundle.json.

        Files that are missing or no ONNX are passed over: `read` refuses them.
        """
        for variant in self.variants:
            path = self.path / variant.file
            if variant.kind != "onnx":
                _check_same(path, self._claims, variant.stamp or {})
            elif metadata := onnx_metadata_of_file(path):
                self._check_agreement(path, variant, metadata)

    def _check_agreement(self, path: Path, variant: Variant, metadata: Mapping[str, str]) -> None:
        sealed = {"meaning": None, **_metadata_document(path, metadata)}  # one that says none has none
        _check_same(path, self._claims | {"input": variant.input}, sealed)

    @property
    def _claims(self) -> dict[str, Any]:
        meaning = self.meaning.to_dict() if self.meaning else None
        return {"labels": list(self.labels), "frontend": self.spec.to_dict(), "meaning": meaning}

    def _content(self, variant: Variant) -> bytes:
        return _read(self.path / variant.file)

    def manifest(self) -> dict[str, Any]:
        """The content of bundle.json."""
        takes_samples = any(variant.input == "samples" for variant in self.variants)
        has_mnn = any(variant.kind == "mnn" for variant in self.variants)
        return {
            **_head(self.labels, self.spec, self.meaning, takes_samples=takes_samples, has_mnn=has_mnn),
            "provenance": self.provenance,
            "variants": [asdict(variant) for variant in self.variants],
        }


def load_bundle(path: str | bytes | os.PathLike[str]) -> Bundle:
    """Reads a model's description: its labels, frontend and variants. No model is loaded yet.

    `path` is a bundle's folder, its bundle.json, or one .onnx file that `rrtn export` wrote. Of a run's
    folder, the bundle in its export/ is taken.

    Raises ModelError where there is no such file, where it is not what `rrtn export` writes, where it was
    changed since, or where bundle.json contradicts a model that it lists.
    """
    path = Path(os.fsdecode(path))
    try:
        if path.is_dir():
            inside = path / _OF_RUN / MANIFEST
            path = inside if inside.exists() and not (path / MANIFEST).exists() else path / MANIFEST
        exists = path.exists()
    except (OSError, ValueError) as error:  # a name that no file can have, or a folder that may not be read
        raise _no_bundle(path, getattr(error, "strerror", None) or str(error)) from error
    if not exists:
        raise _no_bundle(path)
    if path.name != MANIFEST:
        return _from_onnx(path)
    bundle = _from_manifest(path)
    bundle.check_agreement()
    return bundle


def metadata_of(
    labels: tuple[str, ...],
    spec: FrontendSpec,
    input_kind: InputKind,
    precision: str,
    plan: dict[str, Any] | None = None,
    meaning: LabelMeaning | None = None,
) -> dict[str, str]:
    """The metadata_props of an ONNX file: all that scoring needs beside the graph."""
    document = {
        **_head(labels, spec, meaning, takes_samples=input_kind == "samples"),
        "input": input_kind,
        "precision": precision,
        **({"plan": plan} if plan else {}),
    }
    return {METADATA_KEY: json.dumps(document)}


def _head(
    labels: Sequence[str],
    spec: FrontendSpec,
    meaning: LabelMeaning | None,
    *,
    takes_samples: bool,
    has_mnn: bool = False,
) -> dict[str, Any]:
    """What bundle.json and the metadata of an ONNX file begin with; the schema is the highest needed."""
    needed = {MEANING_SCHEMA: meaning, SAMPLES_SCHEMA: takes_samples, MNN_SCHEMA: has_mnn}
    return {
        "schema": max([SCHEMA, *(schema for schema, is_needed in needed.items() if is_needed)]),
        "labels": list(labels),
        **({"meaning": meaning.to_dict()} if meaning else {}),
        "frontend": spec.to_dict(),
    }


def _from_manifest(path: Path) -> Bundle:
    try:
        document = parsed(_read(path))
        _check_schema(path, document)
        manifest = converted(document, _Manifest)
        variants = tuple(_variants(document["variants"]))
    except ValueError as error:
        raise _not_exported(path, str(error)) from error
    if not variants:
        raise _not_exported(path, "no variants")
    for variant in variants:
        _check_inside(path, variant)
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise _not_exported(path, f"two variants of one name, of {', '.join(names)}")
    return Bundle(
        path=path.parent,
        labels=_labels(path, manifest["labels"]),
        spec=FrontendSpec.from_dict(manifest["frontend"], source=str(path)),
        variants=variants,
        provenance=document["provenance"],  # whole: the form drops what it does not know
        meaning=_meaning_of_labels(path, manifest),
    )


def _variants(listed: Sequence[dict[str, Any]]) -> Iterator[Variant]:
    """Checked a second time, with the fields that a bundle may lack."""
    for fields in listed:
        converted(fields, _Measured)
        yield Variant(**{name: fields[name] for name in Variant.__dataclass_fields__ if name in fields})


def _from_onnx(path: Path) -> Bundle:
    content = _read(path)
    metadata = onnx_metadata(content, str(path))
    document = _metadata_document(path, metadata)
    sha256 = check_seal(content, str(path))  # no manifest lists it
    return Bundle(
        path=path.parent,
        labels=_labels(path, document["labels"]),
        spec=FrontendSpec.from_dict(document["frontend"], source=str(path)),
        variants=(_variant_of_onnx(path, document, sha256=sha256, size=len(content)),),
        provenance={},
        meaning=_meaning_of_labels(path, converted(document, _Metadata)),
    )


def _metadata_document(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What rrtn wrote into the metadata of an ONNX file. Raises ModelError where that is something else."""
    if METADATA_KEY not in metadata:
        raise _foreign(path)
    try:
        document = parsed(metadata[METADATA_KEY])
        _check_schema(path, document)
        converted(document, _Metadata)
        converted(document, _Measured)
    except ValueError as error:
        raise _not_exported(path, f"{error} in its metadata") from error
    assert isinstance(document, dict)
    return document


def _check_same(path: Path, claims: Mapping[str, Any], sealed: Mapping[str, Any]) -> None:
    """Raises ModelError where a model says otherwise than bundle.json, about what both say."""
    for name, claimed in claims.items():
        if name in sealed and _meaning(path, name, sealed[name]) != _meaning(path, name, claimed):
            raise ModelError(
                str(path),
                f"{name} {short(sealed[name])} in the model, {short(claimed)} in {MANIFEST}",
                wanted="the same in both",
                fix=f"{MANIFEST} was changed: {_EXPORT_AGAIN}",
            )


def _meaning(path: Path, name: str, value: Any) -> Any:
    if name == "frontend":
        return FrontendSpec.from_dict(value, source=str(path))
    return list(value) if name == "labels" else value


def _meaning_of_labels(path: Path, model: _Model) -> LabelMeaning | None:
    """Raises ModelError where a name in it is no label, or a scale has no width."""
    document = model.get("meaning")
    if document is None:
        return None
    meaning = LabelMeaning(
        scales=document["scales"],
        classes={name: tuple(classes) for name, classes in document["classes"].items()},
        submitted=tuple(document["submitted"]),
    )
    columns = [f"{name}={one}" for name, classes in meaning.classes.items() for one in classes]
    targets = {*meaning.scales, *meaning.classes}
    if {*meaning.scales, *columns} != {*model["labels"]} or not targets.issuperset(meaning.submitted):
        raise _not_exported(path, f"a meaning of other labels than {short(model['labels'])}")
    if not all(low < high for low, high in meaning.scales.values()):
        raise _not_exported(path, f"scales {short(meaning.scales)}")
    return meaning


def _labels(path: Path, labels: Sequence[str]) -> tuple[str, ...]:
    if problem := label_problem(labels):
        raise _not_exported(path, problem)
    return tuple(labels)


def label_problem(labels: Sequence[str]) -> str:
    """What is wrong with the names of a model's scores; "" where nothing is."""
    if not labels:
        return "no labels"
    for label in labels:
        if not label.strip():
            return "a label without a name"
        if any("\ud800" <= character <= "\udfff" for character in label):
            return f"the label {printable(label)} is not UTF-8"
    return repeated(labels)


def repeated(labels: Sequence[str]) -> str:
    """The labels that stand there more than once, in words; "" where each stands there once."""
    twice = sorted(label for label, count in Counter(labels).items() if count > 1)
    return f"{', '.join(map(short, twice))} more than once" if twice else ""


def _variant_of_onnx(path: Path, document: dict[str, Any], *, sha256: str, size: int) -> Variant:
    plan = document.get("plan")
    name = document["precision"] if document["input"] == "logmel" else document["input"]
    if plan:
        name = "cpu" if name == "fp32" else f"cpu-{name}"
    return Variant(
        name=name,
        file=path.name,
        kind="onnx",
        input=document["input"],
        precision=document["precision"],
        sha256=sha256,
        size=size,
        plan=plan,
    )


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except (OSError, ValueError) as error:
        raise _not_exported(path, getattr(error, "strerror", None) or str(error)) from error


def _check_schema(path: Path, document: object) -> None:
    if not isinstance(document, dict):
        raise ValueError(f"{short(document)} in place of a JSON object")
    schema = document.get("schema")
    if type(schema) is not int or schema not in _SCHEMAS:
        raise ModelError(
            str(path),
            f"schema {short(schema)}",
            wanted=f"schema {SCHEMA} to {MNN_SCHEMA}, which this rrtn reads",
            fix=f"update rrtn, or {_EXPORT_AGAIN}",
        )


def _check_inside(path: Path, variant: Variant) -> None:
    name = variant.file
    if name in (".", "..", MANIFEST) or "/" in name or printable(name) != name:
        came = f"the variant's file {name!r}"
        raise ModelError(str(path), came, wanted="the name of a file in this folder", fix=_EXPORT_AGAIN)


def _foreign(path: Path) -> ModelError:
    fix = "rrtn scores only what rrtn train and rrtn export have made"
    return ModelError(str(path), "no rrtn metadata in it", wanted=_EXPORTED, fix=fix)


def _no_bundle(path: Path, reason: str = "") -> ModelError:
    """The error for a path without a model, or that the system refuses; that of a bundle.json names its
    folder.
    """
    folder = path.parent if path.name == MANIFEST else path
    run = folder.parent if folder.name == _OF_RUN else folder
    wanted = "a bundle's folder, or an .onnx file that rrtn export wrote"
    fix = f"if {run} is a run: rrtn export {quoted(run)}" if os.path.isdir(run) else "run rrtn export"
    if reason or not folder.is_dir():
        return ModelError(str(path), reason or "not there", wanted=wanted, fix=fix)
    return ModelError(str(folder), f"no {MANIFEST} in it", wanted=wanted, fix=f"{fix}, or name its folder")


def _not_exported(path: Path, came: str) -> ModelError:
    return ModelError(str(path), came, wanted=_EXPORTED, fix=_EXPORT_AGAIN)
