"""What `rrtn export --web` writes, and what it leaves alone."""

import functools
import gzip
import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import rrtn
from abandoned import abandon
from rrtn.export.triton import triton_repository_from_bundle
from rrtn.export.web import one_file
from rrtn.export.web import page as web_page
from rrtn.export.web.page import check_page_place, page_from_bundle
from rrtn.export.written_folder import check_rewritable
from rrtn.runtime import load_bundle
from rrtn.runtime.bundle import Bundle
from rrtn.runtime.errors import ConfigError, ModelError
from rrtn.runtime.system import failpoints

WEB = Path(rrtn.__file__).parent / "export/web"
# Of onnxruntime-web 1.22.0 as npm has it, and of the licence and notices in onnxruntime 1.22.0 on PyPI.
PINNED = {
    "ort.wasm.min.mjs": "6ef726f355b791129f7ddf3f62e7877a16b9b777abe87004b8ab306e6b9cf265",
    "ort-wasm-simd-threaded.mjs": "30dd851d9c00622940500f71ddd2ff8820c5cb65270816080175b958705385a8",
    "ort-wasm-simd-threaded.wasm": "71aef04959c5c1b6de461b6538e2058e306610034a85aad2742d0c7fd4533fe4",
    "LICENSE": "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
    "ThirdPartyNotices.txt": "e9e90971a8e75a9a8ac0c6412e29c1202d079998389915aa485f46c816c3b4cc",
}
MOST_IN_WHEEL = 8_000_000  # bytes, compressed
zipped_once = functools.cache(web_page._zipped)  # ONNX Runtime takes a second each time


@pytest.fixture
def bundle(zipped_anew: Bundle, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The same, for tests to which it is all one when its files were zipped."""
    monkeypatch.setattr(web_page, "_zipped", zipped_once)
    return zipped_anew


@pytest.fixture
def zipped_anew(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle of one variant, which the page is made to take: it is only copied here."""
    monkeypatch.setattr("rrtn.export.web.page.VARIANTS", (load_bundle(tiny_model).variants[0].name,))
    return load_bundle(tiny_model)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_onnxruntime_web_is_what_npm_has() -> None:
    assert {
        name: hashlib.sha256(content).hexdigest() for name, content in contents(WEB / "onnxruntime").items()
    } == PINNED


def test_the_wheel_grows_by_little(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in [*(WEB / "onnxruntime").iterdir(), *(WEB / "page").iterdir()]:
            wheel.write(path, path.name)
    assert (tmp_path / "wheel.zip").stat().st_size < MOST_IN_WHEEL


def test_a_folder_holds_the_model_and_all_that_the_page_loads(bundle: Bundle, tmp_path: Path) -> None:
    page = page_from_bundle(bundle, tmp_path / "deep/page")
    files = contents(tmp_path / "deep/page")
    assert gzip.decompress(files["model.onnx.gz"]) == bundle.read(bundle.variants[0])
    wasm = gzip.decompress(files["ort-wasm-simd-threaded.wasm.gz"])
    assert hashlib.sha256(wasm).hexdigest() == PINNED["ort-wasm-simd-threaded.wasm"]
    description = json.loads(files["model.json"])
    assert description["labels"] == list(bundle.labels)
    assert description["frontend"] == bundle.spec.to_dict()
    assert description["sha256"] == bundle.variants[0].sha256
    assert page.size == sum(len(content) for name, content in files.items() if name != "rrtn.json")


def test_a_page_takes_the_place_of_a_page_with_the_same_bytes(zipped_anew: Bundle, tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        page_from_bundle(zipped_anew, tmp_path / "page")
        page_from_bundle(zipped_anew, tmp_path / "page.html")
        written.append((contents(tmp_path / "page"), (tmp_path / "page.html").read_bytes()))
    assert written[0] == written[1]


def test_what_killed_exports_left_beside_a_page_goes(bundle: Bundle, tmp_path: Path) -> None:
    abandon(tmp_path / "page", "worker.js")
    abandon(tmp_path / "page.html")
    page_from_bundle(bundle, tmp_path / "page")
    page_from_bundle(bundle, tmp_path / "page.html")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".page")]


def test_the_working_directory_is_not_replaced(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    for place in (".", "..", "../../a"):
        with pytest.raises(ModelError, match=r"the working directory, or a folder above it .*--web"):
            page_from_bundle(bundle, Path(place))
    assert [*(tmp_path / "a").rglob("*")] == [tmp_path / "a/b"]


def test_a_folder_whose_replacement_was_killed_comes_back(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two renames nothing stands at its place."""
    page_from_bundle(bundle, tmp_path / "page[1]")
    written = contents(tmp_path / "page[1]")
    for place, is_there in (("folder.replace", False), ("write.begin", True)):
        with monkeypatch.context() as patch:
            patch.setenv("RRTN_FAILPOINT", f"{place}:eio")
            patch.setattr(failpoints, "_passed", 0)
            with pytest.raises(OSError, match="Input/output"):
                page_from_bundle(bundle, tmp_path / "page[1]")
        assert (tmp_path / "page[1]").exists() == is_there  # the call that fails next has given it back
    assert contents(tmp_path / "page[1]") == written
    page_from_bundle(bundle, tmp_path / "page[1]")
    assert contents(tmp_path / "page[1]") == written
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".page")) == []


def test_a_folder_with_somebodys_file_stays(bundle: Bundle, tmp_path: Path) -> None:
    page_from_bundle(bundle, tmp_path / "page")
    written = (tmp_path / "page/page.js").read_text()
    for name, mine in (("own.txt", "mine"), ("page.js", f"{written}// mine")):
        (tmp_path / "page/page.js").write_text(written)
        (tmp_path / "page" / name).write_text(mine)
        before = contents(tmp_path / "page")
        with pytest.raises(ModelError, match=r"not as rrtn wrote it.*--web"):
            page_from_bundle(bundle, tmp_path / "page")
        assert contents(tmp_path / "page") == before
        (tmp_path / "page" / name).unlink()


def test_a_page_and_a_repository_do_not_replace_one_another(bundle: Bundle, tmp_path: Path) -> None:
    """Each has a record of its files, as rrtn wrote them."""
    page_from_bundle(bundle, tmp_path / "page")
    triton_repository_from_bundle(bundle, tmp_path / "models")
    before = [sorted(tmp_path.rglob("*"))]
    with pytest.raises(ModelError, match=r"page \| written for --web \| .*repository.*another --triton"):
        triton_repository_from_bundle(bundle, tmp_path / "page")
    for call in (check_page_place, lambda target: page_from_bundle(bundle, target)):
        with pytest.raises(ModelError, match=r"models \| written for --triton \| .*page.*another --web"):
            call(tmp_path / "models")
    assert [sorted(tmp_path.rglob("*"))] == before


def test_a_folder_whose_record_does_not_say_what_it_holds_is_told_by_its_files(
    bundle: Bundle, tmp_path: Path
) -> None:
    page_from_bundle(bundle, tmp_path / "page")
    record = tmp_path / "page/rrtn.json"
    kept = {name: value for name, value in json.loads(record.read_text()).items() if name != "option"}
    record.write_text(json.dumps(kept))
    with pytest.raises(ModelError, match=r"page \| written for --web \| .* or remove it"):
        check_rewritable(tmp_path / "page", "--triton", "a repository")
    page_from_bundle(bundle, tmp_path / "page")
    assert json.loads(record.read_text())["option"] == "--web"


def test_a_file_that_is_no_page_of_ours_stays(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis.html").write_text("<p>mine")
    for call in (check_page_place, lambda target: page_from_bundle(bundle, target)):
        with pytest.raises(ConfigError, match=r"thesis.html.*is there already"):
            call(tmp_path / "thesis.html")
    assert (tmp_path / "thesis.html").read_text() == "<p>mine"


def test_a_bundle_without_a_variant_for_it_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    bundle = load_bundle(tiny_model)
    with pytest.raises(ModelError, match=r"has no variant that takes samples.*samples-int8"):
        page_from_bundle(bundle, tmp_path / "page")
    with pytest.raises(ModelError, match=r"--web.*samples: its graph cannot"):
        page_from_bundle(bundle, tmp_path / "page", {"samples": "its graph cannot", "cpu": "slow"})
    assert not (tmp_path / "page").exists()


def test_one_file_asks_for_no_other(bundle: Bundle, tmp_path: Path) -> None:
    page_from_bundle(bundle, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "\nimport " not in page
    assert "'self'" not in page.partition("</head>")[0]
    assert 'src="' not in page
    assert page.count("<script") == page.count("</script>")


NAMES = {
    "a.js": 'import { twice } from "./b.js";\nimport * as all from "./min.mjs";\nsay(twice(all.one));',
    "b.js": 'import { two } from "./c.js";\nconst factor = two;\nexport const twice = x => factor * x;',
    "c.js": "const factor = 1;\nexport const two = 2 * factor;",
    "min.mjs": "var q=3,factor=9;export{q as one,factor as default};\n//# sourceMappingURL=min.mjs.map\n",
}


def test_modules_are_joined_into_one_and_keep_their_own_names(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: apt-get install nodejs")
    joined = one_file.joined_modules({name: text.encode() for name, text in NAMES.items()}, "a.js")
    (tmp_path / "joined.mjs").write_text(f"const say = x => process.stdout.write(String(x));\n{joined}")

    done = subprocess.run([node, tmp_path / "joined.mjs"], capture_output=True, text=True, check=True)
    assert done.stdout == "6"
