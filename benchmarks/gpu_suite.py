"""Everything that needs a GPU, in sections of under 8 minutes each.

    python benchmarks/gpu_suite.py --section correct step --out OUT
    python benchmarks/gpu_suite.py --smoke --out OUT        the same code at tiny sizes on the CPU

The script runs from a bare checkout: rrtn need not be installed. A section that lacks a package
says which, and is skipped. Each section prints its lines as they come and one JSON line last, and writes
OUT/<date>-<gpu>-<section>.json after every line. gpu_plan.py runs the sections in their order of worth.

probe        the machine, each convolution of CNN14, a step under the profiler, CUDA graphs
correct      the device against the CPU: frontend, losses, gradients, an epoch;
             bf16 and torch.compile against fp32 eager
step         the twin-view training step of each encoder: ms, clips/s, memory,
             share of the measured matmul peak
paper-run    the paper's best run: CNN14, rrtn-ruwl, 60 epochs on 19,990 synthetic clips,
             validated on 19,396
table2       as many of the paper's nine rows as fit, shorter, on synthetic clips
ranks        a world of one over NCCL, and two ranks on one GPU against one rank
infer        one model through PyTorch, ONNX Runtime and TensorRT: parity, throughput, latency
folder       WAV files to scores, beside the model alone and the decoders alone

The exit code is 1 if a check failed or a section broke.
"""

import argparse
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import checkout  # noqa: F401  # before rrtn
import torch
from gpu_correct import section_correct
from gpu_folder import section_folder
from gpu_inference import section_infer
from gpu_probe import section_probe
from gpu_ranks import section_ranks
from gpu_section import Place, Record, Skipped, result_name
from gpu_training import section_paper_run, section_step, section_table2
from rrtn.train.method.encoders import ENCODERS

SECTIONS: dict[str, Callable[[Place, Record], None]] = {
    "probe": section_probe,
    "correct": section_correct,
    "step": section_step,
    "paper-run": section_paper_run,
    "table2": section_table2,
    "ranks": section_ranks,
    "infer": section_infer,
    "folder": section_folder,
}


def ran(name: str, place: Place, out: Path) -> bool:
    """Runs a section; -> whether it is whole and right, or skipped."""
    record = Record(name, place, out / f"{result_name(name, place.device)}.json")
    print(f"{name}: {place.device}{', smoke' if place.smoke else ''}", flush=True)
    try:
        SECTIONS[name](place, record)
        record.ended = True
    except Skipped as error:
        record.skipped = str(error)
        print(f"  skipped: {error}", flush=True)
    except Exception as error:  # the other sections can still run
        traceback.print_exc()
        record.failed.append(f"{type(error).__name__}: {error}"[:500])
    record.write()
    print(json.dumps(record.document()), flush=True)
    return not record.failed


def save_cache(path: Path) -> None:
    """What torch.compile has made, for a machine of the same kind. Nothing where it has made nothing."""
    if artifacts := torch.compiler.save_cache_artifacts():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(artifacts[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--section", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument(
        "--encoders", nargs="+", default=[], choices=ENCODERS, help="in place of a section's own"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--cache",
        type=Path,
        help="file with what torch.compile has made: loaded first, saved after each section",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes, on the CPU unless --device says otherwise"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="of each section, after which no new part is begun"
    )
    arguments = parser.parse_args()
    name = arguments.device or ("cpu" if arguments.smoke else "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda | torch sees no CUDA GPU | --smoke runs on the CPU")
    if arguments.cache and arguments.cache.exists():
        torch.compiler.load_cache_artifacts(arguments.cache.read_bytes())
    right = []
    for section in arguments.section:
        deadline = time.monotonic() + 60 * arguments.minutes
        place = Place(torch.device(name), arguments.smoke, deadline, tuple(arguments.encoders))
        right.append(ran(section, place, arguments.out))
        if arguments.cache:
            save_cache(arguments.cache)
    raise SystemExit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
