"""A folder of real recordings to scores in fp32 and int8: rrtn beside others, in one run.

    python benchmarks/score_folder.py [--encoders resnet18] [--audio DIR] [--repeats 5] [--share 0.5]

bare ORT    the ceiling: a session on all cores, spinning, in batches of 16, with features in memory
rrtn        Scorer.score_files: fp32, int8, and the variant cpu, which `rrtn score` chooses by itself
PyTorch     a plain loop in eager mode: read, resample, log-Mel and encoder in batches of 16, all cores
audonnx     audinterface.Feature.process_files with audonnx.load and our transform: by default (one
            thread), and the best of two threads for ONNX Runtime, two files at a time, and both

Weights are random, because the time does not depend on them. All give the same scores for the same
files, which is checked before a time is printed. audinterface is not a dependency of rrtn: `make
.peers` installs it, and without it its lines are left out.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from files_to_scores import (
    ROOT,
    Files,
    Scores,
    audonnx_functions,
    check_same,
    count_of,
    cpu_variant_file,
    from_features,
    from_files,
    model_file,
    network_of,
    ort_run,
    real_files,
    rrtn_scores,
    torch_run,
)
from measure import Ratio, interleaved, ratio, report, summary
from rrtn.export.int8 import int8_for_cpu
from rrtn.runtime import Scorer
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS

TARGETS = {
    "resnet18": 0.85,
    "cnn14": 0.95,
    "int8": 1.7,
    "audonnx best": 1.0,
    "audonnx default": 1.5,
    "PyTorch": 2.0,
}


def compared(
    encoder: EncoderName, files: Files, folder: Path, repeats: int
) -> tuple[dict[str, Any], dict[str, Ratio]]:
    """-> a summary of each, and the ratios."""
    folder.mkdir()
    model = model_file(encoder, folder)
    int8 = folder / "int8.onnx"
    int8.write_bytes(int8_for_cpu(model.read_bytes(), files.features[:64]))
    variants = {"cpu": cpu_variant_file(model), "fp32": model, "int8": int8}
    scorers = {name: Scorer(file, "cpu") for name, file in variants.items()}
    functions: dict[str, Scores] = {
        **{
            f"bare ORT {name}": from_features(ort_run(file), files.features)
            for name, file in variants.items()
        },
        **{f"rrtn {name}": partial(rrtn_scores, scorer, files.paths) for name, scorer in scorers.items()},
        "PyTorch": from_files(torch_run(network_of(encoder)), files.paths),
        **audonnx_functions(model, files.paths),
    }
    differences = check_same(
        {name: function() for name, function in functions.items()}, reference="rrtn fp32"
    )  # a warm-up
    seconds = interleaved(functions, repeats=repeats, warm_up=0, pause=0.2)
    results = {
        f"{encoder} {name}": summary(values, clips=len(files.paths))
        | {"max_difference": round(differences[name], 7)}
        for name, values in seconds.items()
    }
    return results, {f"{encoder}: {name}": value for name, value in ratios(seconds).items()}


def ratios(seconds: dict[str, list[float]]) -> dict[str, Ratio]:
    """How many times faster rrtn is; of the ceiling it is a share."""
    pairs = {
        "share of bare ORT, fp32": ("bare ORT fp32", "rrtn fp32"),
        "share of bare ORT, cpu": ("bare ORT cpu", "rrtn cpu"),
        "share of bare ORT, int8": ("bare ORT int8", "rrtn int8"),
        "cpu over fp32": ("rrtn fp32", "rrtn cpu"),
        "int8 over fp32": ("rrtn fp32", "rrtn int8"),
        **{
            f"fp32 over {name}": (name, "rrtn fp32")
            for name in seconds
            if name.startswith(("audonnx", "PyTorch"))
        },
        **{f"over {name}": (name, "rrtn cpu") for name in seconds if name.startswith(("audonnx", "PyTorch"))},
    }
    found = {name: ratio(seconds[slow], seconds[fast]) for name, (slow, fast) in pairs.items()}
    at_best = [value for name, value in found.items() if name.startswith("over audonnx")]
    return found | (
        {"over audonnx at its best": min(at_best, key=lambda value: value["median"])} if at_best else {}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Scoring a folder")
    parser.add_argument("--encoders", nargs="*", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--audio", type=Path, default=ROOT / "tests/fixtures/bursts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the usual number of files: 512, 128 and 64"
    )
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    compared_to: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for encoder in arguments.encoders:
            files = real_files(
                arguments.audio, count_of(encoder, arguments.share), folder / f"{encoder} audio"
            )
            of_encoder, of_pairs = compared(encoder, files, folder / encoder, arguments.repeats)
            results |= of_encoder
            compared_to |= of_pairs
    report("score a folder, CPU", results, ratios=compared_to, targets=TARGETS)


if __name__ == "__main__":
    main()
