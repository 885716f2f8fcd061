"""The small functions of several processes; that the training itself equals one process is
tests/parity/test_distributed.py.

Run as one of two ranks, this file is the worker: each rank notes what it sees.
"""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from rrtn.runtime.errors import ConfigError, StoppedError
from rrtn.train.distributed import (
    World,
    any_rank,
    check_equal,
    concatenated,
    first_on_machine_first,
    gathered,
    joined,
    with_global_batchnorm,
    world_from_environment,
)
from torch import nn

CPU = torch.device("cpu")
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
Seen = dict[str, Any]


@pytest.fixture(scope="module")
def seen(server: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    """What each of two ranks noted."""
    folder = tmp_path_factory.mktemp("ranks")
    for ended in server.run_as_ranks(Path(__file__), folder):
        assert ended.code == 0, ended.err[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def set_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch)
    world = world_from_environment()
    assert (world, world.is_first) == (World(rank=0, size=1, local_rank=0), True)


def test_the_world_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, LOCAL_RANK="1", WORLD_SIZE="8", RANK="5")
    world = world_from_environment()
    assert (world, world.is_first) == (World(rank=5, size=8, local_rank=1), False)


@pytest.mark.parametrize("missing", NAMES)
def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """A rank that trained alone would write over the others."""
    set_environment(monkeypatch, **{name: "1" for name in NAMES if name != missing})
    with pytest.raises(ConfigError, match="start with torchrun") as caught:
        world_from_environment()
    assert caught.value.came == f"only {', '.join(name for name in NAMES if name != missing)}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["a", "", "1.5", "-1"])
def test_a_rank_that_is_no_whole_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    set_environment(monkeypatch, **dict.fromkeys(NAMES, "1") | {name: value})
    with pytest.raises(ConfigError, match=r"expected a whole number \| start with torchrun") as caught:
        world_from_environment()
    assert (caught.value.subject, caught.value.came) == (f"environment {name}", repr(value))


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_ranks_share_a_batch_in_order(size: int) -> None:
    batch = list(range(24))
    parts = [batch[World(rank=rank, size=size).slice_of(24)] for rank in range(size)]
    assert [clip for part in parts for clip in part] == batch
    assert {len(part) for part in parts} == {24 // size}


def test_a_single_process_joins_nothing() -> None:
    x, part = torch.ones(2, 3), np.ones((2, 3), np.float32)
    with joined(World(), CPU), first_on_machine_first(World()):
        assert not dist.is_initialized()
        assert gathered(x) is x
        assert concatenated(World(), part) is part
        assert [any_rank(World(), flag, CPU) for flag in (False, True)] == [False, True]
        check_equal(World(), "data", "a")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (
            RuntimeError(
                "Gloo connectFullMesh failed with [/pytorch/third_party/gloo/x.cc:547] Connection closed"
            ),
            StoppedError,
        ),
        (dist.DistNetworkError("address already in use"), ConfigError),
        (
            dist.DistBackendError(
                "NCCL error\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 1"
            ),
            ConfigError,
        ),
        (RuntimeError("a fault of rrtn"), RuntimeError),
    ],
)
def test_a_process_that_ends_while_others_connect_to_it_is_a_lost_one(
    monkeypatch: pytest.MonkeyPatch, raised: RuntimeError, expected: type[Exception]
) -> None:
    """One whose data is refused may be gone before the others have found it."""

    def fail(*arguments: object, **options: object) -> None:
        raise raised

    set_address(monkeypatch)
    monkeypatch.setattr(dist, "init_process_group", fail)
    with pytest.raises(expected) as caught, joined(World(rank=1, size=2), CPU):
        pass
    assert caught.type is expected


def set_address(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", **values}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("missing", ["MASTER_ADDR", "MASTER_PORT"])
def test_a_launcher_that_names_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    set_address(monkeypatch)
    monkeypatch.delenv(missing)
    with pytest.raises(ConfigError) as caught, joined(World(rank=1, size=2), CPU):
        pass
    assert (caught.value.subject, caught.value.came) == ("environment", f"no {missing}")


@pytest.mark.parametrize("port", ["a", "", "-1"])
def test_a_port_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    set_address(monkeypatch, MASTER_PORT=port)
    with pytest.raises(ConfigError, match="environment MASTER_PORT"), joined(World(rank=1, size=2), CPU):
        pass


def test_an_address_that_another_program_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        set_address(monkeypatch, MASTER_PORT=port)
        set_environment(monkeypatch, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
        with pytest.raises(ConfigError) as caught, joined(World(rank=0, size=2), CPU):
            pass
    assert caught.value.subject == f"127.0.0.1:{port}"
    assert "in use" in caught.value.came
    assert "\n" not in str(caught.value)


def test_gathered_has_the_rows_of_all_ranks_in_order(seen: list[Seen]) -> None:
    for rank in seen:
        assert rank["gathered"] == [[0, 1], [2, 3], [10, 11], [12, 13]]
        assert rank["gathered, columns first"] == [[0, 2], [1, 3], [10, 12], [11, 13]]


def test_the_gradient_of_a_slice_is_the_sum_over_the_losses_of_all_ranks(seen: list[Seen]) -> None:
    """Loss of rank r: (r + 1) sum_i i x_i^2, so that the gradient of x_i is 2 i x_i (1 + 2)."""
    x = np.array([0, 1, 2, 3, 10, 11, 12, 13])
    gradient = 2 * 3 * np.arange(8) * x
    assert [rank["gradient of gathered"] for rank in seen] == [gradient[:4].tolist(), gradient[4:].tolist()]


def test_gathered_leaves_the_gradients_of_others_alone(seen: list[Seen]) -> None:
    """u = h + gathered(x) and sum(u^2): autograd hands both the same tensor, and h's gradient is 2
    u on each rank.
    """
    for number, rank in enumerate(seen):
        assert rank["gradient beside gathered"] == [2 * (x + number) for x in (0, 1, 2, 3, 10, 11, 12, 13)]


def test_ranks_that_agree_go_on_and_else_all_stop(seen: list[Seen]) -> None:
    expected = "torchrun | data differs: rank 0 abc0, rank 1 abc1 | expected the same on all ranks"
    for rank in seen:
        assert rank["equal"] is None
        assert rank["differs"] == expected


def test_any_rank_raises_the_flag_for_all(seen: list[Seen]) -> None:
    for rank in seen:
        assert rank["any"] == {"none": False, "second": True, "both": True}


def test_unequal_parts_are_put_behind_each_other(seen: list[Seen]) -> None:
    for rank in seen:
        assert rank["rows of 3 and 1"] == [[0, 0], [0, 1], [0, 2], [1, 0]]
        assert rank["rows of 0 and 2"] == [[1, 0], [1, 1]]
        assert rank["dtype"] == "float32"


def test_the_others_find_the_files_of_the_first(seen: list[Seen]) -> None:
    assert [rank["found the file"] for rank in seen] == [False, True]


def test_the_others_do_not_wait_for_a_first_that_fails(seen: list[Seen]) -> None:
    assert [rank["the first fails"] for rank in seen] == [
        "ValueError",
        "StoppedError: torchrun | rank 1 has lost another process | read that process's message, then "
        "continue with --resume",
    ]


def test_global_batchnorm_computes_in_float32_at_least(seen: list[Seen]) -> None:
    for rank in seen:
        assert rank["batchnorm"]["dtypes"] == ["torch.float32", "torch.float64"]


def test_global_batchnorm_is_torchs_in_evaluation(seen: list[Seen]) -> None:
    for rank in seen:
        assert rank["batchnorm"]["evaluation is torch's"]
        assert rank["batchnorm"]["counted"] == 2


def test_the_group_is_left_when_an_error_passes(seen: list[Seen]) -> None:
    for rank in seen:
        assert (rank["joined"], rank["joined after the error"]) == (True, False)


def note_gathered(world: World) -> Seen:
    x = (torch.arange(4.0).view(2, 2) + 10 * world.rank).requires_grad_()
    rows = gathered(x)
    (torch.arange(8.0).view(4, 2) * rows**2 * (world.rank + 1)).sum().backward()
    noted = {"gathered": rows.tolist(), "gathered, columns first": gathered(x.T).tolist()}
    return {**noted, "gradient of gathered": x.grad.flatten().tolist()}


def note_gradient_beside_gathered(world: World) -> Seen:
    weight = torch.full((8,), float(world.rank), requires_grad=True)
    x = (torch.arange(4.0) + 10 * world.rank).requires_grad_()
    h = weight * 1
    (h + gathered(x)).square().sum().backward()
    return {"gradient beside gathered": weight.grad.tolist()}


def note_agreement(world: World) -> Seen:
    noted: Seen = {"equal": check_equal(world, "data", "abc")}
    try:
        check_equal(world, "data", f"abc{world.rank}")
    except ConfigError as error:
        noted["differs"] = str(error)
    flags = {"none": False, "second": world.rank == 1, "both": True}
    return {**noted, "any": {name: any_rank(world, flag, CPU) for name, flag in flags.items()}}


def note_concatenated(world: World) -> Seen:
    def rows(count: int) -> Any:
        return np.array([[world.rank, i] for i in range(count)], np.float32).reshape(count, 2)

    first, second = (concatenated(world, rows(counts[world.rank])) for counts in ((3, 1), (0, 2)))
    return {"rows of 3 and 1": first.tolist(), "rows of 0 and 2": second.tolist(), "dtype": str(first.dtype)}


def note_order(world: World, file: Path) -> Seen:
    with first_on_machine_first(world):
        found = file.exists()
        time.sleep(0 if found else 0.3)
        file.touch()
    return {"found the file": found}


def note_failing_first(world: World) -> Seen:
    try:
        with first_on_machine_first(world):
            if world.is_first:
                raise ValueError
            raise AssertionError("the others go on")
    except ValueError:
        return {"the first fails": "ValueError"}
    except StoppedError as error:
        return {"the first fails": f"StoppedError: {error}"}


def note_batchnorm(world: World) -> Seen:
    torch.manual_seed(0)
    ours, theirs = with_global_batchnorm(nn.BatchNorm2d(3), CPU), nn.BatchNorm2d(3)
    x = torch.randn(2, 3, 4, 5) + world.rank
    dtypes = [str(ours(x.bfloat16()).dtype), str(ours.double()(x.double()).dtype)]
    theirs.load_state_dict(ours.float().state_dict())
    same = torch.equal(ours.eval()(x), theirs.eval()(x))
    return {
        "batchnorm": {
            "dtypes": dtypes,
            "evaluation is torch's": same,
            "counted": int(theirs.num_batches_tracked),
        }
    }


def main(folder: Path) -> None:
    world = world_from_environment()
    seen: Seen = {}
    try:
        with joined(world, CPU):
            seen |= {
                "joined": dist.is_initialized(),
                **note_gathered(world),
                **note_gradient_beside_gathered(world),
            }
            seen |= {**note_agreement(world), **note_concatenated(world), **note_batchnorm(world)}
            seen |= {**note_order(world, folder / "decoded"), **note_failing_first(world)}
            raise InterruptedError
    except InterruptedError:
        seen["joined after the error"] = dist.is_initialized()
    (folder / f"{world.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
