"""How well `--segment` finds bursts: recall, precision and edges, with and without the gate.

    python benchmarks/segments.py --data SHARED/data [--seeds 2 3 4] [--hours 2]
        mixtures of 200 bursts in two hours (mixture.py), each by the detector alone
    python benchmarks/segments.py --data SHARED/data --write FILE.wav [--seed 2] [--sound 0.05]
        one mixture as a WAV file at 48 kHz, to score; --sound is the share of it that is bursts

A burst is found if the segments cover half of it. A segment is right if it touches a burst. The constants
were chosen on seed 1 alone.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from measure import machine
from mixture import RATE, Scene, Sources, scenes
from rrtn.runtime.arrays import Float32, Float64
from rrtn.runtime.audio.bursts import BurstDetector
from rrtn.runtime.audio.recording import recording_of
from rrtn.runtime.audio.voice_gate import VoiceGate, gate_version
from rrtn.runtime.spec import FrontendSpec
from rrtn.runtime.system.cpus import usable_cpus

BLOCK = 1 << 16
WRITTEN_RATE = 48_000


def detected(mixture: Sequence[Scene]) -> tuple[Float64, float]:
    """-> start and end of each burst in seconds [n, 2], and CPU ms for each second of sound."""
    detector, begin = BurstDetector(RATE), time.process_time()
    for scene in mixture:
        for place in range(0, len(scene.samples), BLOCK):
            detector.add(scene.samples[place : place + BLOCK])
    spans = np.array(detector.spans()) / RATE
    return spans, 1000 * (time.process_time() - begin) / seconds_of(mixture)


def gated(mixture: Sequence[Scene], spans: Float64) -> tuple[Float64, float]:
    """-> those of the bursts that are a voice, and CPU ms for each second of bursts."""
    samples = np.concatenate([scene.samples for scene in mixture])
    gate, spec, begin = VoiceGate(RATE), FrontendSpec(), time.process_time()
    kept = [gate(recording_of(cut(samples, span), spec)) for span in spans]
    taken = 1000 * (time.process_time() - begin) / float(np.diff(spans).sum())
    return spans[np.array(kept)], taken


def cut(samples: Float32, span: Float64) -> Float32:
    first, last = np.round(span * RATE).astype(int)
    return samples[first:last]


def judged(mixture: Sequence[Scene], spans: Float64) -> dict[str, Any]:
    """Recall, precision, edges of the bursts that were found (s), and what else was taken for a burst."""
    begins = np.cumsum([0, *(len(scene.samples) for scene in mixture)]) / RATE
    bursts = np.array([(b + s.burst.start, b + s.burst.end) for b, s in zip(begins, mixture, strict=False)])
    together = np.minimum(spans[:, None, 1], bursts[:, 1]) - np.maximum(spans[:, None, 0], bursts[:, 0])
    touches = together > 0  # [spans, bursts]
    found = np.maximum(together, 0).sum(axis=0) >= 0.5 * np.diff(bursts).ravel()
    right = touches.any(axis=1)
    first = [spans[touches[:, i]][0, 0] - bursts[i, 0] for i in np.flatnonzero(found)]
    last = [spans[touches[:, i]][-1, 1] - bursts[i, 1] for i in np.flatnonzero(found)]
    wrong = Counter(heard_at(mixture, begins, span) for span in spans[~right])
    apart = int(right.sum()) + sum(wrong[kind] for kind in ("silence", "noise", "knock", "music"))
    return {
        "bursts": len(bursts),
        "segments": len(spans),
        "recall": float(found.mean()),
        "precision": float(right.mean()),
        "precision_without_speech": float(right.sum()) / apart,
        "start_median": float(np.median(first)),
        "start_p90": float(np.quantile(np.abs(first), 0.9)),
        "end_median": float(np.median(last)),
        "end_p90": float(np.quantile(np.abs(last), 0.9)),
        "parted": int((touches.sum(axis=0)[found] > 1).sum()),
        "wrong": dict(sorted(wrong.items())),
    }


def heard_at(mixture: Sequence[Scene], begins: Float64, span: Float64) -> str:
    """What there is where no burst is."""
    scene = int(np.searchsorted(begins, span.mean(), side="right")) - 1
    start, end = span - begins[scene]
    kind = mixture[scene].kind
    if any(other.start < end and start < other.end for other in mixture[scene].other):
        return "knock" if kind == "noise" else kind
    return "silence" if kind == "silence" else "noise"


def seconds_of(mixture: Sequence[Scene]) -> float:
    return sum(len(scene.samples) for scene in mixture) / RATE


def line_of(name: str, result: dict[str, Any]) -> str:
    wrong = ", ".join(f"{count} {kind}" for kind, count in result["wrong"].items()) or "none"
    return (
        f"{name:16} recall {result['recall']:.3f}  precision {result['precision']:.3f} "
        f"(speech aside {result['precision_without_speech']:.3f})  "
        f"start {result['start_median']:+.3f} s, 90% within {result['start_p90']:.3f}  "
        f"end {result['end_median']:+.3f} s, 90% within {result['end_p90']:.3f}  "
        f"{result['parted']} parted  wrong: {wrong}"
    )


def measure(sources: Sources, seed: int, seconds: float) -> dict[str, Any]:
    """One mixture, without the gate and with it."""
    mixture = list(scenes(sources, seed=seed, bursts=round(seconds / 36), seconds=seconds))
    spans, cpu = detected(mixture)
    result: dict[str, Any] = {"seed": seed, "level": judged(mixture, spans), "detector_ms": cpu}
    print(line_of(f"seed {seed} level", result["level"]), f"  {cpu:.2f} ms of CPU a second", flush=True)
    if gate_version():
        kept, cpu = gated(mixture, spans)
        result |= {"gate": judged(mixture, kept), "gate_ms": cpu}
        line = line_of(f"seed {seed} gate", result["gate"])
        print(line, f"  {cpu:.2f} ms of CPU a second of bursts", flush=True)
    return result


def write(sources: Sources, path: Path, seed: int, seconds: float, sound: float) -> None:
    """A mixture at 48 kHz, of whose length bursts are `sound`."""
    mean = float(np.mean([len(burst) for burst in sources.bursts])) / RATE
    mixture = scenes(sources, seed=seed, bursts=round(sound * seconds / mean), seconds=seconds)
    stream = soxr.ResampleStream(RATE, WRITTEN_RATE, 1, dtype="float32")
    with soundfile.SoundFile(path, "w", WRITTEN_RATE, 1, "PCM_16") as file:
        for scene in mixture:
            file.write(stream.resample_chunk(scene.samples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with bursts/ and emodb/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--sound", type=float, default=0.05)
    arguments = parser.parse_args()
    sources, seconds = Sources(arguments.data), 3600 * arguments.hours
    if arguments.write:
        write(sources, arguments.write, arguments.seeds[0], seconds, arguments.sound)
        return
    hardware = machine()
    print(f"{hardware['cpu']}, {usable_cpus()} cores, {gate_version() or 'no gate'}", flush=True)
    results = [measure(sources, seed, seconds) for seed in arguments.seeds]
    print(json.dumps({"benchmark": "segments", "machine": hardware, "results": results}))


if __name__ == "__main__":
    main()
