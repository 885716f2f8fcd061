"""The page of a run shows names as they are, whatever they are, and does not run them."""

import errno
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
import pytest
import soundfile
from pointers import rewrite_pointer
from rrtn.commands.evaluate import print_evaluation
from rrtn.runtime import load_bundle
from rrtn.runtime.backends import variant_rows
from rrtn.runtime.bundle import MANIFEST
from rrtn.runtime.errors import ConfigError, DataError, StoppedError
from rrtn.runtime.system.files import write_json
from rrtn.runtime.system.host import quoted
from rrtn.train import loop
from rrtn.train.config import config_from_dict
from rrtn.train.data.corpus import MARK
from rrtn.train.evidence import report as page_of
from rrtn.train.evidence import trained_run
from rrtn.train.evidence.best_checkpoint import best_of_run
from rrtn.train.evidence.evaluate import evaluate
from rrtn.train.evidence.predictions import Predictions
from rrtn.train.evidence.report import report
from rrtn.train.evidence.report_clips import clips_of_evaluation, errors_of_clips, rule_of_errors
from rrtn.train.evidence.report_page import ShownTable
from rrtn.train.method import model
from rrtn.train.method.columns import UNIT, ClassTarget, Columns, Scale
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.tasks import Task
from rrtn.train.plan import plan_from_config

TARGETS = ("<script>alert(1)</script>", "\"><img src='x' onerror=alert(2)>", "{{ 7 * 7 }}")
CLIPS = [f"<i>&{number}" for number in range(12)]
TEMPLATES = sorted((Path(page_of.__file__).parent / "templates").iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two epochs of a CNN10 of a few channels, on noise. All its names mean something in HTML."""
    folder = tmp_path_factory.mktemp("work") / "<b>work"
    data = _noise(folder / "<u>data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RRTN_CACHE", str(folder / "cache"))
        patch.setattr(loop, "matmul_peak", lambda device, dtype: 1e12)
        patch.setattr(
            model,
            "encoder_from_name",
            lambda name, *, n_mels: PannsCnn(n_mels, channels=(4, 8, 8, 16), pooled_blocks=4),
        )
        settings = {"data": {"dir": str(data)}, "optim": {"epochs": 2, "batch_size": 4}, "device": "cpu"}
        run = folder / "<a href=x>run&'\""
        loop.train(plan_from_config(config_from_dict(settings, source="test")), run, resume=False)
        yield run


def _noise(folder: Path) -> Path:
    (folder / "wav").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = [
        ",".join(
            [
                "File_ID",
                "Split",
                "Subject_ID",
                *(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in TARGETS),
            ]
        )
    ]
    for number, name in enumerate(CLIPS):
        soundfile.write(folder / f"wav/{name}.wav", rng.uniform(-0.5, 0.5, 4800), 16_000)
        ratings = ",".join(f"{value:.3f}" for value in rng.uniform(size=len(TARGETS)))
        lines.append(f"[{name}],{'Train' if number < 8 else 'Val'},{number},{ratings}")
    (folder / "data_info.csv").write_text("\n".join(lines) + "\n")
    return folder


class Page(HTMLParser):
    """Tags, attributes and text as a browser would take them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_text_wherever_they_stand(run: Path) -> None:
    page = Page(report([run]))
    assert not page.tags & {"script", "u"}
    assert not {name for name in page.attributes if name.startswith("on")}
    shown = (*TARGETS, *(f"[{name}]" for name in CLIPS[8:]), run.name, str(run), str(run.parent / "<u>data"))
    assert [name for name in shown if name not in page.text] == []
    assert (run / "config.toml").read_text() in page.text


def test_a_run_that_is_not_exported_says_how(run: Path) -> None:
    assert f"Not exported yet: rrtn export {quoted(run)}\n" in Page(report([run])).text


def test_a_page_whose_folder_takes_no_file_is_written_elsewhere(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(target: Path, _: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    monkeypatch.setattr(page_of, "write_output", refuse)
    with pytest.raises(StoppedError) as caught:
        report([run])
    assert caught.value.subject == str(run / "report.html")
    assert caught.value.fix == "name another file by --out, or allow writing there, and run the command again"


def test_the_speeds_of_another_bundle_are_refused(tmp_path: Path) -> None:
    bundle: Any = SimpleNamespace(path=tmp_path, provenance={"checkpoint_sha256": "a"})
    document = {"machine": {"cpu": "one", "cores": 2}, "measurements": [], "bundle": "other/export"}
    for checkpoint in ({}, {"checkpoint_sha256": "a"}):
        (tmp_path / "bench.json").write_text(json.dumps(document | checkpoint))
        assert page_of._measured(tmp_path / "bench.json", bundle) == document | checkpoint
    (tmp_path / "bench.json").write_text(json.dumps(document | {"checkpoint_sha256": "b"}))
    with pytest.raises(
        DataError, match=r"the speeds of other/export, of another checkpoint \| .* rrtn bench"
    ):
        page_of._measured(tmp_path / "bench.json", bundle)


def test_the_speeds_of_files_that_the_bundle_no_longer_has_are_left_out(
    run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = run / "export"
    out.mkdir()
    shutil.copy(tiny_model, out / "model.onnx")
    alone = load_bundle(out / "model.onnx")
    write_json(out / MANIFEST, alone.manifest())
    speed = {"device": "cpu", "at_once": 1, "batch": 1, "p50": 1, "p90": 1, "highest": 1, "n": 9}
    rows = [
        {**speed, "variant": name, "clips_per_second": rate}
        for name, rate in (("fp32", 111.1), ("int8", 222.2))
    ]
    document = {"machine": {"cpu": "one", "cores": 2}, "measurements": rows, "bundle": str(out)}
    now = {"fp32": alone.variants[0].sha256}
    for files, kept in ((None, True), (now, True), (now | {"fp32": 64 * "0"}, False)):
        write_json(out / "bench.json", document | ({"files": files} if files else {}))
        text = Page(report([run])).text
        assert ("111.1" in text, "222.2" in text) == (kept, False)
        assert ("No latencies: rrtn bench" in text) != kept
        others = "int8" if kept else "fp32, int8"
        assert f"Left out are the latencies of {others}: the bundle had other files then." in text


def test_a_page_that_lacks_a_part_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="is undefined"):
        page_of._template().environment.from_string("{{ summary }}").render(name="run")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_turns_escaping_off(path: Path) -> None:
    assert not re.search(r"\bsafe\b|autoescape|<script|https?:|url\(|@import", path.read_text())


def parts() -> jinja2.environment.TemplateModule:
    return page_of._template().environment.get_template("parts.html.j2").module


@pytest.mark.parametrize(("score", "width"), [(-0.5, 0), (0.0, 0), (0.426, 43), (1.0, 100), (1.7, 100)])
def test_a_bar_is_as_long_as_its_score_and_stays_in_its_place(score: float, width: int) -> None:
    """Scores of a linear head may lie outside 0 to 1."""
    assert f'class="bar rated" style="width: {width}%"' in str(parts().bar("rated", score))


def test_a_ridge_regression_is_beside_the_same_measure(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It predicts ratings, and no classes: a mean of CCC and UAR is another measure."""
    found = evaluate(run)
    ours, theirs = (found.figures[name][-1] for name in ("ccc", "ridge_ccc"))
    page = shown(run, tmp_path)
    assert f"A ridge regression reaches {theirs:z.3f} on mel statistics, on the same clips" in page.text
    assert "on others the mean CCC is likely lower" in page.text
    both = replace(found, task=Task(name="", metric="ccc_uar"))
    monkeypatch.setattr(page_of, "evaluate", lambda *given, **options: both)
    page = shown(run, tmp_path)
    assert (
        f"A ridge regression reaches a mean CCC of {theirs:z.3f} on mel statistics, on the same clips; "
        f"the run's mean CCC is {ours:z.3f}"
    ) in page.text
    assert "on others the mean of CCCs and UARs is likely lower" in page.text


def test_words_in_a_table_begin_at_the_left() -> None:
    table = str(parts().table(ShownTable(["target", "file", "MB"], [["a", "<b>", "1.0"]], words=["file"])))
    assert '<td>a</td><td class="words">&lt;b&gt;</td><td>1.0</td>' in table


def shown(run: Path, tmp_path: Path) -> Page:
    """The page of a run, written elsewhere, with its white space as a browser shows it."""
    page = Page(report([run], out=tmp_path / "page.html"))
    page.text = " ".join(page.text.split())
    return page


def test_n22_few_speakers_have_no_interval(run: Path, tmp_path: Path) -> None:
    page = shown(run, tmp_path)
    assert "no 95% interval: 4 speakers, and fewer than 8 say nothing" in page.text
    assert "95% over speakers" not in page.text


def test_n22_the_best_and_the_worst_clips_say_so_with_their_errors(run: Path, tmp_path: Path) -> None:
    found = evaluate(run, ridge=False)
    errors = np.sort(np.abs(found.predictions.scores - found.predictions.rated).mean(1))
    said = re.findall(r"(best|worst) predicted, error (\d\.\d{3})", shown(run, tmp_path).text)
    ranks = ("best", "best", "worst", "worst")
    assert said == [(rank, f"{error:.3f}") for rank, error in zip(ranks, errors, strict=True)]


def test_errors_of_clips_are_those_of_ratings_and_without_any_those_of_classes() -> None:
    kind = ClassTarget(name="Type", classes=("a", "b"))
    mixed = Columns(targets=("Age", "Awe"), scales=(Scale(0, 100), UNIT), classes=(kind,))
    nan = math.nan
    predictions = Predictions(
        file_ids=("x", "y", "z"),
        speakers=("", "", ""),
        targets=mixed.labels,
        scores=np.array([[10, 0.5, 0.2, 0.8], [50, 0.5, 0.2, 0.8], [50, 0.5, 0.2, 0.8]]),
        rated=np.array([[20, 0.1, 1, 0], [nan, 0.2, nan, nan], [nan, nan, 0, 1]]),
        classes=(kind,),
    )
    np.testing.assert_allclose(errors_of_clips(predictions, mixed), [(0.1 + 0.4) / 2, 0.3, nan])
    assert (
        rule_of_errors(mixed) == "the mean absolute error over the rated targets, as a share of their scales"
    )
    alone = Columns(targets=(), scales=(), classes=(kind,))
    classes = replace(
        predictions, targets=alone.labels, scores=predictions.scores[:, 2:], rated=predictions.rated[:, 2:]
    )
    np.testing.assert_allclose(errors_of_clips(classes, alone), [0.8, nan, 0.2])
    assert rule_of_errors(alone) == "one minus the probability of the labelled class"


def test_runs_whose_epochs_were_chosen_by_unlike_measures_are_drawn_by_one(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, str]] = []
    monkeypatch.setattr(page_of, "_curves", lambda caption, lines, epochs, unit: drawn.append((lines, unit)))
    plain = [{"epoch": 1, "val_ccc": 0.3}]
    task = [{"epoch": 1, "val_ccc": 0.3, "val_metric": "s_mtl", "val_score": 0.1}]
    page_of._of_runs({"a": plain, "b": task})
    page_of._of_runs({"b": task, "c": task})
    assert drawn == [({"a": [0.3], "b": [0.3]}, "mean CCC"), ({"b": [0.1], "c": [0.1]}, "S_MTL")]


def test_n22_the_epoch_was_chosen_on_these_clips(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "of 2 epochs; chosen on these clips" in shown(run, tmp_path).text
    own = run.parent / "<u>data"
    copy = shutil.copytree(own, tmp_path / "copy")
    assert all(evaluate(run, ridge=False, data=data).chosen_on for data in (None, own, copy))
    table = (copy / "data_info.csv").read_text().splitlines()
    (copy / "data_info.csv").write_text("\n".join(table[:-1]) + "\n")
    on_others = evaluate(run, data=copy)
    assert (on_others.chosen_on, on_others.ridge_of_others) == (False, True)
    print_evaluation(on_others)
    assert "fitted on the Train of --data" in " ".join(capsys.readouterr().out.split())


def copies(run: Path, folder: Path, *names: str) -> list[Path]:
    """Copies of a run, each with a seed of its own."""
    made = []
    for seed, name in enumerate(names):
        copy = shutil.copytree(run, folder / name)
        settings = copy / "config.toml"
        settings.write_text(settings.read_text().replace("seed = 0", f"seed = {seed}"))
        for pointer in copy.glob("checkpoints/*/checkpoint.json"):
            rewrite_pointer(pointer, lambda text, seed=seed: text.replace('"seed": 0', f'"seed": {seed}'))
        made.append(copy)
    return made


def test_runs_of_one_name_are_told_apart_by_what_is_before_it(run: Path, tmp_path: Path) -> None:
    """The folders of `rrtn table2` all hold a seed0."""
    one, other = copies(run, tmp_path, "a/seed0", "b/seed0")
    history = (other / "history.jsonl").read_text().splitlines()
    (other / "history.jsonl").write_text(history[0] + "\n")
    page = report([one, other], out=tmp_path / "page.html").read_text()
    assert {"a/seed0", "b/seed0"} <= set(re.findall(r">([ab]/seed0)<", page))
    assert page.count("best: epoch") == shown(one, tmp_path).text.count("best: epoch") > 0
    apart = page_of.names_apart([Path("/x/a/s"), Path("/x/b/s"), Path("/x/b/t")])
    assert [*apart.values()] == ["a/s", "b/s", "b/t"]
    assert [*page_of.names_apart([Path("/x/a"), Path("/x/b")]).values()] == ["a", "b"]


def test_clips_that_a_run_learned_from_are_counted_where_the_data_is_another(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With Train and Val exchanged, under names that mean nothing."""
    (own,) = copies(run, tmp_path, "own")
    data = shutil.copytree(run.parent / "<u>data", tmp_path / "data")
    table = (data / "data_info.csv").read_text()
    exchanged = {"Train": "Val", "Val": "Train"}
    swapped = re.sub(r",(Train|Val),", lambda found: f",{exchanged[found[1]]},", table)
    for old, new in (("<i>&1]", "one]"), ("<i>&9]", "nine]")):
        swapped = swapped.replace(f"[{old}", f"[{new}")
    (data / "data_info.csv").write_text(swapped)
    (data / "wav/<i>&1.wav").rename(data / "wav/one.wav")
    (data / "wav/<i>&9.wav").rename(data / "wav/nine.wav")
    found = evaluate(own, ridge=False, data=data)
    assert found.remarks == {str(own): ("it learned from 8 of these 8 clips",)}
    assert found.to_dict()["remarks"] == {str(own): ("it learned from 8 of these 8 clips",)}
    print_evaluation(found)
    assert "it learned from 8 of these 8 clips" in " ".join(capsys.readouterr().out.split())
    assert evaluate(own, ridge=False, data=data, split="Train").remarks == {}
    assert evaluate(own, ridge=False).remarks == {}
    (moved,) = copies(run, tmp_path, "moved")
    config = (moved / "config.toml").read_text()
    (moved / "config.toml").write_text(config.replace(str(run.parent / "<u>data"), str(tmp_path / "gone")))
    (remark,) = evaluate(moved, ridge=False, data=data).remarks[str(moved)]
    assert remark == "its own data is not there as it was: it may have learned from these clips"


def test_clips_and_speakers_of_train_are_counted_on_the_runs_own_data(run: Path, tmp_path: Path) -> None:
    """Its Test, too: a split by clips, and copies under other names, are what people have."""
    (own,) = copies(run, tmp_path, "own")
    data = shutil.copytree(run.parent / "<u>data", tmp_path / "data")
    table = (data / "data_info.csv").read_text().replace("[<i>&8],Val,8,", "[<i>&8],Val,0,")
    for name, original, speaker in (("a", 1, 20), ("b", 2, 20), ("c", None, 5)):
        samples = np.random.default_rng(99).uniform(-0.5, 0.5, 4800)
        if original is not None:
            samples, _ = soundfile.read(data / f"wav/<i>&{original}.wav")
        soundfile.write(data / f"wav/{name}.wav", samples, 16_000)
        table += f"[{name}],Test,{speaker},0.1,0.2,0.{3 + speaker}\n"
    (data / "data_info.csv").write_text(table)
    config = (own / "config.toml").read_text()
    (own / "config.toml").write_text(config.replace(str(run.parent / "<u>data"), str(data)))
    for pointer in own.glob("checkpoints/*/checkpoint.json"):
        rewrite_pointer(pointer, lambda text: text.replace(str(run.parent / "<u>data"), str(data)))
    assert evaluate(own, ridge=False).remarks == {str(own): ("it learned from 1 of these 4 speakers",)}
    assert evaluate(own, ridge=False, split="Test").remarks == {
        str(own): (
            "it learned from 2 of these 3 clips",
            "it learned from 1 of these 2 speakers",
            f"no variation in Test, so a CCC of 0 there says nothing: {TARGETS[0]}, {TARGETS[1]}",
        )
    }


def test_other_data_may_lack_targets_which_are_not_judged(run: Path, tmp_path: Path) -> None:
    (own,) = copies(run, tmp_path, "own")
    data = shutil.copytree(run.parent / "<u>data", tmp_path / "data")
    rows = [line.rsplit(",", 2) for line in (data / "data_info.csv").read_text().splitlines()]
    for columns in (1, 2):  # the last two are missing, or the last one is, and the one before is blank
        lines = [[*row[:columns]] if i == 0 or columns == 1 else [row[0], ""] for i, row in enumerate(rows)]
        (data / "data_info.csv").write_text("".join(",".join(line) + "\n" for line in lines))
        found = evaluate(own, data=data)
        assert (
            f"not judged, since too few clips have it: {TARGETS[1]}, {TARGETS[2]}" in found.remarks[str(own)]
        )
        assert found.counts == (4, 0, 0)
        assert np.isnan(found.figures["ccc"]).tolist() == [False, True, True, False]
        assert found.figures["ccc"][3] == found.figures["ccc"][0]
    (data / "data.toml").write_text("scale = ['0:1', '{{ 7 * 7 }}=1:5']\n")  # of a target that it lacks
    assert evaluate(own, ridge=False, data=data).counts == (4, 0, 0)
    (data / "data.toml").unlink()
    lines = [row[0].rsplit(",", 1)[0] for row in rows]
    (data / "data_info.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"no column .* \| expected one at least of what the run learned"):
        evaluate(own, ridge=False, data=data)


def test_predictions_on_other_data_are_not_taken_for_those_on_the_runs_own(run: Path, tmp_path: Path) -> None:
    """Where the run's own data is gone, what it predicted last on that data is all that is left."""
    (own,) = copies(run, tmp_path, "own")
    others = shutil.copytree(run.parent / "<u>data", tmp_path / "others")
    table = (others / "data_info.csv").read_text().splitlines()
    (others / "data_info.csv").write_text("\n".join(table[:-1]) + "\n")
    shutil.rmtree(own / "predictions", ignore_errors=True)
    before = trained_run.predictions_of_run(own)
    assert len(trained_run.predictions_of_run(own, data=others).file_ids) < len(before.file_ids)
    config = (own / "config.toml").read_text()
    (own / "config.toml").write_text(config.replace(str(run.parent / "<u>data"), str(tmp_path / "gone")))
    assert trained_run.predictions_of_run(own).file_ids == before.file_ids
    (first, second) = sorted(path.name for path in (own / "predictions").iterdir())
    assert (first.partition("-")[0], second.rpartition("Val-")[0]) == ("Val", "other-")


def test_that_a_run_learned_from_its_own_train_is_said(run: Path, tmp_path: Path) -> None:
    (own,) = copies(run, tmp_path, "own")
    assert evaluate(own, ridge=False, split="Train").remarks == {str(own): ("it learned from these clips",)}


def test_ratings_that_were_taken_as_hidden_are_said_on_test(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(run.parent / "<u>data", tmp_path / "data")
    table = (data / "data_info.csv").read_text()
    (data / "data_info.csv").write_text(table.replace(",Val,", ",Test,"))
    found = trained_run.TrainedRun.of_run

    def with_hidden(*given: Any) -> Any:
        of_run = found(*given)
        return replace(of_run, data=replace(of_run.data, hidden="-1 is hidden"))

    monkeypatch.setattr(trained_run.TrainedRun, "of_run", with_hidden)
    (own,) = copies(run, tmp_path, "own")
    assert "-1 is hidden" in evaluate(own, ridge=False, data=data, split="Test").remarks[str(own)]
    assert evaluate(own, ridge=False).remarks == {}


@pytest.mark.parametrize(("seconds", "longer"), [(2.4, 0), (2.6, 1)])
def test_recordings_that_are_heard_whole_are_said_where_there_are_any(
    run: Path, tmp_path: Path, seconds: float, longer: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exported model hears the first clip's length of them: its figures are others."""
    data = shutil.copytree(run.parent / "<u>data", tmp_path / "data")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, int(16_000 * seconds))
    soundfile.write(data / f"wav/{CLIPS[-1]}.wav", noise, 16_000)
    (own,) = copies(run, tmp_path, "own")
    said = "eval.crop is full: 1 of 4 clips last longer than 2.49 s, all that an exported model hears"
    for crop in ("clip", "full"):
        for path in (own / "config.toml", *own.glob("checkpoints/*/checkpoint.json")):
            path.write_text(re.sub(r'("?crop"?(:| =) )"clip"', rf'\1"{crop}"', path.read_text()))
        found = evaluate(own, ridge=False, data=data)
        print_evaluation(found)
        is_said = said in " ".join(capsys.readouterr().out.split())
        assert is_said == (said in found.remarks.get(str(own), ())) == (crop == "full" and longer == 1)


def test_what_is_to_be_known_of_a_compared_run_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(run.parent / "<u>data", tmp_path / "data")
    (one, other) = copies(run, tmp_path, "one", "other")
    for copy in (one, other):
        config = (copy / "config.toml").read_text()
        (copy / "config.toml").write_text(config.replace("epochs = 2", "epochs = 3"))
    found = evaluate(one, ridge=False, others=[other])
    assert found.remarks == {str(copy): ("not finished: 2 of 3 epochs",) for copy in (one, other)}
    print_evaluation(found)
    assert f"{other}: not finished: 2 of 3 epochs" in " ".join(capsys.readouterr().out.split())
    assert f"{other}: not finished: 2 of 3 epochs." in " ".join(
        Page(report([one, other], out=tmp_path / "page.html")).text.split()
    )
    for copy in (one, other):
        config = (copy / "config.toml").read_text()
        (copy / "config.toml").write_text(config.replace(str(run.parent / "<u>data"), str(data)))
    table = (data / "data_info.csv").read_text().splitlines()
    (data / "data_info.csv").write_text("\n".join([*table[:2], *table[3:]]) + "\n")
    found = evaluate(one, ridge=False, others=[other])
    assert all("the data was changed since training" in texts[1] for texts in found.remarks.values())
    assert len(found.remarks) == 2


def test_copies_of_one_run_are_no_seeds_and_other_data_no_run_of_the_same(run: Path, tmp_path: Path) -> None:
    seeds = copies(run, tmp_path, "s0", "s1")
    assert evaluate(tmp_path, ridge=False).epochs == evaluate(run, ridge=False).epochs * 2
    pointer = seeds[1] / "checkpoints/last/checkpoint.json"
    info = pointer.read_text()
    pointer.write_text(re.sub(r'("data_sha256": )"[^"]*"', r'\1"' + "0" * 64 + '"', info))
    with pytest.raises(ConfigError, match=r"s1 \| other clips or ratings than s0 was trained on"):
        evaluate(tmp_path, ridge=False)
    pointer.write_text(info)
    config = (seeds[1] / "config.toml").read_text()
    (seeds[1] / "config.toml").write_text(config.replace("seed = 1", "seed = 0"))
    with pytest.raises(ConfigError, match=r"s1 \| seed 0, as s0 has \| expected another seed in each run"):
        evaluate(tmp_path, ridge=False)


def test_a_run_in_a_folder_that_cannot_be_written_to_is_evaluated(run: Path, tmp_path: Path) -> None:
    """The predictions are kept for the next time only."""
    (own,) = copies(run, tmp_path, "own")
    shutil.rmtree(own / "predictions", ignore_errors=True)
    (own / "predictions").write_text("in the way: root may write everywhere else")
    assert evaluate(own, ridge=False).challenge.tolist() == evaluate(run, ridge=False).challenge.tolist()


def test_other_data_on_another_scale_are_refused(run: Path, tmp_path: Path) -> None:
    """The predictions would be in other units than the ratings."""
    copy = shutil.copytree(run.parent / "<u>data", tmp_path / "copy")
    (copy / "data.toml").write_text('scale = ["0:1"]\n')
    assert evaluate(run, ridge=False, data=copy).clips == evaluate(run, ridge=False).clips
    (copy / "data.toml").write_text('scale = ["1:5"]\n')
    with pytest.raises(
        DataError, match=r"was rated on 1:5 by its data.toml \| expected 0:1, as the run learned"
    ):
        evaluate(run, ridge=False, data=copy)


def test_n22_data_that_were_changed_since_training_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With Train and Val exchanged the clips would be those that the run learned from."""
    data = shutil.copytree(run.parent / "<u>data", tmp_path / "data")
    copy = shutil.copytree(run, tmp_path / "run")
    config = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(config.replace(str(run.parent / "<u>data"), str(data)))
    table = data / "data_info.csv"
    exchanged = {"Train": "Val", "Val": "Train"}
    swapped = re.sub(r",(Train|Val),", lambda found: f",{exchanged[found[1]]},", table.read_text())
    assert not evaluate(copy, ridge=False).data_changed
    table.write_text(swapped)
    found = evaluate(copy)
    assert (found.data_changed, found.chosen_on, found.ridge_of_others) == (True, False, False)
    assert found.to_dict()["data_changed"]
    print_evaluation(found)
    assert "the data was changed since training" in " ".join(capsys.readouterr().out.split())
    assert "the data was changed since training" in shown(copy, tmp_path).text


@pytest.mark.parametrize("has_splits", [True, False])
def test_new_data_need_neither_train_nor_a_split(
    run: Path, tmp_path: Path, has_splits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run.parent / "<u>data", tmp_path / "copy")
    header, *rows = [line.split(",") for line in (copy / "data_info.csv").read_text().splitlines()]
    at = header.index("Split")
    rows = [[*row[:at], "Test", *row[at + 1 :]] for row in rows if row[at] == "Val"]
    if not has_splits:
        header, *rows = [[*row[:at], *row[at + 1 :]] for row in [header, *rows]]
    (copy / "data_info.csv").write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    found, own = evaluate(run, data=copy, split="Test"), evaluate(run, ridge=False)
    np.testing.assert_array_equal(found.challenge, own.challenge)
    assert (found.clips, found.ridge, found.ridge_lacks_train, found.chosen_on) == (
        own.clips,
        None,
        True,
        False,
    )
    print_evaluation(found)
    assert "too few rated clips in Train to fit one" in " ".join(capsys.readouterr().out.split())
    assert not evaluate(run, data=copy, split="Test", ridge=False).ridge_lacks_train
    if has_splits:
        with pytest.raises(DataError, match=r"--split Val \| no clips \| .* \| --split Test"):
            evaluate(run, data=copy)
    else:
        assert evaluate(run, data=copy).clips == own.clips


def test_n22_an_unfinished_run_says_how_far_it_is(run: Path, tmp_path: Path) -> None:
    """As a run is that was resumed for more epochs: its best checkpoint knows nothing of them."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "config.toml").write_text((copy / "config.toml").read_text().replace("epochs = 2", "epochs = 5"))
    assert "epoch 2 of 5, unfinished" in shown(copy, tmp_path).text
    assert "unfinished" not in shown(run, tmp_path).text


def test_n22_synthetic_voices_are_said_loudly(run: Path, tmp_path: Path) -> None:
    assert "SYNTHETIC" not in shown(run, tmp_path).text
    mark = run.parent / "<u>data" / MARK
    mark.touch()
    assert "SYNTHETIC data." in shown(run, tmp_path).text
    mark.unlink()


@pytest.mark.parametrize("method", ["vanilla", "rrtn"])
def test_n22_the_masked_view_is_there_where_training_masks(run: Path, tmp_path: Path, method: str) -> None:
    """The pictures of a run whose settings say another method: the network is not asked here."""
    _, config, _ = best_of_run(run)
    config = replace(config, model=replace(config.model, method=method))
    clips = clips_of_evaluation(config, evaluate(run, ridge=False))
    assert [clip.masked is None for clip in clips] == [method == "vanilla"] * 4


def test_a_changed_history_is_that_of_the_checkpoint(run: Path, tmp_path: Path) -> None:
    (own,) = copies(run, tmp_path, "own")
    before = page_of._history(own)
    text = (own / "history.jsonl").read_text()
    (own / "history.jsonl").write_text(re.sub(r'"val_ccc": [^,]*', '"val_ccc": 0.9', text))
    assert page_of._history(own) == before


def test_n22_all_losses_are_in_one_chart(run: Path) -> None:
    records = page_of._history(run)
    losses = page_of._losses(records)
    last = records[-1]
    named = (("weighted sum", "loss"), ("CCC", "l_ccc"), ("CCC, masked", "l_ccc_a"), ("Barlow Twins", "l_bt"))
    forms = {key: ".0f" if max(abs(r[key]) for r in records) >= 100 else ".3f" for _, key in named}
    assert list(losses) == [f"{name} {last[key]:{forms[key]}}" for name, key in named]
    assert all(np.abs(line).max() == 1 for line in losses.values())
    assert len(page_of._training({"run": records}, "best", 1).charts) == 3  # with the CCC and the weights


def test_a_loss_whose_lambda_is_0_has_no_line_among_the_weights(run: Path) -> None:
    records = [record | {"weights": [1.0, 0.5, 0.0]} for record in page_of._history(run)]
    names = [long for term, long in page_of._WEIGHTS.items() if term in records[0]]
    weights = page_of._training({"run": records}, "best", 1).charts[1]
    assert [name in str(weights) for name in names] == [True, True, False]


def test_n22_variants_are_shown_as_inspect_shows_them(tiny_model: Path, tmp_path: Path) -> None:
    bundle = load_bundle(tiny_model)
    folder = tmp_path / "bundle"
    folder.mkdir()
    shutil.copy(tiny_model, folder)
    (folder / "bundle.json").write_text(json.dumps(bundle.manifest()))
    table = page_of._export(folder).variants
    assert table
    assert table.header == variant_rows.HEADER
    program = "import sys; from rrtn.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "inspect", str(folder)], capture_output=True, text=True, check=True
    )
    assert all(cell in done.stdout for row in table.rows for cell in (*table.header, *row))


def test_n22_a_table_that_scrolls_says_so() -> None:
    table = str(parts().table(ShownTable(["target"], [["a"]])))
    assert "scroll it sideways" in table
    css = next(path for path in TEMPLATES if path.suffix == ".css").read_text()
    assert "animation-timeline: scroll(self inline)" in css


def test_evaluate_takes_any_rated_split_and_groups_of_its_clips(run: Path) -> None:
    found = evaluate(run, ridge=False, split="Train", by=["Subject_ID", "split"])
    assert (found.split, found.chosen_on) == ("Train", False)
    assert found.to_dict()["split"] == "Train"
    by_speaker, by_split = found.groups
    assert sum(group.clips for group in by_speaker.groups) == found.clips
    (whole,) = by_split.groups
    np.testing.assert_allclose(whole.ccc.value[:-1], found.challenge, atol=1e-12)
    assert len([*(run / "predictions").glob("Train-*.csv")]) == 1
    with pytest.raises(DataError, match=r"--split Test \| no clips \| expected a split with labels"):
        evaluate(run, ridge=False, split="Test")
