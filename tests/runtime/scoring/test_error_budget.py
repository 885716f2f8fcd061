"""When a job is given up: by fraction, by a run of bad files, by the first one; never by default."""

import pytest
from rrtn.runtime.errors import ConfigError, StoppedError
from rrtn.runtime.scoring.error_budget import ErrorBudget
from rrtn.runtime.tables.rows import Row

GOOD = (Row(file="good.wav", scores={"Joy": 0.5}),)
FLAGGED = (Row(file="silent.wav", scores={"Joy": 0.5}, flags=("silent",)),)
BAD = (Row(file="=bad.wav", error="corrupt", detail="the decoder gave up"),)
HALF = (Row(file="half.wav", scores={"Joy": 0.5}), Row(file="half.wav", error="invalid_score"))


def test_without_limits_nothing_stops() -> None:
    budget = ErrorBudget()
    for _ in range(1_000):
        budget.count(BAD)
    budget.finish()
    assert (budget.files, budget.bad) == (1_000, 1_000)


def test_fail_fast_stops_at_the_first_and_names_it() -> None:
    budget = ErrorBudget(fail_fast=True)
    for rows in (GOOD, FLAGGED, GOOD):
        budget.count(rows)
    with pytest.raises(
        StoppedError, match=r"'=bad\.wav corrupt the decoder gave up \| the first bad file, with --fail-fast"
    ) as caught:
        budget.count(BAD)
    assert caught.value.exit_code == 4


def test_a_file_of_which_one_window_is_bad_is_bad_once() -> None:
    budget = ErrorBudget()
    budget.count(HALF)
    assert (budget.files, budget.bad, budget.in_a_row) == (1, 1, 1)


def test_a_run_is_broken_by_any_file_that_has_scores() -> None:
    budget = ErrorBudget(most_in_a_row=3)
    for rows in (BAD, BAD, GOOD, BAD, BAD, FLAGGED, BAD, HALF):
        budget.count(rows)
    with pytest.raises(StoppedError, match="3 bad files in a row"):
        budget.count(BAD)


def test_a_fraction_counts_from_the_hundredth_file_on() -> None:
    budget = ErrorBudget(most_fraction=0.1)
    for number in range(99):
        budget.count(BAD if number < 11 else GOOD)
    with pytest.raises(StoppedError, match="11 of 100 files could not be scored"):
        budget.count(GOOD)


def test_the_fraction_itself_is_not_too_many() -> None:
    budget = ErrorBudget(most_fraction=0.1)
    for number in range(100):
        budget.count(BAD if number < 10 else GOOD)
    budget.finish()
    with pytest.raises(StoppedError, match="11 of 101"):
        budget.count(BAD)


def test_every_fraction_itself_is_not_too_many_and_one_more_file_is() -> None:
    """0.29 * 100 is 28.999999999999996."""
    for files in (100, 1_000):
        for bad in range(files):
            budget = ErrorBudget(most_fraction=float(f"{bad / files:.3f}"), files=files, bad=bad)
            budget.finish()
            budget.bad += 1
            with pytest.raises(StoppedError):
                budget.finish()


def test_a_fraction_of_few_files_counts_at_the_end() -> None:
    budget = ErrorBudget(most_fraction=0.0)
    budget.count(BAD)
    with pytest.raises(StoppedError, match=r"all files \| 1 of 1 file could not be scored"):
        budget.finish()


def test_no_file_is_no_fraction() -> None:
    ErrorBudget(most_fraction=0.0).finish()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_fraction_is_0_to_1(fraction: float) -> None:
    with pytest.raises(ConfigError, match="--max-bad-fraction"):
        ErrorBudget(most_fraction=fraction)


@pytest.mark.parametrize("run", [0, -1])
def test_a_run_is_1_or_more(run: int) -> None:
    with pytest.raises(ConfigError, match="--max-bad-run"):
        ErrorBudget(most_in_a_row=run)
