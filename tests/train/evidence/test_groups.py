"""CCC and bias of groups of clips, against written-out formulas and exact tests."""

import json
from dataclasses import replace
from itertools import combinations, islice, product

import numpy as np
import pytest
from rrtn.runtime.errors import ConfigError
from rrtn.train.evidence.groups import Grouping, GroupReport, exchanges, group_report, grouping_of_text
from rrtn.train.evidence.predictions import Predictions
from rrtn.train.evidence.significance import holm
from rrtn.train.method.metrics import ccc_challenge

CLIPS = 5  # of each speaker
TARGETS = ("Awe", "Fear")


def predictions(speakers: int, *, seed: int = 0, blank: bool = False) -> Predictions:
    """Speakers 0, 2, ... are women; the scores of men lie higher and are noisier."""
    rng = np.random.default_rng(seed)
    n = speakers * CLIPS
    rated = rng.uniform(0, 1, (n, len(TARGETS)))
    man = (np.arange(n) // CLIPS % 2)[:, None]
    scores = 0.7 * rated + 0.1 * man + (0.1 + 0.1 * man) * rng.standard_normal(rated.shape)
    if blank:
        rated[rng.random(rated.shape) < 0.2] = np.nan
    names = tuple(f"s{i // CLIPS:02d}" for i in range(n))
    return Predictions(
        file_ids=tuple(map(str, range(n))), speakers=names, targets=TARGETS, scores=scores, rated=rated
    )


def cells_of(made: Predictions) -> dict[str, dict[str, str]]:
    """Sex and Age are the speaker's; Mood and Room are the clip's."""
    number = [int(speaker[1:]) for speaker in made.speakers]
    return {
        name: {
            "Sex": "fm"[number[i] % 2],
            "Age": str(20 + number[i]),
            "Mood": ("calm", "wild", "")[i % 3],
            "Country_string": "USA",
        }
        for i, name in enumerate(made.file_ids)
    }


def report(made: Predictions, by: str, resamples: int = 400) -> GroupReport:
    return group_report(grouping_of_text(by), cells_of(made), [made], resamples=resamples)


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("by", ["Sex", "Mood"])
def test_ccc_and_bias_are_those_of_the_clips_of_the_group(by: str, blank: bool) -> None:
    made = predictions(20, blank=blank)
    cells = cells_of(made)
    found = report(made, by)
    for group in found.groups:
        inside = [cells[name][by] == group.name for name in made.file_ids]
        scores, rated = made.scores[inside], made.rated[inside]
        ccc, bias = ccc_challenge(scores, rated), np.nanmean(scores - rated, axis=0)
        np.testing.assert_allclose(group.ccc.value, [*ccc, ccc.mean()], atol=1e-12)
        np.testing.assert_allclose(group.bias.value, [*bias, bias.mean()], atol=1e-12)
        assert group.clips == sum(inside)
    first, second = found.groups
    (pair,) = found.differences
    assert (pair.first, pair.second) == (first.name, second.name)
    np.testing.assert_allclose(pair.ccc.value, first.ccc.value - second.ccc.value, atol=1e-12)
    np.testing.assert_allclose(pair.bias.value, first.bias.value - second.bias.value, atol=1e-12)
    assert found.without == (sum(row["Mood"] == "" for row in cells.values()) if by == "Mood" else 0)


def test_the_interval_holds_the_value_and_narrows_with_speakers() -> None:
    few, many = (report(predictions(speakers), "Sex").groups[0] for speakers in (18, 160))
    for group in (few, many):
        assert group.ccc.low is not None and group.ccc.high is not None
        assert (group.ccc.low < group.ccc.value).all() and (group.ccc.value < group.ccc.high).all()
    widths = [group.bias.high[-1] - group.bias.low[-1] for group in (few, many)]  # type: ignore[index]
    assert widths[1] < 0.7 * widths[0]  # 9 and 80 women


def difference(made: Predictions, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[2, K + 1] of CCC and bias, from the clips of two masks."""
    values = []
    for mask in (first, second):
        scores, rated = made.scores[mask], made.rated[mask]
        ccc, bias = ccc_challenge(scores, rated), (scores - rated).mean(0)
        values.append([[*ccc, ccc.mean()], [*bias, bias.mean()]])
    return np.array(values[0]) - np.array(values[1])


def test_p_is_the_share_of_exchanges_with_a_difference_as_large() -> None:
    """Each ninth of the C(16, 8) ways to deal 16 speakers to two groups, against random ones."""
    made = predictions(16, seed=3)
    speaker = np.array([int(name[1:]) for name in made.speakers])
    observed = difference(made, speaker % 2 == 0, speaker % 2 == 1)
    ways = [
        difference(made, in_first := np.isin(speaker, dealt), ~in_first)
        for dealt in islice(combinations(range(16), 8), 0, None, 9)
    ]
    exact = np.mean([np.abs(way) >= np.abs(observed) - 1e-12 for way in ways], axis=0)
    (pair,) = report(made, "Sex", resamples=4000).differences
    np.testing.assert_allclose(pair.p, exact, atol=0.04)


def test_an_exchange_leaves_each_group_as_many_speakers_as_it_had() -> None:
    a = np.array([True] * 5 + [False] * 3 + [True] * 4 + [False])
    b = np.array([False] * 5 + [True] * 3 + [True] * 4 + [False])
    keeps = exchanges(a, b, 2000, np.random.default_rng(0))
    in_a = np.where(a, keeps, 1 - keeps)[:, :8]
    assert (in_a.sum(axis=1) == 5).all()
    np.testing.assert_allclose(in_a.mean(axis=0), 5 / 8, atol=0.05)
    np.testing.assert_allclose(keeps[:, 8:12].mean(axis=0), 0.5, atol=0.05)
    assert (keeps[:, 12] == 1).all()


def test_speakers_with_clips_in_both_groups_swap_these() -> None:
    made = predictions(8, seed=5)
    cells = cells_of(made)
    speaker = np.array([int(name[1:]) for name in made.speakers])
    calm = np.array([cells[name]["Mood"] == "calm" for name in made.file_ids])
    wild = np.array([cells[name]["Mood"] == "wild" for name in made.file_ids])
    observed = difference(made, calm, wild)
    ways = []
    for swaps in product([False, True], repeat=8):
        swapped = np.array(swaps)[speaker]
        ways.append(difference(made, np.where(swapped, wild, calm), np.where(swapped, calm, wild)))
    exact = np.mean([np.abs(way) >= np.abs(observed) - 1e-12 for way in ways], axis=0)
    (pair,) = report(made, "Mood", resamples=4000).differences
    np.testing.assert_allclose(pair.p, exact, atol=0.04)


@pytest.mark.parametrize("by", ["3", "+", "Sex2", " ", "_"])
def test_a_name_of_no_column_is_refused(by: str) -> None:
    """Not even where another column, as this one, has no word."""
    made = predictions(2)
    cells = {name: row | {"7": "a", "": "b", "%": "c"} for name, row in cells_of(made).items()}
    with pytest.raises(ConfigError, match=r"no such column .* expected one of Sex, "):
        group_report(Grouping(column=by), cells, [made])


def test_holm_is_over_pairs_and_over_targets() -> None:
    found = report(predictions(33), "Age:20-30,31-41,42-52")
    assert [group.name for group in found.groups] == ["20-30", "31-41", "42-52"]
    assert [group.speakers for group in found.groups] == [11, 11, 11]
    p = np.array([pair.p for pair in found.differences])
    adjusted = np.array([pair.p_holm for pair in found.differences])
    for kind in (0, 1):
        np.testing.assert_array_equal(adjusted[:, kind, -1], holm(p[:, kind, -1]))
        np.testing.assert_array_equal(adjusted[:, kind, :-1].ravel(), holm(p[:, kind, :-1].ravel()))


def test_a_true_bias_is_shown_and_none_is_not() -> None:
    made = predictions(60)
    assert "bias" in report(made, "Sex").differences[0].verdict()
    assert report(made, "Age:20-49,50-80").differences[0].verdict() == "no difference shown"


def test_of_few_speakers_there_is_no_interval_and_no_p() -> None:
    found = report(predictions(15), "Sex")
    assert [group.speakers for group in found.groups] == [8, 7]
    assert found.groups[0].ccc.low is not None
    assert found.groups[1].ccc.low is None and found.groups[1].bias.high is None
    (pair,) = found.differences
    assert (pair.p, pair.p_holm, pair.ccc.low) == (None, None, None)
    assert pair.verdict() == "too few speakers to say"
    document = found.to_dict()
    assert document["groups"]["m"]["ccc"]["mean"]["low"] is None
    assert document["differences"][0]["bias"]["Awe"]["p_holm"] is None


def test_where_many_clips_name_no_speaker_nothing_is_evidence() -> None:
    """They may be of one person, who would be a cluster of most of the clips."""
    made = predictions(40)
    for unnamed in (1, 2):  # of 20 women; one is 5% of their clips
        names = [f"s{2 * i:02d}" for i in range(unnamed)]
        speakers = tuple("" if name in names else name for name in made.speakers)
        found = group_report(
            grouping_of_text("Sex"), cells_of(made), [replace(made, speakers=speakers)], resamples=100
        )
        women = next(group for group in found.groups if group.name == "f")
        assert women.ccc.low is not None
        assert np.isnan(women.ccc.low).all() == (unnamed == 2)


def test_means_over_seeds_are_taken() -> None:
    seeds = [predictions(20), predictions(20)]
    other = Predictions(**{**vars(seeds[1]), "scores": seeds[1].scores + 0.2})
    found = group_report(Grouping(column="Sex"), cells_of(other), [seeds[0], other], resamples=50)
    alone = group_report(Grouping(column="Sex"), cells_of(other), [seeds[0]], resamples=50)
    for both, one in zip(found.groups, alone.groups, strict=True):
        np.testing.assert_allclose(both.bias.value, one.bias.value + 0.1, atol=1e-12)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("Height", r"--by Height \| no such column \| expected one of Sex, Age, Mood, Country_string"),
        ("Age", r"--by Age \| 33 groups \| expected 1 to 20 \| .*Age:20-29"),
        ("Age:1-5", r"--by Age \| 0 groups"),
        ("Age:30-20", r"--by Age:30-20 \| 30-20 \| .*lower end first"),
        ("Age:30-40,20-30", r"--by Age:30-40,20-30 \| 20-30 and 30-40 share a number"),
        ("Age:20-,50-60", r"20- and 50-60 share a number"),
        ("Age:20-29,", r"--by Age:20-29, \| 20-29, \| .*ranges such as"),
    ],
)
def test_a_wrong_group_is_refused(by: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        report(predictions(33), by)


def test_columns_are_found_in_any_spelling_and_ends_are_included() -> None:
    found = report(predictions(20), "country string", resamples=20)
    assert [(group.name, group.clips) for group in found.groups] == [("USA", 100)]
    grouping = grouping_of_text("Age:20-29,30-39.5,60-")
    cells = {
        "20": "20-29",
        "29": "20-29",
        "29.5": "",
        "39.5": "30-39.5",
        "60": "60-",
        "99": "60-",
        "": "",
        "?": "",
        "2_5": "",
        " 25 ": "20-29",
    }
    assert {cell: grouping.group(cell) for cell in cells} == cells


def test_a_target_that_a_group_has_not_rated_is_unknown_and_in_no_mean() -> None:
    made = predictions(40)
    men = np.array([int(name[1:]) % 2 == 1 for name in made.speakers])
    rated = made.rated.copy()
    rated[np.flatnonzero(men)[1:], 0] = np.nan  # one man's clip of Awe
    women_of_awe = np.array([int(name[1:]) in (0, 2) for name in made.speakers])
    rated[~men & ~women_of_awe, 0] = np.nan
    found = report(replace(made, rated=rated), "Sex")
    women, man = found.groups
    assert (women.rated, man.rated) == ((2 * CLIPS, 20 * CLIPS), (1, 20 * CLIPS))
    fear = ccc_challenge(made.scores[men], made.rated[men])[1]
    np.testing.assert_allclose(man.ccc.value, [np.nan, fear, fear], atol=1e-12)
    for figures in (women.ccc, women.bias):
        assert figures.low is not None
        assert np.isnan(figures.low).tolist() == [True, False, True]  # two women are no evidence
    assert not np.isnan(women.ccc.value).any()
    (pair,) = found.differences
    women_fear = ccc_challenge(made.scores[~men], made.rated[~men])[1]
    np.testing.assert_allclose(pair.ccc.value, [np.nan, women_fear - fear, women_fear - fear], atol=1e-12)
    assert pair.p_holm is not None
    assert [np.isnan(p).tolist() for p in pair.p_holm] == [[True, False, False]] * 2
    assert pair.verdict(0) == "too few speakers to say"
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["groups"]["m"]["ccc"]["Awe"] == {"value": None, "low": None, "high": None}
    assert document["groups"]["m"]["rated"] == {"Awe": 1, "Fear": 100}
    assert document["differences"][0]["ccc"]["Awe"]["p_holm"] is None


def test_the_bias_of_several_scales_has_no_mean() -> None:
    made = predictions(40)
    found = group_report(grouping_of_text("Sex"), cells_of(made), [made], resamples=100, one_scale=False)
    (pair,) = found.differences
    for bias in (*(group.bias for group in found.groups), pair.bias):
        assert np.isnan(bias.value).tolist() == [False, False, True]
    assert pair.p is not None
    assert [bool(np.isnan(p[-1])) for p in pair.p] == [False, True]
    assert not any(np.isnan(group.ccc.value).any() for group in found.groups)


def test_a_target_that_is_called_mean_keeps_its_figures() -> None:
    made = predictions(40)
    plain = report(made, "Sex").to_dict()
    named = report(replace(made, targets=("mean", "Fear")), "Sex").to_dict()
    names = {"Awe": "mean", "Fear": "Fear", "mean": "mean of targets"}
    for kind in ("ccc", "bias"):
        for before, after in (
            (plain["groups"]["m"][kind], named["groups"]["m"][kind]),
            (plain["differences"][0][kind], named["differences"][0][kind]),
        ):
            assert {names[name]: figures for name, figures in before.items()} == after


def test_cells_that_say_nothing_are_in_no_group() -> None:
    assert [Grouping(column="Sex").group(cell) for cell in ("f", "NA", "", "n/a")] == ["f", "", "", ""]


def test_holm_counts_the_tests_that_there_are() -> None:
    p = np.array([np.nan, 0.02, 0.01, np.nan])
    np.testing.assert_allclose(holm(p), [np.nan, 0.02, 0.02, np.nan])
