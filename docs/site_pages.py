"""What MkDocs does not do by itself: pages from outside of docs/, and a package for griffe to read."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
RESULTS = "benchmarks/results"
PACKAGE = ROOT / ".types/docs/rrtn"  # mkdocs.yml names its parent


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Links the documented part of the package.

    `.types/rrtn` will not do: it is the whole root, in which griffe would walk in circles.
    """
    PACKAGE.mkdir(parents=True, exist_ok=True)
    for name in ("__init__.py", "runtime"):
        if not (PACKAGE / name).is_symlink():
            (PACKAGE / name).symlink_to(f"../../../{name}")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the root's pages, and the results of benchmarks that pages link to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=site_links((ROOT / source).read_text())))
    for result in sorted((ROOT / RESULTS).rglob("*.json*")):
        files.append(
            File.generated(config, f"results/{result.relative_to(ROOT / RESULTS)}", abs_src_path=str(result))
        )
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links out of docs/ as the repository has them -> as the site has them."""
    for source, page in {f"{RESULTS}/": "results/", **PAGES}.items():
        markdown = markdown.replace(f"](../{source}", f"]({page}")
    return markdown


def site_links(markdown: str) -> str:
    """Links and pictures as the root's pages have them -> as docs/ has them."""
    return re.sub(r"(\]\(|src=\"|srcset=\")docs/", r"\1", markdown)
