"""The training loop on a tiny corpus: what the twins see, what a step does, and that runs repeat bit for bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rrtn.runtime.errors import ConfigError, StoppedError
from rrtn.train import loop
from rrtn.train.config import Config, config_from_dict
from rrtn.train.corpus import synthesise
from rrtn.train.plan import plan_from_config
from safetensors.torch import load_file

SETTINGS = {"model": {"encoder": "cnn10", "method": "rrtn-ruwl"}, "optim": {"epochs": 2, "batch_size": 8}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "corpus"
    return synthesise(folder, clips=26, speakers=9, seed=3, split=(0.6, 0.3, 0.1), workers=1)


@pytest.fixture(autouse=True)
def _cache(cache: Path) -> None:
    """CNN10 has dropout, so that the generator's state matters; a few seconds an epoch."""


def config(corpus: Path, **sections: dict[str, object]) -> Config:
    document = {**SETTINGS, "data": {"dir": str(corpus)}}
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section}
    return config_from_dict(document, source="test")


def run_bytes(run: Path) -> dict[str, bytes]:
    """All that a run leaves, by its path."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_equal_settings_give_equal_bytes_and_another_seed_does_not(corpus: Path, tmp_path: Path) -> None:
    short = {"epochs": 1}
    plan = plan_from_config(config(corpus, optim=short))
    for name in ("a", "b"):
        loop.train(plan, tmp_path / name, resume=False)
    other = plan_from_config(config_from_dict({**config(corpus, optim=short).to_dict(), "seed": 1}, source="test"))
    loop.train(other, tmp_path / "c", resume=False)
    assert run_bytes(tmp_path / "a") == run_bytes(tmp_path / "b")
    assert run_bytes(tmp_path / "a")["history.jsonl"] != run_bytes(tmp_path / "c")["history.jsonl"]


@pytest.mark.parametrize(("function", "calls", "lines"), [("_line", 1, 1), ("_save", 2, 2)], ids=["saved", "history ahead"])
def test_stop_and_resume_gives_the_bits_of_an_unbroken_run(
    function: str, calls: int, lines: int, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped behind the first checkpoint, or where the history is already one epoch ahead of it."""
    plan = plan_from_config(config(corpus))
    loop.train(plan, tmp_path / "whole", resume=False)
    original, done = getattr(loop, function), []

    def stop(*args: object, **kwargs: object) -> object:
        done.append(function)
        if len(done) == calls:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, function, stop)
        with pytest.raises(KeyboardInterrupt):
            loop.train(plan, tmp_path / "broken", resume=False)
    assert len((tmp_path / "broken/history.jsonl").read_text().splitlines()) == lines
    loop.train(plan, tmp_path / "broken", resume=True)
    assert run_bytes(tmp_path / "broken") == run_bytes(tmp_path / "whole")


def test_resume_before_the_first_checkpoint_starts_over(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_from_config(config(corpus, optim={"epochs": 1}))
    loop.train(plan, tmp_path / "whole", resume=False)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_save", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            loop.train(plan, tmp_path / "broken", resume=False)
    loop.train(plan, tmp_path / "broken", resume=True)
    assert run_bytes(tmp_path / "broken") == run_bytes(tmp_path / "whole")


def test_t13_resuming_a_finished_run_touches_nothing(corpus: Path, tmp_path: Path) -> None:
    plan = plan_from_config(config(corpus, optim={"epochs": 1}))
    first = loop.train(plan, tmp_path / "run", resume=False)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    again = loop.train(plan, tmp_path / "run", resume=True)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == times


def test_a_run_is_never_overwritten(corpus: Path, tmp_path: Path) -> None:
    plan = plan_from_config(config(corpus))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.toml").write_text("")
    with pytest.raises(ConfigError, match="--resume"):
        loop.train(plan, tmp_path / "run", resume=False)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T15: the clips of the batch are named, no checkpoint is written."""
    plan = plan_from_config(config(corpus))
    monkeypatch.setattr(loop, "ccc_loss", lambda x, y: x.sum() * float("nan"))
    with pytest.raises(StoppedError, match=r"step 1 .* clips \[\d+\]"):
        loop.train(plan, tmp_path / "run", resume=False)
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize("method", ["vanilla", "rrtn", "rrtn-ruwl"])
def test_methods(method: str, corpus: Path, tmp_path: Path) -> None:
    """Which terms are trained on, and whether RUWL's c move."""
    plan = plan_from_config(config(corpus, model={"encoder": "resnet18", "method": method}, optim={"epochs": 1}))
    result = loop.train(plan, tmp_path / "run", resume=False)
    record = json.loads((tmp_path / "run/history.jsonl").read_text())
    weights = load_file(next((tmp_path / "run/checkpoints/best").glob("*.safetensors")))
    assert ("projector.weight" in weights) == (method != "vanilla")
    assert result.best.ccc == pytest.approx(np.mean(list(record["val_ccc_per_target"].values())))
    moved = not torch.equal(weights["ruwl.c"], torch.tensor(plan.config.loss.ruwl_c))
    assert moved == (method == "rrtn-ruwl")
    if method == "vanilla":
        assert record["loss"] == pytest.approx(record["l_ccc"])
    if method == "rrtn":
        expected = record["l_ccc"] + record["l_ccc_a"] + 1e-4 * record["l_bt"]
        assert record["loss"] == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(record["weights"], [1, 1, 1e-4], rtol=1e-5)


def test_weight_decay_spares_ruwls_parameters() -> None:
    from rrtn.train.plan import network_from_config

    settings = config_from_dict({"data": {"targets": ["Awe"]}, "optim": {"ruwl_lr": 0.5}}, source="test")
    c = torch.nn.Parameter(torch.ones(3))
    ours, ruwl = loop.optimizer_from_config(settings, network_from_config(settings), c).param_groups
    assert (ours["weight_decay"], ours["lr"], ours["eps"]) == (0.01, 1e-3, 1e-8)
    assert (ruwl["weight_decay"], ruwl["lr"], ruwl["params"]) == (0.0, 0.5, [c])
