"""`rrtn tune`: what it measures, what it keeps, and who follows it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from onnx import numpy_helper
from rrtn.commands.inspect import bundle_json
from rrtn.runtime import Scorer, load_bundle
from rrtn.runtime import tune as tuning
from rrtn.runtime.arrays import waveform_from_samples
from rrtn.runtime.backends import openvino_kind, tuning_file
from rrtn.runtime.backends.base import Backend
from rrtn.runtime.backends.choice import candidates_of_bundle, choose_backend
from rrtn.runtime.backends.tuning_file import Tuning, newest_tuning, tuning_of, tuning_path
from rrtn.runtime.bundle import MANIFEST, Bundle
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.runtime.errors import ConfigError, ModelError
from rrtn.runtime.frontend import clip_input
from rrtn.runtime.spec import FrontendSpec
from rrtn.runtime.system.files import write_json
from rrtn.runtime.tune import LIMITS, share_allowed, tuned

pytest.importorskip("openvino", reason="openvino is not installed")

Times = dict[tuple[str, str, int, int, int], float]  # (variant, backend, batch, lanes, threads) -> s


@pytest.fixture(autouse=True)
def two_cores(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and the same ways on every machine."""
    for module in (tuning, tuning_file):
        monkeypatch.setattr(module, "usable_cpus", lambda: 2)
    return cache


@pytest.fixture
def bundle(tiny_model: Path) -> Bundle:
    """fp32, the same again as if it were int8, and a `cpu` that gives 0.5 for everything."""
    fp32 = load_bundle(tiny_model).variants[0]
    proto = onnx.load(tiny_model)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((64, 3), np.float32), "weights"))
    contents = {
        "int8": proto_with(tiny_model, producer="int8"),
        "cpu": sealed(proto.SerializeToString()),
    }
    variants = [fp32]
    for name, content in contents.items():
        (tiny_model.parent / f"{name}.onnx").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        one = replace(fp32, name=name, file=f"{name}.onnx", sha256=digest, size=len(content))
        variants.append(replace(one, precision="int8") if name == "int8" else one)
    made = replace(load_bundle(tiny_model), variants=tuple(variants))
    write_json(tiny_model.parent / MANIFEST, made.manifest())
    return made


def proto_with(model: Path, *, producer: str) -> bytes:
    """The same model in another file."""
    proto = onnx.load(model)
    proto.producer_name = producer
    content: bytes = sealed(proto.SerializeToString())
    return content


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Every batch takes 1 s, but for the ways that are given; -> the ways as they are measured."""

    def make(times: Times | None = None, *, noisy_round: int = -1, noise: float = 1.4) -> list[str]:
        measured: list[str] = []
        seen: dict[Any, int] = {}

        def timed(
            backend: Backend, spec: FrontendSpec, batch: int, lanes: int, effort: object
        ) -> list[float]:
            threads = threads_of[-1]
            key = (backend.variant.name, backend.device, batch, lanes, threads)
            seen[key] = seen.get(key, 0) + 1
            measured.append(f"{key}")
            factor = noise if seen[key] - 1 == noisy_round and key in (times or {}) else 1.0
            return [(times or {}).get(key, 1.0) * factor] * 2

        threads_of: list[int] = []
        real = tuning._measure

        def noting(bundle: Bundle, group: Any, *arguments: Any) -> str:
            threads_of.append(group[0].plan.threads)
            return real(bundle, group, *arguments)

        monkeypatch.setattr(tuning, "timed_runs", timed)
        monkeypatch.setattr(tuning, "_measure", noting)
        return measured

    return make


@pytest.fixture(scope="module")
def kept_text() -> list[str]:
    """What `tuned` has kept, once it has."""
    return []


@pytest.fixture
def tuned_before(bundle: Bundle, pretend: Callable[..., list[str]], kept_text: list[str]) -> Tuning:
    """The bundle is tuned; its FASTEST ways are the best. That is measured once for all tests."""
    pretend(FASTEST)
    path = tuning_path(bundle)
    if kept_text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(kept_text[0])
        edited(bundle, {"bundle": str(bundle.path)})
    else:
        tuned(bundle)
        kept_text.append(path.read_text())
    made = tuning_of(bundle).tuning
    assert made
    return made


FASTEST: Times = {("fp32", "openvino", 4, 1, 1): 0.01, ("fp32", "cpu", 1, 1, 2): 0.02}


def test_it_measures_for_real_and_takes_the_best(bundle: Bundle) -> None:
    found = tuned(bundle, seconds=0.001)
    folders = [way for way in found.measured if way["use"] == "folders"]
    clips = [way for way in found.measured if way["use"] == "clips"]
    assert found.folders.clips_per_second == max(way["clips_per_second"] for way in folders)
    assert found.clips.milliseconds == min(way["milliseconds"] for way in clips)
    assert {way["backend"] for way in found.measured} == {"cpu", "openvino"}
    assert {way["variant"] for way in found.measured} == {
        "fp32"
    }  # `cpu` gives other scores, int8 was not allowed
    assert all(way["spread"] >= 0 and 1 <= way["rounds"] <= 3 for way in found.measured)
    assert {way["batch_size"] for way in folders} == {4, 8, 16}
    assert {way["lanes"] for way in folders} == {1, 2}


def test_what_gives_other_scores_is_not_taken(bundle: Bundle, pretend: Callable[..., list[str]]) -> None:
    pretend({("cpu", "cpu", 16, 2, 1): 1e-6})
    found = tuned(bundle)
    assert "scores differ from fp32 by " in found.not_taken["cpu on cpu"]
    assert found.folders.variant == "fp32"


def test_the_variant_cpu_is_taken_on_openvino_where_it_is_the_fastest(
    bundle: Bundle, pretend: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And in bfloat16 where that is allowed and the scores pass the gate."""
    monkeypatch.setattr(openvino_kind, "has_bf16", lambda: True)
    same = replace(bundle.variants[0], name="cpu", plan={"batch": 16})
    bundle = replace(bundle, variants=(bundle.variants[0], same))
    pretend({("cpu", "openvino", 16, 2, 1): 1e-6, ("cpu", "openvino-bf16", 16, 2, 1): 1e-7})
    found = tuned(bundle)
    assert (found.folders.variant, found.folders.backend) == ("cpu", "openvino")
    assert found.not_taken["cpu on openvino-bf16"] == "bf16: needs --allow bf16"
    allowed = tuned(bundle, allow=["bf16"])
    assert (allowed.folders.variant, allowed.folders.backend) == ("cpu", "openvino-bf16")


@pytest.mark.parametrize(("backend", "variant"), [("openvino", "cpu"), ("openvino-bf16", "fp32")])
def test_without_a_tuning_openvino_takes_the_variant_cpu_in_float32_alone(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, backend: str, variant: str
) -> None:
    monkeypatch.setattr(openvino_kind, "has_bf16", lambda: True)
    planned = replace(bundle.variants[0], name="cpu", plan={"batch": 16})
    bundle = replace(bundle, variants=(bundle.variants[0], planned))
    assert choose_backend(bundle, backend).backend.variant.name == variant


@pytest.mark.parametrize(("at_export", "is_taken"), [(None, False), (0.02, False), (0.6, True)])
def test_int8_may_differ_as_its_export_did_and_half_as_much_again(
    bundle: Bundle, pretend: Callable[..., list[str]], at_export: float | None, is_taken: bool
) -> None:
    """Scores of 0.5 for everything, as if that were what int8 made of the model."""
    pretend()
    wrong = bundle.variant("cpu")
    assert wrong
    parity = {"max_abs": at_export, "limit": None} if at_export else None
    int8 = replace(wrong, precision="int8", parity=parity)
    both = replace(bundle, variants=(bundle.variants[0], int8))
    refused = tuned(both, allow=["int8"]).not_taken
    assert ("cpu on cpu" not in refused) == is_taken, refused


def test_int8_of_several_scales_may_differ_as_the_label_that_its_export_names() -> None:
    widths = {"Awe": 1.0, "Age": 100.0}
    assert share_allowed("int8", {"max_abs": 0.2, "of": "Awe"}, widths) == pytest.approx(0.3)
    assert share_allowed("int8", {"max_abs": 20.0, "of": "Age"}, widths) == pytest.approx(0.3)
    assert share_allowed("int8", {"max_abs": 0.2, "of": None}, {"Awe": 2.0, "Joy": 2.0}) == pytest.approx(
        0.15
    )
    assert share_allowed("fp32", {"max_abs": 0.2, "of": "Awe"}, widths) == LIMITS["fp32"]


def test_lower_precision_only_where_it_is_allowed(bundle: Bundle, pretend: Callable[..., list[str]]) -> None:
    fast: Times = {("int8", "cpu", 8, 2, 1): 1e-3}
    pretend(fast)
    refused = tuned(bundle)
    assert refused.folders.variant == "fp32"
    assert refused.not_taken["int8 on cpu"] == "int8: needs --allow int8"
    allowed = tuned(bundle, allow=["int8"])
    assert (allowed.folders.variant, allowed.folders.batch_size) == ("int8", 8)
    assert allowed.allowed == ("fp32", "int8")
    with pytest.raises(ConfigError, match=r"--allow \| fp8 \| expected some of fp16, bf16, int8"):
        tuned(bundle, allow=["fp8"])


@pytest.mark.parametrize("has_it", [True, False])
def test_bfloat16_only_where_it_is_allowed_and_the_processor_has_it(
    bundle: Bundle,
    pretend: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    real_clips: list[Path],
    has_it: bool,
) -> None:
    """Without it, OpenVINO computes in float32 all the same, which is slow to emulate and no other result."""
    monkeypatch.setattr(openvino_kind, "has_bf16", lambda: has_it)
    pretend({("fp32", "openvino-bf16", 4, 2, 1): 1e-3})
    refused = tuned(bundle)
    assert refused.folders.backend != "openvino-bf16"
    if not has_it:
        assert "AVX-512 BF16" in candidates_of_bundle(bundle, "openvino-bf16")[1]["openvino-bf16"]
        assert tuned(bundle, allow=["bf16"]).folders.backend != "openvino-bf16"
        return
    assert refused.not_taken["fp32 on openvino-bf16"] == "bf16: needs --allow bf16"
    allowed = tuned(bundle, allow=["bf16"])
    assert (allowed.folders.variant, allowed.folders.backend) == ("fp32", "openvino-bf16")
    with Scorer(bundle) as scorer:
        assert (scorer.backend.device, scorer.batch_size) == ("openvino-bf16", 4)
        assert all(row.scores for row in scorer.score_files(real_clips))


@pytest.mark.parametrize("noisy_round", [0, 1, 2])
def test_a_noisy_moment_does_not_decide(
    bundle: Bundle, pretend: Callable[..., list[str]], noisy_round: int
) -> None:
    pretend({("fp32", "cpu", 16, 2, 1): 0.9}, noisy_round=noisy_round)
    found = tuned(bundle)
    assert (found.folders.backend, found.folders.batch_size, found.folders.lanes) == ("cpu", 16, 2)
    assert found.folders.spread == pytest.approx(0.4)


def test_the_usual_ways_come_first_and_what_is_far_is_left_out(
    bundle: Bundle, pretend: Callable[..., list[str]]
) -> None:
    measured = pretend({("fp32", "openvino", 16, 2, 1): 0.1, ("fp32", "openvino", 8, 2, 1): 0.04})
    found = tuned(bundle)
    usual, others = measured[:4], measured[4:]
    assert sorted(usual) == sorted(
        f"('fp32', '{backend}', {batch}, {lanes}, 1)"
        for backend in ("cpu", "openvino")
        for batch, lanes in ((16, 2), (1, 1))
    )
    assert not [way for way in others if "'cpu', 16" in way or "'cpu', 8" in way or "'cpu', 4" in way]
    assert measured.count("('fp32', 'openvino', 16, 2, 1)") == 3
    assert measured.count("('fp32', 'openvino', 8, 2, 1)") == 3
    assert measured.count("('fp32', 'openvino', 16, 1, 1)") == 1
    assert (found.folders.backend, found.folders.batch_size) == ("openvino", 8)
    assert {way["rounds"] for way in found.measured} == {1, 3}


def test_auto_follows_it_and_what_is_named_does_not(
    bundle: Bundle, pretend: Callable[..., list[str]], real_clips: list[Path]
) -> None:
    before = Scorer(bundle)
    pretend(FASTEST)
    made = tuned(bundle)
    with Scorer(bundle, workers=1) as scorer:
        assert (scorer.backend.device, scorer.batch_size, scorer.lanes) == ("openvino", 4, 1)
        assert scorer.remark == f"the fastest of the tuning of {made.made[:10]}"
        samples, rate = soundfile.read(real_clips[0])
        fp32 = Scorer(bundle, "cpu", variant="fp32").score_waveform(samples, rate)
        assert scorer.score_waveform(samples, rate) == fp32
        assert scorer.model.backend_for_clips().device == "cpu"
        (row,) = scorer.score_files(real_clips[:1])
        assert row.scores == pytest.approx(fp32, abs=1e-4)
    single = Scorer(bundle, batch_size=1)
    assert (single.backend.device, single.model.threads) == ("cpu", 2)
    assert Scorer(bundle, batch_size=7).batch_size == 7
    for options in ({"backend": "cpu"}, {"variant": "fp32"}, {"lanes": 2}):
        named = Scorer(bundle, **options)  # type: ignore[arg-type]
        assert (named.backend.device, named.batch_size) == ("cpu", 16)
    assert before.backend.variant.name == "cpu"  # the rule without a tuning


def edited(bundle: Bundle, changes: dict[str, Any]) -> None:
    path = tuning_path(bundle)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"versions": {"onnxruntime-gpu": "1.0"}}, "was 1.0, is "),
        ({"machine": {"cpu": "another"}}, "cpu was another, is "),
        ({"files": {"fp32": "0" * 64}}, "the bundle has other files now"),
        ({"schema": 99}, "schema"),
        ({"folders": {"variant": "fp32"}}, "missing required field"),
        ({"made": None}, "made"),
    ],
)
def test_a_file_of_other_versions_machines_or_bundles_is_ignored_with_a_remark(
    bundle: Bundle, tuned_before: Tuning, changes: dict[str, Any], remark: str
) -> None:
    edited(bundle, changes)
    found = tuning_of(bundle)
    assert found.tuning is None
    assert remark in found.remark
    scorer = Scorer(bundle)
    assert scorer.backend.device == "cpu"
    assert scorer.remark.startswith("the tuning is ignored: ")
    assert scorer.remark.endswith("run: rrtn tune")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\x00", b'{"schema": 1}'])
def test_a_broken_file_is_ignored_with_a_remark(bundle: Bundle, tuned_before: Tuning, content: bytes) -> None:
    tuning_path(bundle).write_bytes(content)
    assert tuning_of(bundle).tuning is None
    assert "ignored" in Scorer(bundle).remark
    assert newest_tuning() is None


@pytest.mark.parametrize(
    "way", [{"variant": "gone"}, {"backend": "warp"}, {"batch_size": 0}, {"threads": 10**6}, {"lanes": -1}]
)
def test_a_way_that_cannot_be_gone_is_ignored_with_a_remark(
    bundle: Bundle, tuned_before: Tuning, way: dict[str, Any]
) -> None:
    edited(bundle, {"folders": tuned_before.folders.to_dict() | way})
    scorer = Scorer(bundle)
    assert (scorer.backend.device, scorer.batch_size) == ("cpu", 16)
    assert "the tuning" in scorer.remark
    auto = bundle_json(bundle)["auto"]
    assert (auto["backend"], auto["variant"], auto["refused"]) == ("cpu", scorer.backend.variant.name, "")
    assert "the tuning" in auto["tune"]


def test_other_cores_and_other_files_have_another_tuning_and_a_remark(
    bundle: Bundle, tuned_before: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(bundle, variants=bundle.variants[:2])
    ignored = "the tuning is ignored: {}; run: rrtn tune"
    assert tuning_of(other) == (None, ignored.format("the bundle has other files now"))
    assert tuning_of(replace(other, path=bundle.path.parent)) == (None, "")
    monkeypatch.setattr(tuning_file, "usable_cpus", lambda: 5)
    assert tuning_of(bundle) == (None, ignored.format("cores was 2, is 5"))


def test_another_gpu_or_driver_has_another_tuning_and_a_remark(
    bundle: Bundle, tuned_before: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = "the tuning is ignored: {}; run: rrtn tune"
    monkeypatch.setattr(tuning_file, "driver_version", lambda: None)  # WSL2
    monkeypatch.setattr(tuning_file, "gpu_names", lambda: ["NVIDIA H100", "NVIDIA L4"])
    assert tuning_of(bundle) == (None, ignored.format("gpus was not there, is NVIDIA H100, NVIDIA L4"))
    monkeypatch.setattr(tuning_file, "gpu_names", list)
    monkeypatch.setattr(tuning_file, "driver_cuda", lambda: "13.0")
    assert tuning_of(bundle) == (None, ignored.format("driver was not there, is of CUDA 13.0"))


def test_a_backend_that_is_gone_is_said_and_the_rule_of_today_is_followed(
    bundle: Bundle, tuned_before: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    scorer = Scorer(bundle)
    assert scorer.backend.device == "cpu"
    assert scorer.remark.startswith("not the fastest of the tuning, fp32 on openvino: ")


def test_it_is_in_the_cache_and_never_in_the_bundle(
    bundle: Bundle, pretend: Callable[..., list[str]], cache: Path
) -> None:
    before = sorted(path.name for path in bundle.path.iterdir())
    pretend(FASTEST)
    found: Tuning = tuned(bundle)
    assert sorted(path.name for path in bundle.path.iterdir() if path != cache) == before
    assert [path.parent for path in cache.rglob("*.json")] == [cache / "tuning"]
    assert tuning_of(bundle).tuning == found
    newest = newest_tuning()
    assert newest is not None
    assert newest.summary == found.summary


def test_nothing_that_runs_is_an_error(bundle: Bundle, pretend: Callable[..., list[str]]) -> None:
    pretend()
    with pytest.raises(ModelError, match="sha256"):
        tuned(replace(bundle, variants=(replace(bundle.variants[0], sha256="0" * 64),)))


def test_a_graph_of_samples_is_judged_on_what_decoders_hand_on(bundle: Bundle) -> None:
    """16-bit samples, which a backend that takes them for shares of 1 gets wrong."""
    gate = tuning._Gate(bundle)
    samples = gate._clips("waveform")
    assert samples.dtype == np.int16
    log_mel = clip_input(waveform_from_samples(np.asarray(samples, np.int16)[3]), bundle.spec, "logmel")
    np.testing.assert_array_equal(gate._clips("logmel")[3], log_mel)


def test_nothing_to_measure_is_an_error(bundle: Bundle) -> None:
    """As of the graph for other runtimes, given alone."""
    (alone,) = (replace(one, input="samples") for one in bundle.variants if one.name == "fp32")
    with pytest.raises(ModelError, match="takes whole recordings"):
        tuned(replace(bundle, variants=(alone,)))


def test_a_cache_that_takes_no_file_is_refused_before_anything_is_measured(
    bundle: Bundle, pretend: Callable[..., list[str]], cache: Path
) -> None:
    measured = pretend(FASTEST)
    shutil.rmtree(cache, ignore_errors=True)
    cache.write_text("a file in its place")
    try:
        with pytest.raises(ConfigError, match="expected no file where a folder must be"):
            tuned(bundle)
    finally:
        cache.unlink()
    assert not measured


def test_doctor_names_no_tuning_that_score_would_ignore(bundle: Bundle, tuned_before: Tuning) -> None:
    assert newest_tuning() is not None
    edited(bundle, {"versions": {"onnxruntime": "0.1"}})
    assert newest_tuning() is None


def rrtn(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rrtn", *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("begun_with", ["today's rule", "tune"])
def test_a_half_scored_table_keeps_what_it_began_with(
    begun_with: str, bundle: Bundle, tmp_path: Path, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its first shard; then `rrtn tune` comes, or its file goes; then it is finished."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the tuning's number of cores on every machine
    monkeypatch.setattr(tuning_file, "usable_cpus", lambda: 1)
    audio, out = tmp_path / "audio", tmp_path / "t.csv"
    audio.mkdir()
    shutil.copy(real_clips[0], audio)
    fast = tuning.Way(
        variant="fp32",
        backend="openvino",
        batch_size=4,
        lanes=1,
        threads=1,
        milliseconds=1.0,
        clips_per_second=1.0,
        spread=0.0,
    )
    found = Tuning(
        bundle="", made="2026-01-01", allowed=("fp32",), folders=fast, clips=fast, measured=(), not_taken={}
    )
    kept = tuning_path(bundle)
    if begun_with == "tune":
        tuning_file.keep_tuning(bundle, found)
    command = ("score", audio, "-m", bundle.path, "--out", out, "--json")
    assert rrtn(*command, RRTN_FAILPOINT="shard.done:sigkill").returncode == -9
    job = tmp_path / ".t.csv.rrtn/job.json"
    before = json.loads(job.read_text())
    expected = ("openvino", 4) if begun_with == "tune" else ("cpu", 16)
    assert (before["backend"], before["batch_size"]) == expected
    kept.unlink() if begun_with == "tune" else tuning_file.keep_tuning(bundle, found)
    shutil.copy(real_clips[1], audio)
    done = rrtn(*command)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["backend"], summary["files"]) == (expected[0], 2)
    assert {name: value for name, value in json.loads(job.read_text()).items() if name != "tables"} == before


def test_the_command_says_what_it_found_and_auto_takes_it(bundle: Bundle) -> None:
    done = rrtn("tune", bundle.path, "--seconds", "0.001", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    inspected = json.loads(rrtn("inspect", bundle.path, "--json").stdout)
    assert inspected["auto"]["backend"] == document["folders"]["backend"]
    assert "the tuning of" in inspected["auto"]["tune"]
    shown = rrtn("tune", bundle.path, "--seconds", "0.001")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("taken") == 2
    assert "not measured: cpu on cpu: scores differ from fp32" in shown.stderr
    assert "--backend auto now takes " in shown.stderr
