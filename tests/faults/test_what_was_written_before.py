"""A run, a bundle and tables that rrtn wrote before its rooms were moved: see tests/fixtures/before.md.

What is computed again may differ in its last digits, by the processor. Tables of before were scored by
other rules (flags have a column of their own since): they are refused, and kept as they are.
"""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rrtn.runtime import Scorer, load_bundle
from rrtn.runtime.bundle import Bundle
from rrtn.runtime.scoring.table_job import SCORING_RULES
from safetensors.numpy import load_file

KEPT = Path(__file__).parents[1] / "fixtures/before.tar.xz"
MTIME = 1_700_000_000  # s, of the recordings
OPTIONS = ("-m", "whole/export", "--variant", "fp32", "--backend", "cpu")
CLOSE = {"fp32": 2e-6, "cpu": 1e-5, "waveform": 1e-5, "fp16": 2e-3, "waveform-fp16": 2e-3, "int8": 5e-3}

Rrtn = Callable[..., Any]


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A copy of the test's own."""
    with tarfile.open(KEPT) as kept:
        kept.extractall(tmp_path, filter="data")
    for recording in (tmp_path / "before/recordings").iterdir():
        os.utime(recording, (MTIME, MTIME))
    return tmp_path / "before"


@pytest.fixture
def rrtn(start: Rrtn, before: Path) -> Rrtn:
    """Runs `rrtn` with the small encoder among what was kept; `code` is what it must end with."""

    def run(*arguments: object, code: int = 0) -> Any:
        ended = start(*arguments, cwd=before).wait()
        assert ended.code == code, ended.err
        return ended

    return run


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def bundle(before: Path) -> Bundle:
    return load_bundle(before / "whole/export")


def test_every_file_of_the_bundle_is_listed_and_whole(bundle: Bundle) -> None:
    assert len(bundle.variants) == 10
    for variant in bundle.variants:
        assert len(bundle.read(variant)) == variant.size


@pytest.mark.parametrize("variant", CLOSE)
def test_each_variant_gives_the_scores_that_it_gave(
    variant: str, before: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(before)
    kept = records(Path(f"by-{variant}.jsonl"))
    rows = list(Scorer(bundle, "cpu", variant=variant, workers=1).score_files([row["file"] for row in kept]))
    assert [row.error or ";".join(row.flags) or None for row in rows] == [row["error"] for row in kept]
    scored = [(row.scores, old["scores"]) for row, old in zip(rows, kept, strict=True) if row.scores]
    assert len(scored) == 6
    for new, old in scored:
        assert new == pytest.approx(old, abs=CLOSE[variant])


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("whole.csv", ()),
        ("half.csv", ()),
        ("windows.jsonl", ("--window", 0.1, "--hop", 0.05, "--embeddings")),
    ],
)
def test_a_table_of_other_rules_is_refused_until_overwrite(
    table: str, options: tuple[object, ...], before: Path, rrtn: Rrtn
) -> None:
    command = ("score", "recordings", *OPTIONS, "--out", table, *options)
    files = [file for file in before.rglob("*") if file.is_file() and file.name != "lock"]
    kept = [file.read_bytes() for file in files]
    refused = rrtn(*command, code=2)
    assert f"scoring_rules 1, now {SCORING_RULES}" in refused.error
    assert "--overwrite" in refused.error
    assert [file.read_bytes() for file in files] == kept
    summary = rrtn(*command, "--overwrite", "--json", code=3).summary
    assert summary["scored_now"] == summary["files"] == 7


def test_other_settings_are_still_refused_each_by_name(rrtn: Rrtn) -> None:
    refused = rrtn("score", "recordings", *OPTIONS, "--out", "whole.csv", "--window", 0.2, code=2)
    assert "window none, now 0.2" in refused.error
    assert "0.1.0" not in refused.error


def test_a_half_trained_run_goes_on_to_where_the_whole_one_came(before: Path, rrtn: Rrtn) -> None:
    rrtn("train", "--resume", "--out", "half", "--data", "data")
    histories = [records(before / run / "history.jsonl") for run in ("half", "whole")]
    assert [record["step"] for record in histories[0]] == [3, 6, 9, 12]
    for new, old in zip(*histories, strict=True):
        assert new["loss"] == pytest.approx(old["loss"], rel=1e-4)
        assert new["val_ccc_per_target"] == pytest.approx(old["val_ccc_per_target"], abs=1e-4)
    new, old = (
        load_file(next((before / run / "checkpoints/last").glob("weights-00000012-*")))
        for run in ("half", "whole")
    )
    assert new.keys() == old.keys()
    # The projector's bias lies before a BatchNorm. Its gradient is rounding, which AdamW makes into steps.
    for name, weights in old.items():
        atol = 1e-3 if name == "projector.bias" else 1e-5
        np.testing.assert_allclose(new[name], weights, atol=atol, err_msg=name)


def test_a_finished_run_is_left_as_it_is(before: Path, rrtn: Rrtn) -> None:
    weights = next((before / "whole/checkpoints/last").glob("weights-*"))
    content = weights.read_bytes()
    rrtn("train", "--resume", "--out", "whole", "--data", "data")
    assert weights.read_bytes() == content


def test_a_run_is_evaluated_as_it_was(before: Path, rrtn: Rrtn) -> None:
    new = rrtn("evaluate", "whole", "--no-ridge", "--data", "data", "--json").summary
    old = json.loads((before / "evaluation.json").read_text())
    assert new["clips"] == old["clips"] == 9
    for target, values in old["per_target"].items():
        values |= {
            "ccc_low": None,
            "ccc_high": None,
        }  # of fewer than 8 speakers there is no interval any more
        assert new["per_target"][target] == pytest.approx(values, abs=1e-4)
