"""Section `folder`: WAV files to scores, beside the model alone and the decoders alone."""

import tempfile
import wave
from pathlib import Path

import checkout
import numpy as np
from gpu_corpus import items_of_corpus
from gpu_inference import Model
from gpu_section import Place, Record, Skipped, seconds_of_blocks
from rrtn.export.graph import onnx_from_network
from rrtn.export.samples_graph import waveform_from_log_mel
from rrtn.runtime import FrontendSpec, Scorer, load_bundle
from rrtn.runtime.arrays import samples_from_waveform
from rrtn.runtime.backends.cuda_libraries import cuda_missing
from rrtn.runtime.challenge import EMOTIONS
from rrtn.runtime.scoring.decoder_pool import DecoderPool
from rrtn.runtime.system.cpus import usable_cpus


def section_folder(place: Place, record: Record) -> None:
    """`rrtn score` from WAV files of 2 to 3 s in this machine's memory or disk; the share of the
    slower half is the goal.
    """
    if absent := [name for name in ("soundfile", "soxr") if not checkout.is_installed(name)]:
        raise Skipped(f"{' and '.join(absent)} not installed: nothing here could decode")
    if place.device.type == "cuda" and (reason := cuda_missing()):
        raise Skipped(f"ONNX Runtime cannot use CUDA here: {reason}")
    count = place.size(20_000, 24)
    encoder = place.chosen(("cnn14",), ("resnet18",))[0]
    model = Model(encoder, 12)
    with tempfile.TemporaryDirectory() as name:
        paths = wav_files(Path(name) / "wav", count, model.spec)
        folder = Path(name) / "model"
        folder.mkdir()
        for precision in ("fp32", "fp16"):
            content = onnx_from_network(model.network, model.spec, EMOTIONS, half=precision == "fp16")
            if place.size("waveform", "logmel") == "waveform":
                content = waveform_from_log_mel(content, model.spec)
            file = folder / f"{precision}.onnx"
            file.write_bytes(content)
            with record.part(f"{encoder} {precision}"):
                score_folder(place, record, f"{encoder} {precision}", file, paths, model)


def wav_files(folder: Path, count: int, spec: FrontendSpec) -> list[Path]:
    """16-bit WAV files at the spec's rate; 500 different ones, repeated."""
    folder.mkdir()
    items = items_of_corpus(min(count, 500), speakers=10, spec=spec)
    paths = [folder / f"{i:06d}.wav" for i in range(count)]
    for i, path in enumerate(paths):
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, spec.sampling_rate, 0, "NONE", ""))
            file.writeframes(items[i % len(items)][0].tobytes())
    return paths


def score_folder(
    place: Place, record: Record, name: str, file: Path, paths: list[Path], model: Model
) -> None:
    """The whole, the model alone on batches in memory, and the decoders alone, in turn."""
    scorer = Scorer(load_bundle(file), "cuda" if place.device.type == "cuda" else "cpu")
    decoding = scorer.decoding
    clips = model.inputs(decoding.input)  # zeros would be up to 13% faster than data
    inputs = samples_from_waveform(clips) if decoding.slot_dtype == np.int16 else clips
    batch = np.resize(inputs, (scorer.batch_size, *decoding.slot_shape)).astype(decoding.slot_dtype)
    batches = -(-len(paths) // scorer.batch_size)
    decoders = DecoderPool(decoding, count=scorer.workers, chunk=min(scorer.batch_size, 32), timeout=60.0)

    def decode() -> None:
        names = (str(path).encode() for path in paths)
        for _ in decoders.events(names, ahead=len(paths) + 1):  # or it would wait for room
            pass

    def score() -> None:
        assert all(not row.error for row in scorer.score_files(paths)), (
            "a file that was made here has an error"
        )

    functions = {
        "whole": score,
        "model alone": lambda: [scorer.model.outputs(batch) for _ in range(batches)],
        "decoders": decode,
    }
    try:
        seconds = seconds_of_blocks(functions, place.device, rounds=place.size(3, 2), calls=1)
    finally:
        decoders.close()
        scorer.close()
    medians = {key: float(np.median(values)) for key, values in seconds.items()}
    record.add(
        name,
        backend=scorer.backend.device,
        files=len(paths),
        workers=usable_cpus(),
        **{
            f"{key} clips_per_s".replace(" ", "_"): round(len(paths) / value, 1)
            for key, value in medians.items()
        },
        share_of_slower_half=round(max(medians["model alone"], medians["decoders"]) / medians["whole"], 3),
        n=len(seconds["whole"]),
    )
