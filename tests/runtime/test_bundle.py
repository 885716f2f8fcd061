"""A bundle is what its hashes say, or one line refuses it. No content of a file gives a traceback."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper
from rrtn.runtime import FrontendSpec, Scorer, load_bundle
from rrtn.runtime.bundle import Bundle, Variant, metadata_of
from rrtn.runtime.errors import ModelError
from rrtn.runtime.onnx_file import sealed

Model = Callable[[Path], Path]
SPEC = FrontendSpec(frames=100, peak_dbfs=-6.0)


def variant_of(path: Path, **changes: Any) -> Variant:
    content = path.read_bytes()
    fields = {"name": "fp32", "file": path.name, "kind": "onnx", "input": "logmel", "precision": "fp32"}
    return Variant(**fields, sha256=hashlib.sha256(content).hexdigest(), size=len(content), **changes)


@pytest.fixture
def folder(tmp_path: Path, tiny_model_at: Model, spec: FrontendSpec) -> Path:
    """A bundle with one variant."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    variant = variant_of(tiny_model_at(bundle / "model.onnx"), parity={"max_abs": 1e-7})
    manifest = Bundle(
        path=bundle, labels=("Awe", "Fear", "Joy"), spec=spec, variants=(variant,), provenance={"epoch": 3}
    ).manifest()
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return bundle


def edit_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(manifest | changes))


def with_metadata(model: Path, properties: dict[str, str]) -> Path:
    proto = onnx.load(model)
    del proto.metadata_props[:]
    helper.set_model_props(proto, properties)
    model.write_bytes(sealed(proto.SerializeToString()))
    return model


def test_a_folder_its_manifest_and_a_bare_model_give_the_same(folder: Path, spec: FrontendSpec) -> None:
    bundle = load_bundle(folder)
    assert load_bundle(str(folder / "bundle.json")) == bundle
    bare = load_bundle(folder / "model.onnx")
    for loaded in (bundle, bare):
        assert (loaded.path, loaded.labels, loaded.spec) == (folder, ("Awe", "Fear", "Joy"), spec)
        assert [(variant.name, variant.file, variant.input) for variant in loaded.variants] == [
            ("fp32", "model.onnx", "logmel")
        ]
        assert loaded.read(loaded.variants[0]) == (folder / "model.onnx").read_bytes()
    assert (bundle.provenance, bare.provenance) == ({"epoch": 3}, {})
    assert bundle.variants[0].parity == {"max_abs": 1e-7}


def test_the_manifest_written_is_the_manifest_read(folder: Path) -> None:
    assert load_bundle(folder).manifest() == json.loads((folder / "bundle.json").read_text())


def test_the_frontend_comes_from_the_model_never_from_defaults(tiny_model: Path) -> None:
    with_metadata(tiny_model, metadata_of(("Awe",), SPEC, "waveform", "fp16"))
    bundle = load_bundle(tiny_model)
    assert bundle.spec == SPEC
    assert (bundle.variants[0].name, bundle.variants[0].precision) == ("waveform", "fp16")


def test_a_variant_that_is_not_there_is_none(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.variant("trt") is None
    assert bundle.variant("fp32") == bundle.variants[0]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_model_that_was_changed_is_refused_by_both_hashes(folder: Path, damage: str) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    changed = {
        "flip": bytes(content),
        "cut": bytes(content[:-1]),
        "empty": b"",
        "other": b"x" * len(content),
    }[damage]
    listed = load_bundle(folder).variants[0].sha256[:12]
    (folder / "model.onnx").write_bytes(changed)
    with pytest.raises(ModelError, match=f"{hashlib.sha256(changed).hexdigest()[:12]}.*{listed}"):
        Scorer(folder, "cpu")


def test_a_model_that_is_gone_is_refused_by_name(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx.*No such file"):
        Scorer(folder, "cpu")


@pytest.mark.parametrize("file", ["../model.onnx", "/etc/passwd", "sub/model.onnx", "", ".", "..", 5])
def test_a_variant_outside_the_folder_is_refused(folder: Path, file: object) -> None:
    variants = json.loads((folder / "bundle.json").read_text())["variants"]
    edit_manifest(folder, variants=[variants[0] | {"file": file}])
    with pytest.raises(ModelError, match=r"bundle\.json"):
        load_bundle(folder)


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_refused_and_says_which(folder: Path, schema: object) -> None:
    edit_manifest(folder, schema=schema)
    with pytest.raises(ModelError, match=f"schema {schema!r}"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": 5},
        {"frontend": []},
        {"frontend": {"frames": 250}},
        {"frontend": FrontendSpec().to_dict() | {"new": 1}},
        {"variants": [{"name": "fp32"}]},
        {"variants": [[]]},
        {"variants": 1},
    ],
)
def test_a_manifest_of_another_form_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    edit_manifest(folder, **changes)
    with pytest.raises(ModelError):
        load_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"{}"])
def test_a_manifest_that_is_none_is_refused_by_name(folder: Path, content: bytes) -> None:
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"bundle\.json"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "document", ["{", "[]", "{}", '{"schema": 1}', '{"schema": 1, "input": "logmel"}', "5"]
)
def test_a_model_with_broken_metadata_is_refused_by_name(tiny_model: Path, document: str) -> None:
    with_metadata(tiny_model, {"rrtn": document})
    with pytest.raises(ModelError, match=r"tiny\.onnx"):
        load_bundle(tiny_model)


def test_a_model_of_someone_else_is_refused(tiny_model: Path) -> None:
    with_metadata(tiny_model, {"author": "someone else"})
    with pytest.raises(ModelError, match="no rrtn metadata"):
        load_bundle(tiny_model)


@pytest.mark.parametrize("name", ["gone", "gone.onnx"])
def test_a_path_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="not there"):
        load_bundle(tmp_path / name)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"bundle\.json.*not there"):
        load_bundle(tmp_path)


def test_a_bundle_of_engines_only_cannot_score_here(folder: Path) -> None:
    variants = json.loads((folder / "bundle.json").read_text())["variants"]
    edit_manifest(folder, variants=[variants[0] | {"name": "trt", "kind": "engine"}])
    with pytest.raises(ModelError, match="no variant cpu or fp32 or waveform in the bundle"):
        Scorer(folder, "cpu")


@pytest.mark.parametrize(
    ("content", "by"), [(b"listed, and yet no model", "whole ONNX file"), (b"", "no rrtn metadata")]
)
def test_what_is_listed_but_no_model_is_refused(folder: Path, content: bytes, by: str) -> None:
    (folder / "model.onnx").write_bytes(content)
    variant = load_bundle(folder).manifest()["variants"][0]
    edit_manifest(folder, variants=[variant | {"sha256": hashlib.sha256(content).hexdigest()}])
    with pytest.raises(ModelError, match=by):
        Scorer(folder, "cpu")
