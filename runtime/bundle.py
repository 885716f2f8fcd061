"""The deployable model: a folder with bundle.json and its variants, or a bare .onnx of ours."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from .errors import ModelError, counted
from .onnx_file import check_onnx, check_seal, onnx_metadata
from .spec import FrontendSpec, InputKind

SCHEMA: Final = 1
MANIFEST: Final = "bundle.json"
_OF_RUN: Final = "export"  # the bundle's folder in a run
METADATA_KEY: Final = "rrtn"  # one JSON document under this key of the ONNX metadata_props

# What JSON raises that is not of the form that rrtn writes.
_MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError)
_EXPORTED: Final = "what rrtn export writes"
_EXPORT_AGAIN: Final = "run rrtn export again"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One file of a bundle. All variants of a bundle are the same model."""

    name: str  # what --require and messages call it: fp32, waveform, trt
    file: str
    kind: Literal["onnx", "engine"]
    input: InputKind  # log_mel [B, 1, T, M] or waveform [B, N]
    precision: str
    sha256: str
    size: int  # bytes
    parity: dict[str, Any] | None = None  # against PyTorch; None where it could not run
    stamp: dict[str, Any] | None = None  # of an engine: what built it, for which GPUs, from which ONNX
    # Of the variant cpu: its convolutions, and how fast it was on which processor.
    plan: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a model needs to be used: K labels, the frontend, the variants, and where it comes from."""

    path: Path  # the folder
    labels: tuple[str, ...]  # K, in the order of the model's scores
    spec: FrontendSpec
    variants: tuple[Variant, ...]
    provenance: dict[str, Any]  # the run, its data and versions; empty for a bare .onnx

    def variant(self, name: str) -> Variant | None:
        """The variant of this name; None where the bundle has no such variant."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def read(self, variant: Variant) -> bytes:
        """The content of the variant's file, once it is checked.

        Its hash must be the one that the bundle lists. An ONNX file must hold standard operators, with all
        weights inside. Raises ModelError otherwise. Every runtime gets its models from here.
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
                fix=f"the file was changed or cut off: {_EXPORT_AGAIN}",
            )
        if variant.kind == "onnx":
            check_onnx(content, str(path))
        return content

    def _content(self, variant: Variant) -> bytes:
        return _read(self.path / variant.file)

    def manifest(self) -> dict[str, Any]:
        """The content of bundle.json."""
        return {
            "schema": SCHEMA,
            "labels": list(self.labels),
            "frontend": self.spec.to_dict(),
            "provenance": self.provenance,
            "variants": [asdict(variant) for variant in self.variants],
        }


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Reads a model's description: its labels, frontend and variants. No model is loaded yet.

    `path` is a bundle's folder, its bundle.json, or one .onnx file that `rrtn export` wrote. Of a run's
    folder, the bundle in its export/ is taken.

    Raises ModelError where there is no such file, where it is not what `rrtn export` writes, or where
    it was changed since.
    """
    path = Path(path)
    if path.is_dir():
        inside = path / _OF_RUN / MANIFEST
        path = inside if inside.exists() and not (path / MANIFEST).exists() else path / MANIFEST
    if not path.is_file():
        raise ModelError(
            str(path),
            "not there",
            wanted="a bundle's folder, or an .onnx file that rrtn export wrote",
            fix="run rrtn export",
        )
    return _from_manifest(path) if path.name == MANIFEST else _from_onnx(path)


def metadata_of(
    labels: tuple[str, ...],
    spec: FrontendSpec,
    input_kind: InputKind,
    precision: str,
    plan: dict[str, Any] | None = None,
) -> dict[str, str]:
    """The metadata_props of an ONNX file: all that scoring needs beside the graph."""
    document = {
        "schema": SCHEMA,
        "labels": list(labels),
        "frontend": spec.to_dict(),
        "input": input_kind,
        "precision": precision,
        **({"plan": plan} if plan else {}),
    }
    return {METADATA_KEY: json.dumps(document)}


def _from_manifest(path: Path) -> Bundle:
    try:
        document = json.loads(path.read_bytes())
        _check_schema(path, document["schema"])
        return Bundle(
            path=path.parent,
            labels=tuple(document["labels"]),
            spec=FrontendSpec.from_dict(document["frontend"], source=str(path)),
            variants=tuple(_inside(path, Variant(**fields)) for fields in document["variants"]),
            provenance=document["provenance"],
        )
    except _MALFORMED as error:
        raise _not_exported(path, repr(error)) from error


def _from_onnx(path: Path) -> Bundle:
    content = _read(path)
    metadata = onnx_metadata(content, str(path))
    if METADATA_KEY not in metadata:
        raise _not_exported(path, "no rrtn metadata in it")
    check_seal(content, str(path))  # no manifest lists its hash
    try:
        document = json.loads(metadata[METADATA_KEY])
        _check_schema(path, document["schema"])
        return Bundle(
            path=path.parent,
            labels=tuple(document["labels"]),
            spec=FrontendSpec.from_dict(document["frontend"], source=str(path)),
            variants=(_variant_of_onnx(path, content, document),),
            provenance={},
        )
    except _MALFORMED as error:
        raise _not_exported(path, f"{error!r} in its metadata") from error


def _variant_of_onnx(path: Path, content: bytes, document: dict[str, Any]) -> Variant:
    plan = document.get("plan")
    name = document["precision"] if document["input"] == "logmel" else document["input"]
    return Variant(
        name="cpu" if plan else name,
        file=path.name,
        kind="onnx",
        input=document["input"],
        precision=document["precision"],
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        plan=plan,
    )


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # reading a pipe would wait, reading a device would not end
        raise _not_exported(path, "not a regular file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _not_exported(path, error.strerror or str(error)) from error


def _check_schema(path: Path, schema: object) -> None:
    if schema != SCHEMA:
        raise ModelError(
            str(path),
            f"schema {schema!r}",
            wanted=f"schema {SCHEMA}, which this rrtn reads",
            fix=f"update rrtn, or {_EXPORT_AGAIN}",
        )


def _inside(path: Path, variant: Variant) -> Variant:
    if variant.file in ("", "..") or Path(variant.file).name != variant.file:
        came = f"the variant's file {variant.file!r}"
        raise ModelError(str(path), came, wanted="the name of a file in this folder", fix=_EXPORT_AGAIN)
    return variant


def _not_exported(path: Path, came: str) -> ModelError:
    return ModelError(str(path), came, wanted=_EXPORTED, fix=_EXPORT_AGAIN)
