"""From arguments to files: sorted, each once, nothing followed, nothing silently left out."""

import errno
import glob
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rrtn.commands.options import spool_from_options
from rrtn.runtime.audio.inputs import InputChoice, inputs_from_arguments, inputs_from_list
from rrtn.runtime.audio.path_list import PathList
from rrtn.runtime.audio.signatures import is_audio
from rrtn.runtime.audio.sources import AudioSource
from rrtn.runtime.errors import DataError, StoppedError

TROUBLE = Path(__file__).parents[4] / "shared/data/trouble"  # not part of the project


def touch(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)


def list_audio(arguments: Sequence[str | bytes | Path]) -> list[AudioSource]:
    """What `rrtn score` takes, or its error."""
    with spool_from_options([os.fsdecode(argument) for argument in arguments], None) as spool:
        return [source for shard in spool.shards for source in spool.sources(shard)]


def names_below(folder: Path) -> list[bytes]:
    prefix = os.fsencode(folder) + b"/"
    return [path.removeprefix(prefix) for path in list_audio([folder])]


def test_a_folder_gives_its_audio_bytewise_files_before_folders(tmp_path: Path) -> None:
    touch(
        tmp_path, "b.wav", "a.wav", "B.wav", "a/z.wav", "Z/y/x.wav", "Z/k.wav", b"caf\xe9.wav", "\u00e9.wav"
    )
    assert names_below(tmp_path) == [
        *(b"B.wav", b"a.wav", b"b.wav", b"caf\xe9.wav", "\u00e9.wav".encode()),
        *(b"Z/k.wav", b"Z/y/x.wav", b"a/z.wav"),
    ]


def test_a_suffix_is_audio_in_any_case_also_where_libsndfile_cannot_read_it(tmp_path: Path) -> None:
    audio = ["a.WAV", "b.Flac", "c.mp3", "d.M4A", "e.opus", "f.aiff", ".g.wav"]
    touch(tmp_path, *audio, "notes.txt", "data_info.csv", "wav", "a.wav.part", "b.wavx")
    assert sorted(names_below(tmp_path)) == sorted(map(os.fsencode, audio))


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "recording.dat")
    assert list_audio([tmp_path / "recording.dat"]) == [os.fsencode(tmp_path / "recording.dat")]


def test_arguments_keep_their_order_and_no_file_comes_twice(tmp_path: Path) -> None:
    touch(tmp_path, "z.wav", "f/b.wav", "f/a.wav")
    arguments = [
        tmp_path / "z.wav",
        tmp_path / "f" / "b.wav",
        tmp_path / "f",
        os.fsencode(tmp_path / "z.wav"),
    ]
    expected = [tmp_path / "z.wav", tmp_path / "f" / "b.wav", tmp_path / "f" / "a.wav"]
    assert list_audio(arguments) == [os.fsencode(path) for path in expected]


def test_links_to_folders_are_not_followed_links_to_files_are(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.wav", "out/secret.wav", "out/shared.wav")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "root").symlink_to("/")
    (tmp_path / "in" / "out").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "b.wav").symlink_to(tmp_path / "out" / "shared.wav")
    assert names_below(tmp_path / "in") == [b"a.wav", b"b.wav"]


def test_two_stars_follow_no_links_to_folders_and_count_them(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.wav", "in/sub/b.wav", "in/sub/deep/c.wav", "out/secret.wav")
    for name in ("in/self", "in/again", "in/sub/up"):  # two circles already have no end
        (tmp_path / name).symlink_to(tmp_path / "in")
    (tmp_path / "in/out").symlink_to(tmp_path / "out")
    (tmp_path / "in/d.wav").symlink_to(tmp_path / "out/secret.wav")
    for pattern in ("in/**/*.wav", "*/**/*.wav", "in/**", "in/**/**/*.wav"):
        choice = InputChoice()
        found = [found.source for found in inputs_from_arguments([tmp_path / pattern], choice)]
        names = [os.fsdecode(name).removeprefix(f"{tmp_path}/") for name in found if isinstance(name, bytes)]
        wanted = ["in/a.wav", "in/d.wav", "in/sub/b.wav", "in/sub/deep/c.wav"]
        assert names == wanted + ["out/secret.wav"] * pattern.startswith("*"), pattern
        assert choice.left_out["link to a folder"] >= 4
    assert [*choice.left_out] == ["link to a folder"]
    linked = inputs_from_arguments([tmp_path / "in/out/**/*.wav"])  # who names the link means it
    assert [found.source for found in linked] == [os.fsencode(tmp_path / "in/out/secret.wav")]


def test_a_pattern_gives_what_glob_gives_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.wav", "s/b.wav", "s/[x]/c.wav", "s/[x]/d/e.wav", ".h/f.wav", "s/.g.wav", "s/**x/h.wav")
    monkeypatch.chdir(tmp_path)
    patterns = (
        "** **/*.wav */**/*.wav **/d/*.wav s/**/c.wav **/d/**/*.wav s//**//*.wav **.wav s/**x/*.wav .h/**"
    )
    for pattern in [*patterns.split(), f"{tmp_path}/**/*.wav", "./**/[b-c].wav", "**/.*/*.wav"]:
        found = [found.source for found in inputs_from_arguments([pattern])]
        expected = {os.fsencode(path) for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
        assert found == sorted(expected), pattern


def test_what_only_looks_like_audio_is_listed_for_a_row_with_its_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "dangling.wav").symlink_to("nowhere")
    (tmp_path / "folder.wav").mkdir()
    touch(tmp_path, "folder.wav/a.wav")
    assert names_below(tmp_path) == [b"dangling.wav", b"pipe.wav", b"folder.wav/a.wav"]


def test_a_tree_may_be_deeper_than_pythons_stack(tmp_path: Path) -> None:
    folders = [tmp_path.joinpath(*["d"] * depth) for depth in range(1, 1_201)]
    for folder in folders:
        folder.mkdir()
    touch(folders[-1], "a.wav")
    assert len(list_audio([tmp_path])) == 1
    (folders[-1] / "a.wav").unlink()
    for folder in reversed(folders):  # pytest's own clean-up is recursive
        folder.rmdir()


def test_an_argument_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    with pytest.raises(DataError, match=r"gone\.wav.*does not exist"):
        list_audio([tmp_path / "a.wav", tmp_path / "gone.wav"])


def test_folders_without_audio_are_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "one/notes.txt")
    (tmp_path / "two").mkdir()
    with pytest.raises(DataError, match=r"one.*two.*no audio files found"):
        list_audio([tmp_path / "one", tmp_path / "two"])


def test_no_argument_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"AUDIO \| not given \| expected files, folders or patterns, or --list FILE"
    ):
        list_audio([])


def test_an_empty_folder_beside_audio_is_no_reason_to_stop(tmp_path: Path) -> None:
    touch(tmp_path, "full/a.wav")
    (tmp_path / "empty").mkdir()
    assert list_audio([tmp_path / "empty", tmp_path / "full"]) == [os.fsencode(tmp_path / "full" / "a.wav")]


# N14: which files are audio


def choice_of(folder: Path, **options: Any) -> tuple[list[str], dict[str, int]]:
    """Names below the folder, and what was left out."""
    choice = InputChoice(**options)
    found = [os.fsdecode(os.path.basename(one.source)) for one in inputs_from_arguments([folder], choice)]
    return found, dict(choice.left_out)


@pytest.mark.parametrize(
    "suffix",
    "wav bwf w64 rf64 flac ogg oga opus spx mp1 mp2 mp3 mpga m4a mp4 3gp mov mkv mka webm aac amr wma ac3 "
    "aiff aifc au snd caf voc sph nist svx avr paf wv ape tta dsf".split(),
)
def test_n14_a_suffix_of_audio_is_a_row_whatever_it_holds(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"a.{suffix.upper()}")
    assert choice_of(tmp_path) == ([f"a.{suffix.upper()}"], {})


WRITTEN = [
    "WAV",
    "WAVEX",
    "RF64",
    "W64",
    "AIFF",
    "AU",
    "CAF",
    "FLAC",
    "OGG",
    "MP3",
    "NIST",
    "VOC",
    "SVX",
    "AVR",
]
WRITTEN += ["PAF", "PVF", "IRCAM"]


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("endian", ["FILE", "LITTLE", "BIG"])
def test_n14_audio_under_any_name_is_a_row(tmp_path: Path, format: str, endian: str) -> None:
    """As libsndfile writes it."""
    subtype = soundfile.default_subtype(format) if format not in ("SVX", "AVR") else "PCM_16"
    if not soundfile.check_format(format, subtype, endian):
        pytest.skip("no such format")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8_000)
    soundfile.write(tmp_path / "recording", noise, 16_000, format=format, subtype=subtype, endian=endian)
    assert choice_of(tmp_path) == (["recording"], {})


@pytest.mark.parametrize(
    "name", [path.name for path in sorted(TROUBLE.glob("*")) if path.suffix not in (".txt", ".md")]
)
def test_n14_what_encoders_write_is_a_row_under_any_name(tmp_path: Path, name: str) -> None:
    for other in ("a.dat", "b", "c.txt", "d.wav.part"):
        shutil.copy(TROUBLE / name, tmp_path / other)
    assert choice_of(tmp_path) == (["a.dat", "b", "c.txt", "d.wav.part"], {})


TEXTS = {
    "utf16": "text in UTF-16\r\n".encode("utf-16") * 300,
    "utf16be": b"\xfe\xff" + "text".encode("utf-16-be") * 300,
    "mac": b"MAC address,score\n" * 20,
    "id3": b"ID3,score\n1,2\n",
    "dsd": b"DSD values\n",
    "dns": b"dns.example.org has an address\n",
    "form": b"FORM 12 of the office\n",
    "webp": b"RIFF\x24\0\0\0WEBPVP8 " + bytes(30),
    "aiff picture": b"FORM\0\0\0\x24ILBM" + bytes(30),
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(4_000),
    "jpeg of frames": b"\xff\xd8\xff" * 1_000,
    "ones": b"\xff" * 5_000,
    "heic": b"\0\0\0\x18ftypheic" + bytes(100),
    "zeros": bytes(5_000),
    "nothing": b"",
    "g": b"G" * 100 + b"\n",
    "python": b"#!/usr/bin/env python\n",
    "zip": b"PK\3\4" + bytes(200),
    "json": b'{"a": 1}\n',
}


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in TEXTS.items()])
def test_n14_what_is_no_audio_is_no_row(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "b").write_bytes(content)
    assert choice_of(tmp_path) == ([], {".txt": 1, "no suffix": 1})


@pytest.mark.parametrize("seed", range(3))
def test_n14_noise_is_no_audio(seed: int) -> None:
    rng = np.random.default_rng(seed)
    taken = [is_audio(b"\xff\xfb" + rng.bytes(4_094)) for _ in range(2_000)]
    assert sum(taken) < 10  # by one header alone it would be half of them


def test_n14_what_is_left_out_is_counted_by_suffix(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.wav",
        "notes.TXT",
        "b/more.txt",
        "b/c/data_info.csv",
        "README",
        "x.an odd suffix",
        "._a.wav",
    )
    (tmp_path / "link").symlink_to(tmp_path / "b")
    os.mkfifo(tmp_path / "pipe")
    counts = {".txt": 2, ".csv": 1, "no suffix": 3, "._*": 1, "link to a folder": 1}
    assert choice_of(tmp_path) == (["a.wav"], counts)


def test_n14_what_rrtn_keeps_beside_tables_and_packs_is_not_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", ".t.csv.rrtn/job.json", ".t.csv.rrtn/0-1.part", ".rrtn-pack.lock", "b.lock")
    assert choice_of(tmp_path) == (["a.wav"], {".lock": 1})


JUNK = ".Trash .Trashes .Trash-1000 $RECYCLE.BIN #recycle @eaDir .thumbnails __MACOSX .AppleDouble .fseventsd"


@pytest.mark.parametrize("junk", JUNK.split())
def test_n14_what_a_system_keeps_for_itself_is_left_out_and_counted(tmp_path: Path, junk: str) -> None:
    touch(
        tmp_path,
        "in/a.wav",
        f"in/{junk}/b.wav",
        f"in/sub/{junk}/below/c.wav",
        "in/sub/._d.wav",
        "in/Trash/e.wav",
    )
    assert choice_of(tmp_path / "in") == (["a.wav", "e.wav"], {f"{junk}/": 2, "._*": 1})
    named = choice_of(tmp_path / "in" / junk)
    assert named == (["b.wav"], {}), "who names the folder means it"


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*_noise.wav"], ["b.wav", "x.wav", "y.wav"]),
        (["sub"], ["a_noise.wav", "b.wav"]),
        (["sub/"], ["a_noise.wav", "b.wav"]),
        (["sub/x.*", "b.wav"], ["a_noise.wav", "y.wav"]),
        (["sub/deep/*"], ["a_noise.wav", "b.wav", "x.wav"]),
        (["deep", "[ab]*"], ["x.wav"]),
        (["*.mp3"], ["a_noise.wav", "b.wav", "x.wav", "y.wav"]),
    ],
)
def test_n14_exclude_leaves_out_files_and_folders(
    tmp_path: Path, patterns: list[str], left: list[str]
) -> None:
    touch(tmp_path, "a_noise.wav", "b.wav", "sub/x.wav", "sub/deep/y.wav")
    found, counts = choice_of(tmp_path, exclude=patterns)
    assert found == left
    assert bool(counts) == (len(left) < 4)
    assert set(counts) <= {"--exclude"}


def test_n14_exclude_is_for_named_files_and_lists_too(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    choice = InputChoice(exclude=["b.*"])
    (tmp_path / "list").write_text("a.wav\nb.wav\n")
    named = [tmp_path / "a.wav", tmp_path / "b.wav"]
    found = [
        *inputs_from_arguments(named, choice),
        *inputs_from_list(PathList(str(tmp_path / "list")), choice),
    ]
    assert [one.source for one in found] == [os.fsencode(tmp_path / "a.wav")] * 2
    assert choice.left_out == {"--exclude": 2}


# N15: folders that go, or that may not be read


def test_n15_a_folder_that_vanishes_during_the_walk_is_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b/x.wav", "b/c/y.wav", "d/z.wav")
    rows = []
    for one in inputs_from_arguments([tmp_path]):
        rows.append(os.path.relpath(one.source, os.fsencode(tmp_path)))
        if rows == [b"a.wav"]:
            shutil.rmtree(tmp_path / "b")
    assert rows == [b"a.wav", b"b", b"d/z.wav"]


def test_n15_a_folder_that_becomes_a_file_is_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b/x.wav")
    walk = inputs_from_arguments([tmp_path])
    next(walk)
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "b").touch()
    assert [one.source for one in walk] == [os.fsencode(tmp_path / "b")]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOENT])
def test_n15_below_an_argument_no_such_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    touch(tmp_path, "a.wav", "b/x.wav")
    fails_in(tmp_path / "b", code, monkeypatch)
    assert names_below(tmp_path) == [b"a.wav", b"b"]
    with pytest.raises(DataError, match=os.strerror(code)):
        list_audio([tmp_path / "b"])


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOMEM])
def test_n15_storage_that_fails_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    touch(tmp_path, "a.wav", "b/x.wav")
    fails_in(tmp_path / "b", code, monkeypatch)
    with pytest.raises(StoppedError, match=os.strerror(code)):
        list_audio([tmp_path])


def fails_in(folder: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: bytes) -> Any:
        if path == os.fsencode(folder):
            raise OSError(code, os.strerror(code))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
