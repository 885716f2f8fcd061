"""The page's JavaScript beside what it repeats: soxr, mixdown.py, libsndfile, the CSV of scores."""

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rrtn
import soundfile
import soxr
from generated_sounds import write_av
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import audio_from_array, read_audio
from rrtn.runtime.errors import AudioError
from rrtn.runtime.tables.csv_table import csv_lines
from rrtn.runtime.tables.rows import Row

PAGE = Path(rrtn.__file__).parent / "export/web/page"
NODE = shutil.which("node")
RATES = (4_000, 8_000, 11_025, 15_999, 16_000, 22_050, 44_100, 48_000, 96_000)
LENGTHS = (0, 1, 2, 3, 100, 101, 44_099)
DIFFERENCE = -60  # dB, of white noise resampled by soxr HQ

pytestmark = pytest.mark.skipif(NODE is None, reason="no node: apt-get install nodejs")


def run(folder: Path, script: str, **given: Any) -> Any:
    """The value of `answer` at the end of a script, which has the page's modules as `page` and `given`."""
    (folder / "given.json").write_text(json.dumps(given))
    modules = ("resample", "mixdown", "wav", "csv", "sound", "compressed", "bars")
    imports = "".join(f'import * as {name} from "{(PAGE / name).as_uri()}.js";\n' for name in modules)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "script.mjs").write_text(
        f"""{imports}import fs from "node:fs";
const given = JSON.parse(fs.readFileSync("given.json"));
const floats = name => new Float32Array(new Uint8Array(fs.readFileSync(name)).buffer);
let answer;
{script}
fs.writeFileSync("answer.json", JSON.stringify(answer ?? null));
"""
    )
    command = [str(NODE), "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "script.mjs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answer.json").read_text())


def test_resampling_is_that_of_soxr(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noises = {
        rate: (rng.normal(0, 0.2, rate // 2) * np.hanning(rate // 2)).astype(np.float32) for rate in RATES
    }
    for rate, noise in noises.items():
        noise.tofile(tmp_path / f"{rate}.in")
    lengths = run(
        tmp_path,
        """answer = {};
        for (const rate of given.rates) {
            fs.writeFileSync(`${rate}.out`, resample.resampled(floats(`${rate}.in`), rate, 16000));
            const silence = n => resample.resampled(new Float32Array(n), rate, 16000);
            answer[rate] = given.lengths.map(n => silence(n).length);
        }""",
        rates=RATES,
        lengths=LENGTHS,
    )
    for rate, noise in noises.items():
        made = np.fromfile(tmp_path / f"{rate}.out", np.float32)
        wanted = soxr.resample(noise, rate, 16_000, quality="HQ")
        error = np.mean((made - wanted) ** 2.0) / np.mean(wanted**2.0)
        assert 10 * np.log10(error + 1e-30) < DIFFERENCE, rate
        silences = [np.zeros(length, np.float32) for length in LENGTHS]
        assert lengths[str(rate)] == [len(soxr.resample(x, rate, 16_000, quality="HQ")) for x in silences]


def test_a_constant_stays_what_it_is(tmp_path: Path) -> None:
    worst = run(
        tmp_path,
        """answer = [8000, 44100, 48000].map(rate => {
            const made = resample.resampled(new Float32Array(rate).fill(0.5), rate, 16000);
            return Math.max(...made.slice(1000, -1000).map(x => Math.abs(x - 0.5)));
        });""",
    )
    assert max(worst) < 1e-6


def stereo(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    voice, other = rng.normal(0, 0.1, (2, 8_000)).astype(np.float32)
    return {
        "mean": np.array([voice, other]),
        "cancels": np.array([voice, -voice]),
        "nearly cancels": np.array([voice, -0.9 * voice]),
        "second is loud": np.array([0.8 * voice, -voice]),
        "offset": np.array([voice + 0.4]),
        "small offset": np.array([voice + 0.01]),
        "five": rng.normal(0, 0.1, (5, 8_000)).astype(np.float32),
        "short offset": np.array([voice[:1_000] + 0.4]),
    }


def test_channels_become_one_by_the_rules_of_mixdown(tmp_path: Path) -> None:
    cases = stereo(np.random.default_rng(1))
    for name, channels in cases.items():
        channels.astype(np.float32).tofile(tmp_path / name)
    answer = run(
        tmp_path,
        """answer = {};
        for (const [name, count] of Object.entries(given.counts)) {
            const all = floats(name), length = all.length / count;
            const channels = Array.from({length: count}, (_, i) => all.slice(i * length, (i + 1) * length));
            const {mono, flags} = mixdown.mixedDown(channels, 16000);
            fs.writeFileSync(`${name}.out`, mono);
            answer[name] = flags;
        }""",
        counts={name: len(channels) for name, channels in cases.items()},
    )
    for name, channels in cases.items():
        audio = audio_from_array(channels.T, 16_000, FrontendSpec())
        mono = np.fromfile(tmp_path / f"{name}.out", np.float32)
        levelled = np.round(mono * np.float32(32_768 * FrontendSpec().peak / np.abs(mono).max()))
        assert np.abs(levelled - audio.samples).max() <= 1, name
        assert answer[name] == list(audio.flags), name


@pytest.mark.parametrize("channels", [1, 2])
def test_wav_files_are_decoded_as_libsndfile_does(tmp_path: Path, channels: int) -> None:
    samples = np.random.default_rng(2).uniform(-1, 1, (500, channels))
    subtypes = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")
    for subtype in subtypes:
        soundfile.write(tmp_path / f"{subtype}.wav", samples, 11_025, subtype=subtype)
        if subtype not in ("ALAW", "ULAW"):
            soundfile.write(tmp_path / f"{subtype}x.wav", samples, 11_025, subtype=subtype, format="WAVEX")
    files = sorted(path.name for path in tmp_path.glob("*.wav"))
    answer = run(
        tmp_path,
        """answer = given.files.map(file => {
            const {rate, channels, flags} = wav.decodedWav(fs.readFileSync(file));
            return {rate, flags, channels: channels.map(channel => [...channel])};
        });""",
        files=files,
    )
    for file, made in zip(files, answer, strict=True):
        wanted, _ = soundfile.read(tmp_path / file, dtype="float32", always_2d=True)
        assert (np.array(made["channels"], np.float32).T == wanted).all(), file
        assert (made["rate"], made["flags"]) == (11_025, []), file


def as_rrtn_takes_it(path: Path) -> list[int | str] | str:
    """The number of samples at 16 kHz and the flags, or the code of the error."""
    try:
        audio = read_audio(path, FrontendSpec())
    except AudioError as error:
        return error.code
    return [len(audio.samples), *audio.flags]


def as_the_page_takes_it(folder: Path, names: list[str]) -> list[Any]:
    """The same of each WAV file; None for what is left to the browser."""
    return list(
        run(
            folder,
            """answer = given.names.map(name => {
                try {
                    const found = wav.decodedWav(fs.readFileSync(name));
                    if (!found) return null;
                    return [resample.resampled(found.channels[0], found.rate, 16000).length, ...found.flags];
                } catch (error) { return error.code; }
            });""",
            names=names,
        )
    )


def wav_file(
    sound: bytes, *, size: int | None = None, rate: int = 16_000, channels: int = 1, behind: bytes = b""
) -> bytes:
    """16 bits; `size` is what the header says of the sound."""
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * channels * rate % 2**32, 2 * channels, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form
    body += b"data" + struct.pack("<I", len(sound) if size is None else size) + sound + behind
    return b"RIFF" + struct.pack("<I", len(body)) + body


SOUND = np.random.default_rng(4).integers(-9_000, 9_000, 16_000, dtype="<i2").tobytes()
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"
WAV_FILES = {
    "whole": wav_file(SOUND),
    "cut": wav_file(SOUND)[:20_000],
    "barely cut": wav_file(SOUND)[:-100],
    "no samples": wav_file(b""),
    "size of 0": wav_file(SOUND, size=0),
    "size of 0, one byte": wav_file(b"", behind=b"\0"),
    "size of 0, no sound but a list": wav_file(b"", behind=LIST),
    "size of 0, no sound but two lists": wav_file(b"", behind=LIST + LIST),
    "size of 0, a list that is cut": wav_file(b"", behind=LIST[:-4]),
    "size of 0, sound that begins like a list": wav_file(b"", behind=LIST + SOUND),
    "size of 2^31 - 4097": wav_file(SOUND, size=0x7FFF_EFFF),
    "size of 2^31 - 4096": wav_file(SOUND, size=0x7FFF_F000),
    "size of 2^32 - 1": wav_file(SOUND, size=0xFFFF_FFFF),
    "no samples, size of 2^32 - 1": wav_file(b"", size=0xFFFF_FFFF),
    "a list behind it": wav_file(SOUND, behind=LIST),
    "a list of odd size behind it": wav_file(SOUND, behind=b"LIST" + struct.pack("<I", 5) + bytes(6)),
    "zeros behind it": wav_file(SOUND, behind=bytes(3_001)),
    **{f"{rate} Hz": wav_file(SOUND, rate=rate) for rate in (3_999, 4_000, 384_000, 384_001)},
    **{f"{channels} channels": wav_file(SOUND[:28_800], channels=channels) for channels in (8, 9)},
    "no samples, 1000 Hz": wav_file(b"", rate=1_000),
    "cut, 1000 Hz": wav_file(SOUND, rate=1_000)[:20_000],
}


def test_wav_files_are_taken_as_rrtn_score_takes_them(tmp_path: Path) -> None:
    for name, content in WAV_FILES.items():
        (tmp_path / name).write_bytes(content)
    made = as_the_page_takes_it(tmp_path, list(WAV_FILES))
    wanted = {name: as_rrtn_takes_it(tmp_path / name) for name in WAV_FILES}
    assert dict(zip(WAV_FILES, made, strict=True)) == wanted
    assert {"truncated", "empty", "unsupported_layout"} <= {
        value for value in wanted.values() if isinstance(value, str)
    }


def test_what_is_no_wav_is_left_to_the_browser_and_several_recordings_to_rrtn_score(tmp_path: Path) -> None:
    whole = wav_file(SOUND)
    cases = {
        "adpcm": whole[:20] + bytes([17]) + whole[21:],
        "text": b"no sound at all",
        "short": b"RIFF",
        "header alone": whole[:30],
        "another chunk of sound": whole + b"data" + struct.pack("<I", 4) + bytes(4),
        "another file": whole + whole,
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    made = as_the_page_takes_it(tmp_path, list(cases))
    assert made == [None, None, None, None, "unsupported_format", "unsupported_format"]


def test_the_rate_of_compressed_files_is_read_from_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for rate in (8_000, 22_050, 44_100, 48_000):
        for suffix, subtype in (("ogg", "VORBIS"), ("flac", "PCM_16"), ("mp3", "MPEG_LAYER_III")):
            soundfile.write(
                tmp_path / f"{rate}.{suffix}", rng.uniform(-0.1, 0.1, rate), rate, subtype=subtype
            )
    for rate in (1_000, 4_000, 176_400, 192_000, 384_000):
        soundfile.write(tmp_path / f"{rate}.flac", rng.uniform(-0.1, 0.1, rate), rate)
    # So long that bytes look like the header of an MP3 frame, and that the header of MP4 lies far behind.
    noise = rng.uniform(-0.1, 0.1, (480_000, 1))
    soundfile.write(tmp_path / "48000.opus", noise, 48_000, format="OGG", subtype="OPUS")
    for rate, codec in ((22_050, "aac"), (44_100, "aac"), (44_100, "flac"), (48_000, "libopus")):
        write_av(tmp_path / f"{rate}.{codec}.mp4", noise, rate, codec, "mp4")
    write_av(tmp_path / "16000.m4a", noise, 16_000, "aac", "mp4", container_options={"movflags": "faststart"})
    files = sorted(path.name for path in tmp_path.iterdir())
    answer = run(
        tmp_path, "answer = given.files.map(f => compressed.statedRate(fs.readFileSync(f)));", files=files
    )
    assert answer == [int(file.partition(".")[0]) for file in files]


def test_text_of_a_tag_says_nothing_of_the_rate_and_quicktime_needs_no_type(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "plain.mp3", rng.normal(0, 0.1, 30_000), 24_000)
    text = b"TIT2" + b"OpusHead and fLaC and \x01vorbis".ljust(100, b"\0")
    tag = b"ID3\x03\0\0" + bytes([0, 0, 0, len(text)])
    (tmp_path / "tagged.mp3").write_bytes(tag + text + (tmp_path / "plain.mp3").read_bytes())
    noise = rng.uniform(-0.1, 0.1, (30_000, 1))
    write_av(tmp_path / "typed.mp4", noise, 22_050, "aac", "mp4")
    content = (tmp_path / "typed.mp4").read_bytes()
    (tmp_path / "bare.mov").write_bytes(content[int.from_bytes(content[:4], "big") :])
    files = ["plain.mp3", "tagged.mp3", "typed.mp4", "bare.mov"]
    answer = run(
        tmp_path, "answer = given.files.map(f => compressed.statedRate(fs.readFileSync(f)));", files=files
    )
    assert answer == [24_000, 24_000, 22_050, 22_050]


def test_the_browser_is_asked_for_the_rate_of_the_file_and_for_no_other(tmp_path: Path) -> None:
    rates = {"wide.flac": 192_000, "narrow.flac": 4_000, "odd.flac": 3_999, "wider.flac": 400_000}
    for name, rate in rates.items():
        soundfile.write(tmp_path / name, np.zeros(100), rate)
    (tmp_path / "text").write_text("no sound at all")
    made = run(
        tmp_path,
        """const asked = [];
        const narrowest = 8000; // as Firefox has it
        globalThis.OfflineAudioContext = class {
            constructor(channels, length, rate) {
                asked.push(rate);
                if (rate < narrowest) throw new DOMException("no such rate", "NotSupportedError");
                this.rate = rate;
            }
            async decodeAudioData(bytes) {
                if (new TextDecoder().decode(bytes.slice(0, 4)) !== "fLaC") throw new Error("no audio");
                return {numberOfChannels: given.channels, sampleRate: this.rate, getChannelData: () => [0]};
            }
        };
        const rateOf = name => compressed.decodedByBrowser(new Uint8Array(fs.readFileSync(name)))
            .then(sound => sound.rate, error => `${error.code}: ${error.message}`);
        answer = [];
        for (const name of given.names) answer.push(await rateOf(name));
        given.channels = 9;
        answer.push(await rateOf("wide.flac"), asked);""",
        names=[*rates, "text"],
        channels=2,
    )
    assert made == [
        192_000,
        "unsupported_layout: this browser decodes nothing at 4000 Hz",
        "unsupported_layout: this browser decodes nothing at 3999 Hz",
        "unsupported_layout: 2 channels at 400000 Hz",
        "unsupported_format: this browser cannot decode it",
        "unsupported_layout: 9 channels at 192000 Hz",
        [*rates.values(), 48_000, 192_000],
    ]


def test_the_table_is_the_csv_of_rrtn_score(tmp_path: Path) -> None:
    names = [
        "plain.wav",
        '=1+1,"x"',
        "-2 \\ \n\r\t",
        "C:\\x\\x41.wav",
        "\u202eevil",
        "@x",
        " +y",
        "\uff1dz",
        "emoji \U0001f600",
        "'q",
    ]
    labels = ("Awe", "=Fear", 'a "b", c')
    rows = [
        Row(
            file=name,
            start=0.0,
            end=1.2345,
            scores=dict.fromkeys(labels, i / 3 - 1),
            flags=("silent", "dc"),
        )
        for i, name in enumerate(names)
    ]
    rows += [
        Row(file="bad", error="corrupt"),
        Row(file="zero", start=0.0, end=0.0, scores=dict.fromkeys(labels, -1e-9)),
        Row(file="ties", start=0.0625, end=1.3125, scores=dict.fromkeys(labels, 0.0078125)),
    ]
    # With odd numerators these lie midway between two numbers of three or six decimals.
    rows += [
        Row(file="ties", start=i / 16, end=i / 8, scores=dict.fromkeys(labels, (i - 40) / 128))
        for i in range(80)
    ]
    given = [
        {"name": str(row.file), "error": row.error or None, "flags": list(row.flags)}
        | ({"start": row.start, "end": row.end, "scores": list(row.scores.values())} if row.scores else {})
        for row in rows
    ]
    made = run(tmp_path, "answer = csv.csvOf(given.labels, given.rows);", labels=labels, rows=given)
    assert made == "".join(csv_lines(rows, labels))


def test_bars_follow_the_meaning_of_the_labels(tmp_path: Path) -> None:
    labels = ["Valence", "Type=Laugh", "Type=Cry", "Arousal"]
    meaning = {"scales": {"Valence": [-1, 1], "Arousal": [1, 9]}, "classes": {"Type": ["Laugh", "Cry"]}}
    script = "answer = [bars.groupsOf(given), bars.groupsOf({labels: given.labels, meaning: null})];"
    with_meaning, without = run(tmp_path, script, labels=labels, meaning=meaning)
    assert [
        (bar["label"], bar["low"], bar["high"], bar["place"])
        for group in with_meaning
        for bar in group["bars"]
    ] == [
        ("Valence", -1, 1, 0),
        ("Arousal", 1, 9, 3),
        ("Laugh", 0, 1, 1),
        ("Cry", 0, 1, 2),
    ]
    assert [group["name"] for group in with_meaning] == ["", "Type (probability)"]
    assert [(bar["label"], bar["low"], bar["high"]) for bar in without[0]["bars"]] == [
        (label, 0, 1) for label in labels
    ]
