"""From arguments to files: sorted, each once, nothing followed, nothing silently left out."""

import os
from pathlib import Path

import pytest
from rrtn.runtime.audio.inputs import list_audio
from rrtn.runtime.errors import DataError


def touch(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)


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
    with pytest.raises(DataError, match="no argument"):
        list_audio([])


def test_an_empty_folder_beside_audio_is_no_reason_to_stop(tmp_path: Path) -> None:
    touch(tmp_path, "full/a.wav")
    (tmp_path / "empty").mkdir()
    assert list_audio([tmp_path / "empty", tmp_path / "full"]) == [os.fsencode(tmp_path / "full" / "a.wav")]
