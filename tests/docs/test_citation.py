"""CITATION.cff is whole and says what README and the package say."""

import re
from pathlib import Path

import rrtn
import yaml

ROOT = Path(__file__).parents[2]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PAPER = CITATION["preferred-citation"]


def test_it_has_what_the_format_asks_for() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    for work in (CITATION, PAPER):
        assert work["title"] and work["authors"] and work["type"]
    assert CITATION["message"]


def test_it_is_of_this_version_and_licence() -> None:
    assert CITATION["version"] == rrtn.__version__
    assert (ROOT / "LICENSE").read_text().startswith(f"{CITATION['license']} License")


def test_readme_cites_the_same_paper() -> None:
    (bibtex,) = re.findall(r"```bibtex\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    fields = dict(re.findall(r"(\w+)\s+= \{(.*)\}", bibtex))
    authors = [f"{author['family-names']}, {author['given-names']}" for author in PAPER["authors"]]
    assert fields["title"] == PAPER["title"]
    assert fields["author"].replace(r"{\"o}", "ö") == " and ".join(authors)
    assert (fields["booktitle"], int(fields["year"])) == (PAPER["collection-title"], PAPER["year"])
