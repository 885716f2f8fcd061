"""A folder of real recordings to scores in fp32, int8 and, where the processor has it, bfloat16: rrtn beside
other tools, in one run.

    python benchmarks/score_folder.py [--encoders resnet18] [--audio DIR] [--repeats 5] [--share 0.5]
                                      [--compile] [--bundles DIR]

bare ORT    the ceiling: a session on all cores, spinning, in batches of 16, with features in memory
rrtn        Scorer.score_files with each variant by ONNX Runtime or MNN, and what OpenVINO is faster with;
            `rrtn score` takes `cpu` by itself, or what `rrtn tune` has found
PyTorch     a plain loop in eager mode: read, resample, log-Mel and encoder in batches of 16, all cores;
            with --compile also with torch.compile, which compiles for a minute
OpenVINO    the same loop, its hint for throughput, on our files in each precision
audonnx     audinterface.Feature.process_files with audonnx.load and our transform, on both files: of its
            default, two threads, two files at a time, and both, the fastest

Weights are random, because the time does not depend on them. All give the same scores for the same
files, which is checked before a time is printed. audinterface is not a dependency of rrtn: `make
.peers` installs it, and without it its lines are left out.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import runtimes
import torch
from files_to_scores import (
    BATCH,
    ROOT,
    Files,
    Scores,
    audonnx_functions,
    check_same,
    count_of,
    from_features,
    from_files,
    log_mels_of_files,
    ort_run,
    real_files,
    rrtn_scores,
    torch_run,
)
from measure import Ratio, best_against_best, interleaved, ratio, report, summary
from random_bundle import kept_bundle, network_of
from rrtn.runtime import Scorer
from rrtn.runtime.arrays import Float32
from rrtn.runtime.bundle import Bundle
from rrtn.runtime.system.cpus import has_bf16
from rrtn.train.method.choices import EncoderName
from rrtn.train.method.encoders import ENCODERS

TARGETS = {
    "share of bare ORT, resnet18": 0.85,
    "share of bare ORT, cnn14": 0.95,
    "int8 over fp32": 1.7,
    "over the best other tool": 1.5,
}
_FAR = 1.5  # times as long as the fastest other tool: not measured again
_OPENVINO = {"fp32": ("fp32", "f32"), "int8": ("int8", "f32")} | (  # precision: variant, and its own word
    {"bf16": ("fp32", "bf16")} if has_bf16() else {}
)


def compared(
    encoder: EncoderName, bundle: Bundle, files: Files, folder: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Ratio]]:
    """-> a summary of each, and the ratios."""
    onnx_files = {one.name: bundle.path / one.file for one in bundle.variants if one.kind == "onnx"}
    ours = {f"rrtn {one.name}": _scorer(bundle, one.name) for one in bundle.variants}
    ours |= _by_openvino_of_ours(bundle)
    others = {
        "PyTorch": from_files(torch_run(network_of(encoder)), files.paths),
        **audonnx_functions(bundle, "fp32", files.paths, folder / "fp32"),
        **{
            f"{name} int8": run
            for name, run in audonnx_functions(bundle, "int8", files.paths, folder / "int8").items()
        },
    }
    if arguments.compile:
        compiled = torch_run(torch.compile(network_of(encoder), dynamic=False))
        others["PyTorch, compiled"] = from_files(compiled, files.paths)
    if runtimes.openvino:
        others |= {
            f"OpenVINO {precision}": _by_openvino(onnx_files[file], files.paths, hint)
            for precision, (file, hint) in _OPENVINO.items()
        }
    functions: dict[str, Scores] = {
        **{
            f"bare ORT {name}": from_features(ort_run(file), files.features)
            for name, file in onnx_files.items()
        },
        **{name: partial(rrtn_scores, scorer, files.paths) for name, scorer in ours.items()},
        **others,
    }
    scores: dict[str, Float32] = {}

    def keep(name: str) -> None:
        scores[name] = functions[name]()

    once = interleaved(  # and a warm-up
        {name: partial(keep, name) for name in functions}, repeats=1, warm_up=0, pause=0.2
    )
    differences = check_same(scores, reference="rrtn fp32")
    at_best = _without_worse_settings(functions, once)
    more = interleaved(at_best, repeats=arguments.repeats, warm_up=0, pause=0.2)
    seconds = {name: more.get(name, values) for name, values in once.items()}
    results = {
        f"{encoder} {name}": summary(values, clips=len(files.paths))
        | {"max_difference": round(differences[name], 7)}
        for name, values in seconds.items()
    }
    found = {f"{encoder}: {name}": value for name, value in ratios(more).items()}
    for scorer in ours.values():
        scorer.close()
    return results, found


def _scorer(bundle: Bundle, variant: str) -> Scorer:
    return Scorer(bundle, "mnn" if variant == "mnn" else "cpu", variant=variant)


def _by_openvino_of_ours(bundle: Bundle) -> dict[str, Scorer]:
    """What `rrtn tune` may find to be faster than any variant by ONNX Runtime."""
    if not runtimes.openvino:
        return {}
    found = {f"rrtn openvino {name}": Scorer(bundle, "openvino", variant=name) for name in ("cpu", "int8")}
    if "bf16" in _OPENVINO:
        found["rrtn openvino bf16"] = Scorer(bundle, "openvino-bf16", variant="fp32")
        found["rrtn openvino cpu bf16"] = Scorer(bundle, "openvino-bf16", variant="cpu")
    return found


def _by_openvino(model: Path, paths: list[Path], precision: str) -> Scores:
    """Its hint for throughput: several batches at once, as many as it thinks best."""
    throughput = runtimes.OpenvinoThroughput(model, BATCH, precision)
    return lambda: throughput.scores(log_mels_of_files(paths))


def _without_worse_settings(functions: dict[str, Scores], once: dict[str, list[float]]) -> dict[str, Scores]:
    """The fastest settings of audonnx in each precision, and other tools that are not far behind."""
    others = [name for name in functions if not name.startswith(("rrtn", "bare ORT"))]
    fastest = {_tool_and_precision(name): name for name in sorted(others, key=lambda name: -once[name][0])}
    least = {_precision(name): once[name][0] for name in sorted(others, key=lambda name: -once[name][0])}
    left = {name for name in fastest.values() if once[name][0] <= _FAR * least[_precision(name)]}
    return {name: run for name, run in functions.items() if name not in others or name in left}


def ratios(seconds: dict[str, list[float]]) -> dict[str, Ratio]:
    """How many times faster rrtn is; of the ceiling it is a share."""
    found = {
        f"share of bare ORT, {name}": ratio(seconds[f"bare ORT {name}"], seconds[f"rrtn {name}"])
        for name in ("fp32", "cpu", "int8", "cpu-int8")
    }
    for name in ("cpu", "int8"):
        found[f"{name} over fp32"] = ratio(seconds["rrtn fp32"], seconds[f"rrtn {name}"])
    for precision in ("fp32", "int8", "bf16"):
        equal = {
            name: values
            for name, values in seconds.items()
            if _precision(name) == precision and not name.startswith("bare ORT")
        }
        ours = {name: values for name, values in equal.items() if name.startswith("rrtn")}
        others = {name: values for name, values in equal.items() if name not in ours}
        for name, values in others.items():
            tool, _ = _tool_and_precision(name)
            found[f"{precision} over {tool}"] = best_against_best(ours, {name: values})
        if others:
            found[f"{precision} over the best other tool"] = best_against_best(ours, others)
    return found


def _precision(name: str) -> str:
    return name[-4:] if name.endswith(("int8", "bf16")) else "fp32"


def _tool_and_precision(name: str) -> tuple[str, str]:
    """Equal for two settings of a tool."""
    return "audonnx" if name.startswith("audonnx") else name, _precision(name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Scoring a folder")
    parser.add_argument("--encoders", nargs="*", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--audio", type=Path, default=ROOT / "tests/fixtures/bursts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the usual number of files: 512, 128 and 64"
    )
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--bundles", type=Path, help="a folder that random_bundle.py has filled")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    compared_to: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for encoder in arguments.encoders:
            files = real_files(
                arguments.audio, count_of(encoder, arguments.share), folder / f"{encoder} audio"
            )
            bundle = kept_bundle(encoder, arguments.bundles or folder)
            others = folder / f"{encoder} audonnx"
            others.mkdir()
            of_encoder, of_pairs = compared(encoder, bundle, files, others, arguments)
            results |= of_encoder
            compared_to |= of_pairs
    report("score a folder, CPU", results, ratios=compared_to, targets=TARGETS)


if __name__ == "__main__":
    main()
