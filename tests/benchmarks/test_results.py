"""Keeping and comparing benchmark results: pure Python, no benchmark runs."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MACHINE = {
    "cpu": "A CPU (R) 12-Core Processor",
    "cores": 2,
    "python": "3.11.7",
    "versions": {"numpy": "2.4.6"},
    "gpu": None,
}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/results.py, which is no package's."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("results")


@pytest.fixture
def moves(results: ModuleType) -> ModuleType:
    return importlib.import_module("result_moves")


@pytest.fixture
def pages(results: ModuleType) -> ModuleType:
    return importlib.import_module("result_pages")


@pytest.fixture
def files(results: ModuleType) -> ModuleType:
    return importlib.import_module("result_files")


def line(
    median: float, *, better: str = "higher", ms: float = 1.0, cores: int = 2, width: float = 0.1
) -> dict[str, Any]:
    ratio = {
        "median": median,
        "q25": median * (1 - width / 2),
        "q75": median * (1 + width / 2),
        "n": 100,
        "better": better,
    }
    machine = {**MACHINE, "cores": cores}
    return {
        "benchmark": "b",
        "machine": machine,
        "results": {"a": {"n": 100, "median_ms": ms}},
        "ratios": {"r": ratio},
    }


def write(folder: Path, name: str, document: object) -> None:
    (folder / name).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (line(2.0), line(1.4), "worse"),
        (line(2.0), line(2.8), "better"),
        (line(2.0), line(1.7), "same"),  # 15%, and the quartiles of both lie 10% apart
        (line(2.0), line(1.55), "worse"),
        (line(2.0, width=0.001), line(1.8, width=0.001), "worse"),
        (line(2.0, width=0.001), line(1.96, width=0.001), "same"),  # 2%
        (line(2.0, better="lower"), line(2.8, better="lower"), "worse"),
        (line(2.0, better="lower"), line(1.4, better="lower"), "better"),
        (line(2.0, ms=1.0), line(2.0, ms=50.0), "same"),  # another hour of the machine
    ],
)
def test_what_moved_by_more_than_its_spread(
    files: ModuleType,
    moves: ModuleType,
    tmp_path: Path,
    old: dict[str, Any],
    new: dict[str, Any],
    verdict: str,
) -> None:
    a, b = (
        files.Result(tmp_path / name, [content])
        for name, content in (("2026-01-01-a.json", old), ("2026-01-02-a.json", new))
    )

    assert [move.verdict for move in moves.moves(a, b)] == [verdict]
    assert moves.compare(a, b) == (verdict != "worse")


def test_only_the_same_kind_of_machine_is_compared_with(results: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, "2026-01-01-x.json", [line(1.0)])
    write(tmp_path, "2026-01-01-x-2.json", [line(2.0)])
    write(tmp_path, "2026-01-02-other.json", [line(3.0, cores=64)])
    write(tmp_path, "2026-01-03-x.json", [line(4.0)])

    found = results.all_results(tmp_path)

    assert results.before_of(found[-1], found).path.name == "2026-01-01-x-2.json"
    assert results.before_of(found[2], found) is None


@pytest.mark.parametrize(
    ("instructions", "extensions"),
    [
        ("avx avx2", "AVX2"),
        ("avx avx2 avx512f", "AVX-512"),
        ("avx avx2 avx_vnni", "AVX2, VNNI"),
        ("avx avx2 avx512f avx512_vnni avx512_bf16", "AVX-512, VNNI, bf16"),
        ("avx avx2 avx512f avx512_vnni avx512_bf16 amx_int8 amx_bf16", "AVX-512, VNNI, bf16, AMX"),
        ("asimddp i8mm bf16 sve", ""),
        (None, ""),
    ],
)
def test_one_name_can_stand_for_several_processors(
    files: ModuleType, pages: ModuleType, tmp_path: Path, instructions: str | None, extensions: str
) -> None:
    """Machines in the cloud say "AMD EPYC", with and without AVX-512."""
    other, same = line(2.0), line(2.0)
    if instructions is not None:
        other["machine"]["instructions"] = instructions
    before = files.Result(tmp_path / "2026-01-01-x.json", [other])
    after = files.Result(tmp_path / "2026-01-02-x.json", [same])

    assert (before.kind == after.kind) == (not extensions)
    said = f" ({extensions})" if extensions else ""
    assert pages.machine_of(before) == f"A CPU  12-Core{said}, 2 cores"
    same["machine"] |= {"instructions": instructions or "", "family": "26 2"}
    assert before.kind != after.kind
    said = f" (family 26 model 2, {extensions})" if extensions else " (family 26 model 2)"
    assert pages.machine_of(after) == f"A CPU  12-Core{said}, 2 cores"


def test_a_result_is_written_once_under_its_date_and_machine(results: ModuleType, tmp_path: Path) -> None:
    first, second = results.write_result([line(2.0)], tmp_path), results.write_result([line(2.5)], tmp_path)

    assert first.path.name == f"{first.date}-a-2-cores.json"
    assert second.path.name == f"{first.date}-a-2-cores-2.json"
    assert results.read_result(second.path).lines == [line(2.5)]
    assert "| r | 2.5 | 2.38 to 2.62 | 100 | higher |" in second.path.with_suffix(".md").read_text()
    first.path.unlink()  # its number is not given to a newer one
    assert results.write_result([line(2.5)], tmp_path).path.name == f"{first.date}-a-2-cores-3.json"


def test_the_table_lies_between_its_marks_and_has_the_newest_number(
    files: ModuleType, pages: ModuleType, tmp_path: Path
) -> None:
    benchmark, name, words = pages.RATIOS[0]
    for date, value in {"2026-01-01": 1.0, "2026-01-02": 0.875}.items():
        ratios = {name: line(value)["ratios"]["r"]}
        write(tmp_path, f"{date}-a.json", [{**line(value), "benchmark": benchmark, "ratios": ratios}])
    documents = with_marks(tmp_path, f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n")

    assert pages.refresh_tables(tmp_path, files.all_results(tmp_path))
    for document in documents:
        lines = document.read_text().splitlines()
        assert lines[:2] == ["before", pages.BEGIN] and lines[-2:] == [pages.END, "after"]
    readme, table = (document.read_text() for document in documents)
    assert table.splitlines()[4:-2] == [f"| {words} | **0.88** (n 100, 2026-01-02) |"]
    assert "**0.88 to 0.88 times** as fast as" in readme
    assert "2026-01-02 to 2026-01-02, n 100 to 100, of: A CPU 12-Core, 2 cores." in " ".join(readme.split())
    assert not pages.refresh_tables(tmp_path, files.all_results(tmp_path))


def with_marks(root: Path, text: str) -> list[Path]:
    """The documents that have a table, with this text."""
    (root / "docs").mkdir()
    documents = [root / "README.md", root / "docs/benchmarks.md"]
    for document in documents:
        document.write_text(text)
    return documents


def test_the_documents_have_the_newest_numbers(pages: ModuleType, files: ModuleType, tmp_path: Path) -> None:
    for copy in with_marks(tmp_path, ""):
        copy.write_text((ROOT / copy.relative_to(tmp_path)).read_text())

    assert not pages.refresh_tables(tmp_path, files.all_results(ROOT / "benchmarks/results")), (
        "run benchmarks/results.py table"
    )


def test_no_result_names_a_place_of_its_machine(files: ModuleType) -> None:
    results = files.all_results(ROOT / "benchmarks/results")
    given = [word for result in results for line in result.lines for word in line.get("arguments", [])]
    assert ".bundles" in given
    assert [word for word in given if word.startswith("/")] == []


def test_figures_of_readme_are_the_ends_of_a_row_of_the_table(pages: ModuleType) -> None:
    table, readme = (
        (ROOT / document).read_text().split(pages.BEGIN)[1].split(pages.END)[0]
        for document in ("docs/benchmarks.md", "README.md")
    )
    rows = [[float(one) for one in re.findall(r"\*\*([\d.]+)\*\*", row)] for row in table.splitlines()]
    ends = {(f"{min(row):.{digits}f}", f"{max(row):.{digits}f}") for row in rows if row for digits in (0, 2)}
    figures = re.findall(r"\*\*([\d.]+) to ([\d.]+) (?:times|ms)\*\*", readme)
    assert len(figures) == len(pages.FIGURES)
    assert set(figures) <= ends


def test_a_benchmark_that_breaks_is_named_and_the_others_are_kept(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "benchmarks"
    scripts.mkdir()
    (scripts / "good.py").write_text(f"print('said')\nprint({json.dumps(json.dumps(line(2.0)))})\n")
    (scripts / "broken.py").write_text("print('{}')\nraise SystemExit('no')\n")
    (scripts / "silent.py").write_text("")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "SUITE", {name: ([], []) for name in ("good.py", "broken.py", "silent.py")})

    lines, broken = results.run_suite(smoke=False, only=())

    assert lines == [{**line(2.0), "arguments": []}]
    assert broken == ["broken.py", "silent.py"]


@pytest.mark.slow
def test_every_benchmark_runs_at_its_small_size(results: Any) -> None:
    lines, broken = results.run_suite(smoke=True, only=())
    assert (len(lines), broken) == (len(results.SUITE), [])
    assert all(line["ratios"] or line["results"] for line in lines)
