"""Real decoding processes: what they give does not depend on them, and no death of one loses a file."""

import contextlib
import errno
import gc
import itertools
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.errors import StoppedError
from rrtn.runtime.scoring import decoder_handle, decoder_pool
from rrtn.runtime.scoring.decoder_handle import ClipsReady
from rrtn.runtime.scoring.decoder_messages import IDLE, BadFile, DecoderSettings, FileEnd
from rrtn.runtime.scoring.decoder_pool import (
    DecoderPool,
    FileRestarted,
    FilesEnded,
    PoolEvent,
    PoolIdle,
)
from rrtn.runtime.scoring.feed import Feed
from rrtn.runtime.system.host import SharedMemory

AHEAD = 100_000
Pool = Callable[..., DecoderPool]


class Decoded(NamedTuple):
    """What came of one file."""

    clips: list[tuple[float, float, bytes]]  # start, end, features
    end: FileEnd | BadFile | None

    @property
    def code(self) -> str:
        return self.end.code if isinstance(self.end, BadFile) else "" if self.end else "unfinished"


def decoded(pool: DecoderPool, paths: Iterable[Path], *, ahead: int = AHEAD) -> list[Decoded]:
    """What each path gives, in their order."""
    return gathered(pool, pool.events(map(os.fsencode, paths), ahead=ahead))


def gathered(pool: DecoderPool, events: Iterable[PoolEvent]) -> list[Decoded]:
    files: dict[int, Decoded] = {}
    for event in events:
        match event:
            case ClipsReady(clips, features):
                for (ticket, start, end, _), clip in zip(clips, features, strict=True):
                    files.setdefault(ticket, Decoded([], None)).clips.append((start, end, clip.tobytes()))
            case FileRestarted(ticket):
                files[ticket] = Decoded([], None)
            case PoolIdle():
                pass
            case FilesEnded(ends):
                for end in ends:
                    files[end.ticket] = files.get(end.ticket, Decoded([], None))._replace(end=end)
                pool.released += len(ends)
    return [files[ticket] for ticket in sorted(files)]


@pytest.fixture(scope="module")
def expected(spec: FrontendSpec, noises: list[Path]) -> list[Decoded]:
    """What one decoder makes of `noises`."""
    settings = DecoderSettings(spec=spec, input="waveform", slots=4)
    with contextlib.closing(DecoderPool(settings, count=1, chunk=1, timeout=60.0)) as pool:
        files = decoded(pool, noises)
    assert [file.code for file in files] == [""] * 24
    return files


@pytest.fixture
def make_pool(spec: FrontendSpec) -> Iterator[Pool]:
    """Pools that are closed at the end, of waveform clips: those are cheap."""
    pools = []

    def make(
        *, count: int = 1, chunk: int = 1, timeout: float = 60.0, slots: int = 4, **decoding: Any
    ) -> DecoderPool:
        settings = DecoderSettings(**{"spec": spec, "input": "waveform", "slots": slots, **decoding})
        pools.append(DecoderPool(settings, count=count, chunk=chunk, timeout=timeout))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """24 files of 0.1 to 1.25 s, to be left as they are."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("noises")
    paths = [folder / f"{i:02}.wav" for i in range(24)]
    for i, path in enumerate(paths):
        soundfile.write(path, rng.uniform(-0.5, 0.5, 1_600 + 800 * i), 16_000)
    return paths


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """20 s, which are 100 windows of 0.2 s."""
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(1).uniform(-0.5, 0.5, 320_000), 16_000)
    return tmp_path / "long.wav"


class Owner:
    pass


def test_a_pool_is_closed_with_its_owner_and_a_closed_one_is_not_kept(
    make_pool: Pool, spec: FrontendSpec
) -> None:
    owner, pool = Owner(), make_pool()
    pool.close_with(owner)
    (pid,) = pids(pool)
    del owner
    assert not pids(pool)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    owner = Owner()
    settings = DecoderSettings(spec=spec, input="waveform", slots=4)
    closed = DecoderPool(settings, count=1, chunk=1, timeout=60.0)
    closed.close_with(owner)
    closed.close()
    left = weakref.ref(closed)
    del closed
    gc.collect()
    assert left() is None


def pids(pool: DecoderPool) -> list[int]:
    return [decoder._process.pid for decoder in pool._decoders]


def until(condition: Callable[[], object]) -> None:
    latest = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < latest, "it never comes"
        time.sleep(0.01)


def ends_until_idle(events: Iterable[PoolEvent]) -> int:
    """Number of files that end before nothing more is decoded."""
    working = itertools.takewhile(lambda event: not isinstance(event, PoolIdle), events)
    return sum(len(event.ends) for event in working if isinstance(event, FilesEnded))


def is_at(pool: DecoderPool, ticket: int) -> bool:
    return any(decoder.works_on()[0] == ticket for decoder in list(pool._decoders))


def children() -> set[int]:
    """Processes of this one, dead ones that nobody has waited for too."""
    return set(
        map(int, Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split())
    )


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# What they give


def test_a_clip_is_the_start_of_the_levelled_file(
    make_pool: Pool, real_clips: list[Path], spec: FrontendSpec
) -> None:
    for path, file in zip(real_clips, decoded(make_pool(), real_clips), strict=True):
        samples = read_audio(path, spec).samples
        clip = np.zeros(spec.clip_samples, np.int16)
        clip[: min(len(samples), len(clip))] = samples[: len(clip)]
        assert file.clips == [(0.0, min(len(samples), len(clip)) / 16_000, clip.tobytes())]
        assert isinstance(file.end, FileEnd)
        assert file.end.seconds == len(samples) / 16_000


@pytest.mark.parametrize(("count", "chunk"), [(1, 1), (1, 32), (2, 1), (3, 5)])
def test_number_and_order_do_not_matter(
    make_pool: Pool, noises: list[Path], expected: list[Decoded], tmp_path: Path, count: int, chunk: int
) -> None:
    paths = [*noises, tmp_path / "gone.wav", *noises[:3]]
    order = np.random.default_rng(chunk).permutation(len(paths))
    clips = [file.clips for file in (*expected, Decoded([], None), *expected[:3])]
    codes = [*[""] * 24, "missing", *[""] * 3]
    mixed = decoded(make_pool(count=count, chunk=chunk), [paths[i] for i in order])
    assert [file.clips for file in mixed] == [clips[i] for i in order]
    assert [file.code for file in mixed] == [codes[i] for i in order]


def test_decoders_are_started_as_files_come(make_pool: Pool, noises: list[Path]) -> None:
    pool = make_pool(count=3, chunk=8)
    assert len(pids(pool)) == 1, "before the first file, while a model may be loading"
    decoded(pool, noises[:8])
    assert len(pids(pool)) == 1, "one chunk needs one decoder"
    decoded(pool, noises[:9])
    assert len(pids(pool)) == 2
    decoded(pool, [*noises, *noises])
    assert len(pids(pool)) == 3


def test_a_feed_starts_all_decoders_before_its_first_file(make_pool: Pool, noises: list[Path]) -> None:
    """A request does not wait for the start of one."""
    pool, feed = make_pool(count=3), Feed()
    events = pool.events_of_feed(feed)
    next(events)
    assert len(pids(pool)) == 3
    feed.put(os.fsencode(noises[0]))
    feed.close()
    assert [file.code for file in gathered(pool, events)] == [""]
    feed.release()


def test_a_pool_serves_again_and_again(make_pool: Pool, noises: list[Path]) -> None:
    pool = make_pool(count=2)
    first = [file.clips for file in decoded(pool, noises)]
    before = pids(pool)
    assert [file.clips for file in decoded(pool, noises)] == first
    assert decoded(pool, []) == []
    assert pids(pool) == before


def test_more_windows_than_slots(make_pool: Pool, long: Path, noises: list[Path]) -> None:
    pool = make_pool(count=2, chunk=2, slots=3, window=0.2)
    files = decoded(pool, [long, *noises, long])
    assert [round(start / 0.2) for start, _, _ in files[0].clips] == list(range(100))
    assert (
        len({features for _, _, features in files[0].clips}) == 100
    )  # no slot is written to before it has been read
    assert files[-1].clips == files[0].clips


def test_windows_are_given_while_the_file_is_being_decoded(make_pool: Pool, long: Path) -> None:
    """Or else a decoder would wait for slots that nobody frees."""
    pool = make_pool(slots=3, window=0.2)
    *given, ended = pool.events([os.fsencode(long)], ahead=AHEAD)
    assert [len(event.clips) for event in given if isinstance(event, ClipsReady)] == [3] * 33 + [1]
    assert isinstance(ended, FilesEnded)


def test_a_chunk_is_one_report(make_pool: Pool, noises: list[Path]) -> None:
    """What a file costs the scoring process is mostly messages; see benchmarks/parent_cost.py."""
    events = list(make_pool(chunk=8, slots=8).events(map(os.fsencode, noises), ahead=AHEAD))
    sizes = [len(event.clips) for event in events if isinstance(event, ClipsReady)]
    assert sizes == [8, 8, 8]
    assert [len(event.ends) for event in events if isinstance(event, FilesEnded)] == sizes


# Ahead


def test_no_more_is_taken_than_ahead(make_pool: Pool, noises: list[Path]) -> None:
    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for path in noises:
            taken += 1
            yield os.fsencode(path)

    pool = make_pool(count=2, chunk=3)
    events = pool.events(counted(), ahead=7)
    assert ends_until_idle(events) == 7
    assert [next(events) for _ in range(2)] == [PoolIdle()] * 2
    assert taken == 7
    pool.released = 2
    assert (ends_until_idle(events), taken) == (2, 9)
    pool.released = 24
    assert (ends_until_idle(events), taken) == (15, 24)


def test_thousands_of_bad_files_after_one_that_the_model_has_not_scored(
    make_pool: Pool, noises: list[Path]
) -> None:
    """The one is released only where it is told that nothing more will come, as `scorer` does."""
    pool = make_pool(count=2, chunk=8)
    ended, waited = 0, 0
    for event in pool.events([os.fsencode(noises[0]), *[b"/gone.wav"] * 3_000], ahead=256):
        if isinstance(event, FilesEnded):
            ended += len(event.ends)
        if isinstance(event, PoolIdle):
            waited, pool.released = waited + 1, ended
    assert ended == 3_001
    assert waited >= 11


# Deaths


def test_one_that_is_killed_idle_costs_nothing(make_pool: Pool, noises: list[Path]) -> None:
    pool = make_pool(count=2)
    expected = decoded(pool, noises)
    for victim in pids(pool):
        os.kill(victim, signal.SIGKILL)
    assert [file.clips for file in decoded(pool, noises)] == [file.clips for file in expected]


def test_one_that_is_killed_as_it_starts_is_replaced(make_pool: Pool, noises: list[Path]) -> None:
    pool = make_pool(count=2)
    os.kill(pids(pool)[0], signal.SIGKILL)
    assert [file.code for file in decoded(pool, noises)] == [""] * 24


@pytest.mark.parametrize(("kills", "code"), [(1, ""), (2, "crashed")])
def test_one_that_is_killed_at_a_file(
    make_pool: Pool,
    noises: list[Path],
    expected: list[Decoded],
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
    code: str,
) -> None:
    """A file has two tries; the others in its chunk are no worse for it."""
    monkeypatch.setenv("RRTN_FAILPOINT", "read.05.wav:sleep:all")
    pool = make_pool(count=kills, chunk=4)  # the second try must not go to one that hangs there, too

    def killer() -> None:
        for kill in range(kills):
            until(lambda: is_at(pool, 5))
            if kill + 1 == kills:
                monkeypatch.delenv("RRTN_FAILPOINT")
            (victim,) = [decoder for decoder in list(pool._decoders) if decoder.works_on()[0] == 5]
            victim._process.send_signal(signal.SIGKILL)
            until(lambda victim=victim: victim not in pool._decoders)  # type: ignore[misc]

    thread = threading.Thread(target=killer)
    thread.start()
    files = decoded(pool, noises)
    thread.join()
    assert [file.code for file in files] == ["" if i != 5 else code for i in range(24)]
    whole = [i for i in range(24) if i != 5 or not code]
    assert [files[i].clips for i in whole] == [expected[i].clips for i in whole]
    if code:
        assert files[5].end == BadFile(5, "crashed", "signal 9")


@pytest.mark.parametrize("deaths", [1, 5])
def test_one_that_is_killed_while_it_waits_for_slots(make_pool: Pool, long: Path, deaths: int) -> None:
    """To wait is not to be at the file: no strike, however often."""
    pool = make_pool(slots=3, window=0.2)
    events = pool.events([os.fsencode(long)], ahead=1)
    for _ in range(deaths):
        given = next(events)
        assert isinstance(given, ClipsReady)
        assert len(given.clips) == 3
        until(lambda: is_at(pool, IDLE))
        os.kill(pids(pool)[0], signal.SIGKILL)
        assert next(events) == FileRestarted(0)
    (file,) = gathered(pool, events)
    assert file.code == ""
    assert len(file.clips) == 100


def test_a_file_that_crashes_the_decoder_is_a_row(
    make_pool: Pool, noises: list[Path], expected: list[Decoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", "read.1[05].wav:sigsegv:all")
    files = decoded(make_pool(count=2, chunk=6), noises)
    assert [i for i, file in enumerate(files) if file.code] == [10, 15]
    assert [files[i].end for i in (10, 15)] == [BadFile(i, "crashed", "signal 11") for i in (10, 15)]
    assert [file.clips for i, file in enumerate(files) if i not in (10, 15)] == [
        file.clips for i, file in enumerate(expected) if i not in (10, 15)
    ]


def test_what_c_libraries_say_of_files_is_not_kept_for_ever(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As libmpg123 does of each frame that it does not know, in a server that runs for months."""
    said = 200_000  # bytes a file
    talks = f"import os; resample = lambda x, *_, **__: (os.write(2, b'-' * {said}), x)[1]"
    (tmp_path / "soxr.py").write_text(talks)
    monkeypatch.syspath_prepend(tmp_path)
    pool = make_pool(spec=FrontendSpec(sampling_rate=8_000, f_max=4_000.0))
    for _ in range(2):
        assert [file.code for file in decoded(pool, noises[:8])] == [""] * 8
        (decoder,) = pool._decoders
        assert 0 < os.fstat(decoder._errors.fileno()).st_size < 4 * said


def test_a_long_file_of_which_much_is_said(
    make_pool: Pool, long: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has five blocks. A crash's words come last, and they are what is said of the file."""
    (tmp_path / "soxr.py").write_text(
        "import os\n"
        "class ResampleStream:\n"
        "    def __init__(self, *_, **__): pass\n"
        "    def resample_chunk(self, x, last=False):\n"
        "        os.write(2, b'-' * 200_000)\n"
        "        if not last: return x\n"
        "        size = os.fstat(2).st_size\n"
        "        os.write(2, f'{size} bytes at its end'.encode())\n"
        "        os._exit(7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (file,) = decoded(make_pool(spec=FrontendSpec(sampling_rate=8_000, f_max=4_000.0)), [long])
    assert isinstance(file.end, BadFile)
    assert (file.code, len(file.end.detail)) == ("crashed", decoder_handle._LAST_WORDS)
    assert file.end.detail.endswith("-400000 bytes at its end")


def test_every_file_crashes_the_decoder(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", "read.*:sigsegv:all")
    assert [file.code for file in decoded(make_pool(count=2, chunk=2), noises[:4])] == ["crashed"] * 4


def test_a_file_that_hangs_is_a_row(
    make_pool: Pool, noises: list[Path], expected: list[Decoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", "read.05.wav:sleep:all")
    files = decoded(make_pool(count=2, chunk=6, timeout=2.0), noises)  # it would sleep for an hour
    assert files[5].end == BadFile(5, "timeout", "not decoded within 2 s")
    assert [file.clips for file in files[:5] + files[6:]] == [
        file.clips for file in expected[:5] + expected[6:]
    ]


@pytest.mark.parametrize(
    ("seen", "ends"), [(1, [FilesEnded([BadFile(1, "timeout", "not decoded within 60 s")])]), (0, [])]
)
def test_a_file_that_the_decoder_has_left_by_then_is_not_to_blame(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch, seen: int, ends: list[PoolEvent]
) -> None:
    """`seen` is what it was at when the pool looked; it is at file 1 when it is killed."""
    monkeypatch.setenv("RRTN_FAILPOINT", "read.01.wav:sleep:all")
    pool = make_pool(chunk=4)
    (decoder,) = pool._decoders
    files = [*enumerate(map(os.fsencode, noises[:4]))]
    pool._sources.update(files)
    decoder.give(files)
    until(lambda: is_at(pool, 1))
    events = [*pool._bury(decoder, timeout=seen)]
    assert [event for event in events if isinstance(event, FilesEnded)] == ends
    assert [event for event in events if event not in ends] == [FileRestarted(i) for i in range(4)]
    assert not any(pool._strikes.values())


def test_who_was_stopped_blames_no_file(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z, and fg after lunch: the clock has gone on, and the file at which a decoder stood has
    not hung.
    """
    monkeypatch.setattr(decoder_pool, "_LOOK_EVERY", 0.1)
    monkeypatch.setenv("RRTN_FAILPOINT", "read.05.wav:sleep:all")
    pool = make_pool()

    def stop() -> None:
        until(lambda: is_at(pool, 5))
        monkeypatch.delenv("RRTN_FAILPOINT")
        pool._looked -= 3_600
        (decoder,) = pool._decoders
        decoder.memory.at[1] -= 3_600 * 10**9
        for _ in range(3):
            looked = pool._looked
            until(lambda looked=looked: pool._looked != looked)  # type: ignore[misc]
        decoder._process.kill()

    thread = threading.Thread(target=stop)
    thread.start()
    assert [file.code for file in decoded(pool, noises)] == [""] * 24
    thread.join()


@pytest.mark.parametrize(("stopped", "has_started"), [(1, True), (2, False)])
def test_n26_one_that_was_stopped_between_files_is_replaced(
    make_pool: Pool,
    noises: list[Path],
    expected: list[Decoded],
    monkeypatch: pytest.MonkeyPatch,
    stopped: int,
    has_started: bool,
) -> None:
    """SIGSTOP, as a debugger or a container's tool sends it. No file is to blame."""
    monkeypatch.setattr(decoder_handle, "_STOPPED", 0.3)
    pool = make_pool(count=2)
    if has_started:
        decoded(pool, noises)
    victims = pids(pool)[:stopped]
    for victim in victims:
        os.kill(victim, signal.SIGSTOP)
    assert [file.clips for file in decoded(pool, noises)] == [file.clips for file in expected]
    assert not set(victims) & set(pids(pool))


def test_n26_one_that_was_stopped_at_a_file_blames_no_file(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_handle, "_STOPPED", 0.3)
    monkeypatch.setenv("RRTN_FAILPOINT", "read.05.wav:sleep:all")
    pool = make_pool()

    def stop() -> None:
        until(lambda: is_at(pool, 5))
        monkeypatch.delenv("RRTN_FAILPOINT")
        os.kill(pids(pool)[0], signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    assert [file.code for file in decoded(pool, noises)] == [""] * 24
    thread.join()


def test_n26_one_that_gives_no_sign_between_files_is_replaced(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whose storage does not answer: the system does not call it stopped."""
    monkeypatch.setattr(decoder_handle, "_STANDS", 1.0)
    monkeypatch.setattr(decoder_handle, "_STOPPED", 1e9)
    pool = make_pool(count=2)
    expected = decoded(pool, noises)
    (victim, other) = pids(pool)
    os.kill(victim, signal.SIGSTOP)
    assert [file.clips for file in decoded(pool, noises)] == [file.clips for file in expected]
    assert victim not in pids(pool)
    assert other in pids(pool)


def test_n26_ones_that_always_stand_still_are_one_clear_error(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "soxr.py").write_text("import time; time.sleep(3600)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(decoder_handle, "_START", 0.1)
    monkeypatch.setattr(decoder_pool, "_LOOK_EVERY", 0.05)
    with pytest.raises(StoppedError, match=r"decoder \| .*it stood still for \d+ s \| rrtn doctor"):
        decoded(make_pool(), noises)


def test_n26_who_waits_for_the_caller_stands_not_still(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller takes longer for a row than a decoder may be silent."""
    monkeypatch.setattr(decoder_handle, "_STANDS", 0.2)
    monkeypatch.setattr(decoder_pool, "_AWAY", 0.3)
    pool = make_pool(slots=3, window=0.2)
    before = pids(pool)
    events = pool.events([os.fsencode(path) for path in noises], ahead=AHEAD)
    seen = []
    for _ in range(3):
        seen.append(next(events))
        time.sleep(0.5)
    assert len(gathered(pool, itertools.chain(seen, events))) == 24
    assert pids(pool) == before


def test_n26_one_that_has_died_unnoticed_is_replaced(make_pool: Pool, noises: list[Path]) -> None:
    """A process that was forked in between holds the decoder's end of the pipe, so no end comes from it."""
    pool = make_pool()
    expected = decoded(pool, noises)
    (decoder,) = pool._decoders
    decoder.connection.close()
    decoder.connection, theirs = Pipe()
    os.kill(decoder._process.pid, signal.SIGKILL)
    assert [file.clips for file in decoded(pool, noises)] == [file.clips for file in expected]
    theirs.close()


def test_memory_that_does_not_suffice_is_a_row(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", "read.05.wav:memory:all")
    files = decoded(make_pool(), noises)
    assert [(i, file.code) for i, file in enumerate(files) if file.code] == [(5, "out_of_memory")]


@pytest.mark.parametrize("model_input", ["waveform", "logmel"])
def test_a_clip_that_does_not_fit_into_memory_shifts_no_other(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch, model_input: str
) -> None:
    """The scoring process takes the clips from slot after slot."""
    expected = decoded(make_pool(input=model_input), noises)
    monkeypatch.setenv("RRTN_FAILPOINT", "clip:memory:6")
    files = decoded(make_pool(input=model_input, chunk=4), noises)
    assert [(i, file.code) for i, file in enumerate(files) if file.code] == [(5, "out_of_memory")]
    del files[5], expected[5]
    assert [file.clips for file in files] == [file.clips for file in expected]


def test_a_fault_that_nobody_thought_of_is_the_row_of_its_file(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", "read.05.wav:raise:all")
    pool = make_pool()
    files = decoded(pool, noises)
    assert files[5].end == BadFile(5, "crashed", "RuntimeError: failpoint read.05.wav")
    assert [i for i, file in enumerate(files) if file.code] == [5]
    assert len(pool._decoders) == 1 and pool._deaths == 0


@pytest.mark.slow  # 2.6 s between the tries; test_engine_faults.py counts them in a command
def test_storage_that_fails_stops_at_the_fourth_try(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch, watch: Callable[[Path], Any]
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", "read.05.wav:eio:all")
    failing, before = watch(noises[5]), watch(noises[4])
    with pytest.raises(StoppedError, match=r"05\.wav.*Input/output error"):
        decoded(make_pool(), noises)
    assert (failing.opened(), before.opened()) == (4, 1)


def test_storage_that_recovers_is_no_matter(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", "read.05.wav:eio:1")
    assert [file.code for file in decoded(make_pool(), noises)] == [""] * 24


def test_one_that_dies_in_the_middle_of_a_message(make_pool: Pool, noises: list[Path]) -> None:
    pool = make_pool()
    expected = decoded(pool, noises)
    (decoder,) = pool._decoders
    decoder.connection.close()
    decoder.connection, theirs = Pipe()
    os.write(theirs.fileno(), struct.pack("!i", 100) + b"half")
    theirs.close()
    assert [file.clips for file in decoded(pool, noises)] == [file.clips for file in expected]


# Start and end


def test_one_that_cannot_start_is_one_clear_error(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "soxr.py").write_text("raise ImportError('no soxr here')")
    monkeypatch.syspath_prepend(tmp_path)  # a decoder looks where the scoring process does
    pool = make_pool(count=2)
    with pytest.raises(StoppedError, match=r"decoder \| .*: ImportError: no soxr here \| rrtn doctor"):
        decoded(pool, noises)
    pool.close()


@pytest.mark.parametrize("lacking", ["Pipe", "start_process"])
def test_one_that_gets_no_descriptor_leaves_none_behind(
    make_pool: Pool, noises: list[Path], lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many(*given: object, **options: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = descriptors()
    monkeypatch.setattr(decoder_handle, lacking, too_many)
    for _ in range(3):
        with pytest.raises(OSError, match="Too many open files"):
            decoded(make_pool(), noises)
    assert descriptors() == before


def test_shared_memory_that_cannot_be_had_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    with pytest.raises((OSError, ValueError, OverflowError)):
        SharedMemory(1 << 62)
    assert descriptors() == before


def test_one_that_is_always_killed_is_one_clear_error(make_pool: Pool, noises: list[Path]) -> None:
    """No file is to blame; without an end they would be replaced for ever."""
    pool, ended = make_pool(), threading.Event()

    def killer() -> None:
        while not ended.wait(0.01):
            for pid in pids(pool):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    with pytest.raises(StoppedError, match=r"decoder \| .*: signal 9 \| rrtn doctor"):
        decoded(pool, noises)
    ended.set()
    thread.join()


def test_closing_leaves_no_process_and_no_descriptor(
    make_pool: Pool, noises: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children(), descriptors()
    pool = make_pool(count=3)
    monkeypatch.setenv("RRTN_FAILPOINT", "read.1[05].wav:sigsegv:all")
    decoded(pool, noises)
    assert len(children() - before[0]) == 3
    pool.close()
    pool.close()
    assert children() == before[0]
    assert descriptors() <= before[1]


def test_a_pool_that_is_left_in_the_middle_is_closed_all_the_same(
    make_pool: Pool, long: Path, noises: list[Path]
) -> None:
    before = children(), descriptors()
    pool = make_pool(count=2, slots=3, window=0.2)
    events = pool.events(map(os.fsencode, [long, *noises]), ahead=10)
    assert isinstance(next(events), ClipsReady)
    events.close()  # type: ignore[attr-defined]
    del events
    pool.close()
    assert children() == before[0]
    assert descriptors() <= before[1]


def test_decoders_end_with_the_process_that_started_them(tmp_path: Path, noises: list[Path]) -> None:
    """Also where that is killed, and where they hang in a file."""
    program = f"""
import os, signal, threading, time
signal.alarm(300)  # where they never hang, the test ends all the same
from rrtn.runtime import FrontendSpec
from rrtn.runtime.scoring.decoder_pool import DecoderPool
from rrtn.runtime.scoring.decoder_handle import ClipsReady
from rrtn.runtime.scoring.decoder_messages import DecoderSettings
settings = DecoderSettings(spec=FrontendSpec(), input="waveform", slots=4)
pool = DecoderPool(settings, count=2, chunk=4, timeout=60)
events = pool.events({[os.fsencode(path) for path in noises]!r}, ahead=100)
threading.Thread(target=list, args=[events], daemon=True).start()
while {{decoder.works_on()[0] for decoder in list(pool._decoders)}} != {{0, 5}}: time.sleep(0.01)
print(*[decoder._process.pid for decoder in pool._decoders], flush=True)  # all hang
time.sleep(3600)
"""
    env = {**os.environ, "RRTN_FAILPOINT": "read.0[05].wav:sleep:all"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=env, text=True
    ) as process:
        assert process.stdout
        decoders = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(decoders) == 2
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in decoders))
