"""Ways from audio files to scores with one model: ours, and those of other projects.

For score_folder.py and its neighbours.

n files, B batch, N samples, T frames, M mels, K labels.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import torch
from random_bundle import LABELS, SPEC
from rrtn.export.audeering import audonnx_yaml_from_bundle
from rrtn.runtime import Scorer
from rrtn.runtime.arrays import Float32
from rrtn.runtime.audio.inputs import InputChoice, inputs_from_arguments
from rrtn.runtime.audio.reader import audio_from_array, read_audio
from rrtn.runtime.audio.sources import PackedFile
from rrtn.runtime.bundle import Bundle
from rrtn.runtime.errors import AudioError
from rrtn.runtime.frontend import clip_log_mel, clip_of
from rrtn.runtime.system.cpus import usable_cpus
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.frontend import LogMel

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / ".peers"))  # behind all that rrtn itself uses
try:
    import audinterface
    import audonnx
except ImportError:
    audinterface = None

CLIPS: dict[EncoderName, int] = {"resnet18": 512, "cnn10": 128, "cnn14": 64}
BATCH = 16
SAME_SCORES = 1e-4

Scores = Callable[[], Float32]  # [n, K]
Runs = Callable[[Float32], Float32]  # log_mel [B, 1, T, M] -> scores [B, K]


@dataclass(frozen=True)
class Files:
    """`count` readable files in a folder of their own, as WAV if they are not."""

    paths: list[Path]
    features: Float32  # [count, 1, T, M]


def real_files(folder: Path, count: int, into: Path) -> Files:
    """The folder's recordings as 16-bit WAV at their own rate and channels.

    They are repeated until there are `count` of them. Files inside packs are left out.
    """
    into.mkdir()
    found = []
    for recording in (each.source for each in inputs_from_arguments([folder], InputChoice())):
        if isinstance(recording, PackedFile):
            continue
        try:
            read_audio(recording, SPEC)
        except AudioError:
            continue
        found.append(recording)
        if len(found) == count:
            break
    paths = [into / f"{i:05d}.wav" for i in range(count)]
    for i, path in enumerate(paths):
        samples, rate = soundfile.read(found[i % len(found)], dtype="int16")
        soundfile.write(path, samples, rate, subtype="PCM_16")
    features = np.stack([clip_log_mel(read_audio(path, SPEC).waveform, SPEC)[None] for path in paths])
    return Files(paths, features)


def count_of(encoder: EncoderName, share: float) -> int:
    """Files for an encoder: whole batches, and at least two for each core, or some would have none."""
    return max(2 * usable_cpus(), round(CLIPS[encoder] * share / BATCH)) * BATCH


def rrtn_scores(scorer: Scorer, paths: list[Path]) -> Float32:
    return np.array(
        [list((row.scores or {}).values()) for row in scorer.score_files(paths)], dtype=np.float32
    )


def ort_run(model: Path, *, threads: int | None = None) -> Runs:
    """A session on all cores, or as many as are given, spinning, as it comes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cpus()
    session = onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    return lambda batch: np.asarray(session.run(["scores"], {"log_mel": batch})[0])


def torch_run(network: Callable[..., object]) -> Runs:
    """Eager or compiled, on all cores."""

    @torch.inference_mode()
    def run(batch: Float32) -> Float32:
        torch.set_num_threads(usable_cpus())
        scores: Float32 = network(torch.from_numpy(batch)).scores.numpy()  # type: ignore[attr-defined]
        return scores

    return run


def from_features(run: Runs, features: Float32, *, batch: int = BATCH) -> Scores:
    """Batches that are ready in memory: the ceiling of a model."""
    return lambda: np.concatenate([run(features[i : i + batch]) for i in range(0, len(features), batch)])


def from_files(run: Runs, paths: list[Path]) -> Scores:
    """A plain loop, one batch after the other: read, resample, log-Mel, model."""
    return lambda: np.concatenate([run(batch) for batch in log_mels_of_files(paths)])


@torch.inference_mode()
def log_mels_of_files(paths: list[Path]) -> Iterator[Float32]:
    """Batches [B, 1, T, M], with torch's frontend on all cores; resampling and level are part of
    the model's definition.
    """
    torch.set_num_threads(usable_cpus())
    frontend = LogMel(SPEC)
    for first in range(0, len(paths), BATCH):
        clips = []
        for path in paths[first : first + BATCH]:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            clips.append(clip_of(audio_from_array(samples, rate, SPEC).waveform, SPEC))
        yield frontend(torch.from_numpy(np.stack(clips))).numpy()


def audonnx_functions(bundle: Bundle, name: str, paths: list[Path], folder: Path) -> dict[str, Scores]:
    """A variant, in a folder of its own. The names are threads of ONNX Runtime, and files at a time."""
    if audinterface is None:
        print("audinterface is not there: its lines are left out (make .peers)", file=sys.stderr)
        return {}
    fp32, variant = bundle.variant("fp32"), bundle.variant(name)
    assert fp32 and variant
    folder.mkdir()
    shutil.copy(bundle.path / variant.file, folder / fp32.file)
    audonnx_yaml_from_bundle(replace(bundle, path=folder, variants=(fp32,)))
    return {
        f"audonnx {setting}": audonnx_function(folder, paths, threads=threads, at_once=at_once)
        for setting, threads, at_once in (
            ("default", 1, 1),
            ("2 threads", 2, 1),
            ("2 files", 1, 2),
            ("2 x 2", 2, 2),
        )
    }


def audonnx_function(folder: Path, paths: list[Path], *, threads: int, at_once: int) -> Scores:
    loaded = audonnx.load(str(folder), num_workers=threads)
    feature = audinterface.Feature(
        list(LABELS),
        process_func=loaded,
        sampling_rate=SPEC.sampling_rate,
        resample=True,
        num_workers=at_once,
    )
    return lambda: feature.process_files([str(path) for path in paths]).to_numpy(dtype=np.float32)


def check_same(scores: dict[str, Float32], *, reference: str) -> dict[str, float]:
    """Largest differences to `reference`.

    No time is printed of something that computes another thing; int8 and bf16 may.
    """
    differences = {name: float(np.abs(found - scores[reference]).max()) for name, found in scores.items()}
    wrong = {
        name: found
        for name, found in differences.items()
        if "int8" not in name and "bf16" not in name and not found <= SAME_SCORES
    }
    if wrong:
        raise SystemExit(f"other scores than {reference}'s: {wrong}")
    return differences
