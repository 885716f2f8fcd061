"""Log-Mel of one clip on one thread: NumPy as `rrtn score` computes it, torchaudio, torchlibrosa,
and the graph in ORT.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime
import torch
import torchaudio
import torchlibrosa
from measure import interleaved, ratio, report, summary
from onnx import helper
from rrtn.export.graph import OPSET
from rrtn.export.log_mel_graph import log_mel_graph
from rrtn.runtime import FrontendSpec, log_mel

SPEC = FrontendSpec()
REPEATS = 200


def ort_session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(log_mel_graph(SPEC), opset_imports=[opset], ir_version=10).SerializeToString()
    return onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])


def main() -> None:
    torch.set_num_threads(1)
    waveform = np.random.default_rng(0).uniform(-1, 1, SPEC.clip_samples).astype(np.float32)
    batch = torch.from_numpy(waveform)[None]
    mel = torchaudio.transforms.MelSpectrogram(
        16_000, 512, hop_length=160, f_min=50, f_max=8000, n_mels=64, norm="slaney", mel_scale="slaney"
    )
    stft = torchlibrosa.Spectrogram(n_fft=512, hop_length=160, freeze_parameters=True)
    bank = torchlibrosa.LogmelFilterBank(sr=16_000, n_fft=512, n_mels=64, fmin=50, fmax=8000, top_db=None)
    session = ort_session()
    functions = {
        "numpy (rrtn score)": lambda: log_mel(waveform, SPEC),
        "torchaudio float32": lambda: 10 * mel(batch).clamp(min=1e-10).log10(),
        "torchlibrosa": lambda: bank(stft(batch)),
        "waveform graph in ONNX Runtime": lambda: session.run(None, {"waveform": waveform[None]}),
    }
    with torch.no_grad():
        seconds = interleaved(functions, repeats=REPEATS)
    results = {name: summary(values, clips=1) for name, values in seconds.items()}
    ours = seconds["numpy (rrtn score)"]
    ratios = {
        f"numpy over {name}": ratio(values, ours) for name, values in seconds.items() if values is not ours
    }
    report("frontend, one clip, one thread", results, ratios=ratios, target=2.0)


if __name__ == "__main__":
    main()
