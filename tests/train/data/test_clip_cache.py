"""The waveform cache: what read_audio gives, decoded once, whatever is interrupted or changed in between."""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Watch
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.errors import AudioError, ConfigError, DataError, StoppedError
from rrtn.runtime.spec import FrontendSpec
from rrtn.runtime.system.files import temporary_name
from rrtn.train.data import clip_cache as clips
from rrtn.train.data.clip_cache import ClipStore, SampleCheck, clip_store, store_with_errors

SHARD = 4  # files; the ten files below are then shards of 4, 4 and 2


@pytest.fixture(autouse=True)
def small_shards(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "_SHARD_FILES", SHARD)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Ten recordings of 0.1 to 1 s at 8, 16 and 44.1 kHz."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{i}.wav" for i in range(10)]
    for i, path in enumerate(files):
        rate = (8_000, 16_000, 44_100)[i % 3]
        soundfile.write(path, rng.uniform(-0.3, 0.3, rate * (i + 1) // 10), rate)
    return files


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was decoded."""
    counts: Counter[str] = Counter()

    def counting(path: Path, spec: FrontendSpec, **options: Any) -> Any:
        counts[path.name] += 1
        return read_audio(path, spec, **options)

    monkeypatch.setattr(clips, "read_audio", counting)
    return counts


def shards(cache: Path) -> list[Path]:
    """Those that count: the index is there, too."""
    return sorted(path for path in (cache / "clips").glob("*.npy") if path.with_suffix(".json").exists())


def shard_of(cache: Path, decode: Callable[[], object]) -> Path:
    """The shard that `decode` adds."""
    before = set(shards(cache)) if cache.exists() else set()
    decode()
    (added,) = set(shards(cache)) - before
    return added


def assert_holds(store: ClipStore, paths: list[Path], spec: FrontendSpec) -> None:
    assert len(store) == len(paths)
    for i, path in enumerate(paths):
        samples = read_audio(path, spec).samples
        assert store.lengths[i] == len(samples)
        np.testing.assert_array_equal(store.waveform(i), samples)


def test_a_part_is_what_these_files_alone_would_be(
    paths: list[Path], spec: FrontendSpec, cache: Path, decoded: Counter[str]
) -> None:
    """Folds are parts of one table, which is decoded once; their data have the hash of before."""
    rows = np.array([9, 1, 2, 3, 5, 8])
    part = clip_store(paths, spec).part(rows)
    chosen = [paths[row] for row in rows]
    assert_holds(part, chosen, spec)
    assert_holds(part.part(np.array([2, 0])), [paths[2], paths[9]], spec)
    np.testing.assert_array_equal(np.concatenate(part.shards), np.concatenate(part.part(np.arange(6)).shards))
    assert set(decoded.values()) == {1} and len(shards(cache)) == 3
    alone = clip_store(chosen, spec)
    assert part.digest == alone.digest != clip_store(paths, spec).digest
    np.testing.assert_array_equal(np.concatenate(part.shards), np.concatenate(alone.shards))
    np.testing.assert_array_equal(part.peaks, alone.peaks)
    indices, starts = np.array([1, 4]), np.array([100, 0])
    np.testing.assert_array_equal(part.clips(indices, starts, spec), alone.clips(indices, starts, spec))


def test_samples_are_those_of_read_audio(paths: list[Path], spec: FrontendSpec) -> None:
    assert_holds(clip_store(paths, spec), paths, spec)


def test_each_file_is_decoded_once_and_never_again(
    paths: list[Path], spec: FrontendSpec, decoded: Counter[str]
) -> None:
    clip_store(paths, spec)
    assert decoded == dict.fromkeys((path.name for path in paths), 1)
    decoded.clear()
    assert_holds(clip_store(paths, spec), paths, spec)
    assert not decoded


def test_a_changed_file_renews_its_shard_and_no_other(
    paths: list[Path], spec: FrontendSpec, decoded: Counter[str]
) -> None:
    clip_store(paths, spec)
    decoded.clear()
    soundfile.write(paths[5], np.random.default_rng(9).uniform(-0.3, 0.3, 5000), 16_000)
    store = clip_store(paths, spec)
    assert sorted(decoded) == ["4.wav", "5.wav", "6.wav", "7.wav"]
    assert_holds(store, paths, spec)


def test_a_file_of_equal_size_and_another_time_counts_as_changed(
    paths: list[Path], spec: FrontendSpec, decoded: Counter[str]
) -> None:
    clip_store(paths, spec)
    decoded.clear()
    before = paths[9].stat()
    os.utime(paths[9], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    clip_store(paths, spec)
    assert sorted(decoded) == ["8.wav", "9.wav"]


def test_another_level_is_another_shard_and_another_clip_length_is_not(
    paths: list[Path], spec: FrontendSpec, decoded: Counter[str]
) -> None:
    clip_store(paths, spec)
    decoded.clear()
    clip_store(paths, FrontendSpec(frames=100, n_mels=32))
    assert not decoded
    quieter = FrontendSpec(peak_dbfs=-20)
    assert_holds(clip_store(paths, quieter), paths, quieter)
    assert decoded.total() == len(paths)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_lost_shard_is_decoded_again_and_no_other(
    suffix: str, paths: list[Path], spec: FrontendSpec, cache: Path, decoded: Counter[str]
) -> None:
    clip_store(paths[:4], spec)
    second = shard_of(cache, lambda: clip_store(paths[:8], spec))
    clip_store(paths, spec)
    second.with_suffix(suffix).unlink()
    decoded.clear()
    assert_holds(clip_store(paths, spec), paths, spec)
    assert sorted(decoded) == ["4.wav", "5.wav", "6.wav", "7.wav"]


def test_an_interrupted_decoding_goes_on_where_it_was(
    paths: list[Path], spec: FrontendSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, spec: FrontendSpec, **options: Any) -> Any:
        if path.name == "6.wav":
            raise StoppedError("the disk went away")
        return read_audio(path, spec, **options)

    with monkeypatch.context() as patch:
        patch.setattr(clips, "read_audio", failing)
        with pytest.raises(StoppedError, match="the disk went away"):
            clip_store(paths, spec)
    assert len(shards(cache)) == 1
    again: Counter[str] = Counter()

    def counting(path: Path, spec: FrontendSpec, **options: Any) -> Any:
        again[path.name] += 1
        return read_audio(path, spec, **options)

    monkeypatch.setattr(clips, "read_audio", counting)
    assert_holds(clip_store(paths, spec), paths, spec)
    assert sorted(again) == [f"{i}.wav" for i in range(4, 10)]


def test_a_kill_between_a_shards_two_files_leaves_no_shard(
    paths: list[Path], spec: FrontendSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index comes last: a shard that has one is whole."""

    def fails(target: Path, document: Any) -> None:
        raise StoppedError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(clips, "write_json", fails)
        with pytest.raises(StoppedError):
            clip_store(paths, spec)
    assert len(list((cache / "clips").glob("*.npy"))) == 1
    assert shards(cache) == []
    assert_holds(clip_store(paths, spec), paths, spec)


def test_nothing_but_shards_is_left_in_the_cache(paths: list[Path], spec: FrontendSpec, cache: Path) -> None:
    clip_store(paths, spec)
    expected = {name for shard in shards(cache) for name in (shard.name, f"{shard.stem}.json")}
    assert len(expected) == 6
    assert {path.name for path in (cache / "clips").iterdir()} == expected
    for name in expected:  # of processes that were killed while they made these shards
        temporary_name(cache / "clips" / name).touch()
        (cache / "clips" / name).unlink()
    clip_store(paths, spec)
    assert {path.name for path in (cache / "clips").iterdir()} == expected


def test_the_pieces_are_the_recordings_one_behind_the_other(paths: list[Path], spec: FrontendSpec) -> None:
    store = clip_store(paths, spec)
    assert [len(piece) for piece in store.shards] == [store.lengths[i : i + SHARD].sum() for i in (0, 4, 8)]
    samples = [read_audio(path, spec).samples for path in paths]
    np.testing.assert_array_equal(np.concatenate(store.shards), np.concatenate(samples))


def test_the_digest_is_of_the_content_wherever_it_lies(
    paths: list[Path], spec: FrontendSpec, tmp_path: Path
) -> None:
    (tmp_path / "moved").mkdir()
    moved = [Path(shutil.copyfile(path, tmp_path / "moved" / f"x{path.name}")) for path in paths]
    for path in moved:
        os.utime(path, ns=(1, 1))
    digest = clip_store(paths, spec).digest
    assert clip_store(paths, spec).digest == digest  # from the cache
    assert clip_store(moved, spec).digest == digest


def test_the_digest_sees_one_sample_and_the_order(paths: list[Path], spec: FrontendSpec) -> None:
    digests = [
        clip_store(chosen, spec).digest for chosen in (paths, paths[:-1], [paths[1], paths[0], *paths[2:]])
    ]
    samples, rate = soundfile.read(paths[3], dtype="int16")
    samples[len(samples) // 2] += 8
    soundfile.write(paths[3], samples, rate)
    digests.append(clip_store(paths, spec).digest)
    assert len(set(digests)) == len(digests)


def test_the_digest_sees_where_files_begin(spec: FrontendSpec, tmp_path: Path) -> None:
    """Equal samples one behind the other, cut at another place."""
    samples = np.random.default_rng(0).integers(-999, 999, 8000).astype(np.int16)
    samples[[10, -10]] = 1000  # the peak of every piece, which is set to the same level
    stores = []
    for cut in (3000, 5000):
        pair = [tmp_path / f"{cut}-{i}.wav" for i in range(2)]
        for path, part in zip(pair, np.split(samples, [cut]), strict=True):
            soundfile.write(path, part, 16_000)
        stores.append(clip_store(pair, spec))
    np.testing.assert_array_equal(stores[0].shards[0], stores[1].shards[0])
    assert stores[0].digest != stores[1].digest


def test_waveforms_are_mapped_and_cannot_be_written_to(paths: list[Path], spec: FrontendSpec) -> None:
    waveform = clip_store(paths, spec).waveform(7)
    assert isinstance(waveform, np.memmap)
    assert waveform.dtype == np.int16
    assert not waveform.flags.writeable


def test_a_batch_is_cut_at_its_starts_and_padded_with_zeros(paths: list[Path]) -> None:
    spec = FrontendSpec(frames=31)  # 4,800 samples; the files have 1,600 to 16,000
    store = clip_store(paths, spec)
    indices, starts = np.array([9, 0, 9, 2]), np.array([16_000 - 4_800, 0, 123, 4_799])
    batch = store.clips(indices, starts, spec)
    assert batch.shape == (4, 4_800)
    np.testing.assert_array_equal(batch[0], store.waveform(9)[-4_800:])
    np.testing.assert_array_equal(batch[1], np.append(store.waveform(0), np.zeros(3_200, np.int16)))
    np.testing.assert_array_equal(batch[2], store.waveform(9)[123 : 123 + 4_800])
    np.testing.assert_array_equal(batch[3], np.append(store.waveform(2)[-1:], np.zeros(4_799, np.int16)))


def test_bad_files_are_named_and_the_good_shards_are_kept(
    paths: list[Path], spec: FrontendSpec, decoded: Counter[str]
) -> None:
    for path in (*paths[4:7], paths[9]):
        path.write_bytes(b"no audio")
    refusal = (
        r"^4 of 10 files cannot be decoded \| 4\.wav: .*5\.wav: .*6\.wav: .* and 1 more \| repair these files"
    )
    with pytest.raises(DataError, match=refusal):
        clip_store(paths, spec)
    assert decoded.total() == 10  # all were looked at before the refusal
    decoded.clear()
    with pytest.raises(DataError, match=refusal):
        clip_store(paths, spec)
    assert sorted(decoded) == ["4.wav", "5.wav", "6.wav", "7.wav", "8.wav", "9.wav"]


def test_store_with_errors_has_bad_files_without_samples_and_asks_them_again(
    paths: list[Path], spec: FrontendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: Path, spec: FrontendSpec, **options: Any) -> Any:
        if path in paths[:4] or path == paths[6]:
            raise AudioError("permission", "not allowed")
        return read_audio(path, spec, **options)

    with monkeypatch.context() as patch:
        patch.setattr(clips, "read_audio", unreadable)
        store = store_with_errors(paths, spec, label="decode")
    bad = [True] * 4 + [False, False, True, False, False, False]
    assert store.errors == ["permission: not allowed" if is_bad else "" for is_bad in bad]
    for i, path in enumerate(paths):
        np.testing.assert_array_equal(store.waveform(i), [] if bad[i] else read_audio(path, spec).samples)
    assert_holds(
        clip_store(paths, spec), paths, spec
    )  # the permissions are there now; size and time are as before


def test_peaks_are_those_of_the_files_and_not_of_the_levelled_samples(
    spec: FrontendSpec, tmp_path: Path
) -> None:
    """Stereo, 44.1 kHz: the mean of the channels and the resampled wave have other peaks."""
    rng = np.random.default_rng(4)
    paths = [tmp_path / f"{i}.wav" for i in range(5)]
    for i, path in enumerate(paths):
        soundfile.write(path, rng.uniform(-1, 1, (9000, 2)) * 2.0**-i, 44_100, subtype="FLOAT")
    peaks = [np.abs(soundfile.read(path)[0]).max() for path in paths]
    np.testing.assert_allclose(clip_store(paths, spec).peaks, peaks, rtol=1e-6)
    np.testing.assert_allclose(clip_store(paths, spec).peaks, peaks, rtol=1e-6)  # from the cache


def test_the_cache_folder_is_the_users_and_else_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_CACHE", str(tmp_path / "chosen"))
    assert clips.cache_folder() == tmp_path / "chosen"
    monkeypatch.delenv("RRTN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert clips.cache_folder() == tmp_path / "xdg/rrtn"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert clips.cache_folder() == tmp_path / f"rrtn-cache-{os.getuid()}"
    assert clips.cache_folder().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("home", [None, "/proc/nowhere", "/dev/null"])
def test_n27_without_a_home_the_cache_is_a_private_temporary_folder(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("RRTN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if home:
        monkeypatch.setenv("HOME", home)
    else:
        monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert clips.cache_folder() == tmp_path / f"rrtn-cache-{os.getuid()}"


@pytest.mark.parametrize("kind", ["open to others", "link", "file", "another user's"])
def test_n27_a_temporary_cache_that_others_can_write_to_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"rrtn-cache-{os.getuid()}"
    match kind:
        case "open to others":
            folder.mkdir()
            folder.chmod(0o777)
        case "link":
            (tmp_path / "theirs").mkdir(mode=0o700)
            folder.symlink_to("theirs")
        case "file":
            folder.touch()
        case _:
            folder.mkdir(mode=0o700)
            monkeypatch.setattr(os, "getuid", lambda: 12345)
            folder.rename(tmp_path / "rrtn-cache-12345")
    monkeypatch.delenv("RRTN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match=r"rrtn-cache-.*yours alone.*RRTN_CACHE"):
        clips.cache_folder()


def rewritten(path: Path, seed: int) -> None:
    """Another sound in the same file, with its size and time."""
    before, (samples, rate) = path.stat(), soundfile.read(path)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.3, 0.3, len(samples)), rate)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_n6_another_sound_of_the_same_size_and_time_is_decoded(
    paths: list[Path], spec: FrontendSpec, decoded: Counter[str]
) -> None:
    digest = clip_store(paths, spec).digest
    decoded.clear()
    rewritten(paths[5], seed=99)
    store = clip_store(paths, spec)
    assert sorted(decoded) == ["4.wav", "5.wav", "6.wav", "7.wav"]
    assert_holds(store, paths, spec)
    assert store.digest != digest


def test_n6_a_bare_change_of_ctime_is_read_once_and_not_decoded(
    paths: list[Path], spec: FrontendSpec, decoded: Counter[str], watch: Callable[[Path], Watch]
) -> None:
    clip_store(paths, spec)
    decoded.clear()
    paths[2].chmod(0o600)
    shutil.copy2(paths[6], paths[6].with_name("copy"))
    paths[6].with_name("copy").replace(paths[6])
    watches = [watch(path) for path in paths]
    for _ in range(2):
        assert_is_cached(paths, spec)
    assert [i for i, one in enumerate(watches) if one.opened()] == [2, 6]
    assert [watches[i].opened() for i in (2, 6)] == [1, 1]
    assert not decoded


def assert_is_cached(paths: list[Path], spec: FrontendSpec) -> None:
    assert len(clip_store(paths, spec)) == len(paths)


def test_n6_a_shard_of_an_older_rrtn_stays_good(
    paths: list[Path], spec: FrontendSpec, cache: Path, decoded: Counter[str]
) -> None:
    clip_store(paths, spec)
    for shard in shards(cache):
        index = json.loads(shard.with_suffix(".json").read_bytes())
        del index["sources"], index["digest"]
        shard.with_suffix(".json").write_text(json.dumps(index))
    decoded.clear()
    paths[3].chmod(0o600)
    assert_holds(clip_store(paths, spec), paths, spec)
    assert not decoded


def break_index(
    change: Callable[[dict[str, Any]], object], *, keep_digest: bool = False
) -> Callable[[Path], None]:
    """Without its digest an index is that of an older rrtn."""

    def broken(shard: Path) -> None:
        index = json.loads(shard.with_suffix(".json").read_bytes())
        if not keep_digest:
            del index["digest"]
        shard.with_suffix(".json").write_text(json.dumps(change(index) or index))

    return broken


def saved(array: Any) -> Callable[[Path], None]:
    return lambda shard: np.save(shard, array)


SHIFTS = (-100, 100, 0, 0)
BROKEN: dict[str, Callable[[Path], object]] = {
    "cut": lambda shard: os.truncate(shard, shard.stat().st_size // 2),
    "cut by one byte": lambda shard: os.truncate(shard, shard.stat().st_size - 1),
    "cut in its header": lambda shard: os.truncate(shard, 20),
    "empty": lambda shard: os.truncate(shard, 0),
    "zeroed": lambda shard: shard.write_bytes(bytes(shard.stat().st_size)),
    "zeroed samples": lambda shard: flip(shard, slice(128, None), 0),
    "one bit": lambda shard: flip(shard, slice(5000, 5001), 1),
    "no npy": lambda shard: shard.write_bytes(b"hello " * 1000),
    "float": saved(np.zeros(9)),
    "a pickle": saved(np.array([{}], object)),
    "two columns": saved(np.zeros((9, 2), np.int16)),
    "a pipe": lambda shard: (shard.unlink(), os.mkfifo(shard)),
    "index empty": lambda shard: os.truncate(shard.with_suffix(".json"), 0),
    "index cut": lambda shard: os.truncate(shard.with_suffix(".json"), 40),
    "index of zeros": lambda shard: shard.with_suffix(".json").write_bytes(bytes(500)),
    "index no dict": break_index(lambda index: [1]),
    "index a pipe": lambda shard: (
        shard.with_suffix(".json").unlink(),
        os.mkfifo(shard.with_suffix(".json")),
    ),
    "no lengths": break_index(lambda index: index.pop("lengths") and None),
    "no sha256": break_index(lambda index: index.pop("sha256") and None),
    "one length more": break_index(lambda index: index["lengths"].append(0)),
    "one peak less": break_index(lambda index: index["peaks"].pop() and None),
    "text for a length": break_index(lambda index: index.update(lengths=["x"] * 4)),
    "text for a peak": break_index(lambda index: index.update(peaks=["x"] * 4)),
    "null for errors": break_index(lambda index: index.update(errors=None)),
    "another hash of the samples": break_index(lambda index: index.update(sha256="0" * 64), keep_digest=True),
    "two lengths shifted": break_index(
        lambda index: index.update(lengths=[n + d for n, d in zip(index["lengths"], SHIFTS, strict=True)]),
        keep_digest=True,
    ),
    "another peak": break_index(lambda index: index["peaks"].reverse(), keep_digest=True),
    "null in errors": break_index(lambda index: index.update(errors=[None] * 4)),
    "negative lengths": break_index(lambda index: index["lengths"].__setitem__(0, -1)),
    "sources of another shape": break_index(lambda index: index.update(sources=[1, 2])),
    "too few sources": break_index(lambda index: index["sources"].pop() and None),
}


def flip(shard: Path, place: slice, value: int) -> None:
    content = bytearray(shard.read_bytes())
    content[place] = bytes(byte ^ 1 if value else 0 for byte in content[place])
    shard.write_bytes(content)


@pytest.mark.parametrize("kind", BROKEN)
def test_n6_a_broken_shard_is_made_anew_and_no_other(
    kind: str, paths: list[Path], spec: FrontendSpec, cache: Path, decoded: Counter[str]
) -> None:
    clip_store(paths[:4], spec)
    second = shard_of(cache, lambda: clip_store(paths[:8], spec))
    digest = clip_store(paths, spec).digest
    BROKEN[kind](second)
    decoded.clear()
    store = clip_store(paths, spec)
    assert sorted(decoded) == ["4.wav", "5.wav", "6.wav", "7.wav"]
    assert_holds(store, paths, spec)
    assert store.digest == digest


def test_n6_a_broken_index_is_seen_where_the_samples_are_compared_later(
    paths: list[Path], spec: FrontendSpec, cache: Path, decoded: Counter[str]
) -> None:
    """A resumed training would take it for other data."""
    digest = clip_store(paths, spec).digest
    for shard in shards(cache):
        BROKEN["another hash of the samples"](shard)
    assert clip_store(paths, spec, checked=False).digest == digest
    assert len(decoded) == len(paths)


def test_n6_the_check_in_the_background_names_the_shard_and_has_it_made_anew(
    paths: list[Path], spec: FrontendSpec, cache: Path, decoded: Counter[str]
) -> None:
    store = clip_store(paths, spec)
    with SampleCheck([store]) as check:
        assert check.broken() == []
        assert check.has_passed
    broken = shards(cache)
    for shard in broken:
        flip(shard, slice(5000, 5001), 1)
    store = clip_store(paths, spec, checked=False)
    with SampleCheck([store]) as check:
        assert sorted(check.broken()) == sorted(broken)
        assert check.has_failed
        assert not check.has_passed
    decoded.clear()
    assert_holds(clip_store(paths, spec, checked=False), paths, spec)
    assert len(decoded) == len(paths) > SHARD


@pytest.mark.parametrize(("place", "kind"), [("full", StoppedError), ("file", ConfigError)])
def test_a_cache_that_takes_nothing_is_told_with_another_place(
    make_data: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, kind: type
) -> None:
    paths = sorted((make_data() / "wav").glob("*.wav"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("RRTN_CACHE", str(tmp_path / place))
    if place == "full":
        monkeypatch.setenv("RRTN_FAILPOINT", "write.begin:enospc:1")
        monkeypatch.setattr("rrtn.runtime.system.failpoints._passed", 0)
    with pytest.raises(kind, match=r"clips \| .* \| expected a cache with .* RRTN_CACHE to another"):
        store_with_errors(paths, FrontendSpec(), label="decode")
