"""A Triton model repository: read by Triton's own schema, and compared with the graphs that it serves."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from rrtn.export.graph import MAX_BATCH
from rrtn.export.triton import not_servable, triton_repository_from_bundle
from rrtn.runtime import Scorer, load_bundle
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.errors import ModelError
from rrtn.runtime.system.files import write_bytes

LIMIT = 1e-4  # in score: the gate's between a bundle's variants
PLAN = b"an engine: only its own kind of GPU could read it"


@pytest.fixture(scope="module")
def schema() -> Any:
    """The messages that a server parses config.pbtxt into."""
    return pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")


@pytest.fixture(scope="module")
def served(random_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's repository, to be left as it is."""
    folder = tmp_path_factory.mktemp("served") / "models"
    triton_repository_from_bundle(random_bundle, folder)
    return folder


@pytest.fixture
def bundle(random_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A folder to write files into; those that are there are links, to be replaced and never changed."""
    return load_bundle(shutil.copytree(random_bundle.path, tmp_path / "bundle", copy_function=os.link))


@pytest.fixture
def models(bundle: Bundle, tmp_path: Path) -> Path:
    """A repository to change."""
    triton_repository_from_bundle(bundle, tmp_path / "models")
    return tmp_path / "models"


def config_of(folder: Path, schema: Any) -> Any:
    """Fails for an unknown field or a value of another type, as the server does."""
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="ascii"), schema.ModelConfig())


def with_engine(bundle: Bundle, **stamp: object) -> Bundle:
    """The bundle with an engine of its waveform graph, stamped as `rrtn export --trt` does."""
    (bundle.path / "model.engine").write_bytes(PLAN)
    known = {
        "flavour": "tensorrt",
        "onnx_sha256": bundle.variant("waveform").sha256,
        "batch_profile": [1, 8, 24],
    }
    fields: dict[str, Any] = {
        "file": "model.engine",
        "kind": "engine",
        "input": "waveform",
        "precision": "fp16",
    }
    digest = hashlib.sha256(PLAN).hexdigest()
    engine = Variant(name="trt", sha256=digest, size=len(PLAN), stamp={**known, **stamp}, **fields)
    return replace(bundle, variants=(*bundle.variants, engine))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_folder_a_variant_with_its_very_bytes(bundle: Bundle, tmp_path: Path) -> None:
    folders = triton_repository_from_bundle(bundle, tmp_path / "new/models")
    assert folders == [tmp_path / "new/models/rrtn_logmel", tmp_path / "new/models/rrtn_waveform"]
    written = contents(tmp_path / "new/models")
    record = json.loads(written.pop("rrtn.json"))
    names = ("config.pbtxt", "labels.txt", "1/model.onnx")
    assert set(written) == {f"{folder.name}/{name}" for folder in folders for name in names}
    assert record["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in written.items()}
    for folder, variant in zip(folders, bundle.variants, strict=True):
        assert written[f"{folder.name}/1/model.onnx"] == bundle.read(variant)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["models"]


@pytest.mark.parametrize("name", ["rrtn_logmel", "rrtn_waveform"])
def test_config_says_what_the_graph_takes_and_gives(name: str, served: Path, schema: Any) -> None:
    config = config_of(served / name, schema)
    session = onnxruntime.InferenceSession(served / name / "1/model.onnx", providers=["CPUExecutionProvider"])
    assert (config.name, config.backend, config.platform) == (name, "onnxruntime", "")
    for described, nodes in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [(tensor.name, ["batch", *tensor.dims]) for tensor in described] == [
            (node.name, node.shape) for node in nodes
        ]
        assert [(tensor.data_type, node.type) for tensor, node in zip(described, nodes, strict=True)] == [
            (schema.TYPE_FP32, "tensor(float)")
        ]
        assert not any(tensor.HasField("reshape") for tensor in described)
    assert [(tensor.name, tensor.label_filename) for tensor in config.output] == [("scores", "labels.txt")]


@pytest.mark.parametrize("name", ["rrtn_logmel", "rrtn_waveform"])
def test_the_graph_takes_every_batch_that_the_config_promises(name: str, served: Path, schema: Any) -> None:
    config = config_of(served / name, schema)
    session = onnxruntime.InferenceSession(served / name / "1/model.onnx", providers=["CPUExecutionProvider"])
    assert 32 < config.max_batch_size <= MAX_BATCH
    assert [sample.batch_size for sample in config.model_warmup] == [1, 32]
    for sample in config.model_warmup:
        ((tensor, given),) = sample.inputs.items()
        assert (tensor, given.dims, given.data_type) == (tensor, config.input[0].dims, schema.TYPE_FP32)
        assert given.WhichOneof("input_data_type") == "zero_data"
        (scores,) = session.run(None, {tensor: np.zeros((sample.batch_size, *given.dims), dtype=np.float32)})
        assert scores.shape == (sample.batch_size, *config.output[0].dims)


def test_scheduling(served: Path, schema: Any) -> None:
    config = config_of(served / "rrtn_waveform", schema)
    assert [(group.kind, group.count) for group in config.instance_group] == [
        (schema.ModelInstanceGroup.KIND_AUTO, 1)
    ]
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert config.dynamic_batching == schema.ModelDynamicBatching(max_queue_delay_microseconds=2000)
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
    assert config.parameters["cudnn_conv_algo_search"].string_value == "1"


def test_labels_are_a_line_each(bundle: Bundle, served: Path) -> None:
    assert (served / "rrtn_waveform/labels.txt").read_text(encoding="utf-8").split("\n") == [
        *bundle.labels,
        "",
    ]


def test_a_label_of_two_lines_stays_one_line(
    bundle: Bundle, tmp_path: Path, sealed_anew: Callable[..., Bundle]
) -> None:
    """Else every label behind it would name another score."""
    labels = ("Awe\nof heights", *bundle.labels[1:])
    two_lines = sealed_anew(bundle, labels=labels)
    folder = triton_repository_from_bundle(two_lines, tmp_path / "models")[0]
    lines = (folder / "labels.txt").read_text(encoding="utf-8").split("\n")
    assert lines == [r"Awe\nof heights", *bundle.labels[1:], ""]


def test_parameters_tell_where_the_model_is_from(bundle: Bundle, tmp_path: Path, schema: Any) -> None:
    known = replace(bundle, provenance={"checkpoint_sha256": 'odd "\\\n\x7f ĩ😀'})
    for folder, variant in zip(
        triton_repository_from_bundle(known, tmp_path / "models"), bundle.variants, strict=True
    ):
        parameters = {key: value.string_value for key, value in config_of(folder, schema).parameters.items()}
        assert parameters["rrtn_sha256"] == hashlib.sha256((folder / "1/model.onnx").read_bytes()).hexdigest()
        assert json.loads(parameters["rrtn_frontend"]) == bundle.spec.to_dict()
        assert parameters["rrtn_input"] == variant.input
        assert parameters["rrtn_checkpoint_sha256"] == known.provenance["checkpoint_sha256"]
        assert "rrtn_engine" not in parameters


@pytest.mark.parametrize("name", ["rrtn_logmel", "rrtn_waveform"])
def test_a_client_needs_the_config_alone(
    name: str, bundle: Bundle, served: Path, schema: Any, real_clips: list[Path]
) -> None:
    """What ModelInput makes by the config's parameters, sent in a batch, is scored as `rrtn score`
    scores the files.
    """
    import soundfile
    from rrtn.runtime.model_input import ModelInput

    config = config_of(served / name, schema)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    prepare = ModelInput(parameters["rrtn_input"], json.loads(parameters["rrtn_frontend"]))
    read = [soundfile.read(path, dtype="float32", always_2d=True) for path in real_clips]
    batch = np.array([prepare(samples.T, rate).reshape(config.input[0].dims) for samples, rate in read])
    session = onnxruntime.InferenceSession(served / name / "1/model.onnx", providers=["CPUExecutionProvider"])
    (came,) = session.run([config.output[0].name], {config.input[0].name: batch})
    expected = [list(row.scores.values()) for row in Scorer(bundle, "cpu").score_files(real_clips)]
    assert np.std(expected, axis=0).max() > 0.02
    np.testing.assert_allclose(came, expected, atol=LIMIT, rtol=0)


def test_a_tensorrt_engine_is_served_as_a_plan(bundle: Bundle, tmp_path: Path, schema: Any) -> None:
    engine = with_engine(bundle)
    assert not_servable(engine) == {}
    folder = triton_repository_from_bundle(engine, tmp_path / "models")[-1]
    assert folder.name == "rrtn_waveform_fp16_trt"
    assert contents(folder / "1") == {"model.plan": PLAN}
    config = config_of(folder, schema)
    assert (config.name, config.platform, config.backend) == (folder.name, "tensorrt_plan", "")
    assert [group.kind for group in config.instance_group] == [schema.ModelInstanceGroup.KIND_GPU]
    assert config.max_batch_size == 24
    assert [sample.batch_size for sample in config.model_warmup] == [1]  # 32 is more than its profile allows
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [
        ("waveform", [bundle.spec.clip_samples])
    ]
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [
        ("scores", [len(bundle.labels)])
    ]
    assert not config.HasField("optimization")  # those are ONNX Runtime's
    assert json.loads(config.parameters["rrtn_engine"].string_value) == engine.variants[-1].stamp


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [({"flavour": "tensorrt_rtx"}, "one of tensorrt_rtx"), ({"onnx_sha256": "0" * 64}, "was built from")],
)
def test_an_engine_that_triton_cannot_serve_is_left_out_with_the_reason(
    stamp: dict[str, str], reason: str, bundle: Bundle, tmp_path: Path
) -> None:
    engine = with_engine(bundle, **stamp)
    assert reason in not_servable(engine)["trt"]
    folders = triton_repository_from_bundle(engine, tmp_path / "models")
    assert [folder.name for folder in folders] == ["rrtn_logmel", "rrtn_waveform"]
    assert not [*(tmp_path / "models").rglob("*.plan")]
    with pytest.raises(ModelError, match=reason):
        triton_repository_from_bundle(replace(engine, variants=engine.variants[-1:]), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_variant_of_mnn_is_no_engine(bundle: Bundle) -> None:
    for_mnn = replace(bundle.variants[0], name="mnn", kind="mnn", stamp={"version": "3.6.1"})
    assert "MNN's format" in not_servable(replace(bundle, variants=(*bundle.variants, for_mnn)))["mnn"]


def test_a_graph_of_samples_is_not_served_where_clips_are_padded_in_decibels(
    bundle: Bundle, tmp_path: Path, sealed_anew: Callable[..., Bundle]
) -> None:
    padded = sealed_anew(bundle, spec=replace(bundle.spec, pad="zero_db"))
    assert list(not_servable(padded)) == ["waveform"]
    assert [folder.name for folder in triton_repository_from_bundle(padded, tmp_path / "models")] == [
        "rrtn_logmel"
    ]


def test_a_repository_of_ours_is_replaced_whole(bundle: Bundle, models: Path) -> None:
    triton_repository_from_bundle(replace(bundle, variants=bundle.variants[1:]), models)
    assert sorted(path.name for path in models.iterdir()) == ["rrtn.json", "rrtn_waveform"]
    before = contents(models)
    triton_repository_from_bundle(replace(bundle, variants=bundle.variants[1:]), models)
    assert contents(models) == before


def add_model(models: Path) -> None:
    (models / "another_model/1").mkdir(parents=True)
    (models / "another_model/1/model.onnx").write_bytes(b"")


def add_version(models: Path) -> None:
    (models / "rrtn_waveform/2").symlink_to(models / "rrtn_waveform/1")


def tune_config(models: Path) -> None:
    config = models / "rrtn_waveform/config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 4"))


def lose_record(models: Path) -> None:
    (models / "rrtn.json").unlink()


def garble_record(models: Path) -> None:
    (models / "rrtn.json").write_text('{"files": 1')


@pytest.mark.parametrize("change", [add_model, add_version, tune_config, lose_record, garble_record])
def test_what_rrtn_did_not_write_is_never_replaced(change: Any, bundle: Bundle, models: Path) -> None:
    change(models)
    before = contents(models)
    with pytest.raises(ModelError, match="not as rrtn wrote it"):
        triton_repository_from_bundle(bundle, models)
    assert contents(models) == before
    assert sorted(path.name for path in models.parent.iterdir()) == ["bundle", "models"]


@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("text"), lambda path: path.symlink_to(path.parent)]
)
def test_a_file_or_a_link_is_refused(make: Any, bundle: Bundle, tmp_path: Path) -> None:
    make(tmp_path / "models")
    with pytest.raises(ModelError, match="a link or a file"):
        triton_repository_from_bundle(bundle, tmp_path / "models")


def test_a_changed_model_file_is_refused_and_the_old_repository_stays(bundle: Bundle, models: Path) -> None:
    before = contents(models)
    write_bytes(bundle.path / "model.waveform.onnx", b"cut")
    with pytest.raises(ModelError, match="sha256"):
        triton_repository_from_bundle(bundle, models)
    assert contents(models) == before
    assert sorted(path.name for path in models.parent.iterdir()) == ["bundle", "models"]
