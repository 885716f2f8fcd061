"""A frontend checks itself wherever it comes from, and files from before a field was added still load."""

import dataclasses
import json
import math
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rrtn.runtime import FrontendSpec, log_mel
from rrtn.runtime.audio.reader import audio_from_array
from rrtn.runtime.bundle import load_bundle
from rrtn.runtime.errors import ConfigError, ModelError

FIXTURES = Path(__file__).parents[1] / "fixtures"


@dataclass(frozen=True, kw_only=True)
class LaterSpec(FrontendSpec):
    """A FrontendSpec of a later rrtn: with one more field, whose default changes the samples."""

    absent_means: ClassVar[Mapping[str, Any]] = {**FrontendSpec.absent_means, "emphasis": "none"}

    emphasis: str = "high"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("sampling_rate", 3_999, "4000 to 384000 Hz"),
        ("sampling_rate", 16_000.0, "a whole number"),
        ("n_fft", 14, "16 to 65536 samples"),
        ("n_fft", 511, "an even number of samples"),
        ("n_fft", "512", "a whole number"),
        ("hop", 0, "1 to 512 samples (frontend.n_fft)"),
        ("hop", -160, "1 to 512 samples (frontend.n_fft)"),
        ("hop", 513, "1 to 512 samples (frontend.n_fft)"),
        ("hop", True, "a whole number"),
        ("n_mels", 0, "1 to 257 bands (the bins of the spectrum)"),
        ("n_mels", 258, "1 to 257 bands (the bins of the spectrum)"),
        ("f_min", -1.0, "0 to 8000 Hz (half of frontend.sampling_rate)"),
        ("f_min", 9_000.0, "0 to 8000 Hz (half of frontend.sampling_rate)"),
        ("f_min", None, "a number"),
        ("f_max", 50.0, "more than frontend.f_min, 50 Hz"),
        ("f_max", 49.0, "more than frontend.f_min, 50 Hz"),
        ("f_max", 8_000.5, "0 to 8000 Hz (half of frontend.sampling_rate)"),
        ("f_max", math.nan, "0 to 8000 Hz (half of frontend.sampling_rate)"),
        ("f_max", 10**400, "a number"),
        ("power_floor", 0.0, "1e-30 to 1"),
        ("power_floor", 1e-50, "1e-30 to 1"),
        ("power_floor", math.inf, "1e-30 to 1"),
        ("trim", 1, "true or false"),
        ("trim", "yes", "true or false"),
        ("frames", 2, "3 to 100000 frames (a clip is longer than half a window)"),
        ("frames", 10**9, "3 to 100000 frames (a clip is longer than half a window)"),
        ("pad", "loud", "one of silence, zero_db"),
        ("pad", ["silence"], "one of silence, zero_db"),
        ("peak_dbfs", 0.0, "-60 to -0.001 dBFS"),
        ("peak_dbfs", -math.inf, "-60 to -0.001 dBFS"),
    ],
)
def test_a_wrong_field_is_named_by_every_reader(name: str, value: object, wanted: str) -> None:
    with pytest.raises(ConfigError) as made:
        FrontendSpec(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as asked_for:
        FrontendSpec.from_settings({name: value}, source="my.toml")
    with pytest.raises(ModelError) as carried:
        FrontendSpec.from_dict(FrontendSpec().to_dict() | {name: value}, source="bundle.json")
    assert isinstance(made.value, ValueError)
    assert (made.value.subject, made.value.came) == (f"frontend.{name}", repr(value))
    assert (asked_for.value.subject, carried.value.subject) == ("my.toml", "bundle.json")
    assert asked_for.value.came == carried.value.came == f"frontend.{name}: {value!r}"
    assert made.value.wanted == asked_for.value.wanted == carried.value.wanted == wanted
    assert "\n" not in str(carried.value)


@pytest.mark.parametrize(
    "extreme",
    [
        {"sampling_rate": 4_000, "f_max": 2_000},
        {"n_fft": 16, "n_mels": 9, "hop": 16, "frames": 2},
        {"hop": 512, "frames": 2},
        {"hop": 1, "frames": 258},
        {"n_mels": 257},
        {"f_min": 0, "f_max": 8_000},
        {"power_floor": 1e-30},
        {"peak_dbfs": -0.001},
        {"peak_dbfs": -60},
    ],
    ids=str,
)
def test_what_is_allowed_gives_finite_features_and_the_peak_asked_for(extreme: dict[str, Any]) -> None:
    spec = FrontendSpec(**extreme)
    samples = [0.0] * 100 + [0.25, -0.5, 0.5] + [0.0] * spec.clip_samples
    audio = audio_from_array(samples, spec.sampling_rate, spec)
    assert audio.samples.min() == -audio.samples.max() == -round(32_768 * spec.peak)
    features = log_mel(audio.waveform, spec)
    assert features.shape == (spec.frames_of(len(samples)), spec.n_mels)
    assert all(map(math.isfinite, features.ravel()))


def test_a_whole_number_is_a_float_where_one_is_wanted() -> None:
    spec = FrontendSpec(peak_dbfs=-6)
    assert (spec.peak_dbfs, type(spec.peak_dbfs)) == (-6.0, float)


def test_a_spec_survives_json(spec: FrontendSpec) -> None:
    other = FrontendSpec(hop=320, pad="zero_db", peak_dbfs=-6.0)
    for written in (spec, other):
        assert FrontendSpec.from_dict(json.loads(json.dumps(written.to_dict()))) == written


@pytest.mark.parametrize("fields", [None, [], "logmel", 5])
def test_what_is_no_table_of_fields_is_refused(fields: object) -> None:
    with pytest.raises(ModelError, match="expected a table of fields"):
        FrontendSpec.from_dict(fields)
    with pytest.raises(ConfigError, match="expected a table of fields"):
        FrontendSpec.from_settings(fields, source="my.toml")


def test_a_model_without_a_field_or_with_an_unknown_one_is_refused(spec: FrontendSpec) -> None:
    fields = spec.to_dict()
    with pytest.raises(
        ModelError, match=r"^frontend \| frontend\.emphasis: unknown \| expected one of sampling_rate"
    ):
        FrontendSpec.from_dict(fields | {"emphasis": "never"})
    del fields["hop"], fields["pad"]
    with pytest.raises(ModelError, match=r"frontend\.hop, frontend\.pad: missing"):
        FrontendSpec.from_dict(fields)


def test_settings_may_leave_fields_out_but_not_invent_them() -> None:
    assert FrontendSpec.from_settings({"hop": 320}, source="my.toml") == FrontendSpec(hop=320)
    with pytest.raises(ConfigError, match=r"^my\.toml \| frontend\.emphasis: unknown"):
        FrontendSpec.from_settings({"emphasis": "never"}, source="my.toml")


class TestAFieldThatWasAddedLater:
    def test_it_means_what_it_meant_in_a_bundle_from_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The kept bundle, and each of its ONNX files alone."""
        monkeypatch.setattr("rrtn.runtime.bundle.description.FrontendSpec", LaterSpec)
        folder = unpacked_bundle(tmp_path)
        models = sorted(folder.glob("*.onnx"))
        assert len(models) > 4
        written = json.loads((folder / "bundle.json").read_text())["frontend"]
        for path in (folder, *models):
            assert load_bundle(path).spec == LaterSpec(**written, emphasis="none")

    def test_it_is_written_only_where_it_says_something_new(self) -> None:
        """So a plain bundle stays the same, and an rrtn that does not know the field reads it."""
        as_before, new = LaterSpec(emphasis="none"), LaterSpec()
        assert as_before.to_dict() == FrontendSpec().to_dict()
        assert FrontendSpec.from_dict(as_before.to_dict()) == FrontendSpec()
        assert LaterSpec.from_dict(as_before.to_dict()) == as_before
        assert LaterSpec.from_dict(new.to_dict()) == new
        with pytest.raises(ModelError, match=r"frontend\.emphasis: unknown"):
            FrontendSpec.from_dict(new.to_dict())

    def test_settings_that_rrtn_wrote_mean_what_they_meant(self) -> None:
        """A run's config.toml has every field; what a user writes by hand takes the new default."""
        whole = dataclasses.asdict(FrontendSpec(hop=320))
        assert LaterSpec.from_settings(whole, source="config.toml") == LaterSpec(hop=320, emphasis="none")
        assert LaterSpec.from_settings({"hop": 320}, source="my.toml") == LaterSpec(hop=320, emphasis="high")

    def test_no_other_field_may_be_missing(self) -> None:
        fields = LaterSpec().to_dict()
        del fields["hop"]
        with pytest.raises(ModelError, match=r"frontend\.hop: missing"):
            LaterSpec.from_dict(fields)


def unpacked_bundle(folder: Path) -> Path:
    """The bundle of tests/fixtures/before.md."""
    with tarfile.open(FIXTURES / "before.tar.xz") as archive:
        members = [member for member in archive if member.name.startswith("before/whole/export/")]
        archive.extractall(folder, members, filter="data")
    return folder / "before/whole/export"


def test_the_defaults_are_those_of_the_paper_and_of_panns() -> None:
    assert FrontendSpec().to_dict() == {
        "sampling_rate": 16_000,
        "n_fft": 512,
        "hop": 160,
        "n_mels": 64,
        "f_min": 50.0,
        "f_max": 8_000.0,
        "power_floor": 1e-10,
        "frames": 250,
        "pad": "silence",
        "peak_dbfs": -3.0,
    }


def test_what_follows_from_a_spec() -> None:
    spec = FrontendSpec()
    assert (spec.clip_samples, spec.clip_seconds, spec.n_bins) == (39_840, 2.49, 257)
    assert spec.peak == pytest.approx(0.7079457843841379)
    assert [spec.frames_of(samples) for samples in (0, 159, 160, spec.clip_samples)] == [1, 1, 2, spec.frames]
