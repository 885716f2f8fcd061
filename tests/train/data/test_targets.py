"""Cells become labels: scales, blanks and classes, and each refusal in one line that ends in what to do."""

from collections.abc import Sequence

import numpy as np
import pytest
from rrtn.runtime.errors import ConfigError, DataError
from rrtn.train.data.targets import LabelCells, LabelChoice, Labels, labels_of_cells
from rrtn.train.method.columns import Scale, scale_choice, scale_settings

SPLITS = ("Train", "Train", "Train", "Train", "Val", "Val", "Test", "Test")


def refused(rows: Sequence[int], came: str, *, wanted: str, fix: str) -> DataError:
    return DataError(f"rows {[int(row) for row in rows]}", came, wanted=wanted, fix=fix)


def labels(
    targets: dict[str, str],
    texts: dict[str, str] | None = None,
    *,
    learned: bool = False,
    **choice: Sequence[str],
) -> Labels:
    """Each column as a text of eight cells; `_` is a blank."""
    cells = {
        name: ["" if cell == "_" else cell for cell in text.split()]
        for name, text in (targets | (texts or {})).items()
    }
    given = {name: tuple(values) for name, values in choice.items()}
    return labels_of_cells(
        LabelCells(splits=SPLITS, cells=cells, refused=refused),
        tuple(targets),
        LabelChoice(class_targets=tuple(texts or ()), learned=learned, **given),
    )


def test_ratings_of_a_scale_become_shares_in_float64_rounded_once() -> None:
    found = labels({"V": "-1 -0.9 0.1 1 0.7 0.3 _ _"}, scale=["-1:1"])
    written = np.array([-1, -0.9, 0.1, 1, 0.7, 0.3])
    np.testing.assert_array_equal(found.ratings[:6, 0], ((written + 1) / 2).astype(np.float32))
    np.testing.assert_array_equal(found.rated[:6, 0], written)
    assert np.isnan(found.ratings[6:]).all()
    assert found.columns.scales == (Scale(-1, 1),)


def test_shares_are_rounded_once_on_any_scale() -> None:
    """In float32 a difference and a quotient would round twice."""
    for seed in range(20):
        written = np.random.default_rng(seed).uniform(1, 10, 8)
        found = labels({"A": " ".join(map(repr, written.tolist()))}, scale=["1:10"])
        np.testing.assert_array_equal(found.ratings[:, 0], ((written - 1) / 9).astype(np.float32))


def test_the_shares_of_ratings_that_were_mapped_are_those_of_the_ratings() -> None:
    """Which is what makes a run on mapped ratings the same run."""
    shares = np.random.default_rng(0).uniform(0, 1, 8)
    plain = labels({"A": " ".join(f"{share!r}" for share in shares.tolist())})
    mapped = labels({"A": " ".join(f"{1 + 4 * share!r}" for share in shares.tolist())}, scale=["A=1:5"])
    assert plain.ratings.tobytes() == mapped.ratings.tobytes()


def test_ratings_of_0_to_1_are_those_of_earlier_rrtn() -> None:
    found = labels({"A": "0.1 0.2 0.3 1 0 0.7 _ 0.4"})
    expected = np.array([0.1, 0.2, 0.3, 1, 0, 0.7, np.nan, 0.4], dtype=np.float32)[:, None]
    np.testing.assert_array_equal(found.ratings, expected)
    np.testing.assert_array_equal(found.rated, expected.astype(np.float64))
    assert (found.warnings, scale_settings(found.columns, scale_choice(()))) == ((), ())


def test_each_target_may_have_its_own_scale_and_the_others_the_general_one() -> None:
    found = labels({"V": "-1 0 1 0 0 1 _ _", "A": "1 5 9 2 3 4 _ _"}, scale=["V=-1:1", "1:9"])
    assert found.columns.scales == (Scale(-1, 1), Scale(1, 9))
    assert scale_settings(found.columns, scale_choice(["1:9"])) == ("V=-1:1", "A=1:9")


def test_auto_is_the_range_of_train_and_val_may_leave_it() -> None:
    found = labels({"Age": "20 31 40 60 18 64 _ _"}, scale=["auto"])
    assert found.columns.scales == (Scale(20, 60),)
    assert found.ratings[4:6, 0] == pytest.approx([-0.05, 1.1])
    assert "Age 2" in found.warnings[0]
    settings = scale_settings(found.columns, scale_choice(["auto"]))
    assert settings == ("auto", "Age=20:60")
    assert (
        labels({"Age": "20 31 40 60 18 64 _ _"}, scale=settings).ratings.tobytes() == found.ratings.tobytes()
    )


def test_beside_auto_a_scale_that_is_given_holds_in_every_split() -> None:
    ages = {"Age": "20 31 40 60 18 64 _ _"}
    with pytest.raises(DataError, match=r"rows \[4, 6\] \| V is out of range: 9 \| .* from 1 to 5"):
        labels({"V": "1 2 5 3 9 4 9 _", **ages}, scale=["auto", "V=1:5"])
    found = labels({"V": "1 2 4 3 5 4 _ _", **ages}, scale=["auto", "V=1:5"])
    assert found.columns.scales == (Scale(1, 5), Scale(20, 60))
    assert found.warnings == ("ratings of Val or Test outside their scale, as --scale auto allows: Age 2",)


@pytest.mark.parametrize(
    ("targets", "flag"),
    [
        ({"A": "1 2 5 3 4 4 _ _"}, "--scale 1:5"),
        ({"A": "1 2 5 3 4 4 _ _", "B": "2 2 4 3 4 5 _ _"}, "--scale 1:5"),
        ({"A": "1 2 9 3 4 4 _ _"}, "--scale 1:9"),
        ({"A": "-0.4 0.2 0.9 0 0 0 _ _"}, "--scale -1:1"),
        ({"A": "3 80 97 0 50 50 _ _"}, "--scale 0:100"),
        ({"A": "17.5 80 66 30 50 50 _ _"}, "--scale 0:100"),
        ({"A": "1.5 0 0 0 0 0 _ _"}, "--scale 0:2"),
        ({"A": "1 2 5 3 4 4 _ _", "B": "0 0.1 1 0 0 1 _ _"}, "--scale A=1:5"),
        ({"V": "-1 0 1 0 0 1 _ _", "A": "1 2 5 3 4 4 _ _"}, "--scale V=-1:1,A=1:5"),
    ],
)
def test_a_rating_without_its_scale_is_refused_with_the_flag_to_paste(
    targets: dict[str, str], flag: str
) -> None:
    with pytest.raises(DataError) as caught:
        labels(targets)
    assert str(caught.value).endswith(flag)
    entries = flag.removeprefix("--scale ").split(",")
    assert labels(targets, scale=entries).columns.targets == tuple(targets)  # and it is right


def test_ratings_from_0_to_1_on_another_scale_are_proposed_as_such() -> None:
    with pytest.raises(DataError, match=r"A is out of range: 0 .* --scale 0:1$"):
        labels({"A": "0 0.1 0.9 1 0 0.5 _ _"}, scale=["1:5"])


def test_the_rows_outside_a_scale_are_named() -> None:
    with pytest.raises(DataError, match=r"rows \[2, 5\] \| A is out of range: 9 .* from 1 to 5"):
        labels({"A": "1 2 9 3 4 0 _ _"}, scale=["1:5"])


@pytest.mark.parametrize(
    "entry", ["9:1", "1:1", "1", "1:2:3", "a:b", "V=", "V=1", "1.2.3:4", "1:5,", "0:1e999"]
)
def test_a_scale_of_another_form_is_refused_by_its_text(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"--scale .*auto"):
        scale_choice([entry])


def test_two_general_scales_and_a_scale_of_no_target_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--scale .*1:9"):
        scale_choice(["1:5", "1:9"])
    with pytest.raises(ConfigError, match=r"--scale .*\| V twice \| expected one scale for each target"):
        scale_choice(["V=1:5", "V =0:100"])
    with pytest.raises(ConfigError, match=r"--scale .*auto,1:5"):
        scale_choice(["auto", "1:5"])
    with pytest.raises(ConfigError, match=r"--scale \| Joy \| expected some of A"):
        labels({"A": "0 1 0 1 0 1 _ _"}, scale=["Joy=1:5"])


@pytest.mark.parametrize("cell", ["_", "NA", "nan", "NaN", "n/a"])
def test_blanks_are_none(cell: str) -> None:
    found = labels({"A": f"{cell} 1 0 1 0 1 _ _", "B": "0 0 1 1 1 0 _ _"})
    assert np.isnan(found.ratings[0, 0])
    assert np.isnan(found.rated[0, 0])
    assert found.warnings == ()  # DataSet counts them


def test_a_target_that_one_clip_of_val_has_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"B is blank: 1 of 2 clips of Val have it .* at least 2 .* leave B out"
    ):
        labels({"A": "0 1 0 1 0 1 _ _", "B": "0 1 0 1 _ 1 _ _"})


@pytest.mark.parametrize("cell", ["-1", "NA", "_", "nan", "-1.0"])
def test_test_ratings_that_are_kept_secret_are_none(cell: str) -> None:
    found = labels({"A": f"0 1 0 1 0 1 {cell} {cell}"})
    assert np.isnan(found.rated[6:]).all()


def test_minus_one_is_a_rating_where_the_scale_has_it_and_test_is_rated() -> None:
    rated = labels({"V": "-1 0 1 0 0 1 -1 0.5"}, scale=["-1:1"])
    assert rated.rated[6:, 0].tolist() == [-1, 0.5]
    assert np.isnan(labels({"V": "-1 0 1 0 0 1 -1 -1"}, scale=["-1:1"]).rated[6:]).all()
    with pytest.raises(DataError, match="A is out of range: -1"):
        labels({"A": "-1 0 1 0 0 1 _ _"}, scale=["A=0:1"])


def test_ratings_of_minus_one_that_are_taken_as_hidden_are_counted_where_others_are_negative() -> None:
    found = labels({"V": "-0.9 0 0.8 0 0 0.5 -1 0.5", "A": "1 2 3 4 1 2 -1 3"}, scale=["auto"])
    assert np.isnan(found.rated[6]).all()
    (note,) = found.warnings
    assert (
        note
        == found.hidden
        == (
            "-1 in Test is taken as hidden, though other ratings are negative: V 1; where it is a rating: "
            "--scale auto,V=-1:1"
        )
    )
    kept = labels({"V": "-0.9 0 0.8 0 0 0.5 -1 0.5", "A": "1 2 3 4 1 2 -1 3"}, scale=["auto", "V=-1:1"])
    assert (kept.rated[6, 0], kept.hidden) == (-1, "")


def test_labels_that_are_surely_hidden_need_no_note() -> None:
    assert labels({"V": "-0.9 0 0.8 0 0 0.5 -1 -1"}, scale=["auto"]).hidden == ""  # all of Test
    assert labels({"A": "0 1 0 1 0 1 -1 0.5"}).hidden == ""  # nothing else is negative


def test_what_a_run_learned_from_is_no_more_to_choose() -> None:
    found = labels({"V": "-0.9 0 0.8 0 0 0.5 -1 0.5"}, scale=["V=-0.9:0.8"], learned=True)
    assert found.hidden == "-1 in Test is taken as hidden, though other ratings are negative: V 1"


def test_minus_one_outside_of_test_may_mean_no_rating() -> None:
    """As where hidden labels of a challenge's Test are split anew."""
    with pytest.raises(DataError) as caught:
        labels({"A": "-1 0.2 1 0 -1 1 _ _"})
    assert caught.value.fix == (
        "leave the cell empty if -1 means no rating; else say on which scale people rated: --scale -1:1"
    )
    with pytest.raises(DataError, match=r"\| correct it, or say on which scale .* --scale -1:1$"):
        labels({"A": "-1 -0.2 1 0 -1 1 _ _"})
    with pytest.raises(DataError, match=r"if -1 means no rating; else write the ratings on 0:1, as"):
        labels({"A": "-1 0.2 1 0 -1 1 _ _"}, learned=True)


@pytest.mark.parametrize("code", ["-999", "99", "-9", "9999"])
def test_a_number_far_from_all_ratings_may_mean_no_rating(code: str) -> None:
    """The scale that would hold it would press all real ratings together."""
    cells = f"1 2.5 {code} 4 2 5 _ _"
    with pytest.raises(DataError) as caught:
        labels({"A": cells}, scale=["1:5"])
    assert caught.value.came == f"A is out of range: {code}"
    scale = "say on which scale people rated: --scale"
    assert caught.value.fix == f"leave the cell empty if {code} means no rating; else {scale}"
    with pytest.raises(DataError, match=r"people rated: --scale 1:5$"):
        labels({"A": cells})
    said = labels({"A": cells}, scale=["auto"]).warnings
    far = f"ratings far from all others: A {code} (1)"
    assert f"{far}; leave the cells empty if such a number means no rating" in said
    assert not far_from_others(cells.replace(code, "3"))


def far_from_others(cells: str) -> list[str]:
    return [said for said in labels({"A": cells}, scale=["auto"]).warnings if "far from" in said]


@pytest.mark.parametrize(
    "cells", ["0 0.1 0.2 0.3 0.4 1 _ _", "0 0.9 0.93 1 0.95 0.97 _ _", "0 1 0 1 1 0 _ _", "1 2 3 7 1 2 _ _"]
)
def test_a_rating_at_an_end_is_one(cells: str) -> None:
    assert not far_from_others(cells)


def test_two_numbers_may_mean_no_rating() -> None:
    (said,) = far_from_others("-999 1 2 3 -998 4 5 4")
    assert said.startswith("ratings far from all others: A -999 (1), A -998 (1); leave the cells empty if ")


@pytest.mark.parametrize(
    ("cells", "scale"),
    [
        ("1 1 2 3 2 9 1 3", "1:9"),
        ("0 0 1 3 2 0 40 2", "0:40"),
        ("10 50 88 30 99 70 20 77", "0:100"),
        ("0.1 1e3 0.2 0.3 0.7 0.4 _ _", "0:1000"),
        ("99 99 99 1 2 99 3 99", "0:100"),  # more than all others
    ],
)
def test_an_honest_rating_far_from_others_has_a_scale(cells: str, scale: str) -> None:
    assert not far_from_others(cells)
    with pytest.raises(DataError, match=rf"--scale {scale}$"):
        labels({"A": cells})


def test_one_rating_alone_does_not_say_its_scale() -> None:
    for columns, flag in (
        ({"C": "5 5 5 5 5 5 _ _"}, "auto"),
        ({"C": "5 5 5 5 5 5 _ _", "A": "0 1 0 1 0 1 _ _"}, "auto,A=0:1"),
        ({"C": "5 5 5 5 5 5 _ _", "A": "0 1 0 1 0 1 _ _", "B": "1 5 1 5 1 5 _ _"}, "auto,A=0:1,B=1:5"),
    ):
        with pytest.raises(DataError, match=rf"people rated: --scale {flag}$"):
            labels(columns)
        labels(columns, scale=flag.split(","))  # what is proposed can be pasted


def test_a_scale_of_awkward_names_can_be_pasted_too() -> None:
    """Into a shell; where a name holds a comma, into a data.toml."""
    for names, flag in (
        (("T 1", "B"), "--scale 'T 1=0:100,B=1:7'"),
        (("T, 1", "B"), "scale = ['T, 1=0:100', 'B=1:7'] in data.toml"),
    ):
        columns = dict(zip(names, ("1 12 23 34 45 60 _ _", "1 7 3 4 5 6 _ _"), strict=True))
        with pytest.raises(DataError) as raised:
            labels(columns)
        assert raised.value.fix.endswith(f"on which scale people rated: {flag}")


def test_where_ranges_differ_some_columns_may_be_no_ratings() -> None:
    """As the numbers of rows beside them."""
    columns = {"CASE": "1 12 23 34 45 60 _ _", "V1": "1 7 3 4 5 6 _ _"}
    with pytest.raises(DataError) as raised:
        labels(columns)
    assert raised.value.fix == (
        "correct it, or take the columns of ratings alone: --targets NAME,...; or say on which scale people "
        "rated: --scale CASE=0:100,V1=1:7"
    )
    with pytest.raises(
        DataError, match=r"^[^-]*correct it, or say on which scale people rated: --scale 1:7$"
    ):
        labels({"V1": columns["V1"], "V2": columns["V1"]})


def test_what_is_no_number_is_shown_beside_what_a_blank_is() -> None:
    with pytest.raises(DataError) as caught:
        labels({"A": "0 - 1 0 0 1 _ _"})
    assert str(caught.value) == (
        "rows [1] | A is not a number: '-' | expected a number, or no rating: an empty cell, NA, n/a, nan or "
        "<NA> | correct these cells, or give --targets without A"
    )


def test_classes_are_those_of_train_in_alphabetical_order() -> None:
    found = labels({"A": "0 1 0 1 0 1 _ _"}, {"Type": "Laugh Cry Laugh Gasp Gasp Cry -1 _"})
    assert found.columns.labels == ("A", "Type=Cry", "Type=Gasp", "Type=Laugh")
    assert found.ratings[:6, 1].tolist() == [2, 0, 2, 1, 1, 0]
    assert np.isnan(found.ratings[6:, 1]).all()
    assert found.rated[0].tolist() == [0, 0, 0, 1]
    assert np.isnan(found.rated[6, 1:]).all()
    assert found.columns.groups == (slice(1, 4),)


def test_the_order_of_the_settings_stays_whatever_train_has() -> None:
    """As on a run's other data, of which Train may lack a class."""
    classes = ["Type=Laugh", "Type=Cry", "Type=Gasp"]
    found = labels({}, {"Type": "Laugh Cry Cry Cry Laugh Cry _ _"}, classes=classes)
    assert found.columns.labels == tuple(classes)
    assert found.ratings[:6, 0].tolist() == [0, 1, 1, 1, 0, 1]
    assert found.ratings.shape == (8, 1)


def test_two_class_targets_and_numbers_as_classes() -> None:
    found = labels({}, {"Type": "a b a b a b _ _", "Country": "0 3 1 0 3 1 -1 -1"})
    assert found.columns.labels == ("Type=a", "Type=b", "Country=0", "Country=1", "Country=3")
    assert found.ratings[:6, 1].tolist() == [0, 2, 1, 0, 2, 1]
    assert np.isnan(found.ratings[6:]).all()


def test_a_class_that_train_lacks_is_refused_with_its_rows() -> None:
    with pytest.raises(DataError, match=r"rows \[4\] \| Type is 'Sob', a class that no clip of Train has"):
        labels({}, {"Type": "a b a b Sob b _ _"})


def test_a_class_that_a_run_did_not_learn_is_not_blamed_on_the_split() -> None:
    with pytest.raises(DataError) as caught:
        labels({}, {"Type": "a b a b Sob b _ _"}, classes=["Type=a", "Type=b"], learned=True)
    assert str(caught.value) == (
        "rows [4] | Type is 'Sob', a class that the run did not learn | expected one of a, b | "
        "correct it, or leave the cell empty"
    )


def test_one_class_is_none_to_learn() -> None:
    with pytest.raises(DataError, match=r"--class-target Type \| 1 class in Train"):
        labels({}, {"Type": "a a a a a a _ _"})


def test_ratings_off_the_scale_of_a_run_are_not_answered_with_an_option() -> None:
    """`rrtn evaluate --data` has no --scale, and its scores are on the run's scale."""
    with pytest.raises(DataError, match=r"out of range: 2 .*say on which scale people rated: --scale 1:5$"):
        labels({"A": "1 2 3 4 5 4 _ _"})
    with pytest.raises(DataError, match=r"out of range: 2 .*the ratings on 0:1, as the run learned it$"):
        labels({"A": "1 2 3 4 5 4 _ _"}, learned=True)
