"""N24 and N11 at length: damaged bundles, checkpoints and tables of ratings, in process, by the functions
that the commands call. Each is refused in one line, or gives what the whole file gives.

`make test` takes some, `make soak` 10,000 of each; RRTN_SOAK=0.1 is a tenth of them.
"""

import contextlib
import csv
import io
import json
import os
import random
import re
import runpy
import signal
import socket
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rrtn.train.method.model
import torch
from mutations import mutated_bytes, mutated_json
from rrtn.commands.inspect import bundle_json, print_bundle
from rrtn.runtime import Scorer, load_bundle
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.inputs import inputs_from_arguments
from rrtn.runtime.audio.pack_reader import PackReader, inputs_from_pack
from rrtn.runtime.audio.pack_writer import write_packs
from rrtn.runtime.audio.sources import Input
from rrtn.runtime.errors import AudioError, ModelError, RrtnError
from rrtn.runtime.scoring.table_job import opened_job
from rrtn.train.checkpoint import load_checkpoint
from rrtn.train.config_file import read_toml
from rrtn.train.data.data_set import read_data
from rrtn.train.evidence.best_checkpoint import best_of_run, network_from_weights
from rrtn.train.evidence.predictions import read_predictions
from rrtn.train.evidence.report import _history, _measured
from rrtn.train.method.panns import _content as torch_state

KEPT = Path(__file__).parents[1] / "fixtures/before.tar.xz"
MANY = round(10_000 * float(os.environ.get("RRTN_SOAK", "1")))
NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
FEW = pytest.param(50, id="some")  # where each takes long
COUNTS = [pytest.param(150, id="some"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]

Outcome = Callable[[], Any]  # what the file gives; raises RrtnError where it is refused


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What rrtn 0.1.0 wrote."""
    folder = tmp_path_factory.mktemp("door")
    with tarfile.open(KEPT) as kept:
        kept.extractall(folder, filter="data")
    return folder / "before"


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """The encoder that the kept run was trained with."""
    small_cnn = runpy.run_path(str(Path(__file__).with_name("small_cnn.py")))["SmallCnn"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rrtn.train.method.model, "encoder_from_name", lambda name, *, n_mels: small_cnn(n_mels))
        yield


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """A file that keeps its reader for a minute has hung it."""

    def ring(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_refusal(error: RrtnError, *exit_codes: int) -> None:
    assert error.exit_code in exit_codes, repr(error)
    assert error.subject, repr(error)


def walk(
    path: Path,
    mutant: Callable[[random.Random], bytes],
    outcome: Outcome,
    same: Callable[[Any], None],
    *,
    count: int,
    exit_codes: tuple[int, ...],
) -> None:
    """Puts `count` mutants in the place of a file. Each is refused, or what comes of it is the `same`."""
    whole, ended = path.read_bytes(), Counter[str]()
    try:
        for seed in range(count):
            path.write_bytes(content := mutant(random.Random(seed)))
            try:
                with no_hang():
                    came = outcome()
            except RrtnError as error:
                check_refusal(error, *exit_codes)
                ended["refused"] += 1
                continue
            except BaseException as error:
                raise AssertionError(f"mutant {seed}: {error!r}") from error
            try:
                same(came)
            except AssertionError as error:
                raise AssertionError(f"mutant {seed}: {content[:3000]!r}") from error
            ended["same"] += 1
    finally:
        path.write_bytes(whole)
    assert ended["refused"] > count / 10, ended
    print(path.name, dict(ended))


@pytest.mark.parametrize("count", [FEW, COUNTS[1]])
def test_n24_a_damaged_bundle_is_refused_or_scores_as_the_whole_one(
    count: int, before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = before / "whole/export/bundle.json"
    document = json.loads(path.read_text())
    signal_ = np.random.default_rng(0).normal(0, 0.1, 16_000)

    def outcome() -> dict[str, float]:
        bundle = load_bundle(path.parent)
        json.dumps(bundle_json(bundle))
        print_bundle(bundle)
        assert "\x1b" not in capsys.readouterr().out
        scorer = Scorer(bundle, "cpu", workers=1)
        return scorer.score_waveform(signal_, 16_000)

    expected = outcome()

    def same(came: dict[str, float]) -> None:
        assert list(came) == list(expected)
        assert came == pytest.approx(expected, abs=1e-4)

    walk(path, lambda rng: mutated_json(document, rng), outcome, same, count=count, exit_codes=(5,))


@pytest.mark.parametrize("count", COUNTS)
def test_n24_a_damaged_checkpoint_is_refused_or_is_the_same_network(count: int, before: Path) -> None:
    run = before / "whole"
    path = run / "checkpoints/best/checkpoint.json"
    document = json.loads(path.read_text())
    log_mel = torch.from_numpy(np.random.default_rng(0).normal(-40, 20, (2, 1, 64, 64)).astype(np.float32))

    def outcome() -> tuple[list[str], dict[str, Any], Any]:
        info, config, network = best_of_run(run)
        assert 0 <= info.ccc * 0 <= 0, info.ccc
        assert set(info.per_target) == set(info.labels)
        with torch.no_grad():
            return info.labels, config.frontend.to_dict(), network(log_mel).scores.numpy()

    labels, frontend, scores = outcome()

    def same(came: tuple[list[str], dict[str, Any], Any]) -> None:
        assert came[:2] == (labels, frontend)
        np.testing.assert_array_equal(came[2], scores)

    walk(path, lambda rng: mutated_json(document, rng), outcome, same, count=count, exit_codes=(5,))


@pytest.mark.parametrize("count", COUNTS)
def test_n24_a_damaged_last_checkpoint_is_refused_or_has_the_same_tensors(count: int, before: Path) -> None:
    path = before / "half/checkpoints/last/checkpoint.json"
    document = json.loads(path.read_text())

    def outcome() -> Any:
        return load_checkpoint(path.parent, "weights", "optimizer")[1]

    expected = outcome()

    def same(came: Any) -> None:
        assert {kind: list(tensors) for kind, tensors in came.items()} == {
            kind: list(tensors) for kind, tensors in expected.items()
        }

    walk(path, lambda rng: mutated_json(document, rng), outcome, same, count=count, exit_codes=(5,))


@pytest.mark.parametrize("count", COUNTS)
def test_n24_damaged_ratings_are_refused_or_are_those_that_the_file_states(
    count: int, make_data: Callable[..., Path], csv_lines: list[str]
) -> None:
    folder = make_data()
    path = folder / "data_info.csv"
    content = path.read_bytes()

    def outcome() -> Any:
        return read_data(folder)

    def same(data: Any) -> None:
        stated = ratings_of(path)
        for split in data.splits.values():
            for clip, row in zip(split.clips, split.ratings, strict=True):
                cells = stated[clip.line]
                (name,) = [
                    key for key in cells if re.sub("[^a-z]", "", key.lower()) == "fileid"
                ]  # any spelling
                assert clip.file_id == cells[name].strip()
                for name, value in zip(data.targets, row, strict=True):
                    text = cells[name]
                    assert NUMBER.fullmatch(text) if text.strip() else np.isnan(value), (name, text)
                    assert np.isnan(value) or value == np.float32(float(text.strip()))

    walk(path, lambda rng: mutated_bytes(content, rng), outcome, same, count=count, exit_codes=(2,))


@pytest.mark.parametrize("count", COUNTS)
def test_n24_a_damaged_pack_is_refused_or_lists_and_holds_the_same_files(count: int, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    folder = tmp_path / "recordings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        (folder / f"{number}.wav").write_bytes(rng.bytes(400 + number))
    (folder / "gone.wav").symlink_to(folder / "nothing")
    with InputSpool(inputs_from_arguments([folder])) as spool:
        write_packs(spool, tmp_path / "packs", SimpleNamespace(advance=lambda *_: None))
    (path,) = (tmp_path / "packs").glob("*.parquet")
    content = path.read_bytes()

    def held(reader: PackReader, found: Input) -> bytes | str:
        try:
            with reader.opened(found.source) as descriptor:
                return os.read(descriptor, 10_000)
        except AudioError as error:
            return error.code

    def outcome() -> Any:
        listed = list(inputs_from_pack(os.fsencode(path)))
        with PackReader() as reader:
            return [(row.source.name, row.size, row.mtime_ns, held(reader, row)) for row in listed]

    expected = outcome()
    assert len(expected) == 13

    def same(came: Any) -> None:
        assert came == expected

    walk(path, lambda rng: mutated_bytes(content, rng), outcome, same, count=count, exit_codes=(2, 4))


@pytest.mark.parametrize("count", COUNTS)
def test_n24_a_damaged_job_is_refused_or_goes_on_with_the_same_settings(count: int, tmp_path: Path) -> None:
    target, inputs = tmp_path / "s.csv", ["/recordings/a", "/recordings/b"]
    settings = {"scoring_rules": 2, "labels": ["Awe", "Fear"], "window": None, "hop": 0.5, "batch_size": 16}
    with opened_job(target, settings, ("Awe", "Fear"), inputs=inputs):
        pass
    path = tmp_path / ".s.csv.rrtn/job.json"
    document = json.loads(path.read_text())

    def outcome() -> Any:
        with opened_job(target, settings, ("Awe", "Fear"), inputs=inputs):
            kept = json.loads(path.read_text())
            return {name: kept.get(name) for name in settings}

    def same(came: Any) -> None:
        assert came == settings

    walk(path, lambda rng: mutated_json(document, rng), outcome, same, count=count, exit_codes=(2,))


def ratings_of(path: Path) -> dict[int, dict[str, str]]:
    """Line -> column -> cell, by another way through the file than read_data takes."""
    reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
    stated = {}
    for row in reader:
        stated[reader.line_num] = {str(name).strip(): cell for name, cell in row.items()}
    return stated


@pytest.mark.parametrize(
    ("section", "name", "value", "came"),
    [
        ("frontend", "peak_dbfs", -4.0, r"other settings than config.toml: frontend.peak_dbfs: -3.0 -> -4.0"),
        ("head", "activation", "linear", r"head.activation"),
        ("data", "targets", ["Excitement"], r"targets \['Excitement'\]"),
        ("model", "encoder", "resnet19", r"model.encoder"),
        ("projector", "units", 10**12, r"projector.units"),
        ("projector", "units", 17, r"projector.units: 16 -> 17|tensors"),
    ],
)
def test_n11_a_checkpoint_must_have_the_settings_and_labels_of_its_run(
    section: str, name: str, value: object, came: str, before: Path
) -> None:
    path = before / "whole/checkpoints/best/checkpoint.json"
    whole = path.read_text()
    document = json.loads(whole)
    document["config"][section][name] = value
    path.write_text(json.dumps(document))
    try:
        with pytest.raises(ModelError, match=came):
            best_of_run(before / "whole")
    finally:
        path.write_text(whole)


def test_n24_weights_of_another_network_are_refused_before_memory_is_taken(before: Path) -> None:
    _, config, network = best_of_run(before / "whole")
    larger = replace(config, projector=replace(config.projector, units=65_536, layers=16))  # 256 GiB
    with pytest.raises(ModelError, match="tensors are not those of its settings"):
        network_from_weights(larger, network.state_dict())


OURS: dict[str, tuple[Callable[[Path], Any], int]] = {
    "whole/export/bundle.json": (lambda before: load_bundle(before / "whole/export"), 5),
    "whole/export/model.onnx": (lambda before: Scorer(before / "whole/export", "cpu", variant="fp32"), 5),
    "whole/export/model.int8.onnx": (lambda before: load_bundle(before / "whole/export/model.int8.onnx"), 5),
    "whole/checkpoints/best/checkpoint.json": (lambda before: best_of_run(before / "whole"), 5),
    "whole/checkpoints/best/weights-00000012-0004.safetensors": (
        lambda before: best_of_run(before / "whole"),
        5,
    ),
    "whole/config.toml": (lambda before: read_toml(before / "whole/config.toml"), 2),
    "whole/history.jsonl": (lambda before: _history(before / "whole"), 2),
    "whole/export/bench.json": (
        lambda before: _measured(before / "whole/export/bench.json", load_bundle(before / "whole/export")),
        2,
    ),
    "whole/predictions/Val-a143b6036fff.csv": (
        lambda before: read_predictions(before / "whole/predictions/Val-a143b6036fff.csv"),
        2,
    ),
    "data/data_info.csv": (lambda before: read_data(before / "data"), 2),
    "init.pth": (lambda before: torch_state(before / "init.pth"), 2),
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("place", ["pipe", "folder", "device", "socket"])
def test_n24_what_is_no_file_is_refused_at_once(name: str, place: str, before: Path) -> None:
    read, exit_code = OURS[name]
    path = before / name
    kept = path.with_name("kept aside")
    if path.exists():
        path.rename(kept)
    try:
        match place:
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "device":
                path.symlink_to("/dev/zero")
            case "socket":
                with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
                    server.bind(path.name)
        with no_hang(), pytest.raises(RrtnError) as refused:
            read(before)
        check_refusal(refused.value, exit_code)
        assert re.search(
            "not a regular|a pipe, socket or device|Is a directory|No such device|not there|no bundle.json",
            str(refused.value),
        )
    finally:
        path.rmdir() if place == "folder" else path.unlink()
        if kept.exists():
            kept.rename(path)


def test_mutants_are_of_many_kinds() -> None:
    document = {"labels": ["Awe", "Fear"], "rate": 16_000, "frontend": {"hop": 160, "pad": "silence"}}
    made = {mutated_json(document, random.Random(seed)) for seed in range(1_000)}
    assert len(made) > 500


def test_n24_decoders_and_help_do_not_load_what_checks_documents() -> None:
    program = (
        "import sys; import rrtn.runtime.scoring.decoder_process, rrtn.cli, rrtn.commands.score; "
        "print(sorted({'msgspec', 'onnxruntime'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
