"""Every command line in README.md, CONTRIBUTING.md and docs/ is run here as it stands, or listed here
with who runs it.

Each page has a folder of its own with the names that the pages use: DIR (data), ratings.tsv, recordings/,
/shared/recordings, RUN, RUN2, BUNDLE, likert.csv, my.toml, fixed.toml. Command lines are those that are
indented or in ```sh fences, then those in backticks. Under make test the encoders are the
three-layer CNN of tests/faults/small_rrtn.py, whatever --encoder says, and who gives no --epochs has
three of them; make soak runs all lines, and on pages that do not train for minutes with the real
encoders.
"""

import csv
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import typer
from rrtn.cli import app
from rrtn.runtime.arrays import Float32
from rrtn.train.data.corpus import synthesise
from rrtn_processes import Server

ROOT = Path(__file__).parents[2]
PATHS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
PAGES = {path.relative_to(ROOT).as_posix(): path for path in PATHS}
PROGRAMS = ("rrtn", "make", "python", "torchrun", "pip", "ray", "sbatch")
TRAINS_LONG = ("README.md", "docs/data.md", "docs/table2.md", "docs/training.md")

# Not run here: why, and where else it is run.
ELSEWHERE = {
    "make demo": "minutes; tests/integration/test_empty_folder.py has its `rrtn demo` (slow)",
    "make test": "this test is part of it",
    "make soak": "hours; it is itself the slow tests",
    "make screens": "tests/screens/test_screens.py compares what it records",
    "rrtn --install-completion": "it writes into the home folder; tests/test_cli.py has another one",
    "rrtn --show-completion": "it asks which shell has called it, which may be none; tests/test_cli.py",
    "make docs": "make check runs it; tests/docs/test_site.py builds the site",
    "make coverage": "the tests again, slower; by hand",
    "make mutants": "an hour; under make soak",
    "make check": "by hand before each commit; it needs the linters",
    "make bench": "10 minutes and quiet cores; by hand, its results are committed; "
    "tests/benchmarks/test_results.py",
    "make bench-compare": "the checkout's results; tests/benchmarks/test_results.py",
    "python benchmarks/gpu_plan.py --minutes 29 --out OUT": "a GPU; "
    "tests/benchmarks/test_gpu_suite.py runs each section with --smoke",
    "python benchmarks/gpu_pack.py make PARTS": "it downloads; tests/benchmarks/test_gpu_plan.py",
    "python benchmarks/parent_cost.py --files 10000 --repeats 3": "the checkout; "
    "tests/benchmarks/test_parent_cost.py",
    "python benchmarks/step_bytes.py": "minutes; tests/benchmarks/test_step_bytes.py",
    "python benchmarks/train_step.py --precisions fp32 bf16": "minutes and quiet cores; by hand, "
    "its result is committed",
    "python benchmarks/score_folder.py --encoders cnn10": "minutes and quiet cores; by hand, its "
    "result is committed",
    "python benchmarks/winograd.py --layers cnn14": "minutes and quiet cores; by hand",
    "python examples/from_recordings_to_picture.py recordings/ BUNDLE scores.svg": "the checkout; "
    "tests/docs/test_examples.py",
    'pip install ".[train,rtx]"': "a package index and 5 GB; make installs requirements.lock and the wheel",
    **{
        f'pip install ".[{extra}]"': "a package index"
        for extra in ("audformat", "formats", "live", "mnn", "openvino", "parquet", "ray", "segment", "serve")
    },
    "cc -O2 score.c -o score -ldl": "the example's folder; tests/parity/test_hosts.py",
    "./score libonnxruntime.so.1 model.samples.onnx a.wav b.wav": "likewise",
    "npm install --ignore-scripts": "likewise",
    "node score.js BUNDLE a.wav b.wav": "likewise",
    "python benchmarks/load_everywhere.py BUNDLE": "the checkout; tests/parity/test_runtimes.py",
    'pip install --constraint requirements.portable.lock ".[train,formats,parquet]"': "a package index",
    "python tests/platforms/main_job.py": "minutes; tests/platforms/test_windows_stand_in.py has its job",
    "rrtn serve runs/my-run/export": "it goes on; tests/runtime/serving",
    "rrtn serve runs/my-run/export --port 8000": "likewise",
    "curl --data-binary @burst.wav http://127.0.0.1:8000/score": "likewise",
    "curl -F file=@burst.wav http://127.0.0.1:8000/score": "likewise",
    "rrtn listen -m BUNDLE": "it needs a microphone; tests/integration/test_pulseaudio.py has one",
    "rrtn listen --hop 1 --json": "likewise",
    "ffmpeg -i SOURCE -f s16le -ac 1 -ar 48000 - | rrtn score - --rate 48000 -m BUNDLE": "ffmpeg; "
    "tests/commands/test_live.py pipes the same",
    "rrtn score -": "the command without its pipe; tests/commands/test_live.py",
    "rrtn score FILE --window S --level running": "S is a number; tests/commands/test_live.py",
    "python -m http.server -d page": "it goes on; tests/parity/test_web_page.py serves the page",
    "pip freeze --all": "of a fresh environment with a package index",
    "torchrun --nproc-per-node 4 -m rrtn train --data DIR": "4 GPUs; "
    "tests/parity/test_distributed.py has 2 Gloo processes",
    "ray start --head --port 6379": "a cluster; tests/runtime/scoring/test_ray_engine.py starts its own",
    "ray start --address FIRST:6379": "a cluster",
    "ray status": "a cluster",
    "rrtn score /shared/recordings -m BUNDLE --out scores.csv --engine ray "
    "--ray-address FIRST:6379": "a cluster",
    "sbatch --requeue": "a cluster; a flag's name",
    "rrtn score --variant fp32": "a row's name in a table; tests/export/test_int8.py scores with a variant",
}
# Of seconds there are too many for make test: under make soak, where the lines that need them follow them.
SLOW = (
    "rrtn export --fp16 --int8 --trt",
    "rrtn data synth corpus --clips 8000 --speakers 240 --seed 0",
    "rrtn train --data corpus --method vanilla --epochs 4 --batch-size 64",
    "rrtn evaluate",
    "rrtn data synth OUT",
    "rrtn data synth OUT --clips 20000 --speakers 570",
    "rrtn data synth exvo --task exvo-multitask --clips 60 --speakers 12",
    "rrtn train --data exvo --task exvo-multitask",
    "rrtn data synth small --clips 400 --speakers 40 --seed 0",
    "rrtn train --data small --config fixed.toml --epochs 5 --batch-size 16 --precision bf16 "
    "--device cpu --seed 0",
    "rrtn bench RUN/export --json > RUN/export/bench.json",
    "rrtn tune RUN/export",
    "rrtn tune --allow int8",
    "rrtn tune --allow bf16",
    "rrtn tune --allow bf16,int8",
    "rrtn export --trt",
    "rrtn export RUN --fp16 --int8 --trt",
    "rrtn export RUN --triton repository/",
    "rrtn export --web page/",
    "rrtn export --web page.html",
    "rrtn export --samples",
    "rrtn export RUN --samples",
    "rrtn export --web page/ --no-int8",
    "rrtn export --measure-convolutions",
    "rrtn export --embeddings",
    "rrtn score recordings/ --embeddings --out embedded.parquet",
    "rrtn table2 --data DIR --seeds 5",
    "rrtn crossval --data DIR --folds 5",
    "rrtn evaluate runs/table2/cnn14-rrtn --compare runs/table2/cnn14-vanilla",
    "rrtn report runs/table2/cnn14-rrtn runs/table2/cnn14-vanilla",
    "OMP_NUM_THREADS=1 rrtn table2 --encoders resnet18 --seeds 3 --fraction 0.5 --epochs 8 "
    "--batch-size 16 --device cpu",
    "rrtn score recordings/ -m BUNDLE --out scores.csv --engine ray",
    "sbatch --array=0-15 --wrap 'N=$(printf %02d $SLURM_ARRAY_TASK_ID); "
    "rrtn score --list part-$N -m BUNDLE --out scores-$N.csv || [ $? -eq 3 ]'",
    "head -n 1 scores-00.csv > scores.csv",
    'for part in scores-??.csv; do tail -n +2 "$part"; done >> scores.csv',
)
# What a page takes for granted.
BEFORE = {
    "python -c": "rrtn score recordings/ -m BUNDLE --out scores-00.parquet; cp scores-00.parquet "
    "scores-01.parquet",
    "rrtn score packs": "test -d packs || rrtn pack recordings/ --out packs",
    "rrtn tracks": "test -f bursts.csv || rrtn score night.wav --segment --out bursts.csv",
    "rrtn pack": "rm -r scores.csv .scores.csv.rrtn",  # another section, another table
    "OMP_NUM_THREADS=1 rrtn table2": "mv runs/table2 runs/before",  # likewise
}
SBATCH = """#!/bin/bash
# --array=0-15 --wrap SCRIPT: the jobs one after the other
for SLURM_ARRAY_TASK_ID in $(seq 0 "${1##*-}"); do
    export SLURM_ARRAY_TASK_ID
    bash -c "$3" || exit
done
"""


def block_lines(text: str) -> list[str]:
    """The lines of indented blocks and ```sh fences, without comments."""
    lines, fence = [], ""
    for line in text.splitlines():
        if line.startswith("```"):
            fence = "" if fence else line[3:].strip() or "text"
        elif fence == "sh" or (not fence and re.match(r" {4}\S", line)):
            lines.append(re.sub(r"\s{2,}#.*", "", line).strip())
    return lines


def inline_code(text: str) -> list[str]:
    prose = "\n".join(
        line
        for line in re.sub(r"```.*?```", "", text, flags=re.S).splitlines()
        if not line.startswith("    ")
    )
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def is_name(code: str) -> bool:
    """`rrtn score` in a sentence is no command line."""
    return re.fullmatch(r"rrtn [a-z0-9]+( synth| check| import)?", code) is not None


def commands_of(page: str) -> list[str]:
    """Each once, in order."""
    text = PAGES[page].read_text()
    inline = [
        code
        for code in inline_code(text)
        if code.split()[0] in PROGRAMS and " " in code and not is_name(code)
    ]
    return list(dict.fromkeys([*block_lines(text), *inline]))


def as_typed(command: str, workplace: Path) -> str:
    """[--what may be left out ...] is there, and the shared storage is in the page's folder."""
    command = re.sub(r" \[((?:--|[A-Z])[^\]]*?)(?: \.\.\.)?\]", r" \1", command)
    return command.replace("/shared/", f"{workplace}/shared/")


def run(command: str, folder: Path) -> None:
    """In bash, as a person would; fails with what it said."""
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "RRTN_CACHE": str(folder / "cache")}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def prepare(folder: Path, servers: tuple[Server, Server], *, small: bool) -> None:
    """Data, recordings, and a run of one epoch with its export."""
    synthesise(folder / "DIR", clips=30, speakers=9, seed=5, workers=1)
    bursts = sorted((ROOT / "tests/fixtures/bursts").glob("*.wav"))
    (folder / "shared/recordings").mkdir(parents=True)
    for i in range(40):  # enough lines for the parts of an array of 16 jobs
        shutil.copy(bursts[i % len(bursts)], folder / f"shared/recordings/{i:02d}.wav")
    (folder / "recordings").symlink_to("shared/recordings")
    soundfile.write(folder / "night.wav", night(bursts), 16_000)
    (folder / "my.toml").write_text('[data]\ndir = "DIR"\n[optim]\nepochs = 2\n')
    table = (folder / "DIR/data_info.csv").read_text()
    (folder / "ratings.tsv").write_text(table.replace(",", "\t"))
    (folder / "likert.csv").write_text(likert(table))
    (folder / "fixed.toml").write_text('[ruwl]\nmode = "fixed"\n')
    executable(folder / "bin/sbatch", SBATCH)
    if small:
        training, runtime = servers
        training.put_command(folder / "bin", runtime)
    run(
        "rrtn train --data DIR --epochs 1 --batch-size 16 --out runs/my-run && rrtn export && cp -r "
        "runs/my-run RUN2",
        folder,
    )
    (folder / "RUN").symlink_to("runs/my-run")
    (folder / "BUNDLE").symlink_to("runs/my-run/export")


def night(bursts: list[Path]) -> Float32:
    """Three bursts in a minute of hiss, at 16 kHz."""
    hiss = np.random.default_rng(0).normal(0, 1e-3, 60 * 16_000).astype(np.float32)
    for i, burst in enumerate(bursts[:3]):
        samples, rate = soundfile.read(burst, dtype="float32", always_2d=True)
        sound = soxr.resample(samples.mean(axis=1), rate, 16_000)
        hiss[(10 + 20 * i) * 16_000 :][: len(sound)] += sound
    return hiss


def likert(table: str) -> str:
    """Two ratings from 1 to 9 and a class of the same clips, as a spreadsheet saves them."""
    lines = ["file;partition;speaker;Valence;Arousal;Type"]
    for i, row in enumerate(csv.DictReader(table.splitlines())):
        ratings = [f"{1 + 8 * float(row[name]):.1f}" if row[name] else "" for name in ("Awe", "Fear")]
        cells = (row["File_ID"], row["Split"], row["Subject_ID"], *ratings, ("Laugh", "Cry")[i % 2])
        lines.append(";".join(cells).replace(".", ","))
    return "\n".join(lines)


Workplace = Callable[..., Path]


@pytest.fixture(scope="module")
def prepared(
    server: Server, runtime_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Path]:
    """-> the folder, made once with the small encoder and once with the real ones."""

    @functools.cache
    def make(small: bool) -> Path:
        folder = tmp_path_factory.mktemp("prepared")
        prepare(folder, (server, runtime_server), small=small)
        return folder

    return make


@pytest.fixture
def workplace(prepared: Callable[[bool], Path], tmp_path: Path) -> Workplace:
    """-> a copy, for one page."""
    return lambda *, small: Path(shutil.copytree(prepared(small), tmp_path / "page", symlinks=True))


def quick_commands_of(page: str) -> list[str]:
    """Those that no earlier page has."""
    pages = list(PAGES)
    earlier = {command for before in pages[: pages.index(page)] for command in commands_of(before)}
    return [command for command in commands_of(page) if command not in SLOW and command not in earlier]


def run_all(commands: list[str], folder: Path) -> None:
    for command in commands:
        if command in ELSEWHERE:
            continue
        for start, before in BEFORE.items():
            if command.startswith(start):
                run(before, folder)
        run(as_typed(command, folder), folder)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(page: str, workplace: Workplace) -> None:
    run_all(quick_commands_of(page), workplace(small=True))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES)
def test_all_commands_of_a_page(page: str, workplace: Workplace) -> None:
    run_all(commands_of(page), workplace(small=page in TRAINS_LONG))


def test_the_python_in_readme(workplace: Workplace) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGES["README.md"].read_text(), flags=re.S)
    folder = workplace(small=True)
    shutil.copy(folder / "recordings/00.wav", folder / "laugh.wav")
    (folder / "broken.wav").write_bytes(b"no audio")
    (folder / "example.py").write_text(
        f"import numpy\nsamples = numpy.random.default_rng(0).normal(size=44_100)\n{example}"
    )
    run("python example.py > printed", folder)
    laugh, broken, burst = (folder / "printed").read_text().splitlines()
    assert laugh.startswith("laugh.wav {'Awe': 0.")
    assert broken == "broken.wav unsupported_format ()"
    assert burst.startswith("{'Awe': 0.")


def test_no_command_is_listed_that_no_page_has() -> None:
    documented = {command for page in PAGES for command in commands_of(page)}
    assert {*ELSEWHERE, *SLOW} - documented == set()


def test_make_has_every_target_that_is_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = {
        command.split()[1] for page in PAGES for command in commands_of(page) if command.startswith("make ")
    }
    assert len(named) >= 5
    assert named <= targets


def test_rrtn_has_every_command_that_is_named() -> None:
    names = {
        code.split()[1] for path in PAGES.values() for code in inline_code(path.read_text()) if is_name(code)
    }
    assert len(names) >= 8
    assert names <= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_every_test_that_is_said_to_run_a_command_is_there() -> None:
    for reason in ELSEWHERE.values():
        assert all((ROOT / name).is_file() for name in re.findall(r"tests/\S+\.py", reason)), reason
