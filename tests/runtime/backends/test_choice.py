"""The choice of a backend: what is tried for which machine, and the reasons for what is not."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime import FrontendSpec
from rrtn.runtime.backends import choice
from rrtn.runtime.backends.choice import (
    candidates_of_bundle,
    candidates_of_variants,
    choose_backend,
    variants_for_backend,
)
from rrtn.runtime.backends.cuda import CUDA
from rrtn.runtime.backends.engine_stamp import Machine
from rrtn.runtime.bundle import Bundle, Variant, load_bundle
from rrtn.runtime.errors import ConfigError, ModelError, UnavailableError

PASSED = {"max_abs": 3e-5, "limit": 1e-4}
STAMP = {"flavour": "tensorrt", "version": "10.13.0.35", "targets": [90], "driver": "580.65.06"}
GPU = Machine(versions={"tensorrt": "10.13.0.35"}, capability=90, driver="580.65.06")
CPU = Machine(versions={"tensorrt_rtx": "1.7.1.116"}, capability=None, driver=None)
NO_DRIVER = "no NVIDIA driver"
ONNX = ("fp32", "waveform", "fp16", "waveform-fp16", "int8")
ENGINES = ("trt", "trt-fp16", "trt-int8")


@pytest.fixture
def bundle(tmp_path: Path, tiny_model: Path) -> Bundle:
    """Every variant by name.

    The log-Mel ones are the tiny model; of engines there is but a file with the right hash.
    """
    content = {"onnx": tiny_model.read_bytes(), "engine": b"no engine"}

    def variant(name: str, kind: str) -> Variant:
        (tmp_path / name).write_bytes(content[kind])
        return Variant(
            name=name,
            file=name,
            kind=kind,  # type: ignore[arg-type]
            input="waveform" if kind == "engine" else "logmel",
            precision=name[-4:] if name.endswith(("fp16", "int8")) else "fp32",
            sha256=hashlib.sha256(content[kind]).hexdigest(),
            size=len(content[kind]),
            stamp=STAMP if kind == "engine" else None,
            parity=PASSED if kind == "engine" else None,
        )

    variants = (*(variant(name, "onnx") for name in ONNX), *(variant(name, "engine") for name in ENGINES))
    return Bundle(
        path=tmp_path, labels=("Awe", "Fear", "Joy"), spec=FrontendSpec(), variants=variants, provenance={}
    )


def only(bundle: Bundle, *names: str) -> Bundle:
    return replace(bundle, variants=tuple(variant for variant in bundle.variants if variant.name in names))


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has everything, unless a test pretends another one."""
    pretend(monkeypatch, GPU)


def pretend(monkeypatch: pytest.MonkeyPatch, machine: Machine, cuda: str = "") -> None:
    monkeypatch.setattr("rrtn.runtime.backends.engine_stamp.this_machine", lambda: machine)
    monkeypatch.setattr("rrtn.runtime.backends.cuda_libraries.cuda_missing", lambda: cuda)


def tried(
    bundle: Bundle, name: str = "auto", *, variant: str | None = None, single: bool = False
) -> list[tuple[str, str]]:
    found, _ = candidates_of_bundle(bundle, name, variant=variant, single=single)
    return [(candidate.device, candidate.variant.name) for candidate in found]


def test_auto_takes_the_fastest_first_and_float32_but_for_engines(bundle: Bundle) -> None:
    engines, cuda, cpu = (
        [("trt", "trt-fp16"), ("trt", "trt")],
        [("cuda", "waveform"), ("cuda", "fp32")],
        [("cpu", "fp32")],
    )
    assert tried(bundle) == [*engines, *cuda, *cpu, ("cpu", "waveform")]
    assert tried(bundle, "trt") == engines
    assert tried(bundle, "cuda") == cuda
    assert tried(only(bundle, "fp32", "trt", "trt-int8")) == [
        ("trt", "trt"),
        ("cuda", "fp32"),
        ("cpu", "fp32"),
    ]


UNPROVEN = (
    "not compared with PyTorch: run rrtn tune, or export its run here with --trt; "
    "--backend trt takes it as it is"
)


def uncompared(bundle: Bundle, *names: str) -> Bundle:
    variants = [replace(one, parity=None) if one.name in names else one for one in bundle.variants]
    return replace(bundle, variants=tuple(variants))


def test_auto_takes_no_engine_that_nothing_has_compared_with_pytorch(bundle: Bundle) -> None:
    """Such as one that TensorRT-RTX has built on a machine without a GPU."""
    engines = [("trt", "trt-fp16"), ("trt", "trt")]
    some = uncompared(bundle, "trt-fp16")
    assert tried(some)[:2] == [("trt", "trt"), ("cuda", "waveform")]
    assert candidates_of_bundle(some)[1] == {"the variant trt-fp16": UNPROVEN}
    none = uncompared(bundle, *ENGINES)
    assert tried(none)[0] == ("cuda", "waveform")
    assert candidates_of_bundle(none)[1] == {"trt": UNPROVEN}
    assert tried(none, "trt") == engines
    assert tried(none, variant="trt-fp16") == engines[:1]
    assert tried(only(none, "trt")) == engines[1:]  # a folder with this file alone
    differs = [replace(one, parity={"max_abs": 1e-3, "limit": 1e-4}) for one in only(bundle, "trt").variants]
    assert tried(replace(bundle, variants=(*differs, bundle.variants[0])))[0] == ("cuda", "fp32")


def test_who_names_the_backend_is_told_that_its_engine_was_not_compared(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrtn.runtime.backends.trt_backend.trt_backend_from_bundle", lambda _, engine: engine)
    none = uncompared(bundle, *ENGINES)
    assert choose_backend(none, "trt").remark == "not compared with PyTorch: rrtn parity does it"
    assert choose_backend(none, variant="trt").remark == ""
    assert choose_backend(bundle).remark == ""


def test_cuda_takes_float16_that_has_passed_its_gate(bundle: Bundle) -> None:
    """A variant that nobody has compared, or that differs too much, must be named."""

    def with_parity(**parity: object) -> list[tuple[str, str]]:
        variants = [replace(one, parity=parity if "16" in one.name else None) for one in bundle.variants]
        return tried(replace(bundle, variants=tuple(variants)), "cuda")

    float32 = [("cuda", "waveform"), ("cuda", "fp32")]
    passed = [("cuda", "waveform-fp16"), ("cuda", "waveform"), ("cuda", "fp16"), ("cuda", "fp32")]
    assert with_parity(max_abs=3e-5, limit=2e-3) == passed
    assert with_parity(max_abs=3e-3, limit=2e-3) == float32
    assert with_parity(max_abs=3e-5, limit=None) == with_parity(max_abs=3e-5) == with_parity() == float32
    assert tried(bundle, "cuda", variant="fp16") == [("cuda", "fp16")]


@pytest.mark.parametrize(
    ("variant", "remark"),
    [
        ("waveform-fp16", "fp16, which passed its gate; --variant fp32 gives float32"),
        ("waveform", "float32 without TF32 uses no tensor cores; what rrtn export --fp16 makes does"),
    ],
)
def test_what_cuda_chooses_by_itself_is_said(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, variant: str, remark: str
) -> None:
    parity = {"max_abs": 3e-5, "limit": 2e-3}
    variants = [replace(one, parity=parity) for one in bundle.variants if one.name in (variant, "int8")]
    some = replace(bundle, variants=tuple(variants))
    record = replace(CUDA, load=lambda bundle, variant, threads: variant)  # type: ignore[arg-type,return-value]
    monkeypatch.setattr(choice, "BACKENDS", [record])
    monkeypatch.setattr(choice, "backend_kinds", lambda name: [record])
    assert choose_backend(some, "cuda").remark == remark
    assert choose_backend(some, "cuda", variant=variant).remark == ""


def test_the_cpu_variant_comes_first_on_the_kind_of_processor_that_it_was_measured_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fp32 = bundle.variant("fp32")
    assert fp32 is not None
    fast = replace(fp32, name="cpu", plan={"vector_extension": "avx512f", "batch": 16})
    both = replace(bundle, variants=(fp32, fast))
    monkeypatch.setattr("rrtn.runtime.system.cpus.vector_extension", lambda: "avx512f")
    assert tried(both) == [("cuda", "fp32"), ("cpu", "cpu"), ("cpu", "fp32")]
    assert tried(both, "cuda", variant="cpu") == []
    pretend(monkeypatch, CPU, NO_DRIVER)
    assert tried(both) == [("cpu", "cpu"), ("cpu", "fp32")]
    assert tried(both, single=True) == [("cpu", "fp32")]
    assert tried(both, variant="cpu", single=True) == [("cpu", "cpu")]
    passed_over = choose_backend(both, "cpu", single=True).passed_over
    assert passed_over == {"the variant cpu": "made for batches, and slower for single clips"}

    monkeypatch.setattr("rrtn.runtime.system.cpus.vector_extension", lambda: "avx2")
    assert tried(both) == [("cpu", "fp32")]
    assert tried(both, "cpu", variant="cpu") == [("cpu", "cpu")]  # who names it gets it
    assert tried(replace(bundle, variants=(fast,))) == [("cpu", "cpu")]  # so does who gives this file alone
    passed_over = choose_backend(both, "cpu").passed_over
    assert passed_over == {"the variant cpu": "made for a processor with avx512f, this one has avx2"}


def test_a_variant_may_be_named(bundle: Bundle) -> None:
    assert tried(bundle, variant="fp16") == [("cuda", "fp16"), ("cpu", "fp16")]
    assert tried(bundle, "cpu", variant="int8") == [("cpu", "int8")]
    assert tried(bundle, variant="trt-int8") == [("trt", "trt-int8")]
    with pytest.raises(
        ConfigError, match=r"--variant \| 'fp8' is not in .* \| expected one of fp32, waveform, fp16"
    ):
        tried(bundle, variant="fp8")


def test_a_variant_that_takes_whole_recordings_is_refused_in_one_line(bundle: Bundle) -> None:
    """Neither by name, nor as a file of its own, nor by itself; `bench` and `parity` run it on the CPU."""
    fp32 = bundle.variants[0]
    samples = replace(fp32, name="samples", file="model.samples.onnx", input="samples")
    both, alone = replace(bundle, variants=(fp32, samples)), replace(bundle, variants=(samples,))
    assert tried(both) == [("cuda", "fp32"), ("cpu", "fp32")]
    assert candidates_of_bundle(alone)[0] == []  # what `inspect` asks
    for asked, variant, words in (
        (both, "samples", r"--variant samples \| takes one whole recording.* \| expected one of fp32 \| "),
        (alone, None, r"takes one whole recording at a time.* \| expected a variant that takes clips \| "),
    ):
        with pytest.raises(ConfigError, match=words):
            choose_backend(asked, variant=variant)
    ways, _ = candidates_of_variants(both)
    assert [way.device for way in ways if way.variant is samples] == ["cpu"]


def test_a_single_file_of_ours_is_taken_whatever_its_precision(bundle: Bundle) -> None:
    assert tried(only(bundle, "fp16")) == [("cuda", "fp16"), ("cpu", "fp16")]
    assert tried(only(bundle, "trt-int8")) == [("trt", "trt-int8")]


@pytest.mark.parametrize(
    ("machine", "cuda", "reasons"),
    [
        (
            CPU,
            NO_DRIVER,
            {"trt": "built by tensorrt 10.13.0.35, which is not installed here", "cuda": NO_DRIVER},
        ),
        (
            replace(GPU, capability=None),
            NO_DRIVER,
            {"trt": "built for SM90, here is no GPU", "cuda": NO_DRIVER},
        ),
        (
            replace(GPU, versions={"tensorrt": "11.4"}),
            "",
            {"trt": "built by tensorrt 10.13.0.35, here is 11.4"},
        ),
        (GPU, NO_DRIVER, {"trt": NO_DRIVER, "cuda": NO_DRIVER}),  # engines use its memory
        (GPU, "", {}),
    ],
)
def test_what_is_not_tried_has_a_reason(
    machine: Machine,
    cuda: str,
    reasons: dict[str, str],
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, machine, cuda)
    found, passed_over = candidates_of_bundle(bundle)
    assert passed_over == reasons
    assert {candidate.device for candidate in found} == {"trt", "cuda", "cpu"} - set(reasons)


def test_what_the_bundle_does_not_have_is_a_reason(bundle: Bundle) -> None:
    _, passed_over = candidates_of_bundle(only(bundle, "fp32", "fp16"))
    assert passed_over == {"trt": "no variant trt-fp16 or trt in the bundle"}
    _, passed_over = candidates_of_bundle(only(bundle, "trt", "trt-fp16"))
    assert list(passed_over) == ["cuda", "cpu"]


def test_the_choice_is_silent_about_backends_that_the_bundle_has_no_file_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, CPU, NO_DRIVER)
    onnx = only(bundle, "fp32", "fp16")
    assert choose_backend(onnx).passed_over == {"cuda": NO_DRIVER}
    nothing_preferred = only(bundle, "fp16", "int8")
    assert choose_backend(nothing_preferred, variant="fp16").passed_over == {"cuda": NO_DRIVER}
    with pytest.raises(UnavailableError, match=r"--backend trt \| no variant trt-fp16 or trt in the bundle"):
        choose_backend(onnx, "trt")


def test_what_travels_is_all_that_some_machine_may_load(bundle: Bundle) -> None:
    def names(*arguments: str, **options: str) -> list[str]:
        return [variant.name for variant in variants_for_backend(bundle, *arguments, **options)]

    assert names("auto") == ["trt-fp16", "trt", "waveform", "fp32"]
    assert names("cpu") == ["fp32", "waveform"]
    assert names("auto", variant="int8") == ["int8"]


def test_auto_loads_the_cpu_where_nothing_else_is_and_says_why(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, CPU, NO_DRIVER)
    chosen = choose_backend(bundle)
    assert (chosen.backend.device, chosen.backend.variant.name) == ("cpu", "fp32")
    assert chosen.passed_over == {
        "trt": "built by tensorrt 10.13.0.35, which is not installed here",
        "cuda": NO_DRIVER,
    }
    spec = bundle.spec
    assert chosen.backend.scores(np.zeros((2, 1, spec.frames, spec.n_mels), np.float32)).shape == (2, 3)


def test_auto_goes_on_where_the_fastest_cannot_be_loaded_and_says_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its facts the machine has all; TensorRT and CUDA fail when they are loaded."""

    def refuse(*arguments: object, **options: object) -> None:
        raise UnavailableError("model.engine", "cannot be loaded", fix="run: rrtn doctor")

    monkeypatch.setattr("rrtn.runtime.backends.trt_backend.trt_backend_from_bundle", refuse)
    monkeypatch.setattr(
        "rrtn.runtime.backends.cuda_libraries.missing_library", lambda: "libcublas.so.13 cannot be loaded"
    )
    chosen = choose_backend(bundle)
    assert chosen.backend.device == "cpu"
    engine = "cannot be loaded (run: rrtn doctor)"
    library = 'libcublas.so.13 cannot be loaded (pip install "onnxruntime-gpu[cuda,cudnn]")'
    assert chosen.passed_over == {
        "trt-fp16 on trt": engine,
        "trt on trt": engine,
        "waveform on cuda": library,
        "fp32 on cuda": library,
    }
    with pytest.raises(UnavailableError) as caught:
        choose_backend(bundle, "trt")
    error = caught.value
    assert (error.subject, error.came) == ("--backend trt", "cannot be loaded")
    assert error.fix == "export its run again with --trt, or see: rrtn doctor"


@pytest.mark.parametrize(("name", "flags"), [("trt", " --trt"), ("cpu", ""), ("mnn", " --mnn")])
def test_what_a_backend_lacks_is_exported_from_the_bundles_run(
    name: str, flags: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.path)
    Path("runs/a").mkdir(parents=True)
    with pytest.raises(UnavailableError) as caught:
        choose_backend(replace(only(bundle, "none"), provenance={"run": "runs/a"}), name)
    assert caught.value.fix.endswith(f"rrtn export runs/a{flags} --out {bundle.path}, or see: rrtn doctor")


def test_what_is_slower_than_the_chosen_needs_no_reason(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two engines cannot be loaded; there is no ONNX at all."""

    def load(bundle: Bundle, variant: Variant) -> Variant:
        if variant.name == "trt-fp16":
            raise UnavailableError("model.fp16.engine", "no memory")
        return variant

    monkeypatch.setattr("rrtn.runtime.backends.trt_backend.trt_backend_from_bundle", load)
    chosen = choose_backend(only(bundle, "trt", "trt-fp16"))
    assert chosen.backend == bundle.variant("trt")
    assert chosen.passed_over == {"trt-fp16 on trt": "no memory"}


def test_a_file_that_is_not_the_bundles_stops_auto(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another variant would do, but somebody has changed this one."""
    pretend(monkeypatch, CPU, NO_DRIVER)
    (bundle.path / "fp32").write_bytes(b"changed")
    with pytest.raises(ModelError, match="sha256") as caught:
        choose_backend(bundle)
    assert not isinstance(caught.value, UnavailableError)
    assert choose_backend(bundle, variant="fp16").backend.variant.name == "fp16"


@pytest.mark.parametrize(
    ("name", "variant", "message"),
    [
        (
            "trt",
            None,
            r"--backend trt \| built by tensorrt .* not installed here \| "
            r"expected an engine for this machine \| export its run again with --trt, or see: rrtn doctor",
        ),
        (
            "cuda",
            None,
            r"--backend cuda \| no NVIDIA driver \| expected a CUDA GPU \| use --backend cpu, or see: .*",
        ),
        ("cpu", "trt", r"--backend cpu --variant trt \| trt is an engine, not an ONNX file \| "),
        ("trt", "fp32", r"--backend trt --variant fp32 \| fp32 is an ONNX file, not an engine \| "),
        ("auto", "trt", r"--backend auto --variant trt \| trt: built by [^;]* \| "),
    ],
)
def test_what_is_asked_for_and_impossible_is_refused(
    name: str, variant: str | None, message: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, CPU, NO_DRIVER)
    with pytest.raises(ModelError, match=message) as caught:
        choose_backend(bundle, name, variant=variant)
    assert "\n" not in str(caught.value)


def test_an_engine_of_elsewhere_is_refused_before_its_file_is_read(
    bundle: Bundle,
) -> None:
    """E9, S24."""
    (bundle.path / "bundle.json").write_text(json.dumps(bundle.manifest()))
    (bundle.path / "trt").unlink()
    for changes, reason in (
        ({"targets": [80]}, "built for SM80"),
        ({"version": "11.0"}, "built by tensorrt 11.0"),
    ):
        engine = next(variant for variant in bundle.variants if variant.name == "trt")
        moved = replace(bundle, variants=(Variant(**{**asdict(engine), "stamp": STAMP | changes}),))
        with pytest.raises(UnavailableError, match=reason):
            choose_backend(moved, "trt")
    assert load_bundle(bundle.path) == bundle
