"""OpenVINO and MNN give the scores of ONNX Runtime, behind the same hashes, limits and fixed batches."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from numpy.typing import NDArray
from rrtn.export.mnn_file import mnn_from_onnx
from rrtn.export.publish import Gate
from rrtn.export.winograd.rewriting import plan_of, with_plan
from rrtn.runtime import Scorer, load_bundle
from rrtn.runtime.backends.base import Backend
from rrtn.runtime.backends.choice import candidates_of_bundle, choose_backend
from rrtn.runtime.backends.lanes import Lanes
from rrtn.runtime.backends.openvino_backend import OpenvinoBackend
from rrtn.runtime.backends.registry import backend_kind
from rrtn.runtime.bundle import MANIFEST, Bundle, Variant
from rrtn.runtime.errors import ModelError, UnavailableError
from rrtn.runtime.frontend import clip_input, decibels_behind
from rrtn.runtime.system.cpus import has_bf16, vector_extension
from rrtn.runtime.system.files import sha256_of, write_json
from rrtn.runtime.tables.rows import Row
from rrtn.runtime.tune import LIMITS

pytest.importorskip("openvino", reason="openvino is not installed")
pytest.importorskip("MNN", reason="MNN is not installed")

LIMIT = 1e-4  # the gate's
WAYS = ("openvino", "mnn")


def with_mnn(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle's fp32 alone, and beside it the same in MNN's format."""
    fp32 = bundle.variant("fp32")
    assert fp32 is not None
    content, stamp = mnn_from_onnx(bundle.read(fp32))
    (folder / "model.onnx").write_bytes(bundle.read(fp32))
    (folder / "model.mnn").write_bytes(content)
    claims = {"labels": list(bundle.labels), "frontend": bundle.spec.to_dict()}
    mnn = Variant(
        name="mnn",
        file="model.mnn",
        kind="mnn",
        input="logmel",
        precision="fp32",
        sha256=sha256_of(folder / "model.mnn"),
        size=len(content),
        stamp=stamp | claims,
    )
    both = replace(bundle, path=folder, variants=(replace(fp32, file="model.onnx"), mnn))
    write_json(folder / MANIFEST, both.manifest())
    return load_bundle(folder)


@pytest.fixture(scope="module")
def bundle(embedding_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_mnn(embedding_bundle, tmp_path_factory.mktemp("mnn"))


@pytest.fixture(scope="module")
def resnet18(main_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_mnn(load_bundle(main_job / "runs/first/export"), tmp_path_factory.mktemp("resnet18"))


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_a_file_has_the_scores_of_fp32_by_the_graph_that_takes_its_samples(
    random_bundle: Bundle, real_clips: list[Path], backend: str
) -> None:
    """Decoders hand 16-bit samples on, which the model hears as shares of 32768."""
    with (
        Scorer(random_bundle, "cpu", variant="fp32") as log_mel,
        Scorer(random_bundle, backend, variant="waveform") as samples,
    ):
        expected, found = (
            [list((row.scores or {}).values()) for row in scorer.score_files(real_clips[:4])]
            for scorer in (log_mel, samples)
        )
    np.testing.assert_allclose(found, expected, atol=LIMIT)


def batch_of(bundle: Bundle, paths: list[Path]) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    n = bundle.spec.clip_samples
    sounds = [np.resize(soundfile.read(path, always_2d=True)[0][:, 0], n) for path in paths]
    extremes = [np.zeros(n), rng.uniform(-1, 1, n)]
    waveforms = (np.asarray(sound, np.float32) for sound in [*sounds, *extremes])
    return np.array([clip_input(waveform, bundle.spec, "logmel") for waveform in waveforms])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["bundle", "resnet18"])
def test_outputs_are_those_of_onnx_runtime_whatever_the_batch(
    way: str, name: str, request: pytest.FixtureRequest, real_clips: list[Path]
) -> None:
    bundle: Bundle = request.getfixturevalue(name)
    batch = batch_of(bundle, real_clips)
    expected = choose_backend(bundle, "cpu", variant="fp32").backend.run(batch)
    backend = choose_backend(bundle, way, threads=1).backend
    came = backend.run(batch)
    np.testing.assert_allclose(came.scores, expected.scores, atol=LIMIT, rtol=0)
    assert expected.scores.std(axis=0).max() > 0.01  # else all would be alike
    if expected.embedding is not None:
        assert came.embedding is not None
        assert came.embedding.shape[-1] == backend.embedding_size
        largest = np.abs(expected.embedding).max()
        np.testing.assert_allclose(came.embedding, expected.embedding, atol=1e-4 * largest, rtol=0)
    for size in (1, 3):
        parts = [backend.scores(batch[i : i + size]) for i in range(0, len(batch), size)]
        np.testing.assert_allclose(np.concatenate(parts), expected.scores, atol=LIMIT, rtol=0)


@pytest.mark.parametrize("way", WAYS)
def test_a_clip_does_not_depend_on_its_batch_mates(way: str, bundle: Bundle, real_clips: list[Path]) -> None:
    batch = batch_of(bundle, real_clips)
    backend = choose_backend(bundle, way, threads=1).backend
    alone = batch.copy()
    alone[1:] = 0
    assert backend.scores(alone)[0].tolist() == backend.scores(batch)[0].tolist()


@pytest.mark.parametrize("way", WAYS)
def test_threads_that_run_batches_of_many_sizes_at_a_time_get_their_own(
    way: str, bundle: Bundle, real_clips: list[Path]
) -> None:
    batch = batch_of(bundle, real_clips)
    backend = choose_backend(bundle, way, threads=1).backend
    expected = backend.scores(batch)
    wrong: list[int] = []

    def ask(first: int) -> None:
        for size in (2, 5, 2, 1):
            part = slice(first, first + size)
            if not np.allclose(backend.scores(batch[part]), expected[part], atol=LIMIT, rtol=0):
                wrong.append(first)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("way", WAYS)
def test_files_score_as_on_onnx_runtime_and_what_ran_is_said(
    way: str, bundle: Bundle, real_clips: list[Path]
) -> None:
    with Scorer(bundle, "cpu", workers=1) as cpu, Scorer(bundle, way, workers=1) as other:
        assert other.backend.device == way
        assert other.batch_size == backend_kind(way).batch_size
        pairs = zip(cpu.score_files(real_clips), other.score_files(real_clips), strict=True)
        assert all(are_close(*pair) for pair in pairs)
        samples, rate = soundfile.read(real_clips[0])
        expected = cpu.score_waveform(samples, rate)
        assert other.score_waveform(samples, rate) == pytest.approx(expected, abs=LIMIT)


def are_close(one: Row, other: Row) -> bool:
    return one.scores is not None and other.scores == pytest.approx(one.scores, abs=LIMIT)


def test_of_free_frames_openvino_takes_all_and_onnx_runtime_those_with_sound(
    resnet18: Bundle, real_clips: list[Path], tmp_path: Path
) -> None:
    fp32 = resnet18.variants[0]
    whole = onnx.load_from_string(resnet18.read(fp32))
    made = with_plan(whole, plan_of(whole, 16), silence=decibels_behind(resnet18.spec))
    (tmp_path / fp32.file).write_bytes(made.SerializeToString())
    plan = {"batch": 16, "vector_extension": vector_extension()}
    planned = replace(fp32, name="cpu", sha256=sha256_of(tmp_path / fp32.file), plan=plan)
    bundle = replace(resnet18, path=tmp_path, variants=(planned,))
    batch = batch_of(resnet18, real_clips)
    expected = choose_backend(resnet18, "cpu", variant="fp32").backend.scores(batch)
    assert expected.std(axis=0).max() > 0.01
    for way, skips in (("openvino", False), ("cpu", True)):
        backend = choose_backend(bundle, way, variant="cpu", threads=1).backend
        assert backend.skips_silence == skips
        if isinstance(backend, OpenvinoBackend):  # which compiles a program for each shape
            assert backend.programs._model.input(0).partial_shape[2].is_static
        for size in (len(batch), 1, 2, 3, 5, 7):  # of OpenVINO the last two share a program
            np.testing.assert_allclose(backend.scores(batch[:size]), expected[:size], atol=1e-5, rtol=0)


@pytest.mark.skipif(not has_bf16(), reason="the processor does not multiply bfloat16")
@pytest.mark.parametrize("variant", ["fp32", "cpu"])
def test_bfloat16_is_near_and_is_not_float32(
    resnet18: Bundle, real_clips: list[Path], tmp_path: Path, variant: str
) -> None:
    fp32 = resnet18.variants[0]
    whole = onnx.load_from_string(resnet18.read(fp32))
    (tmp_path / fp32.file).write_bytes(with_plan(whole, plan_of(whole, 16)).SerializeToString())
    planned = replace(fp32, name="cpu", sha256=sha256_of(tmp_path / fp32.file), plan={"batch": 16})
    bundle = resnet18 if variant == "fp32" else replace(resnet18, path=tmp_path, variants=(planned,))
    batch = batch_of(resnet18, real_clips)
    expected = choose_backend(resnet18, "cpu", variant="fp32").backend.scores(batch)
    backend = choose_backend(bundle, "openvino-bf16", variant=variant, threads=1).backend
    assert backend.device == "openvino-bf16"
    differences = np.abs(backend.scores(batch) - expected)
    assert 1e-6 < differences.max() <= LIMITS["bf16"]


def test_openvino_compiles_for_few_sizes_of_batches(bundle: Bundle, real_clips: list[Path]) -> None:
    """A server has many: those after the first ones share a program, with the same scores."""
    batch = batch_of(bundle, real_clips)
    backend = choose_backend(bundle, "openvino", threads=1).backend
    assert isinstance(backend, OpenvinoBackend)
    expected = backend.scores(batch)
    for size in (1, 2, 3, 4, 5, 6):
        np.testing.assert_allclose(backend.scores(batch[:size]), expected[:size], atol=1e-6, rtol=0)
    assert [*backend.programs._compiled] == [len(batch), 1, 2, 3, -1]


def test_openvino_lacks_the_operator_of_cpu_int8_and_says_so(bundle: Bundle) -> None:
    planned = replace(bundle.variants[0], name="cpu-int8", precision="int8", plan={"batch": 16})
    assert backend_kind("openvino").obstacle(planned) == "cpu-int8 holds operators of ONNX Runtime's own"
    assert not backend_kind("openvino").obstacle(replace(planned, name="cpu", precision="fp32"))


def test_auto_takes_neither_by_itself(bundle: Bundle) -> None:
    candidates, reasons = candidates_of_bundle(bundle)
    assert {candidate.device for candidate in candidates} == {"cpu"}
    assert not {"openvino", "mnn"} & set(reasons)
    assert choose_backend(bundle, variant="mnn").backend.device == "mnn"  # who names its file gets it


@pytest.mark.parametrize("way", WAYS)
def test_a_changed_file_is_refused(way: str, bundle: Bundle, tmp_path: Path) -> None:
    changed = replace(bundle, path=tmp_path)
    for variant in bundle.variants:
        content = bytearray(bundle.read(variant))
        content[len(content) // 2] ^= 1
        (tmp_path / variant.file).write_bytes(content)
    with pytest.raises(ModelError, match="sha256"):
        choose_backend(changed, way)


def test_a_file_that_is_no_model_is_an_error_and_not_on_stdout(
    bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.mnn").write_bytes(b"no model at all")
    variant = replace(bundle.variants[1], sha256=sha256_of(tmp_path / "model.mnn"))
    with pytest.raises(ModelError, match="expected a model that MNN loads"):
        choose_backend(replace(bundle, path=tmp_path, variants=(variant,)), "mnn")
    assert capfd.readouterr().out == ""


def test_a_bundle_that_contradicts_its_mnn_file_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """MNN's format has no metadata: its stamp in bundle.json says what the model was made for."""
    fp32, mnn = bundle.variants
    for variant in bundle.variants:
        (tmp_path / variant.file).write_bytes(bundle.read(variant))
    assert mnn.stamp is not None
    other = replace(mnn, stamp=mnn.stamp | {"labels": ["A", "B", "C", "D"]})
    write_json(tmp_path / MANIFEST, replace(bundle, variants=(fp32, other)).manifest())
    with pytest.raises(ModelError, match=r"model\.mnn .* labels"):
        load_bundle(tmp_path)


def test_a_plain_bundle_keeps_the_number_that_yesterdays_rrtn_reads(
    bundle: Bundle, embedding_bundle: Bundle
) -> None:
    assert embedding_bundle.manifest()["schema"] == 1
    assert bundle.manifest()["schema"] == 4


def test_the_gate_leaves_out_what_differs(bundle: Bundle, tmp_path: Path) -> None:
    """The gate of `rrtn export`, for a file of MNN whose model is another one."""

    class Probe:
        pass

    judged: list[Backend] = []

    def check(backend: Backend, *arguments: object, **options: object) -> object:
        judged.append(backend)
        raise ModelError("mnn", "differs")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rrtn.export.publish.check_parity", check)
        with pytest.raises(ModelError, match="differs"):
            Gate(Probe(), tmp_path).judged(bundle, bundle.variants[1])  # type: ignore[arg-type]
    assert [backend.device for backend in judged] == ["mnn"]


@pytest.mark.parametrize(("way", "package"), [("openvino", "openvino>=2026.0"), ("mnn", "mnn>=3.6")])
def test_a_missing_package_is_one_line_with_the_command(
    way: str, package: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError) as caught:
        choose_backend(bundle, way)
    assert "not installed" in str(caught.value)
    assert f'pip install "{package}"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_of_theirs_is_on_stdout(bundle: Bundle, real_clips: list[Path]) -> None:
    """MNN prints what the processor can do while it is imported."""
    code = f"""
from rrtn.runtime.backends.choice import choose_backend
from rrtn.runtime import load_bundle
import numpy as np
for way in {WAYS}:
    choose_backend(load_bundle({str(bundle.path)!r}), way).backend.run(np.zeros((1, 1, 250, 64), np.float32))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_forked_process_is_told_to_load_its_own(way: str, bundle: Bundle) -> None:
    code = f"""
import os, sys
import numpy as np
from rrtn.runtime import RrtnError, Scorer
scorer = Scorer({str(bundle.path)!r}, {way!r})
scorer.score_waveform(np.ones(16_000), 16_000)
if (child := os.fork()) == 0:
    try:
        scorer.score_waveform(np.ones(16_000), 16_000)
    except RrtnError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "this one was forked from it" in done.stdout, done.stderr


@pytest.fixture
def lanes() -> Iterator[tuple[Lanes[list[int]], list[list[int]]]]:
    made: list[list[int]] = []

    def make() -> list[int]:
        made.append([])
        return made[-1]

    yield Lanes(make, 2), made


def test_one_caller_has_one_state_and_never_are_there_more_than_allowed(
    lanes: tuple[Lanes[list[int]], list[list[int]]],
) -> None:
    states, made = lanes
    for _ in range(3):
        with states.one():
            pass
    assert len(made) == 1
    with pytest.raises(ZeroDivisionError), states.one():
        raise ZeroDivisionError
    with states.one() as one, states.one() as other:
        assert one is not other
        waiting = threading.Thread(target=lambda: states.one().__enter__().append(1))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()
    assert len(made) == 3  # the one in which something failed is not among them any more
