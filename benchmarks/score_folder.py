"""A folder of WAV files through `Scorer.score_files`, against a bare ONNX Runtime session that is fed ready features.

Random weights: the time does not depend on them. The share is what the pipeline around the model leaves of the model.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import torch
from measure import interleaved, report, summary
from rrtn.export.graph import onnx_from_network
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.cpus import usable_cpus
from rrtn.train.encoders import ENCODERS, EncoderName
from rrtn.train.model import TwinsNetwork

SPEC = FrontendSpec()
CLIPS: dict[EncoderName, int] = {"resnet18": 256, "cnn10": 64, "cnn14": 32}
TARGETS = {"resnet18": 0.85, "cnn14": 0.95}  # design.md section 8
REPEATS = 5
BARE_BATCH = 16


def model_file(encoder: EncoderName, folder: Path) -> Path:
    torch.manual_seed(0)
    network = TwinsNetwork(encoder, n_mels=SPEC.n_mels, n_targets=10, projector_layers=0).eval()
    path = folder / f"{encoder}.onnx"
    path.write_bytes(onnx_from_network(network, SPEC, tuple("ABCDEFGHIJ"), "logmel"))
    return path


def wav_files(count: int, folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:05d}.wav" for i in range(count)]
    for path in paths:
        soundfile.write(path, rng.uniform(-0.7, 0.7, SPEC.clip_samples), SPEC.sampling_rate, subtype="PCM_16")
    return paths


def bare_session(model: Path, count: int) -> Callable[[], None]:
    """All cores, spinning as ONNX Runtime likes it, features ready in memory."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    session = onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).normal(-50, 20, (BARE_BATCH, 1, SPEC.frames, SPEC.n_mels)).astype(np.float32)

    def run() -> None:
        for _ in range(count // BARE_BATCH):
            session.run(None, {"log_mel": batch})

    return run


def main() -> None:
    results, shares = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = wav_files(max(CLIPS.values()), folder)
        for encoder in ENCODERS:
            count, model = CLIPS[encoder], model_file(encoder, folder)
            scorer = Scorer(model, "cpu")
            functions = {
                "bare ORT": bare_session(model, count),
                "rrtn score": lambda scorer=scorer, count=count: list(scorer.score_files(files[:count])),
            }
            seconds = interleaved(functions, repeats=REPEATS, warm_up=1)
            results |= {f"{encoder} {what}": summary(values, clips=count) for what, values in seconds.items()}
            ratios = np.array(seconds["bare ORT"]) / np.array(seconds["rrtn score"])
            shares[encoder] = round(float(np.median(ratios)), 3)
    report("score a folder, fp32, CPU", results, share_of_bare_ort=shares, targets=TARGETS)


if __name__ == "__main__":
    main()
