"""train -> evaluate -> export --trt -> score through the installed command, in a folder with
nothing in it.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

RRTN = Path(sys.executable).with_name("rrtn")


def rrtn(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([RRTN, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def rrtn_json(*arguments: object, cwd: Path, code: int = 0) -> Any:
    return json.loads(rrtn(*arguments, "--json", cwd=cwd, code=code).stdout)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of three commands; the tests look at what it left."""
    folder = tmp_path_factory.mktemp("work")
    os.environ["RRTN_CACHE"] = str(folder / "cache")
    rrtn("data", "synth", "corpus", "--clips", 90, "--speakers", 9, "--seed", 5, cwd=folder)
    rrtn("train", "--data", "corpus", "--epochs", 2, "--batch-size", 16, "--out", "runs/first", cwd=folder)
    rrtn("export", "--fp16", "--trt", "--require", "cpu", cwd=folder)
    return folder


def test_run_folder(workplace: Path) -> None:
    run = workplace / "runs/first"
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


def test_bundle_lists_every_file_with_hash_stamp_and_parity(workplace: Path) -> None:
    export = workplace / "runs/first/export"
    bundle = json.loads((export / "bundle.json").read_text())
    variants = {variant["name"]: variant for variant in bundle["variants"]}
    assert {name: variant["file"] for name, variant in variants.items()} == {
        "fp32": "model.onnx",
        "cpu": "model.cpu.onnx",
        "waveform": "model.waveform.onnx",
        "fp16": "model.fp16.onnx",
        "waveform-fp16": "model.waveform.fp16.onnx",
        "trt": "model.engine",
        "trt-fp16": "model.fp16.engine",
    }
    assert {path.name for path in export.iterdir()} == {
        "bundle.json",
        "model.yaml",
        *(v["file"] for v in variants.values()),
    }
    for variant in variants.values():
        content = (export / variant["file"]).read_bytes()
        assert (variant["sha256"], variant["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert all(variants[name]["parity"]["max_abs"] <= 1e-4 for name in ("fp32", "cpu", "waveform"))
    assert variants["cpu"]["plan"]["speedup"] > 1  # of ResNet18, on whatever CPU
    assert len(variants["cpu"]["plan"]["convolutions"]) > 3
    stamp = variants["trt"]["stamp"]
    assert stamp["onnx_sha256"] == variants["waveform"]["sha256"]
    assert stamp["flavour"] in {"tensorrt_rtx", "tensorrt"}


def test_score_real_clips_with_the_newest_bundle(
    workplace: Path, real_clips: list[Path], tmp_path: Path
) -> None:
    table = tmp_path / "scores.csv"
    summary = rrtn_json("score", *real_clips, "--out", table, cwd=workplace)
    assert (summary["files"], summary["scored"], summary["errors"]) == (12, 12, {})
    assert (summary["backend"], summary["variant"], summary["out"]) == ("cpu", "cpu", str(table))
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = json.loads((workplace / "runs/first/export/bundle.json").read_text())["labels"]
    assert list(rows[0]) == ["file", "start", "end", *labels, "error"]
    assert [row["file"] for row in rows] == [str(path) for path in real_clips]
    assert all(0 <= float(row[label]) <= 1 for row in rows for label in labels)


def test_evaluate_shows_every_target_beside_ridge(workplace: Path) -> None:
    evaluation = rrtn_json("evaluate", cwd=workplace)
    assert len(evaluation["per_target"]) == 10
    means = [values["ccc"] for values in evaluation["per_target"].values()]
    assert evaluation["mean"]["ccc"] == pytest.approx(np.mean(means))
    pointer = json.loads((workplace / "runs/first/checkpoints/best/checkpoint.json").read_text())
    assert evaluation["mean"]["ccc"] == pytest.approx(pointer["history"][-1]["val_ccc"], abs=1e-6)
    assert "ridge_ccc" in evaluation["mean"]


def test_evaluate_has_intervals_compares_and_writes_a_submission(workplace: Path, tmp_path: Path) -> None:
    run, submission = Path("runs/first"), tmp_path / "submission.csv"
    evaluation = rrtn_json(
        "evaluate", run, "--no-ridge", "--compare", run, "--submission", submission, cwd=workplace
    )
    for values in evaluation["per_target"].values():
        assert (
            values["ccc_low"] - 1e-9 <= values["ccc"] <= values["ccc_high"] + 1e-9
        )  # of one speaker, all are equal
        assert abs(values["pearson"]) >= abs(values["ccc_biased"]) - 1e-12  # Lin 1989
    (comparison,) = evaluation["compared"].values()
    assert comparison["speakers"] < 8
    assert {(of["difference"], of["verdict"]) for of in comparison["per_target"].values()} == {
        (0.0, "too few speakers to say")
    }
    rows = (workplace / "corpus/data_info.csv").read_text().splitlines()
    header, *scored = submission.read_text().splitlines()
    assert header.split(",") == ["File_ID", *evaluation["per_target"]]
    assert [row.split(",")[0] for row in scored] == [row.split(",")[0] for row in rows[1:] if ",Test," in row]
    assert all(row.startswith("[") for row in scored)


def test_the_report_is_one_page_without_scripts_or_network(workplace: Path, tmp_path: Path) -> None:
    page = Path(
        rrtn_json("report", "runs/first", "--out", tmp_path / "report.html", cwd=workplace)["report"]
    ).read_text()
    evaluation = rrtn_json("evaluate", "--no-ridge", cwd=workplace)
    assert f"<b>{evaluation['mean']['ccc']:.3f}</b>" in page
    assert set(re.findall(r"(?:src|href)=.(\w+:)", page)) == {"data:"}
    assert not re.search(r"<script|https?:|url\(|@import", page)
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    assert page.count("<audio") == page.count('class="mel"') / 2 == 4
    assert all(f">{target}<" in page for target in evaluation["per_target"])


def test_inspect_and_doctor_and_data_check_print_json(workplace: Path) -> None:
    assert [v["name"] for v in rrtn_json("inspect", cwd=workplace)["variants"]] == [
        "fp32",
        "cpu",
        "waveform",
        "fp16",
        "waveform-fp16",
        "trt",
        "trt-fp16",
    ]
    assert {finding["subject"] for finding in rrtn_json("doctor", cwd=workplace)} >= {
        "python",
        "gpu",
        "torch",
    }
    report = rrtn_json("data", "check", "corpus", cwd=workplace)
    assert sum(split["clips"] for split in report["splits"]) == 90
    assert report["one_target_at_1"] == 1.0


def test_doctor_names_the_command_that_brings_what_is_missing(workplace: Path) -> None:
    """Square brackets are markup to rich: they must come out."""
    missing = [
        finding["fix"] for finding in rrtn_json("doctor", cwd=workplace) if finding["fix"].startswith("pip")
    ]
    assert missing
    printed = rrtn("doctor", cwd=workplace).stdout
    assert all(fix in printed for fix in missing)


def test_resume_of_a_finished_run_and_with_other_settings(workplace: Path) -> None:
    finished = rrtn_json("train", "--resume", cwd=workplace)
    assert finished["run"] == "runs/first"
    refused = rrtn("train", "--resume", "--lr", 0.01, cwd=workplace, code=2)
    assert "optim.lr: 0.001 -> 0.01" in refused.stderr


def test_a_second_export_replaces_the_first_and_a_required_variant_must_exist(
    workplace: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(workplace / "runs/first/export", tmp_path / "bundle")
    rrtn("export", "--no-cpu-variant", "--out", out, cwd=workplace)
    assert sorted(path.name for path in out.iterdir()) == [
        "bundle.json",
        "model.onnx",
        "model.waveform.onnx",
        "model.yaml",
    ]
    before = (out / "bundle.json").read_bytes()
    refused = rrtn("export", "--out", out, "--require", "fp64", cwd=workplace, code=2)
    assert "--require fp64" in refused.stderr
    assert (out / "bundle.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_changed_model_file_is_refused(workplace: Path, real_clips: list[Path], tmp_path: Path) -> None:
    out = shutil.copytree(workplace / "runs/first/export", tmp_path / "bundle")
    model = out / "model.cpu.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    refused = rrtn("score", real_clips[0], "-m", out, cwd=workplace, code=5)
    assert "sha256" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_e11_without_tensorrt_onnx_is_published_and_the_engine_skipped_with_the_reason(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rrtn.export import publish
    from rrtn.export.recipes import Wanted
    from rrtn.runtime.errors import ModelError

    monkeypatch.setattr(publish, "installed_flavour", lambda: None)
    monkeypatch.chdir(workplace)
    published = publish.publish(
        Path("runs/first"), out=tmp_path / "bundle", wanted=Wanted(trt=True, cpu_variant=False)
    )
    assert [variant.name for variant in published.bundle.variants] == ["fp32", "waveform"]
    assert 'pip install "rrtn[rtx]"' in published.skipped["trt"]
    with pytest.raises(ModelError, match=r"--require trt .* nothing was published"):
        publish.publish(Path("runs/first"), out=tmp_path / "other", wanted=Wanted(require=("trt",)))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_e3_a_changed_checkpoint_is_refused(workplace: Path, tmp_path: Path) -> None:
    run = shutil.copytree(workplace / "runs/first", tmp_path / "run")
    weights = next((run / "checkpoints/best").glob("weights-*"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = rrtn("export", run, cwd=workplace, code=5)
    assert weights.name in refused.stderr


def test_commands_without_a_run_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    for arguments in (["export"], ["evaluate"], ["inspect"], ["score", "a.wav"], ["train", "--resume"]):
        refused = rrtn(*arguments, cwd=tmp_path, code=2)
        assert len(refused.stderr.splitlines()) == 1
        assert refused.stderr.startswith("rrtn: ")


VANILLA = {"resnet18": 11_175_498, "cnn10": 4_954_058, "cnn14": 79_694_282}
PROJECTOR = {"resnet18": 1_050_624, "cnn10": 1_050_624, "cnn14": 4_196_352}


@pytest.mark.parametrize("encoder", VANILLA)
def test_dry_run_counts_parameters(encoder: str, workplace: Path) -> None:
    plans = {
        method: rrtn_json(
            "train", "--data", "corpus", "--encoder", encoder, "--method", method, "--dry-run", cwd=workplace
        )
        for method in ("vanilla", "rrtn-ruwl")
    }
    assert plans["vanilla"]["parameters"]["total"] == VANILLA[encoder]
    assert plans["vanilla"]["parameters"]["projector"] == 0
    assert plans["rrtn-ruwl"]["parameters"]["projector"] == PROJECTOR[encoder]
    assert plans["rrtn-ruwl"]["steps"] == 60 * plans["rrtn-ruwl"]["steps_per_epoch"]
    assert plans["rrtn-ruwl"]["config"]["model"] == {"encoder": encoder, "method": "rrtn-ruwl", "init": ""}


def test_score_reads_a_config_free_folder_and_prints_csv(workplace: Path, real_clips: list[Path]) -> None:
    printed = rrtn("score", real_clips[0].parent, cwd=workplace).stdout
    rows = list(csv.DictReader(printed.splitlines()))
    assert [Path(row["file"]).name for row in rows] == sorted(path.name for path in real_clips)
