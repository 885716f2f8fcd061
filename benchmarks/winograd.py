"""The convolutions of an encoder, one by one: counted and measured, directly and with fewer multiplications.

    python benchmarks/winograd.py --layers cnn14

A batch of 16 on one core: counted operations and bytes, milliseconds, and which share of the core's peak they
reach, which is measured as a product of float32 matrices before. How the whole compares with others is in
every_way.py.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import argparse
import tempfile
from pathlib import Path

import onnx
from files_to_scores import BATCH
from random_bundle import model_file
from rrtn.export.winograd.conv_cost import measured_ms, modelled_ms, work_of
from rrtn.export.winograd.rewriting import convolutions_of, plan_of
from rrtn.runtime.bench import ceiling
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS


def print_layers(encoder: EncoderName, folder: Path) -> None:
    """Prints a table of the convolutions, for one batch on one core: counted and measured."""
    model = onnx.load(model_file(encoder, folder))
    plan = plan_of(model, BATCH)
    peak = ceiling().sgemm / 1e9  # of one core, since OpenBLAS has one thread here
    print(f"{encoder}, batches of {BATCH}, one core: its peak is {peak:.0f} GFLOP/s")
    heads = ["convolution", "map", "direct GFLOP", "direct ms", "of the peak", "way", "GFLOP"]
    heads += ["of it transforms", "MB", "ms, counted", "ms", "of the peak", "times"]
    print(f"| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|")
    for layer in convolutions_of(model):
        direct = measured_ms(layer, None, BATCH)
        cells = [
            f"{layer.channels} to {layer.filters}{', stride 2' if layer.stride > 1 else ''}",
            f"{layer.height} x {layer.width}",
        ]
        gflop = BATCH * layer.flops / 1e9
        cells += [f"{gflop:.1f}", f"{direct:.1f}", f"{1e3 * gflop / direct / peak:.0%}"]
        if axes := plan.get(layer.name):
            work, fast = work_of(layer, axes, BATCH), measured_ms(layer, axes, BATCH)
            transforms = work.from_samples + work.to_outputs
            written = work.gathered + work.transformed + work.multiplied + work.outputs
            gflop = (work.products + transforms) / 1e9
            cells += [" x ".join(axis.name for axis in axes), f"{gflop:.1f}"]
            cells += [f"{transforms / (work.products + transforms):.0%}", f"{written / 1e6:.0f}"]
            cells += [f"{modelled_ms(layer, axes, BATCH):.1f}", f"{fast:.1f}"]
            cells += [f"{1e3 * gflop / fast / peak:.0%}", f"{direct / fast:.2f}"]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", choices=ENCODERS, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_layers(arguments.layers, Path(folder))


if __name__ == "__main__":
    main()
