"""Data that a run was not trained on, taken as the run heard its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rrtn.runtime.errors import DataError
from rrtn.train.config import Config, DataConfig
from rrtn.train.data.device_clips import split_clips
from rrtn.train.evidence.trained_run import _other_data, _scores_of
from rrtn.train.plan import data_from_config, network_from_config


def test_files_without_the_channel_that_the_run_was_trained_on(
    make_data: Callable[..., Path], cache: Path
) -> None:
    folder = make_data()  # mono
    trained = Config(data=DataConfig(dir="elsewhere", targets=("Awe", "Fear"), channel=2))

    def clips() -> int:
        data = _other_data(folder, trained, "Val")
        return len(split_clips(data, "Val", trained.frontend, torch.device("cpu")))

    with pytest.raises(DataError) as caught:
        clips()
    assert str(caught.value) == (
        "4 of 4 files without channel 2 | 00008.wav, 00009.wav, 00010.wav and 1 more | expected files of 2 "
        "channels or more | the run was trained on channel 2 of its files: write the channel of these files, "
        f"such as channel = 1, into {folder / 'data.toml'}"
    )
    (folder / "data.toml").write_text("channel = 3\n")
    with pytest.raises(DataError, match=r"without channel 3 .* \| take another --channel \(data\.channel\)"):
        clips()
    (folder / "data.toml").write_text("channel = 1\n")
    assert clips() == 4


@pytest.mark.parametrize("allowed", [True, False])
def test_predictions_are_made_without_tf32_whatever_was_allowed(
    make_data: Callable[..., Path], cache: Path, allowed: bool
) -> None:
    """They are kept as those in float32. torch allows it for convolutions, and a training may."""
    config = Config(data=DataConfig(dir=str(make_data()), targets=("Awe", "Fear")))
    clips = split_clips(data_from_config(config), "Val", config.frontend, torch.device("cpu"))
    network, seen = network_from_config(config), []

    def flags() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    def put(convolutions: bool, products: bool) -> None:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products

    network.register_forward_hook(lambda *_: seen.append(flags()))
    before = flags()
    try:
        put(allowed, allowed)
        _scores_of(network, config, clips, label="predict")
        assert (seen, flags()) == ([(False, False)], (allowed, allowed))
    finally:
        put(*before)


TRAINED = Config(data=DataConfig(dir="elsewhere", targets=("Awe", "Fear")))


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        _other_data(folder, TRAINED, "Val")
    return str(caught.value)


def test_what_is_wrong_with_other_data_is_mended_beside_its_table(
    make_data: Callable[..., Path], csv_lines: list[str]
) -> None:
    """`rrtn evaluate` has none of the options of `rrtn train` that say where data lie."""
    folder = make_data()
    settings, table = folder / "data.toml", folder / "data_info.csv"
    assert refusal(table) == (
        f"{table} | not a folder | expected one with data_info.csv and wav/ | "
        f"--csv {table} --audio FOLDER (for evaluate write into data.toml: csv, audio)"
    )
    table.write_text("\n".join(csv_lines).replace("File_ID", "Datei"))
    assert refusal(folder).endswith(" | --file-column NAME (for evaluate write into data.toml: file_column)")
    settings.write_text("file_column = 'Datei'")
    assert _other_data(folder, TRAINED, "Val").splits["Val"].clips
    settings.unlink()
    table.write_text("\n".join(csv_lines).replace("[00009]", "../00009"))
    assert refusal(folder).endswith("--audio FOLDER (for evaluate write into data.toml: audio)")
    table.write_text("\n".join(csv_lines).replace("Awe", "Joy").replace("Fear", "Rage"))
    assert refusal(folder).startswith(
        f"{table} | no column Awe, Fear | expected one at least of what the run "
    )
    table.rename(folder / "a.csv")
    (folder / "b.csv").touch()
    assert refusal(folder).endswith(
        "| name the table data_info.csv, or give it: --csv FILE (for evaluate write into data.toml: csv)"
    )
    settings.write_text("csv = 'a.csv'\naudio = 'wav'")
    assert refusal(folder).startswith(f"{folder / 'a.csv'} | no column Awe")
    settings.unlink()
    (folder / "a.csv").unlink()
    (folder / "b.csv").unlink()
    assert (
        f"| --csv FILE --audio {folder} (for evaluate write into data.toml: csv, audio); recordings alone"
        in refusal(folder)
    )
