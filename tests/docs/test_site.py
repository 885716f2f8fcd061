"""The site builds in strict mode, loads nothing from elsewhere, and its API page has the public names.

`make docs`, and so `make check`, runs this on the site that it has built (RRTN_SITE). `make test` does not:
the site takes longer to build than all else in this folder.
"""

import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import rrtn.runtime
from rrtn.runtime import errors

ROOT = Path(__file__).parents[2]
ASSETS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "srcset",
    "object": "data",
    "link": "href",
}
LINKS_TO_PAGES = ("canonical", "prev", "next", "alternate")


class AssetParser(HTMLParser):
    """Collects what a browser loads by itself: scripts, styles, fonts, pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.assets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ASSETS and values.get("rel") not in LINKS_TO_PAGES and (asset := values.get(ASSETS[tag])):
            self.assets.append(asset)


def assets_of_page(html: str) -> list[str]:
    parser = AssetParser()
    parser.feed(html)
    return [*parser.assets, *assets_of_style(html)]


def assets_of_style(css: str) -> list[str]:
    return re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s]+)", css)


def is_elsewhere(asset: str) -> bool:
    return re.match(r"([a-z]+:)?//", asset, flags=re.I) is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if built := os.environ.get("RRTN_SITE"):
        return Path(built)
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_assets_are_found_in_a_page() -> None:
    html = (
        '<link rel="next" href="https://a/"><link rel="preload" href="https://b/">'
        '<style>x{src:url("//c/d")}</style>'
    )
    assert [asset for asset in assets_of_page(html) if is_elsewhere(asset)] == ["https://b/", "//c/d"]


@pytest.mark.slow
def test_every_asset_is_in_the_site(site: Path) -> None:
    seen = 0
    for page in site.rglob("*.html"):
        for asset in assets_of_page(page.read_text()):
            assert not is_elsewhere(asset), f"{page.name} loads {asset}"
            if page.name != "404.html" and not asset.startswith(("data:", "#")):
                assert (page.parent / asset.partition("?")[0]).exists(), f"{page.name} has no {asset}"
                seen += 1
    assert seen > 20


@pytest.mark.slow
def test_styles_load_nothing_from_elsewhere(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        assert [asset for asset in assets_of_style(style.read_text()) if is_elsewhere(asset)] == []


@pytest.mark.slow
def test_the_api_page_has_every_public_name(site: Path) -> None:
    page = (site / "api.html").read_text()
    tree = [
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.RrtnError)
    ]
    assert len(tree) > 5
    for name in {*rrtn.runtime.__all__, *tree}:
        assert re.search(rf'id="rrtn\.runtime\.(errors\.)?{name}"', page), name
