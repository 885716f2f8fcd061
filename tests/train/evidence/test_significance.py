"""Intervals and tests by speakers: against what they are written out, against scipy, and under
simulated nulls.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from rrtn.commands.evaluate import print_evaluation
from rrtn.train.evidence.evaluation import Evaluation
from rrtn.train.evidence.predictions import Predictions
from rrtn.train.evidence.significance import (
    Comparison,
    ccc_change_interval,
    ccc_interval,
    compare,
    holm,
    no_evidence_of,
    uar_interval,
)
from rrtn.train.method.columns import ClassTarget
from rrtn.train.method.metrics import ccc_challenge, confusion, uar_of_confusion

Float64 = NDArray[np.float64]


def study(
    seed: int, *, speakers: int, clips: int, targets: int = 1, effect: float = 0.0
) -> tuple[Float64, Float64, Float64, list[str]]:
    """Two methods' scores [n, K], ratings and speakers; each method errs by speaker.

    `effect` is noise that b has more.
    """
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(speakers), clips)
    rated = rng.normal(0, 1, (len(who), targets)) + rng.normal(0, 0.5, (speakers, targets))[who]
    methods = [
        rated + rng.normal(0, 0.7, (speakers, targets))[who] + rng.normal(0, 0.5 + more, rated.shape)
        for more in (0.0, effect)
    ]
    return methods[0], methods[1], rated, [f"s{i}" for i in who]


def rows_of(speakers: list[str], names: Any) -> NDArray[np.int64]:
    """The rows of these speakers' clips, one speaker behind the other."""
    return np.concatenate(
        [[i for i, speaker in enumerate(speakers) if speaker == name] for name in names]
    ).astype(np.int64)


def test_the_difference_is_that_of_the_challenges_metric() -> None:
    a, b, rated, speakers = study(0, speakers=9, clips=5, targets=3)
    expected = ccc_challenge(a, rated) - ccc_challenge(b, rated)
    found = compare(a, b, rated, speakers, resamples=10)
    np.testing.assert_allclose(found.difference, [*expected, expected.mean()], atol=1e-12)


def test_the_interval_is_scipys_bootstrap_over_speakers() -> None:
    """Percentiles of as many resamples; each generator has its own draws, hence the tolerance: some
    standard errors.
    """
    a, _, rated, speakers = study(1, speakers=12, clips=6)
    names = np.unique(speakers)

    def statistic(sample: Any) -> float:
        rows = rows_of(speakers, names[sample.astype(int)])
        return float(ccc_challenge(a[rows], rated[rows])[0])

    expected = scipy.stats.bootstrap(
        (np.arange(len(names)),),
        statistic,
        n_resamples=3000,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = ccc_interval(a, rated, speakers)
    np.testing.assert_allclose([low[0], high[0]], [expected.low, expected.high], atol=0.02)
    assert low[0] < ccc_challenge(a, rated)[0] < high[0]


def test_p_is_scipys_exact_permutation_test() -> None:
    """All 2^6 ways to swap six speakers, by scipy and here by chance."""
    a, b, rated, speakers = study(2, speakers=6, clips=8, effect=0.5)
    names = np.unique(speakers)
    both = np.stack([a, b])

    def statistic(of_a: Any, of_b: Any) -> float:
        """Which method's clips [P] each side has: x = 0 .. P - 1 are a's, from P on b's."""
        values = []
        for side in (of_a, of_b):
            parts = [
                (both[int(x) // len(names)], rows_of(speakers, [names[int(x) % len(names)]])) for x in side
            ]
            scores = np.concatenate([method[rows] for method, rows in parts])
            values.append(ccc_challenge(scores, np.concatenate([rated[rows] for _, rows in parts]))[0])
        return float(values[0] - values[1])

    sides = (np.arange(6), np.arange(6, 12))
    exact = scipy.stats.permutation_test(
        sides, statistic, permutation_type="samples", vectorized=False, n_resamples=np.inf
    )
    found = compare(a, b, rated, speakers, resamples=20_000)
    assert found.p[0] == pytest.approx(exact.pvalue, abs=0.015)


def test_several_seeds_are_a_mean_of_ccc_and_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    _, _, rated, speakers = study(3, speakers=15, clips=6)
    a = np.stack([rated + rng.normal(0, noise, rated.shape) for noise in (0.2, 1.5)])
    b = np.stack([rated + rng.normal(0, 0.6, rated.shape) for _ in range(2)])
    found = compare(a, b, rated, speakers, resamples=2000)
    means = [np.mean([ccc_challenge(scores, rated)[0] for scores in method]) for method in (a, b)]
    assert found.difference[0] == pytest.approx(means[0] - means[1])
    of_one = compare(a[0], b[0], rated, speakers, resamples=2000)
    assert found.high[0] - found.low[0] > 2 * (of_one.high[0] - of_one.low[0])
    with pytest.raises(ValueError, match="zip"):  # the test pairs them
        compare(a, b[:1], rated, speakers, resamples=20)


def test_holm_is_the_papers_example() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1.0, 1.0])


def comparison(**changes: Any) -> Comparison:
    one = np.array([0.1, 0.1])
    fields: dict[str, Any] = {
        "difference": one,
        "low": one,
        "high": one,
        "p": one / 10,
        "p_holm": one / 10,
        "speakers": 8,
    }
    return Comparison(**{**fields, **changes})


def test_plain_words() -> None:
    assert comparison().verdict(0) == "better"
    assert comparison(difference=np.array([0.1, -0.1])).verdict(-1) == "worse"
    assert comparison(p_holm=np.array([0.05, 0.01])).verdict(0) == "no difference shown"
    assert comparison(no_evidence="7 speakers").verdict(0) == "too few speakers to say"


def test_equal_methods_differ_by_nothing() -> None:
    a, _, rated, speakers = study(4, speakers=10, clips=4, targets=2)
    found = compare(a, a, rated, speakers, resamples=500)
    assert (found.difference == 0).all()
    assert (found.p == 1).all()
    assert found.verdict(-1) == "no difference shown"


def test_a_difference_that_is_there_is_found() -> None:
    a, b, rated, speakers = study(6, speakers=60, clips=10, effect=1.0)
    found = compare(a, b, rated, speakers, resamples=2000)
    assert found.verdict(0) == found.verdict(-1) == "better"
    assert found.low[0] > 0


def test_a_shift_of_all_ratings_changes_nothing() -> None:
    """Sums of squares of large numbers would lose the variances."""
    a, b, rated, speakers = study(7, speakers=9, clips=5)
    plain, shifted = (compare(a + c, b + c, rated + c, speakers, resamples=300) for c in (0.0, 1e5))
    np.testing.assert_allclose(
        [shifted.low, shifted.high, shifted.p], [plain.low, plain.high, plain.p], atol=1e-6
    )


@pytest.mark.slow
def test_under_the_null_one_in_twenty_is_called_significant() -> None:
    """400 studies of methods that differ only by chance, with errors by speaker: 2 to 9% at 5%;
    clips as units: far more.
    """
    by_speaker, by_clip = [], []
    for seed in range(400):
        a, b, rated, speakers = study(1000 + seed, speakers=30, clips=10)
        by_speaker.append(compare(a, b, rated, speakers, resamples=500).p[0] < 0.05)
        by_clip.append(
            compare(a, b, rated, [str(i) for i in range(len(speakers))], resamples=500).p[0] < 0.05
        )
    assert 0.02 <= np.mean(by_speaker) <= 0.09
    assert np.mean(by_clip) > 0.2


@pytest.mark.slow
def test_under_the_null_the_interval_covers_zero() -> None:
    outside = []
    for seed in range(400):
        a, b, rated, speakers = study(5000 + seed, speakers=30, clips=10)
        found = compare(a, b, rated, speakers, resamples=500)
        outside.append(not found.low[0] <= 0 <= found.high[0])
    assert 0.02 <= np.mean(outside) <= 0.09


def test_the_interval_of_a_change_is_that_of_resampled_speakers_written_out() -> None:
    """The same draws of speakers, their clips laid one behind the other, and the challenge's CCC of those."""
    rng = np.random.default_rng(3)
    speakers = [f"s{i}" for i in rng.integers(0, 8, 60)]
    rated = rng.uniform(0, 1, (60, 2))
    reference = rated + rng.normal(0, 0.2, rated.shape)
    scores = reference + rng.normal(0, 0.05, rated.shape)
    names = sorted(set(speakers))
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=200)
    changes = []
    for count in counts:
        rows = np.concatenate(
            [
                np.repeat([i for i, s in enumerate(speakers) if s == name], n)
                for name, n in zip(names, count, strict=True)
            ]
        )
        rows = rows.astype(int)
        changes.append(
            (ccc_challenge(scores[rows], rated[rows]) - ccc_challenge(reference[rows], rated[rows])).mean()
        )
    interval = ccc_change_interval(scores, reference, rated, speakers, resamples=200)
    assert interval is not None
    np.testing.assert_allclose(interval, np.quantile(changes, [0.025, 0.975]), atol=1e-9)


def test_one_speaker_has_no_interval() -> None:
    x = np.random.default_rng(0).uniform(0, 1, (5, 1))
    assert ccc_change_interval(x, x, x, ["a"] * 5) is None


def test_with_blanks_the_interval_is_scipys_over_the_rated_clips() -> None:
    """The second target is rated for a part of the clips, and by some speakers not at all."""
    a, b, rated, speakers = study(4, speakers=14, clips=5, targets=2)
    blank = np.random.default_rng(0).random(len(rated)) < 0.4
    blank[:10] = True
    rated[blank, 1] = np.nan
    low, high = ccc_interval(a, rated, speakers)
    alone = ccc_interval(a[:, :1], rated[:, :1], speakers)
    np.testing.assert_allclose([low[0], high[0]], [alone[0][0], alone[1][0]], atol=1e-12)
    names = np.unique(speakers)

    def statistic(sample: Any) -> float:
        rows = rows_of(speakers, names[sample.astype(int)])
        return float(ccc_challenge(a[rows], rated[rows])[1])

    expected = scipy.stats.bootstrap(
        (np.arange(len(names)),), statistic, n_resamples=2000, method="percentile", vectorized=False, rng=1
    ).confidence_interval
    np.testing.assert_allclose([low[1], high[1]], expected, atol=0.02)
    difference = compare(a, b, rated, speakers, resamples=10).difference
    np.testing.assert_allclose(difference[:2], ccc_challenge(a, rated) - ccc_challenge(b, rated), atol=1e-12)


def test_the_interval_of_a_recall_is_scipys_bootstrap_over_speakers() -> None:
    rng = np.random.default_rng(2)
    speakers = [f"s{i}" for i in np.repeat(np.arange(12), 8)]
    classes = rng.integers(0, 3, len(speakers)).astype(np.float64)
    probabilities = rng.dirichlet(np.ones(3), len(speakers)) + 0.4 * np.eye(3)[classes.astype(int)]
    classes[::9] = np.nan
    names = np.unique(speakers)

    def statistic(sample: Any) -> float:
        rows = rows_of(speakers, names[sample.astype(int)])
        return float(uar_of_confusion(confusion(probabilities[rows], classes[rows])))

    expected = scipy.stats.bootstrap(
        (np.arange(len(names)),), statistic, n_resamples=2000, method="percentile", vectorized=False, rng=1
    ).confidence_interval
    found = uar_interval(probabilities, classes, speakers)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert uar_interval(np.stack([probabilities] * 2), classes, speakers) == pytest.approx(found, abs=0.01)


def test_why_there_is_no_interval() -> None:
    assert no_evidence_of(["a", "a"]) == "1 speaker, and fewer than 8 say nothing"
    assert no_evidence_of(["", ""]).startswith("no speaker is named")
    named = [*"abcdefgh"] * 19
    assert no_evidence_of([*named, *[""] * 8]) == ""
    assert no_evidence_of([*named, *[""] * 9]) == "9 of 161 clips name no speaker, and may be of one person"


def test_who_has_no_name_is_no_speaker() -> None:
    a, b, rated, speakers = study(3, speakers=8, clips=5)
    for names, counted in ((speakers, 8), (["" if name == speakers[0] else name for name in speakers], 7)):
        found = compare(a, b, rated, names, resamples=50)
        assert (found.speakers, found.is_evidence) == (counted, counted == 8)
        assert (ccc_change_interval(a, b, rated, names, resamples=50) is None) == (counted == 7)


def test_a_target_that_few_have_rated_has_no_evidence_and_one_that_none_has_no_difference() -> None:
    a, b, rated, speakers = study(3, speakers=12, clips=5, targets=3)
    few = [name in sorted(set(speakers))[:3] for name in speakers]
    rated = rated.copy()
    rated[~np.array(few), 0] = np.nan
    rated[:, 1] = np.nan
    found = compare(a, b, rated, speakers, resamples=200)
    known = [k for k in range(rated.shape[1]) if k != 1]
    assert np.isnan(found.difference).tolist() == [k == 1 for k in range(rated.shape[1] + 1)]
    np.testing.assert_allclose(found.difference[-1], found.difference[known].mean())
    for evidence in (found.low, found.high, found.p, found.p_holm):
        assert np.isnan(evidence).tolist() == [True, True, False, True]  # the mean is as good as each
    assert [found.verdict(k) for k in (0, 1)] == ["too few speakers to say"] * 2
    assert found.figures(1) == dict.fromkeys(("difference", "low", "high", "p", "p_holm"))


def test_a_target_that_is_called_mean_keeps_its_figures() -> None:
    a, b, rated, speakers = study(3, speakers=12, clips=5, targets=2)
    found = compare(a, b, rated, speakers, resamples=50)
    figures = [*found.to_dict(["x", "y"])["per_target"].values()]
    assert found.to_dict(["mean", "y"])["per_target"] == dict(
        zip(("mean", "y", "mean of targets"), figures, strict=True)
    )
    assert [*found.to_dict(["x", "y"])["per_target"]] == ["x", "y", "mean"]


def test_an_evaluation_says_nothing_of_targets_that_nobody_has_rated() -> None:
    a, _, rated, speakers = study(3, speakers=12, clips=5, targets=3)
    rated = rated.copy()
    rated[:, 1] = np.nan
    rated[np.array(speakers) != speakers[0], 0] = np.nan
    targets = tuple(f"t{k}" for k in range(rated.shape[1]))
    names = tuple(map(str, range(len(rated))))
    seed = Predictions(file_ids=names, speakers=tuple(speakers), targets=targets, scores=a, rated=rated)
    found = Evaluation(run=Path("run"), epochs=(1,), seeds=(seed,), ridge=None)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["per_target"]["t1"]["ccc"] is None
    assert [document["per_target"][name]["ccc_low"] is None for name in targets] == [
        k < 2 for k in range(len(targets))
    ]
    known = [document["per_target"][name]["ccc"] for name in targets if name != "t1"]
    assert document["mean"]["ccc"] == pytest.approx(np.mean(known))
    assert document["mean"]["ccc_low"] is None
    whole = replace(seed, rated=np.where(np.arange(3) == 0, np.nan, rated))  # t0 is unknown now, too
    found = replace(found, seeds=(whole,))
    assert found.interval is not None
    low, high = found.interval
    assert low[-1] < found.challenge[2] < high[-1]


def test_a_class_target_that_few_have_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    speakers = np.repeat([f"s{i:02d}" for i in range(12)], 5)
    one_hot = np.eye(2)[rng.integers(0, 2, len(speakers))]
    kinds = ClassTarget(name="Type", classes=("a", "b")), ClassTarget(name="Mood", classes=("a", "b"))
    few = np.where((speakers < "s03")[:, None], one_hot, np.nan)  # three speakers have a mood
    seed = Predictions(
        file_ids=tuple(map(str, range(len(speakers)))),
        speakers=tuple(speakers.tolist()),
        targets=("Type=a", "Type=b", "Mood=a", "Mood=b"),
        scores=rng.uniform(size=(len(speakers), 4)),
        rated=np.hstack([one_hot, few]),
        classes=kinds,
    )
    found = Evaluation(run=Path("run"), epochs=(1,), seeds=(seed,), ridge=None)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))["classes"]
    assert document["Type"]["uar_low"] < document["Type"]["uar"] < document["Type"]["uar_high"]
    assert (document["Mood"]["uar_low"], document["Mood"]["uar_high"]) == (None, None)
    rare = np.where(
        (speakers < "s03")[:, None], one_hot, np.array([1.0, 0.0])
    )  # three speakers have the second
    found = replace(found, seeds=(replace(seed, rated=np.hstack([one_hot, rare])),))
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))["classes"]
    assert document["Type"]["uar_low"] is not None
    assert (document["Mood"]["uar_low"], document["Mood"]["uar_high"]) == (None, None)
    print_evaluation(found)
    shown = " ".join(capsys.readouterr().out.split())
    assert "95% by resampling speakers, not where a class is of fewer than 8 speakers" in shown
    alike = np.hstack([np.eye(2)[[0] * len(speakers)], rare])  # no clip of the second type
    print_evaluation(replace(found, seeds=(replace(seed, speakers=("s",) * len(speakers), rated=alike),)))
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"Type [\d.]+ 1 of 2 Mood [\d.]+ 2 UAR: .* no 95% interval: ", shown), shown
    none = replace(seed, rated=np.hstack([one_hot, np.full_like(one_hot, np.nan)]))
    found = replace(found, seeds=(none,))
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["classes"]["Mood"]["uar"] is document["score"] is None
    assert document["classes"]["Type"]["uar"] > 0
    assert found.unlabelled == ("Mood",)
    rated = np.column_stack([np.where(np.arange(len(speakers)) == 3, 0.5, np.nan), none.rated])
    names, scores = ("Awe", *none.targets), np.column_stack([rng.uniform(size=len(speakers)), none.scores])
    found = replace(found, seeds=(replace(none, targets=names, scores=scores, rated=rated),))
    assert found.unlabelled == ("Awe", "Mood")  # of one rating there is no CCC
    assert np.isnan(found.score)
