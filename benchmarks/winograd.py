"""The cpu variant beside ONNX Runtime, OpenVINO, MNN and ncnn, model alone, in float32.

    python benchmarks/winograd.py [--encoders cnn14] [--repeats 7] [--share 1] [--tune]
    python benchmarks/winograd.py --layers cnn14
        each convolution: counted operations and bytes, and milliseconds

All run in one run, in batches of 16 on all cores: one batch after the other, and one batch on each
core, as `rrtn score` does it. All give the same scores, which is checked first. `make .peers`
installs the others; a message says what is left out without them.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import peers
import runtimes
from files_to_scores import (
    BATCH,
    ROOT,
    Files,
    Scores,
    check_same,
    count_of,
    from_features,
    model_file,
    ort_run,
    real_files,
)
from measure import Ratio, interleaved, ratio, report, summary
from rrtn.export.winograd.conv_cost import measured_ms, modelled_ms, work_of
from rrtn.export.winograd.cpu_variant import cpu_variant_of
from rrtn.export.winograd.rewriting import convolutions_of, plan_of
from rrtn.runtime.backends.ort_session import session_from_bytes
from rrtn.runtime.system.cpus import usable_cpus
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS

TARGETS = {"cnn14": 1.35, "cnn10": 1.0, "resnet18": 1.0}


def a_batch_a_core(model: Path, files: Files) -> Scores:
    session = session_from_bytes(model.read_bytes(), model.name, "cpu", threads=1)
    batches = np.split(files.features, len(files.features) // BATCH)

    def scores() -> Any:
        with ThreadPoolExecutor(usable_cpus()) as cores:
            return np.concatenate(
                list(cores.map(lambda batch: session.run(["scores"], {"log_mel": batch})[0], batches))
            )

    return scores


def compared(
    encoder: EncoderName, files: Files, folder: Path, arguments: argparse.Namespace
) -> tuple[Any, dict[str, Ratio]]:
    """-> a summary of each, and how many times faster the cpu variant is."""
    folder.mkdir()
    direct, fast = model_file(encoder, folder), folder / "cpu.onnx"
    made = cpu_variant_of(direct.read_bytes(), tune=arguments.tune, slower_too=True)
    fast.write_bytes(made.model.SerializeToString())
    print(
        f"{encoder}: {fast.stat().st_size / 1e6:.0f} MB, fp32 {direct.stat().st_size / 1e6:.0f} MB",
        made.plan["convolutions"],
    )
    functions: dict[str, Scores] = {
        "cpu variant": from_features(ort_run(fast), files.features),
        "cpu variant, a batch a core": a_batch_a_core(fast, files),
        "ONNX Runtime": from_features(ort_run(direct), files.features),
        "ONNX Runtime, a batch a core": a_batch_a_core(direct, files),
    }
    for name, run in runtimes.fp32_runs(direct, batch=BATCH, threads=usable_cpus()).items():
        functions[name] = from_features(run, files.features)
    if runtimes.openvino:
        throughput = peers.OpenvinoThroughput(direct)
        batches = np.split(files.features, len(files.features) // BATCH)
        functions["OpenVINO, throughput"] = lambda: throughput.scores(batches)
    differences = check_same(
        {name: function() for name, function in functions.items()}, reference="ONNX Runtime"
    )  # a warm-up
    seconds = interleaved(functions, repeats=arguments.repeats, warm_up=0, pause=0.2)
    results = {
        f"{encoder} {name}": summary(values, clips=len(files.features))
        | {"max_difference": round(differences[name], 8)}
        for name, values in seconds.items()
    }
    pairs = {
        name: "cpu variant, a batch a core" if name.endswith(("a core", "throughput")) else "cpu variant"
        for name in seconds
    }
    return results, {
        f"{encoder}: {ours} over {name}": ratio(seconds[name], seconds[ours])
        for name, ours in pairs.items()
        if not name.startswith("cpu variant")
    }


def print_layers(encoder: EncoderName, folder: Path) -> None:
    """Prints a table of the convolutions, for one batch on one core: counted and measured."""
    model = onnx.load(model_file(encoder, folder))
    plan = plan_of(model, BATCH)
    heads = ["convolution", "map", "direct GFLOP", "direct ms", "way", "GFLOP", "of it transforms", "MB"]
    heads += ["ms, counted", "ms", "times"]
    print(f"| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|")
    for layer in convolutions_of(model):
        direct = measured_ms(layer, None, BATCH)
        cells = [
            f"{layer.channels} to {layer.filters}{', stride 2' if layer.stride > 1 else ''}",
            f"{layer.height} x {layer.width}",
        ]
        cells += [f"{BATCH * layer.flops / 1e9:.1f}", f"{direct:.1f}"]
        if axes := plan.get(layer.name):
            work, fast = work_of(layer, axes, BATCH), measured_ms(layer, axes, BATCH)
            transforms = work.from_samples + work.to_outputs
            written = work.gathered + work.transformed + work.multiplied + work.outputs
            cells += [" x ".join(axis.name for axis in axes), f"{(work.products + transforms) / 1e9:.1f}"]
            cells += [f"{transforms / (work.products + transforms):.0%}", f"{written / 1e6:.0f}"]
            cells += [f"{modelled_ms(layer, axes, BATCH):.1f}", f"{fast:.1f}", f"{direct / fast:.2f}"]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="*", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--layers", choices=ENCODERS)
    parser.add_argument("--audio", type=Path, default=ROOT / "tests/fixtures/bursts")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the usual number of clips: 512, 128 and 64"
    )
    parser.add_argument("--tune", action="store_true", help="choose each convolution's way by measuring")
    arguments = parser.parse_args()
    if missing := runtimes.missing():
        print(f"{', '.join(missing)}: not there, and left out (make .peers)", file=sys.stderr)
    results: dict[str, Any] = {}
    ratios: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as name:
        if arguments.layers:
            print_layers(arguments.layers, Path(name))
            return
        for encoder in arguments.encoders:
            files = real_files(
                arguments.audio, count_of(encoder, arguments.share), Path(name) / f"{encoder} audio"
            )
            of_encoder, of_pairs = compared(encoder, files, Path(name) / encoder, arguments)
            results |= of_encoder
            ratios |= of_pairs
    report("convolutions with fewer multiplications, CPU", results, ratios=ratios, targets=TARGETS)


if __name__ == "__main__":
    main()
