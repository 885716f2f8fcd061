"""A bundle is what its hashes say, or one line refuses it. No content of a file gives a traceback."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper
from rrtn.runtime import FrontendSpec, Scorer, load_bundle
from rrtn.runtime.bundle import Bundle, Variant, metadata_of
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.runtime.errors import ModelError

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


def _lacks(model: Path) -> str:
    """What to do about a bundle without embeddings."""
    with pytest.raises(ModelError, match="gives scores only") as caught:
        Scorer(model, "cpu", embeddings=True)
    return caught.value.fix


def test_the_advice_to_export_again_names_the_bundles_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RUN left out would be the newest run, which may be another one."""
    monkeypatch.chdir(folder.parent)
    unknown = "export its run again with --embeddings"
    assert _lacks(folder) == unknown
    edit_manifest(folder, provenance={"run": "runs/a b"})
    assert _lacks(folder) == unknown  # it is not here
    Path("runs/a b").mkdir(parents=True)
    assert _lacks(folder) == f"rrtn export 'runs/a b' --embeddings --out {folder}"
    copied = folder.rename("runs/a b/export")
    Path("runs/a b").rename("runs/c")  # renamed since: where the bundle lies is what counts
    assert not copied.exists()
    for model in ("runs/c", "runs/c/export", "runs/c/export/model.onnx"):
        assert _lacks(Path(model)) == "rrtn export runs/c --embeddings"


def test_a_run_without_a_bundle_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/a").mkdir(parents=True)
    for named in ("runs/a", "runs/a/export", "runs/a/export/bundle.json"):
        with pytest.raises(ModelError) as caught:
            load_bundle(named)
        assert caught.value.fix.startswith("if runs/a is a run: rrtn export runs/a")
    with pytest.raises(ModelError) as caught:
        load_bundle("runs/b")
    assert caught.value.fix == "run rrtn export"


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


@pytest.mark.parametrize("schema", [0, 5, "1", None])
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


def test_a_name_that_no_file_can_have_is_no_model() -> None:
    for name in ("a" * 5_000, f"{'a' * 300}/bundle.json"):
        with pytest.raises(ModelError, match="File name too long") as caught:
            load_bundle(name)
        assert caught.value.exit_code == 5


def test_other_names_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for name in ("a\0b", "loop", "loop/bundle.json", "file/x", b"\xff", ""):
        with pytest.raises(ModelError):
            load_bundle(tmp_path / os.fsdecode(name))


def test_a_folder_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read it, so the system is asked in its place."""

    def refuse(self: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(ModelError, match="Permission denied"):
        load_bundle(tmp_path / "model")


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no bundle\.json in it \| .* or name its folder"):
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


def listed_again(folder: Path) -> None:
    """bundle.json gets the hash of a model that was changed."""
    variant = json.loads((folder / "bundle.json").read_text())["variants"][0]
    content = (folder / variant["file"]).read_bytes()
    changes = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    edit_manifest(folder, variants=[variant | changes])


SCALES = {name: [1, 9] for name in ("Awe", "Fear", "Joy")}
ONE_TO_NINE = {"scales": SCALES, "classes": {}, "submitted": ["Awe"]}


@pytest.mark.parametrize(
    ("changes", "came"),
    [
        ({"labels": ["Joy", "Fear", "Awe"]}, r"labels \['Awe', 'Fear', 'Joy'\] in the model, \['Joy', "),
        ({"labels": ["Awe", "Fear"]}, "labels"),
        ({"labels": ["Awe", "Fear", "Joy", "Fun"]}, "labels"),
        ({"labels": ["Awe", "Fear", "joy"]}, "labels"),
        ({"meaning": ONE_TO_NINE, "schema": 3}, "meaning None in the model, "),
        ({"frontend": FrontendSpec(peak_dbfs=-4.0).to_dict()}, "frontend"),
        ({"frontend": FrontendSpec(f_min=51.0).to_dict()}, "frontend"),
        ({"frontend": FrontendSpec(trim=True).to_dict()}, "frontend"),
    ],
)
def test_n11_the_manifest_must_say_what_is_sealed_in_the_model(
    folder: Path, changes: dict[str, Any], came: str
) -> None:
    edit_manifest(folder, **changes)
    with pytest.raises(ModelError, match=rf"model\.onnx \| {came}.* in bundle\.json"):
        load_bundle(folder)
    assert load_bundle(folder / "model.onnx").labels == ("Awe", "Fear", "Joy")


def test_n11_a_model_that_was_exchanged_after_loading_is_compared_again(
    folder: Path, tiny_model_at: Callable[..., Path]
) -> None:
    bundle = load_bundle(folder)
    content = tiny_model_at(folder / "model.onnx", labels=("Joy", "Fear", "Awe")).read_bytes()
    variant = variant_of(folder / "model.onnx")
    assert hashlib.sha256(content).hexdigest() == variant.sha256
    with pytest.raises(ModelError, match=r"labels .* in the model"):
        bundle.read(variant)


@pytest.mark.parametrize(
    ("stamp", "came"),
    [
        ({"labels": ["Joy", "Fear", "Awe"]}, "labels"),
        ({"frontend": FrontendSpec(hop=161).to_dict()}, "frontend"),
        ({"meaning": {"scales": {"Awe": [1, 5]}, "classes": {}, "submitted": []}}, "meaning"),
        ({"labels": ["Awe", "Fear", "Joy"], "frontend": FrontendSpec().to_dict()}, ""),
        ({}, ""),  # a stamp of before
    ],
)
def test_n11_the_manifest_must_say_what_an_engines_stamp_says(
    folder: Path, stamp: dict[str, Any], came: str
) -> None:
    variants = json.loads((folder / "bundle.json").read_text())["variants"]
    engine = variants[0] | {"name": "trt", "kind": "engine", "file": "model.engine", "stamp": stamp}
    edit_manifest(folder, variants=[*variants, engine])
    if came:
        with pytest.raises(ModelError, match=rf"model\.engine \| {came}"):
            load_bundle(folder)
    else:
        assert load_bundle(folder).variant("trt")


@pytest.mark.parametrize("labels", [["Awe", "Fear", "Awe"], ["Awe", "", "Joy"], ["Awe", " ", "Joy"], []])
def test_n11_labels_are_names_and_each_stands_there_once(
    folder: Path, tiny_model: Path, labels: list[str]
) -> None:
    with_metadata(tiny_model, metadata_of(tuple(labels), FrontendSpec(), "logmel", "fp32"))
    with pytest.raises(ModelError, match=r"more than once|without a name|no labels"):
        load_bundle(tiny_model)
    edit_manifest(folder, labels=labels)
    with pytest.raises(ModelError, match=r"more than once|without a name|no labels"):
        load_bundle(folder)


def test_n11_two_entries_of_metadata_are_two_truths(folder: Path) -> None:
    proto = onnx.load(folder / "model.onnx")
    entry = proto.metadata_props.add()
    metadata = metadata_of(("Joy", "Fear", "Awe"), FrontendSpec(), "logmel", "fp32")
    entry.key, entry.value = "rrtn", metadata["rrtn"]
    (folder / "model.onnx").write_bytes(sealed(proto.SerializeToString()))
    with pytest.raises(ModelError, match="two metadata entries"):
        load_bundle(folder / "model.onnx")
    listed_again(folder)
    with pytest.raises(ModelError, match="two metadata entries"):
        Scorer(folder, "cpu")


def test_n11_a_name_that_stands_twice_in_a_json_object_is_refused(folder: Path) -> None:
    text = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(text.replace("{", '{"labels": ["Joy", "Fear", "Awe"], ', 1))
    with pytest.raises(ModelError, match="'labels' stands there twice"):
        load_bundle(folder)


@pytest.mark.parametrize("labels", [("Awe", "Fear"), ("Awe", "Fear", "Joy", "Fun")])
def test_n24_a_model_with_another_number_of_scores_is_refused_before_audio(
    folder: Path, labels: tuple[str, ...], spec: FrontendSpec
) -> None:
    with_metadata(folder / "model.onnx", metadata_of(labels, spec, "logmel", "fp32"))
    listed_again(folder)
    edit_manifest(folder, labels=list(labels))
    for model in (folder, folder / "model.onnx"):
        with pytest.raises(ModelError, match=rf"scores \['batch', 3\].*scores of \[{len(labels)}\]"):
            Scorer(model, "cpu")


@pytest.mark.parametrize("changes", [{"frames": 251}, {"n_mels": 65}, {"frames": 100_000}])
def test_n24_a_model_that_takes_other_clips_is_refused_before_audio(
    folder: Path, changes: dict[str, Any]
) -> None:
    spec = FrontendSpec(**changes)
    with_metadata(folder / "model.onnx", metadata_of(("Awe", "Fear", "Joy"), spec, "logmel", "fp32"))
    with pytest.raises(ModelError, match=r"log_mel \['batch', 1, 250, 64\].*expected one input of"):
        Scorer(folder / "model.onnx", "cpu")


def test_n24_fields_of_newer_writers_are_ignored(folder: Path) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["variants"][0] |= {"new": [1], "parity": {"max_abs": 1e-7, "new": 1}}
    manifest["provenance"] |= {"new": {"a": 1}}
    edit_manifest(folder, new=1, **manifest)
    bundle = load_bundle(folder)
    assert bundle.provenance == {"epoch": 3, "new": {"a": 1}}
    assert bundle.variants[0].parity == {"max_abs": 1e-7, "new": 1}


@pytest.mark.parametrize(
    ("changes", "came"),
    [
        ({"size": -1}, "int"),
        ({"size": "5"}, "int"),
        ({"sha256": "5"}, "str"),
        ({"precision": "../fp32"}, "precision"),
        ({"kind": "pickle"}, "kind"),
        ({"input": "text"}, "input"),
        ({"parity": {"max_abs": "0"}}, "max_abs"),
        ({"plan": {"speedup": None}}, "plan"),
        ({"stamp": {"targets": ["80"]}}, "targets"),
        ({"name": 5}, "name"),
        ({"file": "a\0b"}, "file"),
        ({"file": "bundle.json"}, "file"),
    ],
)
def test_n24_a_wrong_field_of_a_variant_is_named(folder: Path, changes: dict[str, Any], came: str) -> None:
    variants = json.loads((folder / "bundle.json").read_text())["variants"]
    edit_manifest(folder, variants=[variants[0] | changes])
    with pytest.raises(ModelError, match=rf"bundle\.json \| .*{came}"):
        load_bundle(folder)


def test_n24_a_bundle_without_variants_is_refused(folder: Path) -> None:
    edit_manifest(folder, variants=[])
    with pytest.raises(ModelError, match="no variants") as caught:
        load_bundle(folder)
    assert caught.value.exit_code == 5


def test_n24_two_variants_of_one_name_are_refused(folder: Path) -> None:
    variants = json.loads((folder / "bundle.json").read_text())["variants"]
    edit_manifest(folder, variants=variants * 2)
    with pytest.raises(ModelError, match="two variants of one name"):
        load_bundle(folder)


@pytest.mark.parametrize("levels", [40, 2_000, 100_000])
def test_n24_nesting_of_any_depth_is_refused(folder: Path, levels: int) -> None:
    nested = "[" * levels + "]" * levels
    text = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(text.replace("{", f'{{"new": {nested}, ', 1))
    with pytest.raises(ModelError, match="nested too deeply"):
        load_bundle(folder)
