"""Copies for a checkpoint hold what the tensors were, whatever becomes of them."""

import torch
from rrtn.train.host_copy import HostCopy


def test_later_changes_do_not_reach_the_copies() -> None:
    weights = torch.randn(2, 3, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    count = torch.tensor(3)
    before = weights.detach().clone()
    copy = HostCopy({"weights": weights, "count": count})
    with torch.no_grad():
        weights.zero_()
    count += 1
    copies = copy.tensors()
    assert torch.equal(copies["weights"], before)
    assert int(copies["count"]) == 3
    assert not any(tensor.requires_grad for tensor in copies.values())
