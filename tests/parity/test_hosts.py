"""Programs without rrtn that feed `model.samples.onnx`: the scores are those of `rrtn score`.

Each example is built and run as its first lines say.
"""

import csv
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import soxr
from onnx import helper
from rrtn.export.samples_graph import samples_from_log_mel
from rrtn.runtime import FrontendSpec, Scorer, load_bundle
from rrtn.runtime.bundle import MANIFEST, Bundle, LabelMeaning, metadata_of
from rrtn.runtime.system.files import write_json

EXAMPLES = Path(__file__).parents[2] / "examples"
SAME_FILE = 1e-5  # in score, between two programs that run the same file
SAME_MODEL = 1e-4  # the gate's between a bundle's variants
LENGTHS = (1, 2, 255, 1_600, 8_000, 39_839, 39_841, 160_000)


@pytest.fixture(scope="module")
def bundle(random_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With the variant samples, as `rrtn export --samples` publishes it."""
    folder = Path(shutil.copytree(random_bundle.path, tmp_path_factory.mktemp("hosts") / "bundle"))
    fp32 = random_bundle.variants[0]
    content = samples_from_log_mel(random_bundle.read(fp32), random_bundle.spec)
    (folder / "model.samples.onnx").write_bytes(content)
    samples = replace(
        fp32,
        name="samples",
        file="model.samples.onnx",
        input="samples",
        sha256=sha256(content).hexdigest(),
        size=len(content),
    )
    write_json(
        folder / MANIFEST, replace(random_bundle, variants=(*random_bundle.variants, samples)).manifest()
    )
    return load_bundle(folder)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """WAV of 16 kHz, one channel, 16 bits: real bursts, and 1 sample to 10 s of what a rule is about."""
    folder, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    sounds = {}
    for path in sorted((EXAMPLES.parent / "tests/fixtures/bursts").glob("*.wav")):
        samples, rate = soundfile.read(path, always_2d=True)
        sounds[path.stem] = soxr.resample(samples.mean(axis=1), rate, 16_000)
    for length in LENGTHS:
        sounds[f"{length} samples"] = rng.normal(0, 0.1, length) * np.linspace(0.1, 1, length)
    sounds |= {
        "silence": np.zeros(20_000),
        "offset": rng.normal(0.4, 0.05, 30_000),
        "soft": rng.normal(0, 1e-3, 9_000),
    }
    for name, sound in sounds.items():
        soundfile.write(folder / f"{name}.wav", np.clip(sound, -1, 0.999), 16_000, subtype="PCM_16")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def of_file(bundle: Bundle, recordings: list[Path]) -> np.ndarray:
    """Scores [n, K] of the same file in Python's ONNX Runtime."""
    session = onnxruntime.InferenceSession(bundle.path / "model.samples.onnx")
    sounds = [soundfile.read(path, dtype="float32")[0] for path in recordings]
    return np.concatenate([session.run(["scores"], {"samples": sound[None]})[0] for sound in sounds])


@pytest.fixture(scope="module")
def of_rrtn(bundle: Bundle, recordings: list[Path]) -> np.ndarray:
    """Scores [n, K] of `rrtn score`."""
    with Scorer(bundle, "cpu", workers=1) as scorer:
        rows = [row.scores for row in scorer.score_files(recordings)]
    return np.array([list(scores.values()) for scores in rows if scores])


def check(lines: str, recordings: list[Path], of_file: np.ndarray, of_rrtn: np.ndarray) -> None:
    rows = list(csv.reader(lines.splitlines()))
    assert [row[0] for row in rows] == [str(path) for path in recordings]
    came = np.array([[float(cell) for cell in row[1:]] for row in rows])
    assert of_rrtn.std(axis=0).min() > 0.02, "the model tells the recordings apart"
    np.testing.assert_allclose(came, of_file, atol=SAME_FILE, rtol=0)
    np.testing.assert_allclose(came, of_rrtn, atol=SAME_MODEL, rtol=0)


def lines_of(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def c_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (compiler := shutil.which("gcc") or shutil.which("cc")):
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("c") / "score"
    lines_of(compiler, "-O2", "-Wall", "-Wextra", "-Werror", EXAMPLES / "c/score.c", "-o", program, "-ldl")
    return program


def test_c(
    c_program: Path, bundle: Bundle, recordings: list[Path], of_file: np.ndarray, of_rrtn: np.ndarray
) -> None:
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    lines = lines_of(c_program, library, bundle.path / "model.samples.onnx", *recordings)
    check(lines, recordings, of_file, of_rrtn)


@pytest.fixture(scope="module")
def node_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not shutil.which("npm"):
        pytest.skip("no npm")
    folder = Path(shutil.copytree(EXAMPLES / "node", tmp_path_factory.mktemp("node") / "score"))
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-timeout=60000"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm does not answer: {done.stderr.strip().splitlines()[-1:]}")
    yield folder / "score.js"
    shutil.rmtree(folder / "node_modules")  # 290 MB


def test_node(
    node_program: Path, bundle: Bundle, recordings: list[Path], of_file: np.ndarray, of_rrtn: np.ndarray
) -> None:
    head, *lines = lines_of("node", node_program, bundle.path, *recordings).splitlines(keepends=True)
    assert next(csv.reader([head])) == ["file", *bundle.labels]
    check("".join(lines), recordings, of_file, of_rrtn)


def test_c_with_the_onnx_runtime_of_another_version(
    c_program: Path,
    node_program: Path,
    bundle: Bundle,
    recordings: list[Path],
    of_file: np.ndarray,
    of_rrtn: np.ndarray,
) -> None:
    """That of the Node package: the program is bound to no version."""
    found = node_program.parent.glob("node_modules/onnxruntime-node/bin/*/linux/x64/libonnxruntime.so.1")
    lines = lines_of(c_program, next(found), bundle.path / "model.samples.onnx", *recordings)
    check(lines, recordings, of_file, of_rrtn)


def wrong_files(folder: Path) -> dict[str, Path]:
    """What a host must refuse -> a file of this kind."""
    sound = np.sin(np.arange(4_000) / 9) / 2
    soundfile.write(folder / "44 kHz.wav", sound, 44_100, subtype="PCM_16")
    soundfile.write(folder / "stereo.wav", np.stack([sound, sound], 1), 16_000, subtype="PCM_16")
    soundfile.write(folder / "24 bits.wav", sound, 16_000, subtype="PCM_24")
    soundfile.write(folder / "nothing.wav", sound[:0], 16_000, subtype="PCM_16")
    soundfile.write(folder / "whole.wav", sound, 16_000, subtype="PCM_16")
    (folder / "cut off.wav").write_bytes((folder / "whole.wav").read_bytes()[:3_000])
    (folder / "short format.wav").write_bytes(b"RIFF\x0e\0\0\0WAVEfmt \2\0\0\0\1\0")
    whole = (folder / "whole.wav").read_bytes()
    (folder / "joined.wav").write_bytes(whole + whole)
    (folder / "parted.wav").write_bytes(whole + b"LIST\3\0\0\0abc\0data\4\0\0\0\0\0\0\0")
    (folder / "text.wav").write_text("no audio")
    layout = "is not 16000 Hz, one channel, 16 bits"
    return {
        **{
            f"{folder / name}.wav: {layout}": folder / f"{name}.wav"
            for name in ("44 kHz", "stereo", "24 bits", "short format")
        },
        f"{folder / 'nothing.wav'}: has no samples": folder / "nothing.wav",
        f"{folder / 'cut off.wav'}: is cut off": folder / "cut off.wav",
        f"{folder / 'joined.wav'}: has several recordings": folder / "joined.wav",
        f"{folder / 'parted.wav'}: has several recordings": folder / "parted.wav",
        f"{folder / 'text.wav'}: no WAV file": folder / "text.wav",
    }


def programs(c_program: Path, node_program: Path, bundle: Path) -> Iterator[list[str | Path]]:
    """What runs both hosts, up to the recordings."""
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    yield [c_program, library, bundle / "model.samples.onnx"]
    yield ["node", node_program, bundle]


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_host_takes_the_rate_of_the_model(
    c_program: Path,
    node_program: Path,
    tiny_model_of: Callable[..., Path],
    tmp_path: Path,
    rate: int,
) -> None:
    """One of the labels has the name that the C program looks for; its scale stands in front of the rate."""
    spec, labels = FrontendSpec(sampling_rate=rate, f_max=4_000), ("sampling_rate", "Joy")
    model = tiny_model_of(tmp_path / "model.onnx", spec, labels)
    meaning = LabelMeaning(scales=dict.fromkeys(labels, (1.0, 9.0)), classes={}, submitted=labels)
    file = onnx.load_from_string(samples_from_log_mel(model.read_bytes(), spec))
    helper.set_model_props(file, metadata_of(labels, spec, "samples", "fp32", meaning=meaning))
    onnx.save(file, tmp_path / "model.samples.onnx")
    write_json(tmp_path / MANIFEST, {"labels": labels, "frontend": spec.to_dict()})
    right, wrong = tmp_path / "right.wav", tmp_path / "wrong.wav"
    sound = np.random.default_rng(0).normal(0, 0.1, rate) * np.linspace(0.1, 1, rate)
    soundfile.write(right, sound, rate, subtype="PCM_16")
    soundfile.write(wrong, sound, 16_000, subtype="PCM_16")
    with Scorer(model, "cpu", workers=1) as scorer:
        (row,) = scorer.score_files([right])
    for program in programs(c_program, node_program, tmp_path):
        line = lines_of(*program, right).splitlines()[-1]
        assert row.scores
        np.testing.assert_allclose(
            [*map(float, line.split(",")[1:])], [*row.scores.values()], atol=SAME_MODEL
        )
        done = subprocess.run([*program, wrong], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, f"{wrong}: is not {rate} Hz, one channel, 16 bits\n")


def test_the_c_program_refuses_a_model_that_names_no_rate(
    c_program: Path, bundle: Bundle, recordings: list[Path], tmp_path: Path
) -> None:
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    file = onnx.load(bundle.path / "model.samples.onnx")
    del file.metadata_props[:]
    onnx.save(file, tmp_path / "a.onnx")
    command = [c_program, library, tmp_path / "a.onnx", recordings[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = "names no sampling rate: take a file of rrtn export --samples"
    assert (done.returncode, done.stderr) == (1, f"{tmp_path / 'a.onnx'}: {words}\n")


def test_a_host_refuses_what_is_not_mono_at_the_models_rate_in_one_line(
    c_program: Path, node_program: Path, bundle: Bundle, tmp_path: Path
) -> None:
    for words, path in wrong_files(tmp_path).items():
        for program in programs(c_program, node_program, bundle.path):
            done = subprocess.run([*program, path], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (1, f"{words}\n")
