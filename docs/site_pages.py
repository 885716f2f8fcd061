"""What MkDocs does not do by itself: pages from outside of docs/, and a package for griffe to read."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {  # of the root -> of the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CITATION.cff": "CITATION.cff",
}
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
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for result in sorted((ROOT / RESULTS).rglob("*.json*")):
        page = f"results/{result.relative_to(ROOT / RESULTS)}"
        files.append(File.generated(config, page, abs_src_path=str(result)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links and pictures as the repository has them, from its root or from docs/ -> as the site has them."""
    markdown = re.sub(r'(\]\(|src=")docs/', r"\1", markdown)
    for source, page in {f"{RESULTS}/": "results/", **PAGES}.items():
        markdown = re.sub(rf"\]\((\.\./)?{re.escape(source)}", f"]({page}", markdown)
    return markdown
