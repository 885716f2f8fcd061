"""Copies of tensors in the host's memory that training does not wait for."""

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


class HostCopy:
    """The values that tensors have now, in the host's memory.

    On a GPU they are first copied in its own memory, which takes a millisecond for 1 GB. A stream of
    their own brings the copies to pinned memory while training goes on. Where the GPU has no room for
    them, training waits for the copies.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._done: list[torch.cuda.Event] = []
        on_gpu = [tensor for tensor in tensors.values() if tensor.is_cuda]
        try:
            kept = {name: tensor.detach().clone() for name, tensor in tensors.items()} if on_gpu else {}
        except torch.OutOfMemoryError:
            kept = {}
        self._tensors = self._behind(kept, on_gpu[0].device) if kept else _copied(tensors)

    def tensors(self) -> Tensors:
        """The copies, on the CPU. Any thread may ask; it waits until they are there."""
        for event in self._done:
            event.synchronize()
        return self._tensors

    def _behind(self, kept: Tensors, device: torch.device) -> Tensors:
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        copies = {}
        with torch.cuda.stream(stream):
            for name, tensor in kept.items():
                room = torch.empty_like(tensor, device="cpu", pin_memory=True)
                copies[name] = room.copy_(tensor, non_blocking=True)
                if tensor.is_cuda:
                    tensor.record_stream(stream)  # its memory is free again behind the copy
            self._done.append(stream.record_event())
        return copies


def _copied(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
