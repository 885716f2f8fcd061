"""The two concordance correlations against the formula written out in Python's floats, and their
properties.
"""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from rrtn.runtime.challenge import EMOTIONS
from rrtn.train.method.columns import ClassTarget, Columns, Scale
from rrtn.train.method.losses import ccc_loss
from rrtn.train.method.metrics import (
    ccc_biased,
    ccc_challenge,
    confusion,
    in_units,
    judgement,
    mae,
    metric_of,
    numbers_of_one_hot,
    pearson,
    s_mtl,
    uar_of_confusion,
)
from rrtn.train.method.tasks import TASKS, submitted_columns, task_of_name
from scipy import stats

N, K = 23, 3
TOLERANCE = 1e-12  # float64 sums of 23 numbers near 1

Float64 = npt.NDArray[np.float64]


@pytest.fixture
def rated() -> Float64:
    return np.random.default_rng(0).uniform(0, 1, (N, K))


@pytest.fixture
def predicted(rated: Float64) -> Float64:
    return np.clip(0.6 * rated + np.random.default_rng(1).normal(0.1, 0.2, (N, K)), 0, 1)


def written_out(x: list[float], y: list[float], variance_over: int) -> float:
    """2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2), the covariance over n."""
    m_x, m_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    s_xx = math.fsum((a - m_x) ** 2 for a in x) / variance_over
    s_yy = math.fsum((b - m_y) ** 2 for b in y) / variance_over
    s_xy = math.fsum((a - m_x) * (b - m_y) for a, b in zip(x, y, strict=True)) / len(x)
    return 2 * s_xy / (s_xx + s_yy + (m_x - m_y) ** 2)


def test_biased_equals_the_formula_over_n(predicted: Float64, rated: Float64) -> None:
    expected = [written_out(list(x), list(y), N) for x, y in zip(predicted.T, rated.T, strict=True)]
    np.testing.assert_allclose(ccc_biased(predicted, rated), expected, rtol=0, atol=TOLERANCE)


def test_challenge_has_variances_over_n_minus_1_and_the_covariance_over_n(
    predicted: Float64, rated: Float64
) -> None:
    expected = [written_out(list(x), list(y), N - 1) for x, y in zip(predicted.T, rated.T, strict=True)]
    np.testing.assert_allclose(ccc_challenge(predicted, rated), expected, rtol=0, atol=TOLERANCE)
    assert (ccc_challenge(predicted, rated) < ccc_biased(predicted, rated)).all()


def test_biased_is_one_minus_the_loss(predicted: Float64, rated: Float64) -> None:
    loss = ccc_loss(torch.from_numpy(predicted), torch.from_numpy(rated)).item()
    assert ccc_biased(predicted, rated).mean() == pytest.approx(1 - loss, abs=TOLERANCE)


def test_a_perfect_prediction_is_1_over_n_but_less_by_the_challenge(rated: Float64) -> None:
    np.testing.assert_allclose(ccc_biased(rated, rated), 1, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(ccc_challenge(rated, rated), (N - 1) / N, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("ccc", [ccc_biased, ccc_challenge])
class TestProperties:
    def test_the_two_sides_may_be_exchanged(self, ccc, predicted: Float64, rated: Float64) -> None:
        np.testing.assert_allclose(ccc(predicted, rated), ccc(rated, predicted), rtol=0, atol=TOLERANCE)

    def test_a_mirrored_prediction_has_the_negative_value(
        self, ccc, predicted: Float64, rated: Float64
    ) -> None:
        mirrored = 2 * predicted.mean(0) - predicted
        np.testing.assert_allclose(ccc(mirrored, rated), -ccc(predicted, rated), rtol=0, atol=TOLERANCE)

    def test_a_shift_lowers_it_where_correlation_would_stay(self, ccc, rated: Float64) -> None:
        values = [ccc(rated + shift, rated) for shift in (0, 0.1, 0.2, 0.4)]
        assert (np.diff(values, axis=0) < -0.01).all()

    def test_a_smaller_range_lowers_it(self, ccc, rated: Float64) -> None:
        shrunk = rated.mean(0) + 0.5 * (rated - rated.mean(0))
        np.testing.assert_allclose(
            ccc(shrunk, rated) / ccc(rated, rated), 0.8, rtol=0, atol=TOLERANCE
        )  # 2 a / (1 + a^2)

    def test_targets_do_not_touch_each_other(self, ccc, predicted: Float64, rated: Float64) -> None:
        other = predicted.copy()
        other[:, 1] = 0.5
        np.testing.assert_array_equal(ccc(other, rated)[[0, 2]], ccc(predicted, rated)[[0, 2]])

    @pytest.mark.parametrize("constant", [0.0, 0.1, 0.3, 0.7])  # the means of most of them are not exact
    @pytest.mark.parametrize("n", [3, 30, 100])
    def test_nothing_varies_and_nothing_was_predicted(self, ccc, constant: float, n: int) -> None:
        assert ccc(np.full((n, 1), constant), np.full((n, 1), constant)).tolist() == [0.0]

    def test_constant_predictions_are_worth_nothing(self, ccc, rated: Float64) -> None:
        np.testing.assert_allclose(ccc(np.full_like(rated, 0.3), rated), 0, rtol=0, atol=TOLERANCE)

    def test_float32_scores_are_computed_in_float64(self, ccc, predicted: Float64, rated: Float64) -> None:
        single = predicted.astype(np.float32)
        np.testing.assert_array_equal(ccc(single, rated), ccc(single.astype(np.float64), rated))
        assert ccc(single, rated.astype(np.float32)).dtype == np.float64


class TestPearson:
    def test_it_is_scipys(self, predicted: Float64, rated: Float64) -> None:
        expected = [stats.pearsonr(x, y).statistic for x, y in zip(predicted.T, rated.T, strict=True)]
        np.testing.assert_allclose(pearson(predicted, rated), expected, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(pearson(7 - 9 * predicted, rated), -np.array(expected), atol=TOLERANCE)

    @pytest.mark.parametrize("constant", [0.0, 0.3])
    def test_it_is_0_where_one_side_is_constant(self, constant: float, rated: Float64) -> None:
        predicted = np.full_like(rated, constant)
        assert pearson(predicted, rated).tolist() == pearson(rated, predicted).tolist() == [0.0] * K


def test_two_clips_are_enough(predicted: Float64, rated: Float64) -> None:
    """Of the whole, and of a target in which others are blank."""
    expected = [written_out([*x], [*y], 1) for x, y in zip(predicted[:2].T, rated[:2].T, strict=True)]
    np.testing.assert_allclose(ccc_challenge(predicted[:2], rated[:2]), expected, rtol=0, atol=TOLERANCE)
    rated[2:, 0] = np.nan
    assert ccc_challenge(predicted, rated)[0] == pytest.approx(expected[0], abs=TOLERANCE)


@pytest.mark.parametrize("metric", [ccc_challenge, ccc_biased, pearson, mae])
def test_blanks_leave_each_target_to_its_rated_clips(metric, predicted: Float64, rated: Float64) -> None:
    rated[[0, 3, 7], 1] = np.nan
    rows = [i for i in range(N) if i not in (0, 3, 7)]
    expected = metric(predicted[:, [0, 2]], rated[:, [0, 2]])
    found = metric(predicted, rated)
    np.testing.assert_allclose(found[[0, 2]], expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(
        found[1], metric(predicted[rows, 1:2], rated[rows, 1:2])[0], rtol=0, atol=TOLERANCE
    )


def test_a_target_that_fewer_than_two_clips_have_has_no_ccc(predicted: Float64, rated: Float64) -> None:
    rated[1:, 0] = np.nan
    assert np.isnan(ccc_challenge(predicted, rated)).tolist() == [True, False, False]
    for clips in (0, 1):
        assert np.isnan(ccc_challenge(predicted[:clips], predicted[:clips])).all()


class TestClasses:
    PROBABILITIES = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.2, 0.3], [0, 0.4, 0.6], [0.2, 0.2, 0.6]]
    )
    KNOWN = np.array([0, 1, 1, 2, np.nan])

    def test_clips_are_counted_by_class_and_by_the_likeliest_class(self) -> None:
        assert confusion(self.PROBABILITIES, self.KNOWN).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]

    def test_uar_is_the_mean_of_the_recalls(self) -> None:
        assert uar_of_confusion(confusion(self.PROBABILITIES, self.KNOWN)) == pytest.approx((1 + 0.5 + 1) / 3)

    def test_a_class_that_no_clip_has_does_not_count(self) -> None:
        assert uar_of_confusion([[3, 1, 0], [0, 2, 2], [0, 0, 0]]) == pytest.approx((0.75 + 0.5) / 2)

    def test_tables_are_judged_one_by_one(self) -> None:
        """Of 4 classes, of which the clips of a table have 1 to 4; a table without a clip has 0."""
        rng = np.random.default_rng(0)
        known = [rng.integers(0, most, 30) for most in (4, 3, 2, 1)]
        found = [rng.integers(0, 4, 30) for _ in known]
        expected = [organisers_recall([*a], [*b]) for a, b in zip(known, found, strict=True)]
        tables = [confusion(np.eye(4)[b], a) for a, b in zip(known, found, strict=True)]
        stack = np.array([*tables, np.zeros((4, 4), int)])
        np.testing.assert_allclose(uar_of_confusion(stack), [*expected, 0], rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(uar_of_confusion(stack[None])[0], [*expected, 0], rtol=0, atol=TOLERANCE)

    def test_one_hot_rows_are_numbers_again(self) -> None:
        rows = [[0, 1, 0], [1, 0, 0], [np.nan] * 3, [0, 0, 1]]
        np.testing.assert_array_equal(numbers_of_one_hot(rows), [1, 0, np.nan, 2])


def organisers_ccc(y_true: Float64, y_pred: Float64) -> float:
    """EvalMetrics.CCC of both challenges, without its rounding to four digits and to float32 means."""
    x_mean, y_mean = np.nanmean(y_true), np.nanmean(y_pred)
    x_var = 1.0 / (len(y_true) - 1) * np.nansum((y_true - x_mean) ** 2)
    y_var = 1.0 / (len(y_pred) - 1) * np.nansum((y_pred - y_mean) ** 2)
    cov = np.nanmean((y_true - x_mean) * (y_pred - y_mean))
    return float((2 * cov) / (x_var + y_var + (x_mean - y_mean) ** 2))


def organisers_recall(y_true: list[int], y_pred: list[int]) -> float:
    """recall_score(average="macro") of scikit-learn, which both challenges call UAR."""
    recalls = []
    for one in sorted({*y_true}):
        clips = [p for t, p in zip(y_true, y_pred, strict=True) if t == one]
        recalls.append(sum(p == one for p in clips) / len(clips))
    return sum(recalls) / len(recalls)


def columns_of_task(name: str) -> Columns:
    task = task_of_name(name)
    assert task is not None
    classes = {
        "Country": ("0", "1", "2", "3"),
        "Voc_Type": tuple("Cry Gasp Groan Grunt Laugh Other Pant Scream".split()),
    }
    scales = tuple(Scale(18, 66) if target == "Age" else Scale() for target in task.targets)
    targets = tuple(ClassTarget(name=one, classes=classes[one]) for one in task.class_targets)
    return Columns(targets=task.targets, scales=scales, classes=targets)


@pytest.mark.parametrize("name", [task.name for task in TASKS])
def test_a_task_is_judged_by_the_organisers_formulas(name: str) -> None:
    """Written out from github.com/HumeAI/competitions; 1e-9."""
    rng, task, columns, n = np.random.default_rng(3), task_of_name(name), columns_of_task(name), 200
    assert task is not None
    k, groups = len(columns.targets), columns.groups
    rated = rng.uniform(0, 1, (n, k))
    scores = np.clip(0.7 * rated + rng.normal(0.1, 0.1, (n, k)), 0, 1)
    numbers = [rng.integers(0, group.stop - group.start, n) for group in groups]
    parts = [
        rng.dirichlet(np.ones(group.stop - group.start), n) + 0.3 * np.eye(group.stop - group.start)[number]
        for group, number in zip(groups, numbers, strict=True)
    ]
    if name == "avb-culture":  # rated by the clip's own country alone
        own = rng.integers(0, 4, n)
        countries = [target.split("_")[0] for target in columns.targets]
        names = list(dict.fromkeys(countries))
        for column, country in enumerate(countries):
            rated[own != names.index(country), column] = np.nan
    judged = judgement(columns, np.hstack([scores, *parts]), np.column_stack([rated, *numbers]))
    ccc = []
    for x, y in zip(scores.T, rated.T, strict=True):
        rows = ~np.isnan(y)
        ccc.append(organisers_ccc(y[rows], x[rows]))
    uar = [
        organisers_recall(number.tolist(), part.argmax(1).tolist())
        for number, part in zip(numbers, parts, strict=True)
    ]
    if name == "avb-type":
        expected = uar[0]
    elif name == "exvo-multitask":
        years = 18 + 48 * np.column_stack([scores[:, -1], rated[:, -1]])
        error = float(np.abs(years[:, 0] - years[:, 1]).mean())
        inverted_mae = 1 / error
        expected = 3 / (1 / np.mean(ccc[:10]) + 1 / uar[0] + 1 / inverted_mae)  # scipy's hmean
    else:
        expected = float(np.mean(ccc))
    assert judged.score(task) == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(judged.ccc, ccc, rtol=0, atol=1e-9)


def test_the_harmonic_mean_of_what_is_not_above_0_is_0() -> None:
    assert s_mtl(0.5, 0.5, 4.0) == pytest.approx(3 / (2 + 2 + 4))
    assert s_mtl(-0.1, 0.5, 4.0) == s_mtl(0.5, 0.0, 4.0) == 0


def test_what_nobody_has_a_label_of_is_not_known() -> None:
    columns = columns_of_task("exvo-multitask")
    task, n, k = task_of_name("exvo-multitask"), 20, len(columns.targets)
    rng = np.random.default_rng(0)
    labels = np.column_stack([rng.uniform(size=(n, k)), np.full(n, np.nan)])
    judged = judgement(columns, rng.uniform(size=(n, k + 4)), labels)
    assert np.isnan(judged.uar).tolist() == [True]
    assert np.isfinite(judged.ccc).all()
    assert np.isnan(judged.score(task))
    assert judged.not_finite == ["UAR"]
    assert np.isnan([s_mtl(math.nan, -1, 1), s_mtl(-1, math.nan, 1), s_mtl(-1, -1, math.nan)]).all()


@pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
def test_a_score_of_which_one_part_is_not_known_is_not_known(known: float) -> None:
    parts = [[math.nan if one == missing else known for one in range(3)] for missing in range(3)]
    assert np.isnan([s_mtl(*of_one) for of_one in parts]).all()


RATED = {"targets": ("Age", "Awe"), "scales": (Scale(18, 66), Scale())}
CLASSES = (ClassTarget(name="Type", classes=("a", "b")), ClassTarget(name="Sex", classes=("f", "m", "x")))


def test_scores_in_units_are_between_the_ends_of_their_scales() -> None:
    columns = Columns(**RATED, classes=CLASSES)
    scores = [[0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [0.25, 0.5, 0.1, 0.9, 0.2, 0.3, 0.5]]
    expected = [[18, *[0] * 6], [66, *[1] * 6], [30, 0.5, 0.1, 0.9, 0.2, 0.3, 0.5]]
    np.testing.assert_allclose(in_units(scores, columns), expected, rtol=0, atol=TOLERANCE)


def test_each_class_target_is_judged_by_its_own_column() -> None:
    columns = Columns(**RATED, classes=CLASSES)
    scores = [[0.1, 0.2, 0.9, 0.1, 0.1, 0.8, 0.1], [0.3, 0.5, 0.2, 0.8, 0.6, 0.2, 0.2]]
    labels = [[0.2, 0.1, 0, 2], [0.4, 0.6, 1, 0]]
    judged = judgement(columns, scores, labels)
    assert judged.uar.tolist() == [1.0, 0.5]
    assert judged.mae == pytest.approx([0.1 * 48, 0.1])


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (Columns(**RATED), {"val_ccc", "val_ccc_per_target"}),
        (
            Columns(targets=(), scales=(), classes=CLASSES),
            {"val_uar", "val_uar_per_target", "val_metric", "val_score"},
        ),
        (
            Columns(**RATED, classes=CLASSES),
            {"val_ccc", "val_ccc_per_target", "val_uar", "val_uar_per_target", "val_metric", "val_score"},
        ),
    ],
    ids=["rated", "classes", "both"],
)
def test_a_record_has_the_figures_of_its_targets_and_what_chose_the_epoch(
    columns: Columns, names: set[str]
) -> None:
    rng = np.random.default_rng(0)
    k = len(columns.targets)
    labels = [
        rng.uniform(size=(9, k)),
        *(rng.integers(0, len(one.classes), (9, 1)) for one in columns.classes),
    ]
    judged = judgement(columns, rng.uniform(size=(9, len(columns.labels))), np.column_stack(labels))
    record = judged.to_record(None)
    assert record.keys() == names
    if columns.targets:
        assert record["val_ccc_per_target"] == dict(zip(columns.targets, judged.ccc, strict=True))
        assert record["val_ccc"] == pytest.approx(sum(judged.ccc) / k)
    if columns.classes:
        assert record["val_uar_per_target"] == {"Type": judged.uar[0], "Sex": judged.uar[1]}
        assert record["val_uar"] == pytest.approx(sum(judged.uar) / 2)
        assert record["val_metric"] == metric_of(columns, None)
        assert record["val_score"] == pytest.approx(np.mean([*judged.ccc, *judged.uar]))


def test_what_an_epoch_is_chosen_by() -> None:
    rated, classes = ("Awe",), (ClassTarget(name="Type", classes=("a", "b")),)
    assert metric_of(Columns(targets=rated, scales=(Scale(),)), None) == "ccc"
    assert metric_of(Columns(targets=(), scales=(), classes=classes), None) == "uar"
    assert metric_of(Columns(targets=rated, scales=(Scale(),), classes=classes), None) == "ccc_uar"
    assert metric_of(columns_of_task("exvo-multitask"), task_of_name("exvo-multitask")) == "s_mtl"


def test_the_tasks_have_the_organisers_columns() -> None:
    culture = task_of_name("avb-culture")
    assert culture is not None
    assert (len(culture.targets), culture.targets[9], culture.targets[-1]) == (
        40,
        "United States_Awe",
        "Venezuela_Surprise",
    )
    multitask = task_of_name("exvo-multitask")
    assert multitask is not None
    assert multitask.submitted == ("Country", "Age", *EMOTIONS)


def test_a_run_that_lacks_columns_of_its_task_submits_those_that_it_has() -> None:
    """As runs of before may."""
    multitask = task_of_name("exvo-multitask")
    assert submitted_columns(multitask, ("Awe", "Fear", "Country")) == ("Country", "Awe", "Fear")
    assert submitted_columns(None, ("Fear", "Type")) == ("Fear", "Type")
    assert submitted_columns(None, sorted(EMOTIONS)) == EMOTIONS  # Hume's tables have two orders
