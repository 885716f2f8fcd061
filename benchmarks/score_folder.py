"""A folder of real recordings to scores, in fp32 and int8, beside what others do with the same model, in one run.

    python benchmarks/score_folder.py [--encoders resnet18] [--audio DIR] [--repeats 5]

bare ORT           a session on all cores, spinning, in batches of 16, fed features that are ready in memory: the ceiling
rrtn               Scorer.score_files: from the files
PyTorch            a plain loop in eager mode: read, resample, log-Mel and encoder in batches of 16, all cores
audonnx            audinterface.Feature.process_files with audonnx.load and our transform: by default (one thread), and at the
                   best of: two threads for ONNX Runtime, two files at a time, both

Weights are random: the time does not depend on them. All give the same scores for the same files (checked before a time is
printed). audinterface is no dependency of rrtn: `make .peers` brings it; without it its lines are left out.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile
import torch
from measure import interleaved, report, summary
from rrtn.export.audeering import audonnx_yaml_from_bundle
from rrtn.export.graph import onnx_from_network
from rrtn.export.int8 import int8_for_cpu
from rrtn.runtime import FrontendSpec, Scorer, load_bundle
from rrtn.runtime.audio import audio_from_array, read_audio
from rrtn.runtime.cpus import usable_cpus
from rrtn.runtime.errors import AudioError
from rrtn.runtime.frontend import Float32, clip_log_mel, clip_of
from rrtn.runtime.inputs import list_audio
from rrtn.train.encoders import ENCODERS, EncoderName
from rrtn.train.frontend import LogMel
from rrtn.train.model import TwinsNetwork

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / ".peers"))  # behind all that rrtn itself uses
try:
    import audinterface
    import audonnx
except ImportError:
    audinterface = None

SPEC = FrontendSpec()
LABELS = tuple("ABCDEFGHIJ")
CLIPS: dict[EncoderName, int] = {"resnet18": 512, "cnn10": 128, "cnn14": 64}
TARGETS = {"resnet18": 0.85, "cnn14": 0.95, "int8": 1.7, "audonnx best": 1.0, "audonnx default": 1.5, "PyTorch": 2.0}
BATCH = 16
SAME_SCORES = 1e-4


@dataclass(frozen=True)
class Files:
    """`count` readable files in a folder of their own, as WAV if they are not."""

    paths: list[Path]
    features: Float32  # [count, 1, T, M]


def real_files(folder: Path, count: int, into: Path) -> Files:
    """The folder's recordings as 16-bit WAV at their own rate and channels, again and again until there are enough."""
    found = []
    for path in list_audio([folder]):
        try:
            read_audio(path, SPEC)
        except AudioError:
            continue
        found.append(path)
        if len(found) == count:
            break
    paths = [into / f"{i:05d}.wav" for i in range(count)]
    for i, path in enumerate(paths):
        samples, rate = soundfile.read(found[i % len(found)], dtype="int16")
        soundfile.write(path, samples, rate, subtype="PCM_16")
    features = np.stack([clip_log_mel(read_audio(path, SPEC).waveform, SPEC)[None] for path in paths])
    return Files(paths, features)


def network_of(encoder: EncoderName) -> TwinsNetwork:
    torch.manual_seed(0)
    return TwinsNetwork(encoder, n_mels=SPEC.n_mels, n_targets=len(LABELS), projector_layers=0).eval()


def model_file(encoder: EncoderName, folder: Path) -> Path:
    path = folder / f"{encoder}.onnx"
    path.write_bytes(onnx_from_network(network_of(encoder), SPEC, LABELS, "logmel"))
    return path


def bare_session(model: Path, features: Float32) -> Callable[[], Float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    session = onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    batches = [features[i : i + BATCH] for i in range(0, len(features), BATCH)]
    return lambda: np.concatenate([session.run(["scores"], {"log_mel": batch})[0] for batch in batches])


def rrtn_scores(scorer: Scorer, paths: list[Path]) -> Float32:
    return np.array([list((row.scores or {}).values()) for row in scorer.score_files(paths)], dtype=np.float32)


@torch.inference_mode()
def torch_loop(network: TwinsNetwork, paths: list[Path]) -> Float32:
    """What one writes in an afternoon; resampling and level are part of the model's definition."""
    torch.set_num_threads(usable_cpus())
    frontend, scores = LogMel(SPEC), []
    for first in range(0, len(paths), BATCH):
        clips = []
        for path in paths[first : first + BATCH]:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            clips.append(clip_of(audio_from_array(samples, rate, SPEC).waveform, SPEC))
        scores.append(network(frontend(torch.from_numpy(np.stack(clips)))).scores)
    return torch.cat(scores).numpy()


def audonnx_functions(model: Path, paths: list[Path]) -> dict[str, Callable[[], Float32]]:
    """Threads of ONNX Runtime, files at a time."""
    if audinterface is None:
        print("audinterface is not there: its lines are left out (make .peers)", file=sys.stderr)
        return {}
    audonnx_yaml_from_bundle(load_bundle(model))
    return {
        f"audonnx {name}": audonnx_function(model.parent, paths, threads=threads, at_once=at_once)
        for name, threads, at_once in (("default", 1, 1), ("2 threads", 2, 1), ("2 files", 1, 2), ("2 x 2", 2, 2))
    }


def audonnx_function(folder: Path, paths: list[Path], *, threads: int, at_once: int) -> Callable[[], Float32]:
    loaded = audonnx.load(str(folder), num_workers=threads)
    feature = audinterface.Feature(
        list(LABELS), process_func=loaded, sampling_rate=SPEC.sampling_rate, resample=True, num_workers=at_once
    )
    return lambda: feature.process_files([str(path) for path in paths]).to_numpy(dtype=np.float32)


def check_same(scores: dict[str, Float32]) -> dict[str, float]:
    """Largest differences to rrtn's fp32. No time is printed of something that computes another thing."""
    reference = scores["rrtn fp32"]
    differences = {name: float(np.abs(found - reference).max()) for name, found in scores.items()}
    wrong = {name: found for name, found in differences.items() if "int8" not in name and not found <= SAME_SCORES}
    if wrong:
        raise SystemExit(f"other scores than rrtn's: {wrong}")
    return differences


def compared(encoder: EncoderName, files: Files, folder: Path, repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """-> a summary of each, and the ratios."""
    folder.mkdir()
    model = model_file(encoder, folder)
    int8 = folder / "int8.onnx"
    int8.write_bytes(int8_for_cpu(model.read_bytes(), files.features[:64]))
    network = network_of(encoder)
    scorers = {"fp32": Scorer(model, "cpu"), "int8": Scorer(int8, "cpu")}
    functions: dict[str, Callable[[], Float32]] = {
        "bare ORT fp32": bare_session(model, files.features),
        "bare ORT int8": bare_session(int8, files.features),
        "rrtn fp32": lambda: rrtn_scores(scorers["fp32"], files.paths),
        "rrtn int8": lambda: rrtn_scores(scorers["int8"], files.paths),
        "PyTorch": lambda: torch_loop(network, files.paths),
        **audonnx_functions(model, files.paths),
    }
    differences = check_same({name: function() for name, function in functions.items()})  # and a warm-up
    seconds = interleaved(functions, repeats=repeats, warm_up=0)
    results = {
        f"{encoder} {name}": summary(values, clips=len(files.paths)) | {"max_difference": round(differences[name], 7)}
        for name, values in seconds.items()
    }
    return results, ratios(seconds)


def ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians over the rounds of how many times faster rrtn is, but for `share`, of the ceiling."""

    def faster(name: str, than: str) -> float:
        return round(float(np.median(np.array(seconds[than]) / np.array(seconds[name]))), 3)

    peers = {name: faster("rrtn fp32", name) for name in seconds if name.startswith(("audonnx", "PyTorch"))}
    return {
        "share of bare ORT, fp32": faster("rrtn fp32", "bare ORT fp32"),
        "share of bare ORT, int8": faster("rrtn int8", "bare ORT int8"),
        "int8 over fp32": faster("rrtn int8", "rrtn fp32"),
        "over": peers,
        "over audonnx at its best": min((ratio for name, ratio in peers.items() if name.startswith("audonnx")), default=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Scoring a folder")
    parser.add_argument("--encoders", nargs="*", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--audio", type=Path, default=ROOT / "tests/fixtures/bursts")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    compared_to: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for encoder in arguments.encoders:
            (folder / f"{encoder} audio").mkdir()
            files = real_files(arguments.audio, CLIPS[encoder], folder / f"{encoder} audio")
            of_encoder, compared_to[encoder] = compared(encoder, files, folder / encoder, arguments.repeats)
            results |= of_encoder
    report("score a folder, CPU", results, ratios=compared_to, targets=TARGETS)


if __name__ == "__main__":
    main()
