"""train -> evaluate -> export --trt -> score through the installed command, in a folder with
nothing in it.
"""

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rrtn_processes import REAL_ENCODERS, Server

RRTN = Path(sys.executable).with_name("rrtn")
SETTINGS = """
[frontend]
frames = 64
[projector]
units = 16
[optim]
epochs = 2
batch_size = 8
"""


def rrtn(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([RRTN, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def rrtn_json(*arguments: object, cwd: Path, code: int = 0) -> Any:
    return json.loads(rrtn(*arguments, "--json", cwd=cwd, code=code).stdout)


class Workplace:
    """A folder with the same as `main_job`, of the small encoder; its commands are forked."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server, self.folder = server, folder

    def rrtn(self, *arguments: object, code: int = 0, before: str = "") -> Any:
        """How it ended, and with which output."""
        ended = self._server.start(*arguments, cwd=self.folder, before=before).wait()
        assert ended.code == code, ended.err
        return ended

    def rrtn_json(self, *arguments: object, **options: Any) -> Any:
        return self.rrtn(*arguments, "--json", **options).summary


@pytest.fixture(scope="module")
def workplace(server: Server, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "small.toml").write_text(SETTINGS)
    (folder / "corpus").symlink_to(corpus)
    made = Workplace(server, folder)
    made.rrtn("train", "--data", "corpus", "--config", "small.toml", "--device", "cpu", "--out", "runs/first")
    made.rrtn("export", "--fp16", "--trt", "--no-cpu-variant")
    return made


def test_run_folder(main_job: Path) -> None:
    run = main_job / "runs/first"
    assert {path.name for path in run.iterdir()} == {
        "config.toml",
        "history.jsonl",
        "checkpoints",
        "run.lock",
        "export",
    }
    records = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    for kind in ("best", "last"):
        pointer = json.loads((run / "checkpoints" / kind / "checkpoint.json").read_text())
        for entry in pointer["files"].values():
            content = (run / "checkpoints" / kind / entry["file"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]


FILES = {
    "fp32": "model.onnx",
    "cpu": "model.cpu.onnx",
    "waveform": "model.waveform.onnx",
    "fp16": "model.fp16.onnx",
    "waveform-fp16": "model.waveform.fp16.onnx",
    "trt": "model.engine",
    "trt-fp16": "model.fp16.engine",
}
OF_MAIN_JOB = ["fp32", "cpu", "waveform", "trt"]


def test_bundle_lists_every_file_with_hash_stamp_and_parity(main_job: Path) -> None:
    variants = assert_lists_every_file(main_job / "runs/first/export", OF_MAIN_JOB)
    assert variants["cpu"]["parity"]["max_abs"] <= 1e-4
    assert variants["cpu"]["plan"]["speedup"] > 0
    assert len(variants["cpu"]["plan"]["convolutions"]) > 3


def test_a_bundle_with_fp16_lists_every_file(workplace: Workplace) -> None:
    variants = assert_lists_every_file(
        workplace.folder / "runs/first/export", [name for name in FILES if name != "cpu"]
    )
    assert all(variants[name]["parity"]["max_abs"] <= 2e-3 for name in ("fp16", "waveform-fp16"))
    assert variants["trt-fp16"]["stamp"]["onnx_sha256"] == variants["waveform-fp16"]["sha256"]


def assert_lists_every_file(export: Path, names: list[str]) -> dict[str, Any]:
    """-> the variants."""
    bundle = json.loads((export / "bundle.json").read_text())
    variants = {variant["name"]: variant for variant in bundle["variants"]}
    assert {name: variant["file"] for name, variant in variants.items()} == {
        name: FILES[name] for name in names
    }
    assert {path.name for path in export.iterdir()} == {
        "bundle.json",
        "model.yaml",
        *(v["file"] for v in variants.values()),
    }
    for variant in variants.values():
        content = (export / variant["file"]).read_bytes()
        assert (variant["sha256"], variant["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert all(variants[name]["parity"]["max_abs"] <= 1e-4 for name in ("fp32", "waveform"))
    stamp = variants["trt"]["stamp"]
    assert stamp["onnx_sha256"] == variants["waveform"]["sha256"]
    assert stamp["flavour"] in {"tensorrt_rtx", "tensorrt"}
    return variants


def test_score_real_clips_with_the_newest_bundle(
    main_job: Path, real_clips: list[Path], tmp_path: Path
) -> None:
    table = tmp_path / "scores.csv"
    summary = rrtn_json("score", *real_clips, "--out", table, cwd=main_job)
    assert (summary["files"], summary["scored"], summary["errors"]) == (12, 12, {})
    assert (summary["backend"], summary["variant"], summary["out"]) == ("cpu", "cpu", str(table))
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = json.loads((main_job / "runs/first/export/bundle.json").read_text())["labels"]
    assert list(rows[0]) == ["file", "start", "end", *labels, "error", "flags"]
    assert [row["file"] for row in rows] == [str(path) for path in real_clips]
    assert all(0 <= float(row[label]) <= 1 for row in rows for label in labels)


def test_evaluate_shows_every_target_beside_ridge(workplace: Workplace) -> None:
    evaluation = workplace.rrtn_json("evaluate")
    assert len(evaluation["per_target"]) == 10
    means = [values["ccc"] for values in evaluation["per_target"].values()]
    assert evaluation["mean"]["ccc"] == pytest.approx(np.mean(means))
    pointer = json.loads((workplace.folder / "runs/first/checkpoints/best/checkpoint.json").read_text())
    assert evaluation["mean"]["ccc"] == pytest.approx(pointer["history"][-1]["val_ccc"], abs=1e-6)
    assert "ridge_ccc" in evaluation["mean"]


def test_evaluate_has_intervals_compares_and_writes_a_submission(
    workplace: Workplace, tmp_path: Path
) -> None:
    run, submission = Path("runs/first"), tmp_path / "submission.csv"
    evaluation = workplace.rrtn_json(
        "evaluate", run, "--no-ridge", "--compare", run, "--submission", submission
    )
    for values in evaluation["per_target"].values():
        assert values["ccc_low"] is None and values["ccc_high"] is None  # fewer than 8 speakers
        assert abs(values["pearson"]) >= abs(values["ccc_biased"]) - 1e-12  # Lin 1989
    (comparison,) = evaluation["compared"].values()
    assert comparison["speakers"] < 8
    assert {(of["difference"], of["verdict"]) for of in comparison["per_target"].values()} == {
        (0.0, "too few speakers to say")
    }
    rows = (workplace.folder / "corpus/data_info.csv").read_text().splitlines()
    header, *scored = submission.read_text().splitlines()
    assert header.split(",") == ["File_ID", *evaluation["per_target"]]
    assert [row.split(",")[0] for row in scored] == [row.split(",")[0] for row in rows[1:] if ",Test," in row]
    assert all(row.startswith("[") for row in scored)


def test_the_report_is_one_page_without_scripts_or_network(workplace: Workplace, tmp_path: Path) -> None:
    page = Path(
        workplace.rrtn_json("report", "runs/first", "--out", tmp_path / "report.html")["report"]
    ).read_text()
    evaluation = workplace.rrtn_json("evaluate", "--no-ridge")
    assert f"<b>{evaluation['mean']['ccc']:.3f}</b>" in page
    assert set(re.findall(r"(?:src|href)=.(\w+:)", page)) == {"data:"}
    assert not re.search(r"<script|https?:|url\(|@import", page)
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    assert page.count("<audio") == page.count("log-Mel spectrogram,") / 2 == 4
    assert all(f">{target}<" in page for target in evaluation["per_target"])


def test_inspect_and_doctor_and_data_check_print_json(main_job: Path) -> None:
    assert [v["name"] for v in rrtn_json("inspect", cwd=main_job)["variants"]] == OF_MAIN_JOB
    assert {finding["subject"] for finding in rrtn_json("doctor", cwd=main_job)} >= {
        "python",
        "gpu",
        "torch",
    }
    report = rrtn_json("data", "check", "corpus", cwd=main_job)
    assert sum(split["clips"] for split in report["splits"]) == 32
    assert report["one_target_at_1"] == 1.0


def test_doctor_names_the_command_that_brings_what_is_missing(tmp_path: Path) -> None:
    """Square brackets are markup to rich: they must come out."""
    missing = [
        finding["fix"] for finding in rrtn_json("doctor", cwd=tmp_path) if finding["fix"].startswith("pip")
    ]
    assert missing
    printed = rrtn("doctor", cwd=tmp_path).stdout
    assert all(fix in printed for fix in missing)


def test_resume_of_a_finished_run_and_with_other_settings(workplace: Workplace) -> None:
    finished = workplace.rrtn_json("train", "--resume")
    assert finished["run"] == "runs/first"
    refused = workplace.rrtn("train", "--resume", "--lr", 0.01, code=2)
    assert "optim.lr: 0.001 -> 0.01" in refused.err


def test_a_second_export_replaces_the_first_and_a_required_variant_must_exist(
    workplace: Workplace, main_job: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(main_job / "runs/first/export", tmp_path / "bundle")
    workplace.rrtn("export", "--no-cpu-variant", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "bundle.json",
        "model.onnx",
        "model.waveform.onnx",
        "model.yaml",
    ]
    before = (out / "bundle.json").read_bytes()
    refused = workplace.rrtn("export", "--out", out, "--require", "fp64", code=2)
    assert "--require fp64" in refused.err
    assert (out / "bundle.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_changed_model_file_is_refused(main_job: Path, real_clips: list[Path], tmp_path: Path) -> None:
    out = shutil.copytree(main_job / "runs/first/export", tmp_path / "bundle")
    model = out / "model.cpu.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    refused = rrtn("score", real_clips[0], "-m", out, cwd=tmp_path, code=5)
    assert "sha256" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


NO_TENSORRT = "from rrtn.export import publish; publish.installed_flavour = lambda: None"


def test_e11_without_tensorrt_onnx_is_published_and_the_engine_skipped_with_the_reason(
    workplace: Workplace, tmp_path: Path
) -> None:
    flags = ("--no-cpu-variant", "--trt", "--out", tmp_path / "bundle")
    published = workplace.rrtn_json("export", *flags, before=NO_TENSORRT)
    assert [variant["name"] for variant in published["variants"]] == ["fp32", "waveform"]
    assert 'pip install "tensorrt-rtx-cu13' in published["skipped"]["trt"]


def test_e3_a_changed_checkpoint_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    run = shutil.copytree(workplace.folder / "runs/first", tmp_path / "run")
    weights = next((run / "checkpoints/best").glob("weights-*"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = workplace.rrtn("export", run, code=5)
    assert weights.name in refused.err


def test_commands_without_a_run_say_what_to_do(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    for arguments in (["export"], ["evaluate"], ["inspect"], ["score", "a.wav"], ["train", "--resume"]):
        refused = Workplace(server, tmp_path).rrtn(*arguments, code=2)
        assert len(refused.err.splitlines()) == 1
        assert refused.err.startswith("rrtn: ")


VANILLA = {"resnet18": 11_175_498, "cnn10": 4_954_058, "cnn14": 79_694_282}
PROJECTOR = {"resnet18": 1_050_624, "cnn10": 1_050_624, "cnn14": 4_196_352}


@pytest.mark.parametrize("encoder", VANILLA)
def test_dry_run_counts_parameters(encoder: str, workplace: Workplace) -> None:
    chosen = ("train", "--data", "corpus", "--dry-run", "--encoder", encoder, "--method")
    plans = {
        method: workplace.rrtn_json(*chosen, method, before=REAL_ENCODERS)
        for method in ("vanilla", "rrtn-ruwl")
    }
    assert plans["vanilla"]["parameters"]["total"] == VANILLA[encoder]
    assert plans["vanilla"]["parameters"]["projector"] == 0
    assert plans["rrtn-ruwl"]["parameters"]["projector"] == PROJECTOR[encoder]
    assert plans["rrtn-ruwl"]["steps"] == 60 * plans["rrtn-ruwl"]["steps_per_epoch"]
    assert plans["rrtn-ruwl"]["config"]["model"] == {"encoder": encoder, "method": "rrtn-ruwl", "init": ""}


def test_score_reads_a_config_free_folder_and_prints_csv(main_job: Path, real_clips: list[Path]) -> None:
    printed = rrtn("score", real_clips[0].parent, cwd=main_job).stdout
    rows = list(csv.DictReader(printed.splitlines()))
    assert [Path(row["file"]).name for row in rows] == sorted(path.name for path in real_clips)
