"""What an export reads, and what a bundle holds where short recordings are padded with 0 dB."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
import typer
from rrtn.commands.export import _end_export, parity
from rrtn.export import publish as publishing
from rrtn.export import samples_graph, source
from rrtn.export.audeering import MODEL_YAML
from rrtn.export.bundle_parity import _devices, parity_of_bundle
from rrtn.export.publish import Published, publish
from rrtn.export.wanted import Wanted
from rrtn.export.winograd import int8_variant
from rrtn.export.winograd.bilinear import toom_cook
from rrtn.export.winograd.rewriting import convolutions_of
from rrtn.runtime import FrontendSpec, Scorer, load_bundle
from rrtn.runtime.arrays import Float32
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.backends import openvino_kind
from rrtn.runtime.backends.registry import BACKENDS
from rrtn.runtime.bundle import MANIFEST, Bundle
from rrtn.runtime.errors import DataError, ModelError, UnavailableError
from rrtn.runtime.frontend import clip_of
from rrtn.runtime.system.files import sha256_of
from rrtn.train.checkpoint import POINTER, CheckpointInfo, load_checkpoint, save_checkpoint
from rrtn.train.config import config_from_dict
from rrtn.train.evidence import best_checkpoint
from rrtn.train.evidence.best_checkpoint import network_from_weights
from rrtn.train.method import model
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.model import TwinsNetwork
from rrtn.train.plan import network_from_config

FRAMES = 125  # 1.25 s
SPEC = FrontendSpec(frames=FRAMES, pad="zero_db")
PLAIN = Wanted(waveform=False, cpu_variant=False)
TUNED = Wanted(int8=True, trt=True, require=("cpu", "cpu-int8"))


@pytest.fixture(scope="module", autouse=True)
def _small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    def small(name: str, *, n_mels: int) -> PannsCnn:
        return PannsCnn(n_mels, channels=(4, 64), pooled_blocks=2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "encoder_from_name", small)
        patch.setenv("RRTN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def data(make_data: Callable[[], Path]) -> Path:
    return with_lengths(make_data())


def with_lengths(folder: Path) -> Path:
    """Validation clips 8 to 11 are of 0.1, 0.6, 1.1 and 4 seconds."""
    rng = np.random.default_rng(0)
    for number, seconds in zip((8, 9, 10, 11), (0.1, 0.6, 1.1, 4.0), strict=True):
        soundfile.write(
            folder / f"wav/{number:05d}.wav", rng.uniform(-0.5, 0.5, int(16_000 * seconds)), 16_000
        )
    return folder


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    """A run whose short recordings are padded with 0 dB."""
    return untrained_run(data, tmp_path / "run", SPEC)


@dataclass(frozen=True)
class Exported:
    """A run, to be left as it is, and what an export of it has made, likewise."""

    run: Path
    data: Path
    published: Published

    @property
    def bundle(self) -> Bundle:
        return self.published.bundle

    def run_copied(self, to: Path) -> Path:
        """With what was exported into it."""
        return shutil.copytree(self.run, to)

    def bundle_copied(self, to: Path) -> Bundle:
        return load_bundle(shutil.copytree(self.bundle.path, to))


@pytest.fixture(scope="module")
def plain(
    _small_encoder: None, make_data_at: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Its bundle is of `fp32` alone. The run has moved after the export, which was to elsewhere."""
    folder = tmp_path_factory.mktemp("plain")
    data, run = data_and_run(folder, make_data_at)
    published = publish(run, out=folder / "elsewhere/bundle", wanted=PLAIN)
    return Exported(run.rename(folder / "moved"), data, published)


@pytest.fixture(scope="module")
def tuned(
    _small_encoder: None, make_data_at: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Its bundle, in its run, is of all but what takes waveforms."""
    data, run = data_and_run(tmp_path_factory.mktemp("tuned"), make_data_at)
    return Exported(run, data, publish(run, wanted=TUNED))


def data_and_run(folder: Path, make_data_at: Callable[[Path], Path]) -> tuple[Path, Path]:
    """As `data` and `run` are, in a folder that tests share."""
    data = with_lengths(make_data_at(folder / "data"))
    return data, untrained_run(data, folder / "run", SPEC)


def untrained_run(data: Path, folder: Path, spec: FrontendSpec, crop: str = "clip") -> Path:
    """A run with a checkpoint, and nothing trained."""
    document = {
        "data": {"dir": str(data), "targets": ["Awe", "Fear"]},
        "frontend": {"frames": spec.frames, "pad": spec.pad},
    }
    document["eval"] = {"crop": crop}
    config = config_from_dict(document, source="test")
    network = network_from_config(config)
    record = {"epoch": 1, "step": 1, "val_ccc": 0.1, "val_ccc_per_target": {"Awe": 0.1, "Fear": 0.1}}
    info = CheckpointInfo(
        epoch=1,
        step=1,
        history=[record],
        labels=["Awe", "Fear"],
        config=config.to_dict(),
        data_sha256="",
        versions={},
    )
    with torch.no_grad():
        network.head.weight.mul_(20)
        network.encoder.bn0.running_mean.fill_(-30)
        network.encoder.bn0.running_var.fill_(400)
    save_checkpoint(
        folder / "checkpoints/best",
        info,
        {"weights": {**network.state_dict(), "ruwl.c": torch.ones(3)}},
    )
    return folder


def scores(network: TwinsNetwork, spec: FrontendSpec, files: list[Path]) -> Float32:
    """[n, K], as training sees them."""
    waveforms = [read_audio(path, spec).waveform for path in files]
    clips = torch.from_numpy(np.array([clip_of(waveform, spec) for waveform in waveforms]))
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    with torch.no_grad():
        return network.eval()(LogMel(spec)(clips, lengths)).scores.numpy()


def test_an_export_reads_the_table_once_and_decodes_each_split_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe, and two int8 variants that share their calibration clips."""
    asked: list[str] = []

    def spied(name: str) -> None:
        real = getattr(source, name)

        def spy(*arguments: object, **options: object) -> object:
            asked.append(str(options.get("label", name)))
            return real(*arguments, **options)

        monkeypatch.setattr(source, name, spy)

    spied("data_from_config")
    spied("clip_store")
    run = untrained_run(data, tmp_path / "run", FrontendSpec(frames=FRAMES))
    published = publish(run, wanted=Wanted(int8=True, require=("waveform-int8-trt",), cpu_variant=False))
    assert [variant.name for variant in published.bundle.variants if variant.precision == "int8"] == [
        "int8",
        "waveform-int8",
        "waveform-int8-trt",
    ]
    assert asked == ["data_from_config", "decode Val clips", "decode Train clips"]


def test_a_model_of_a_run_that_was_judged_on_whole_recordings_says_what_it_hears(
    data: Path, plain: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "note: eval.crop is full: the run was judged on whole recordings, of which this model hears the"
    full = publish(untrained_run(data, tmp_path / "full", SPEC, "full"), wanted=PLAIN)
    for published in (plain.published, full):
        _end_export(published, None, None, [], as_json=False)
        said = " ".join(capsys.readouterr().err.split())
        assert (note in said) == bool(published.notes) == (published is full)


@pytest.mark.parametrize("labelled", [0, 2, 3, 4])
def test_the_gate_compares_clips_with_a_label_first(
    make_data: Callable[..., Path],
    csv_lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    labelled: int,
) -> None:
    """A choice at equal distances meets none of a few rated clips, and their CCC is NaN."""
    monkeypatch.setattr(source, "_PROBE_CLIPS", 3)
    run = untrained_run(make_data(csv_lines), tmp_path / "run", FrontendSpec(frames=FRAMES))
    known = source.source_of_run(run)
    val = known.data.splits["Val"]
    rated = np.array(val.rated)
    rated[: len(rated) - labelled] = np.nan
    known.data.splits["Val"] = replace(val, rated=rated)
    probe = source.probe_of_source(known)
    found = (~np.isnan(probe.ratings).all(axis=1)).sum()
    assert (len(probe.ratings), found) == (max(3, labelled), labelled)


def test_the_gate_compares_a_target_that_few_have_rated(
    make_data: Callable[..., Path], csv_lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_PROBE_CLIPS", 2)
    monkeypatch.setattr(source, "_FEWEST_OF_A_COLUMN", 2)
    run = untrained_run(make_data(csv_lines), tmp_path / "run", FrontendSpec(frames=FRAMES))
    known = source.source_of_run(run)
    val = known.data.splits["Val"]
    rated = np.array(val.rated)
    rated[[0, 3], 1] = np.nan  # those that are spread evenly
    known.data.splits["Val"] = replace(val, rated=rated)
    probe = source.probe_of_source(known)
    assert (~np.isnan(probe.ratings)).sum(axis=0).tolist() == [4, 2]
    known.data.splits["Val"] = val
    assert len(source.probe_of_source(known).ratings) == 2


def test_a_bundle_without_its_run_cannot_be_compared(plain: Exported) -> None:
    bundle = plain.bundle
    run = plain.run.with_name("run")
    with pytest.raises(ModelError, match=f"its run, {run}, is not here .* name it with --run RUN"):
        parity_of_bundle(bundle)
    assert not any(result.failed for result in parity_of_bundle(bundle, run=plain.run))
    with pytest.raises(ModelError, match="it does not say of which run it is"):
        parity_of_bundle(load_bundle(bundle.path / "model.onnx"))
    with pytest.raises(ModelError, match="a file alone, which does not say its checkpoint"):
        parity_of_bundle(load_bundle(bundle.path / "model.onnx"), run=plain.run)


def test_a_file_that_was_changed_or_is_gone_fails_parity(
    plain: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, bundle = plain.run, plain.bundle_copied(tmp_path / "bundle")
    parity(bundle.path, run=run)
    model = bundle.path / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(ModelError, match=r"fp32: sha256 ") as raised:
        parity(bundle.path, run=run)
    assert raised.value.exit_code == 5
    model.unlink()
    with pytest.raises(ModelError, match=r"fp32: No such file"):
        parity(bundle.path, run=run)
    capsys.readouterr()
    with pytest.raises(typer.Exit) as ended:
        parity(bundle.path, run=run, as_json=True)
    assert ended.value.exit_code == 5
    assert json.loads(capsys.readouterr().out)["error"]["subject"] == "parity"


def test_a_bundle_of_which_nothing_runs_here_was_not_compared(
    plain: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise UnavailableError("cuda", "no NVIDIA driver")

    monkeypatch.setattr("rrtn.export.bundle_parity.backend_from_variant", unavailable)
    with pytest.raises(ModelError, match=r"nothing was compared: fp32: no NVIDIA driver"):
        parity(plain.bundle.path, run=plain.run)


def test_data_that_is_gone_is_named_with_what_it_is_for(data: Path, run: Path) -> None:
    (data / "data_info.csv").unlink()
    with pytest.raises(DataError, match="an export needs the run's clips") as raised:
        publish(run)
    assert raised.value.subject == str(data)
    assert not (run / "export").exists()


def test_graphs_that_take_waveforms_are_skipped_with_the_reason_and_scores_are_trainings(
    tuned: Exported,
) -> None:
    run, data, published = tuned.run, tuned.data, tuned.published
    assert [variant.name for variant in published.bundle.variants] == ["fp32", "cpu", "int8", "cpu-int8"]
    made = {"model.onnx", "model.cpu.onnx", "model.int8.onnx", "model.cpu.int8.onnx"}
    assert {path.name for path in (run / "export").iterdir()} == {"bundle.json", "model.yaml", *made}
    of_int8 = {"waveform-int8", "trt-int8", "waveform-int8-trt"}
    assert published.skipped.keys() == {"waveform", "trt", *of_int8}
    assert all("zero_db" in reason for reason in published.skipped.values())
    for path in (run / "export", run / "export/model.onnx"):
        assert load_bundle(path).spec == SPEC

    files = [data / f"wav/{number:05d}.wav" for number in range(8, 12)]
    came = np.array([list(row.scores.values()) for row in Scorer(run / "export", "cpu").score_files(files)])
    info, tensors = load_checkpoint(run / "checkpoints/best", "weights")
    network = network_from_weights(config_from_dict(info.config, source="test"), tensors["weights"])
    trainings = scores(network, SPEC, files)
    np.testing.assert_allclose(came, trainings, atol=1e-4, rtol=0)
    exported = source.source_of_run(run)
    probe = source.probe_of_source(exported)  # the gate hears what scoring hears
    np.testing.assert_allclose(probe.reference[:4], trainings, atol=1e-6, rtol=0)
    lengths = [len(read_audio(path, SPEC).waveform) for path in files]
    assert [len(sound) for sound in probe.sounds[:4]] == np.minimum(lengths, SPEC.clip_samples).tolist()
    assert {len(sound) for sound in exported.training_sounds} < set(range(SPEC.clip_samples))
    silence = scores(network, replace(SPEC, pad="silence"), files)
    assert (np.abs(came - silence).max(axis=1) > 0.01).tolist() == [
        True,
        True,
        True,
        False,
    ]  # the last is longer


def test_an_export_again_gives_the_same_files(tuned: Exported, tmp_path: Path) -> None:
    """Or no table that was begun with the bundle, and no tuning of it, could go on."""
    run = tuned.run_copied(tmp_path / "run")
    again = publish(run, wanted=TUNED).bundle
    first, second = ({v.name: v.sha256 for v in bundle.variants} for bundle in (tuned.bundle, again))
    assert first.keys() == {"fp32", "cpu", "int8", "cpu-int8"}
    assert first == second
    assert (again.path / MODEL_YAML).read_text() == (tuned.bundle.path / MODEL_YAML).read_text()


def test_of_a_checkpoint_that_is_replaced_meanwhile_the_new_one_is_exported(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training goes on beside the export."""
    best, replaced = run / "checkpoints/best", []

    def best_of_run(run: Path) -> Any:
        found = best_checkpoint.best_of_run(run)
        if not replaced:
            info, tensors = load_checkpoint(best, "weights")
            record = {**info.history[0], "epoch": 2, "step": 2}
            replaced.append(replace(info, epoch=2, step=2, history=[*info.history, record]))
            save_checkpoint(best, replaced[0], tensors)
        return found

    monkeypatch.setattr(source, "best_of_run", best_of_run)
    found = source.source_of_run(run)
    assert (found.info, found.digest) == (replaced[0], sha256_of(best / POINTER))


def test_int8_products_pass_the_gate_and_the_bundle_s_door(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are an operator that is not standard."""
    run = untrained_run(data, tmp_path / "run", FrontendSpec(frames=FRAMES))
    last = lambda network, *_: {convolutions_of(network)[-1].name: (toom_cook(2), toom_cook(4))}  # noqa: E731
    monkeypatch.setattr(int8_variant, "plan_of", last)
    wanted = Wanted(int8=True, require=("cpu-int8",), waveform=False, cpu_variant=False)
    assert [variant.name for variant in publish(run, wanted=wanted).bundle.variants][-2:] == [
        "int8",
        "cpu-int8",
    ]

    bundle = load_bundle(run / "export")
    variant = bundle.variant("cpu-int8")
    assert variant and variant.parity and variant.plan
    assert list(variant.plan["convolutions"].values()) == ["2 x 4"]
    files = [data / f"wav/{number:05d}.wav" for number in range(8, 12)]
    alone = Scorer(run / "export" / variant.file, "cpu")  # one file, which says its name itself
    named = Scorer(run / "export", "cpu", variant="cpu-int8")
    for row, other in zip(named.score_files(files), alone.score_files(files), strict=True):
        assert row.scores and row.scores == other.scores
    assert alone.backend.variant.name == "cpu-int8"


def test_graphs_that_take_samples_are_made_for_those_who_ask_and_pad_in_decibels(
    run: Path, data: Path, plain: Exported
) -> None:
    """A bundle without them has the schema of before, which rrtn of before reads."""
    assert plain.bundle.manifest()["schema"] == 1
    bundle = publish(run, wanted=Wanted(samples=True, int8=True, cpu_variant=False)).bundle
    assert [variant.name for variant in bundle.variants] == ["fp32", "int8", "samples", "samples-int8"]
    assert json.loads((run / "export/bundle.json").read_text())["schema"] == 3
    samples = load_bundle(run / "export").variant("samples")
    assert samples and samples.passed_gate
    assert samples.parity and samples.parity["batches"] == [1]

    session = onnxruntime.InferenceSession(run / "export/model.samples.onnx")
    files = [data / f"wav/{number:05d}.wav" for number in range(8, 12)]
    for row in Scorer(run / "export", "cpu").score_files(files):
        recording, _ = soundfile.read(row.file, dtype="float32")
        came = session.run(["scores"], {"samples": recording[None]})[0]
        assert row.scores
        np.testing.assert_allclose(came, [list(row.scores.values())], atol=1e-5, rtol=0)


def test_a_samples_graph_that_does_not_set_the_level_does_not_pass_the_gate(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples_graph, "_gain", lambda *_: np.float32(32_768))
    published = publish(run, wanted=Wanted(samples=True, cpu_variant=False))
    assert [variant.name for variant in published.bundle.variants] == ["fp32"]
    assert "differ from PyTorch's" in published.failed["samples"]


@pytest.mark.parametrize("variant", ["waveform", "trt"])
def test_where_they_are_required_nothing_is_published(
    variant: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said before a clip is decoded, and before a graph is made."""
    monkeypatch.delattr(publishing, "probe_of_source")
    with pytest.raises(
        ModelError,
        match=rf"--require {variant} \| {variant}: frontend.pad is zero_db.* nothing was published",
    ):
        publish(run, wanted=Wanted(require=(variant,)))
    assert not (run / "export").exists()


def test_another_models_yaml_is_left_alone(plain: Exported, run: Path) -> None:
    export = plain.bundle_copied(run / "export").path
    (export / MODEL_YAML).write_text("$audonnx.core.model.Model:\n  path: mine.onnx\n")
    before = (export / MANIFEST).read_bytes()
    with pytest.raises(ModelError, match=r"model.yaml \| not written by rrtn \| .*move it away"):
        publish(run, wanted=PLAIN)
    assert "mine.onnx" in (export / MODEL_YAML).read_text()
    assert (export / MANIFEST).read_bytes() == before


def test_parity_takes_no_backend_in_another_precision(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    """Although the processor could run it: rrtn tune judges bfloat16, not the limit of the file."""
    monkeypatch.setattr(openvino_kind, "has_bf16", lambda: True)
    (variant,) = load_bundle(tiny_model).variants
    devices = _devices(variant)
    assert "cpu" in devices
    assert not {kind.name for kind in BACKENDS if kind.precision} & set(devices)
