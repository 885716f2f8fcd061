"""The report as a browser shows it, on a desktop and on a phone.

Needs Debian's `chromium`; under make soak.
"""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

RRTN = Path(sys.executable).with_name("rrtn")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = (400, 1400)
# Reports the width that the page in a frame needs, and pictures and sounds that did not load. It is
# ours, not the report's.
FRAME = """<!doctype html>
<iframe id=frame width={width} height=2000 src=report.html></iframe><pre id=found></pre><script>
frame.onload = () => {{
    const page = frame.contentDocument, images = [...page.images].filter(image => !image.naturalWidth);
    const svgs = page.querySelectorAll("svg").length;
    const scrolls = [...page.querySelectorAll(".wide")].map(table =>
        [table.scrollWidth > table.clientWidth, table.querySelector(".scrolls").offsetHeight > 0]);
    const needed = page.documentElement.scrollWidth;
    found.textContent = JSON.stringify([needed, images.length, svgs, scrolls]);
}}</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of two epochs with its export and its speeds, compared with another."""
    folder = tmp_path_factory.mktemp("work")
    for arguments in (
        "data synth corpus --clips 90 --speakers 9 --seed 5",
        "train --data corpus --epochs 2 --batch-size 16 --out runs/first",
        "export runs/first",
        "train --data corpus --epochs 2 --batch-size 16 --method vanilla --out runs/second",
        "report runs/first runs/second",
    ):
        subprocess.run([RRTN, *arguments.split()], cwd=folder, check=True, capture_output=True)
        if arguments.startswith("export"):
            measured = subprocess.run(
                [RRTN, "bench", "runs/first/export", "--seconds", "0.2", "--json"],
                cwd=folder,
                check=True,
                capture_output=True,
            )
            (folder / "runs/first/export/bench.json").write_bytes(measured.stdout)
    return folder / "runs/first/report.html"


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh one, without a screen, that writes what it says to the log and each request to net.json."""
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",  # a container's root
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # what it asks for by itself, too, stays here
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={folder / 'net.json'}",
        "--enable-logging=stderr",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_shows_all_pictures(page: Path, tmp_path: Path, width: int) -> None:
    shutil.copy(page, tmp_path / "report.html")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    shown = chromium(
        tmp_path, "--dump-dom", "--virtual-time-budget=10000", (tmp_path / "frame.html").as_uri()
    ).stdout
    needed, broken, drawings, scrolls = json.loads(shown.split('<pre id="found">')[1].split("</pre>")[0])
    assert needed <= width
    assert broken == 0
    assert drawings == page.read_text().count("<svg")
    # N22: a table that scrolls says so, and no other; on a phone some do
    assert [says for _, says in scrolls] == [does for does, _ in scrolls]
    assert any(does for does, _ in scrolls) == (width == min(WIDTHS))


def errors_and_requests(folder: Path, page: Path, width: int) -> tuple[list[str], set[str]]:
    """What the page logs, and what it asks the network for, while it is drawn at a width into
    folder/page.png.
    """
    done = chromium(
        folder, f"--screenshot={folder / 'page.png'}", f"--window-size={width},4000", page.as_uri()
    )
    logged = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    requests = [event.get("params", {}) for event in json.loads((folder / "net.json").read_text())["events"]]
    return logged, {
        of["url"]
        for of in requests
        if "url" in of and of.get("initiator", "not an origin") != "not an origin"
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_no_error_and_no_request(page: Path, tmp_path: Path, width: int) -> None:
    assert errors_and_requests(tmp_path, page, width) == ([], set())
    assert struct.unpack(">2I", (tmp_path / "page.png").read_bytes()[16:24]) == (width, 4000)


def test_an_error_and_a_request_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<img src='http://example.invalid/a.png'><script>console.error('so')</script>")
    (logged,), requests = errors_and_requests(tmp_path, page, 400)
    assert "so" in logged
    assert requests == {"http://example.invalid/a.png"}
