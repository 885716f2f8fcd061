"""Signals as a flag."""

import signal

import pytest
from rrtn.train.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_kept_and_a_second_ctrl_c_stops_at_once(number: signal.Signals) -> None:
    """A terminal that ends may say so twice, by its shell and by itself: nobody has asked to hurry."""
    before = signal.getsignal(number)
    with Interruption() as interruption:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGHUP)
        assert interruption.signal == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(number) == before


def test_under_nohup_the_end_of_the_terminal_is_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
            assert interruption.signal is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
