"""The page of `rrtn export --web` in Chromium, compared with `rrtn score`, and used as people use it."""

import contextlib
import csv
import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import soxr
from chromium import CHROMIUM, Page, chromium
from rrtn.export.samples_graph import samples_from_log_mel
from rrtn.export.web.page import page_from_bundle
from rrtn.runtime.bundle import Bundle, Variant, load_bundle
from rrtn_processes import REAL_ENCODERS, Server

BURSTS = Path(__file__).parents[1] / "fixtures/bursts"
WAV_LIMIT = 5e-3  # in score, for WAV files of any rate
COMPRESSED_LIMIT = 1e-2  # Chromium's decoders give a few samples more or less than libsndfile's
INT8_LIMIT = 2e-2  # a sample that rounds to another step moves more in 8 bits
SAME_RATE_LIMIT = 1e-5  # where neither resamples
READY = "document.body?.dataset.state === 'ready'"
STATUS = "document.getElementById('status').textContent"
DONE = f"/ scored in /.test({STATUS}) && {STATUS}"
METERS = "[...document.querySelectorAll('[role=meter]')]"
VALUES = f"{METERS}.map(meter => Number(meter.getAttribute('aria-valuenow')))"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


class Site(NamedTuple):
    """A page as a folder, as one file, and as both are reached."""

    folder: Path  # page/, isolated -> page, page.html
    url: str
    model: Path  # what `rrtn score` is to take

    @property
    def urls(self) -> dict[str, str]:
        one_file = (self.folder / "page.html").as_uri()
        return {"plain": f"{self.url}/page/", "isolated": f"{self.url}/isolated/", "file": one_file}


class Handler(http.server.SimpleHTTPRequestHandler):
    """A plain file server; below /isolated it lets pages have threads."""

    def end_headers(self) -> None:
        if self.path.startswith("/isolated"):
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(folder))
    ) as file_server:
        thread = threading.Thread(target=file_server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{file_server.server_port}"
        file_server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(random_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site of a network whose scores are spread over the whole scale."""
    folder = tmp_path_factory.mktemp("site")
    bundle = with_samples(random_bundle, folder)
    page_from_bundle(bundle, folder / "page")
    page_from_bundle(bundle, folder / "page.html")
    (folder / "isolated").symlink_to("page")
    with served(folder) as url:
        yield Site(folder, url, random_bundle.path / "model.onnx")


def with_samples(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle with the variant that the page needs, its file in `folder`."""
    content = samples_from_log_mel(bundle.read(bundle.variants[0]), bundle.spec)
    (folder / "model.samples.onnx").write_bytes(content)
    variant = Variant(
        name="samples",
        file="model.samples.onnx",
        kind="onnx",
        input="samples",
        precision="fp32",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
    return replace(bundle, path=folder, variants=(variant,))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """With a microphone that hears somebody laugh, again and again."""
    folder = tmp_path_factory.mktemp("browser")
    samples, rate = soundfile.read(BURSTS / "Laugh-male2.wav", always_2d=True)
    heard = soxr.resample(samples.mean(axis=1), rate, 48_000)
    soundfile.write(folder / "heard.wav", heard, 48_000, subtype="PCM_16")
    microphone = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={folder / 'heard.wav'}",
    )
    with chromium(folder / "profile", *microphone) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """Nothing may be wrong with it at the end, in its own eyes."""
    browser.requests.clear()
    browser.problems.clear()
    browser.show_as(1400, 900)
    yield browser
    assert browser.problems == []
    browser.open("about:blank")


def table_of(page: Page, files: list[Path]) -> list[dict[str, str]]:
    """The page scores the files; -> the table that it lets the user download."""
    page.choose_files("#files", files)
    page.wait_for(DONE)
    return downloaded(page)


def downloaded(page: Page) -> list[dict[str, str]]:
    """The table as it is now."""
    page.evaluate("document.getElementById('download').click()")
    target = page.downloads / "scores.csv"
    page.wait_until(target.exists, str(target))
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    target.unlink()
    return rows


def scores_of(row: dict[str, str]) -> list[float]:
    own = ("file", "start", "end", "error", "flags")
    return [float(cell) for name, cell in row.items() if name not in own]


def native_table(server: Server, model: Path, files: list[Path], target: Path) -> list[dict[str, str]]:
    """What `rrtn score` says, in the order of the files."""
    command = ("score", *files, "-m", model, "--backend", "cpu", "--out", target)
    ended = server.start(*command, cwd=target.parent).wait()
    assert ended.code in (0, 3), ended.err
    with target.open(encoding="utf-8", newline="") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    return [rows[file.name] for file in files]


def worst_difference(ours: list[dict[str, str]], native: list[dict[str, str]]) -> float:
    """The worst difference of scores. All else must be equal, but for the folders of the files."""
    assert [list(row) for row in ours] == [list(row) for row in native]
    names = ("start", "end", "error", "flags")
    assert [[row[name] for name in names] for row in ours] == [
        [row[name] for name in names] for row in native
    ]
    differences = [np.subtract(scores_of(a), scores_of(b)) for a, b in zip(ours, native, strict=True)]
    return float(np.abs(differences).max())


@pytest.fixture(scope="module")
def native(
    runtime_server: Server, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, str]]]:
    """The tables of WAV files of their own rates, of the same at 16 kHz, and of MP3 files."""
    folder = tmp_path_factory.mktemp("native")
    kinds = {"wav": sorted(BURSTS.glob("*.wav")), "mp3": sorted(BURSTS.glob("*.mp3")), "16k": []}
    for file in kinds["wav"]:
        samples, rate = soundfile.read(file, always_2d=True)
        kinds["16k"].append(folder / file.name)
        soundfile.write(folder / file.name, soxr.resample(samples.mean(axis=1), rate, 16_000), 16_000)
    tables = {
        kind: native_table(runtime_server, site.model, files, folder / f"{kind}.csv")
        for kind, files in kinds.items()
    }
    assert np.std([scores_of(row) for row in tables["wav"]], axis=0).min() > 0.04  # it is no constant
    return tables


def files_of(rows: list[dict[str, str]]) -> list[Path]:
    return [Path(row["file"]) for row in rows]


@pytest.mark.parametrize("way", ["plain", "isolated", "file"])
def test_the_page_gives_the_scores_of_rrtn_score(
    page: Page, site: Site, native: dict[str, list[dict[str, str]]], way: str
) -> None:
    page.open(site.urls[way])
    page.wait_for(READY)
    assert page.evaluate("self.crossOriginIsolated") == (
        way == "isolated"
    )  # has threads, where there are cores
    limits = {"16k": SAME_RATE_LIMIT, "wav": WAV_LIMIT, "mp3": COMPRESSED_LIMIT}
    for kind, limit in limits.items():
        rows = native[kind]
        page.evaluate("document.getElementById('clear').click()")
        worst = worst_difference(table_of(page, files_of(rows)), rows)
        assert worst <= limit, kind
    elsewhere = [
        url for url in page.requests if not url.startswith((site.urls[way], f"{site.url}/", "data:", "blob:"))
    ]
    assert elsewhere == []


def test_flac_of_any_rate_is_decoded_at_that_rate(
    page: Page, site: Site, runtime_server: Server, tmp_path: Path
) -> None:
    """White noise, of which any resampling by the browser would leave out or change a part."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{rate}.flac" for rate in (3_000, 4_000, 8_000, 96_000, 176_400, 192_000, 384_000)]
    for file in files:
        rate = int(file.stem)
        soundfile.write(file, rng.uniform(-0.5, 0.5, rate), rate)
    rows = native_table(runtime_server, site.model, files, tmp_path / "native.csv")
    page.open(site.urls["plain"])
    page.wait_for(READY)
    made = table_of(page, files)
    assert [row["error"] for row in rows] == ["unsupported_layout"] + [""] * 6
    assert (made[0]["error"], made[0]["file"]) == ("unsupported_layout", "3000.flac")
    assert worst_difference(made[1:], rows[1:]) <= WAV_LIMIT


@pytest.mark.parametrize("way", ["plain", "file"])
def test_a_microphone_moves_the_bars_until_it_is_switched_off(page: Page, site: Site, way: str) -> None:
    page.open(site.urls[way])
    page.wait_for(READY)
    before = page.evaluate(VALUES)
    page.evaluate("document.getElementById('microphone').click()")
    page.wait_for("document.body.dataset.state === 'listening'")
    seen = [before]

    def moved() -> bool:
        if (values := page.evaluate(VALUES)) not in seen:
            seen.append(values)
        return len(seen) >= 4

    page.wait_until(moved, "bars that move")
    assert page.evaluate("document.getElementById('microphone').getAttribute('aria-pressed')") == "true"
    page.evaluate("document.getElementById('microphone').click()")
    assert page.evaluate(STATUS) == "The microphone is off."
    after = page.evaluate(VALUES)
    page.evaluate("new Promise(done => setTimeout(done, 800))")
    assert page.evaluate(VALUES) == after


def test_a_window_that_cannot_be_scored_is_told_and_the_next_one_is_scored(page: Page, site: Site) -> None:
    page.open(site.urls["plain"])
    page.wait_for(READY)
    page.evaluate("""(() => {
        window.said = [];
        const status = document.getElementById("status"), post = Worker.prototype.postMessage;
        new MutationObserver(() => window.said.push(status.textContent)).observe(status, {childList: true});
        Worker.prototype.postMessage = () => {
            Worker.prototype.postMessage = post;
            throw new Error("no room for it");
        };
    })()""")
    before = page.evaluate(VALUES)
    page.evaluate("document.getElementById('microphone').click()")
    page.wait_until(lambda: page.evaluate(VALUES) != before, "bars that move", 20)
    page.evaluate("document.getElementById('microphone').click()")
    said = page.evaluate("window.said")
    assert "no room for it" in said[said.index("Listening.") :]
    assert said[-2:] == ["Listening.", "The microphone is off."]


def slow_reading(page: Page) -> None:
    """Lets files take a while to be read, so that there is time to do something meanwhile."""
    page.evaluate("""(() => {
        const read = Blob.prototype.arrayBuffer;
        Blob.prototype.arrayBuffer = async function () {
            await new Promise(done => setTimeout(done, 300));
            return read.call(this);
        };
    })()""")


def test_files_that_are_cleared_while_they_are_scored_stay_away(page: Page, site: Site) -> None:
    page.open(site.urls["plain"])
    page.wait_for(READY)
    files = sorted(BURSTS.glob("*.wav"))
    slow_reading(page)
    page.choose_files("#files", files[:2])
    page.evaluate("document.getElementById('clear').click()")
    page.choose_files("#files", files[2:4])
    page.wait_for(DONE)
    page.evaluate("new Promise(done => setTimeout(done, 800))")
    assert [row["file"] for row in downloaded(page)] == [file.name for file in files[2:4]]
    page.evaluate("document.querySelector('#table button').click()")
    page.evaluate("document.getElementById('clear').click()")
    page.evaluate("new Promise(done => setTimeout(done, 800))")
    assert page.evaluate(STATUS) == "The table is empty."
    assert page.evaluate("document.getElementById('source').textContent") == ""


def test_a_file_that_is_gone_keeps_its_scores(page: Page, site: Site, tmp_path: Path) -> None:
    page.open(site.urls["plain"])
    page.wait_for(READY)
    files = [Path(shutil.copy(file, tmp_path)) for file in sorted(BURSTS.glob("*.wav"))[:2]]
    rows = table_of(page, files)
    files[0].unlink()
    page.evaluate("document.querySelector('#table button').click()")
    page.wait_for(f"{STATUS} === '{files[0].name}: it can no longer be read'")
    assert page.evaluate("document.getElementById('source').textContent") == files[1].name
    assert downloaded(page) == rows


HOSTILE = "<img src=x onerror=\"document.title='obeyed'\">"


def test_labels_and_names_of_files_are_text_and_never_markup(page: Page, site: Site, tmp_path: Path) -> None:
    shutil.copytree(site.folder / "page", tmp_path / "page")
    description = json.loads((tmp_path / "page/model.json").read_text())
    description["labels"] = [HOSTILE, "=1+1", "</script><script>alert(1)</script>", "Type=<b>x</b>"]
    description |= {"columns": description["labels"], "title": HOSTILE, "about": HOSTILE, "variant": HOSTILE}
    description["meaning"] = {
        "scales": {HOSTILE: [-1, 1], "=1+1": [1, 9], description["labels"][2]: [0, 100]},
        "classes": {"Type": ["<b>x</b>"]},
        "submitted": [],
    }
    (tmp_path / "page/model.json").write_text(json.dumps(description))
    (tmp_path / HOSTILE).write_bytes((BURSTS / "Cough-male.wav").read_bytes())
    (tmp_path / "=2+2 <b>.txt").write_text("no sound")
    with served(tmp_path) as url:
        page.open(f"{url}/page/")
        page.wait_for(READY)
        rows = table_of(page, [tmp_path / HOSTILE, tmp_path / "=2+2 <b>.txt"])
        named = page.evaluate(f"{METERS}.map(meter => meter.getAttribute('aria-label'))")
        texts = page.evaluate(f"{METERS}.map(meter => meter.getAttribute('aria-valuetext'))")
        markup = page.evaluate("[document.querySelectorAll('img, b').length, document.scripts.length]")
    assert named == [HOSTILE, "=1+1", "</script><script>alert(1)</script>", "<b>x</b>"]
    assert [text.partition(" on ")[2] for text in texts] == [
        "a scale of -1 to 1",
        "a scale of 1 to 9",
        "a scale of 0 to 100",
        "a scale of 0 to 1",
    ]
    assert markup == [0, 1]
    assert not page.evaluate("document.title").startswith("obeyed")
    # A spreadsheet takes neither for a formula.
    assert list(rows[0])[3:7] == [HOSTILE, "'=1+1", description["labels"][2], "Type=<b>x</b>"]
    assert [row["file"] for row in rows] == [HOSTILE, "'=2+2 <b>.txt"]
    assert [row["error"] for row in rows] == ["", "unsupported_format"]


def test_neither_the_page_nor_its_worker_can_send_anything(page: Page, site: Site, tmp_path: Path) -> None:
    """Also where what a recording holds should get hold of the worker."""
    shutil.copytree(site.folder / "page", tmp_path / "page")
    with served(tmp_path) as url, served(site.folder) as elsewhere:
        said = (
            f'fetch("{elsewhere}/page/model.json", {{mode: "no-cors"}}).then(() => "sent", () => "refused")'
        )
        (tmp_path / "page/probe.js").write_text(f"{said}.then(text => postMessage(text))")
        page.open(f"{url}/page/")
        page.wait_for(READY)
        assert page.evaluate(said) == "refused"
        in_worker = """(async () => {
            const { workerUrl } = await import("./assets.js");
            const worker = new Worker(await workerUrl("probe.js"), { type: "module" });
            return new Promise(done => { worker.onmessage = event => done(event.data); });
        })()"""
        assert page.evaluate(in_worker) == "refused"
    assert any("Content Security Policy" in problem for problem in page.problems)
    page.problems.clear()


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits(page: Page, site: Site, width: int) -> None:
    page.show_as(width, 900)
    page.open(site.urls["plain"])
    page.wait_for(READY)
    table_of(page, sorted(BURSTS.glob("*.wav")))
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_keeps_to_what_the_user_prefers(page: Page, site: Site) -> None:
    page.open(site.urls["plain"])
    page.wait_for(READY)
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    moves = "getComputedStyle(document.querySelector('.fill')).transitionDuration"
    page.show_as(1400, 900, dark=False, still=False)
    light, moving = page.evaluate(colours), page.evaluate(moves)
    page.show_as(1400, 900, dark=True, still=True)
    dark, still = page.evaluate(colours), page.evaluate(moves)
    assert sum_of(light[0]) > sum_of(light[1])
    assert sum_of(dark[0]) < sum_of(dark[1])
    assert (moving, still) == ("0.15s", "0s")


def sum_of(colour: str) -> int:
    """ "rgb(1, 2, 3)" -> 6."""
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))


def test_the_keyboard_reaches_everything_and_everything_has_a_name(page: Page, site: Site) -> None:
    page.open(site.urls["plain"])
    page.wait_for(READY)
    files = sorted(BURSTS.glob("*.wav"))[:2]
    table_of(page, files)
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(12):
        page.press("Tab", code=9)
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        seen = page.evaluate(
            "getComputedStyle(document.activeElement.matches('#files')"
            " ? document.activeElement.nextElementSibling : document.activeElement).outlineStyle"
        )
        assert seen != "none" or reached[-1] == "player", reached  # the browser's own controls
        if reached[-1] == files[0].name:
            break
    assert [name for name in reached if name in ("files", "microphone", "clear", "download")] == [
        "files",
        "microphone",
        "clear",
        "download",
    ]
    page.press("Enter", code=13, text="\r")  # on the name of the first file
    page.wait_for(f"{STATUS} === 'Showing {files[0].name}.'")
    assert page.evaluate("document.getElementById('source').textContent") == files[0].name
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "meter", "image", "region", "table", "link", "Audio", "status", "progressbar"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert [role for role, name in named if not name and role not in ("status", "table")] == []
    assert sum(role == "meter" for role, _ in named) == len(page.evaluate(VALUES))
    assert any(role == "status" for role, _ in named)


@pytest.mark.slow
def test_22_real_files_of_three_formats_with_resnet18(
    page: Page, server: Server, runtime_server: Server, main_job: Path, bursts: Path, tmp_path: Path
) -> None:
    """8 bits and float32, each against `rrtn score` with the same precision."""
    every = {suffix: sorted(bursts.rglob(f"*.{suffix}")) for suffix in ("wav", "ogg", "mp3")}
    chosen = [*every["wav"][::15][:10], *every["ogg"][::60][:9], *every["mp3"][:3]]
    assert len(chosen) == 22
    files = [Path(shutil.copy(file, tmp_path / f"{i}{file.suffix}")) for i, file in enumerate(chosen)]
    command = ("export", main_job / "runs/first", "--no-cpu-variant", "--no-waveform")
    ended = server.start(
        *command, "--out", tmp_path / "bundle", "--web", tmp_path / "page", cwd=tmp_path, before=REAL_ENCODERS
    ).wait()
    assert ended.code == 0, ended.err
    bundle = load_bundle(tmp_path / "bundle")
    samples = bundle.variant("samples")
    assert samples
    page_from_bundle(replace(bundle, variants=(samples,)), tmp_path / "page32")
    worst = {}
    with served(tmp_path) as url:
        for folder, model in (("page", "model.int8.onnx"), ("page32", "model.onnx")):
            rows = native_table(runtime_server, bundle.path / model, files, tmp_path / f"{folder}.csv")
            page.open(f"{url}/{folder}/")
            page.wait_for(READY)
            scored = table_of(page, files)
            # Chromium's Vorbis decoder leaves out the beginning of some files.
            assert np.allclose(
                [float(row["end"]) for row in scored], [float(row["end"]) for row in rows], atol=0.005
            )
            worst[folder] = worst_difference(
                [a | {"end": b["end"]} for a, b in zip(scored, rows, strict=True)], rows
            )
    print("worst differences:", worst)  # for docs/web.md
    assert worst["page32"] <= COMPRESSED_LIMIT
    assert worst["page"] <= INT8_LIMIT
