"""Count the work in a network: multiply-adds, and numbers read and written.

The network runs on PyTorch's meta device, where tensors have shapes and no values, so that any size
is counted in an instant; what is counted is what the graph does, not what a formula says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from torch._ops import OpOverload

# Operations that look at a tensor in another way and move nothing.
_VIEWS = frozenset(
    {
        "view", "_unsafe_view", "reshape", "slice", "select", "unsqueeze", "squeeze", "permute",
        "transpose", "t", "expand", "alias", "detach", "unbind", "split", "split_with_sizes",
        "empty", "lift_fresh", "_to_copy", "unfold", "as_strided",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one run of a network: operations and bytes."""

    multiply_adds: int
    """Multiply-adds in convolutions and matrix products, which is what papers count."""

    elementwise: int
    """Numbers produced by all other operations."""

    moved: int
    """Bytes read and written in float32 if every operation goes through memory."""

    layers: int
    """Bytes in float32 if only layers (convolutions, matrix products) do: each reads its inputs and
    writes its output once. What comes between them is taken for a part of them, and what makes the
    network's output of the last ones for one more layer."""

    peak: int
    """Most bytes in float32 that intermediate results, input and output hold at once."""


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated
        self.multiply_adds = self.elementwise = self.moved = self.layers = self.peak = 0
        self._sources: dict[int, frozenset[int]] = {}  # layers that a tensor in memory stems from
        self._unread: list[int] = []  # bytes of each layer's output until another layer reads it
        self._alive: dict[int, StorageWeakRef] = {}
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: OpOverload[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        results = _tensors([out])
        read = _tensors(args)
        stems = frozenset[int]().union(*(self._stems(tensor) for tensor in read))
        self._hold(results)
        if name in _VIEWS:
            self._note(results, stems)
            return out
        numbers = sum(t.numel() for t in results)
        self.moved += 4 * (numbers + sum(t.numel() for t in read))
        products = _multiply_adds(name, args, read, results)
        self._note(results, self._layer(read, numbers, stems) if products else stems)
        self.multiply_adds += products
        if not products:
            self.elementwise += numbers
        return out

    def finish(self, output: Tensor) -> None:
        """Count, as one more layer, the operations after the last layers that make the output."""
        left = [self._unread[layer] for layer in self._stems(output)]
        if sum(left) != 4 * output.numel():  # otherwise the last layer has written it
            self.layers += sum(left) + 4 * output.numel()

    def _layer(self, read: Sequence[Tensor], numbers: int, stems: frozenset[int]) -> frozenset[int]:
        """Count a layer that writes so many numbers; return it as the origin of its output."""
        self.layers += 4 * (numbers + sum(tensor.numel() for tensor in read))
        for layer in stems:
            self._unread[layer] = 0
        self._unread.append(4 * numbers)
        return frozenset((len(self._unread) - 1,))

    def _stems(self, tensor: Tensor) -> frozenset[int]:
        storage = StorageWeakRef(tensor.untyped_storage())
        return self._sources.get(storage.cdata, frozenset())

    def _note(self, results: Sequence[Tensor], stems: frozenset[int]) -> None:
        for result in results:
            storage = StorageWeakRef(result.untyped_storage())
            self._sources[storage.cdata] = stems

    def _hold(self, results: Sequence[Tensor]) -> None:
        """Note which memory is in use after an operation."""
        for result in results:
            storage = result.untyped_storage()
            reference = StorageWeakRef(storage)
            self._alive[reference.cdata], self._sizes[reference.cdata] = reference, storage.nbytes()
        gone = [key for key, ref in self._alive.items() if ref.expired()]
        for key in gone:
            del self._alive[key], self._sizes[key]
            self._sources.pop(key, None)
        self.peak = max(self.peak, sum(self._sizes.values()))


def count(network: nn.Module, shape: tuple[int, int, int, int]) -> Work:
    """Count the work of one run on a batch of this shape, NCHW; the network is moved to `meta`."""
    network = network.to("meta")
    with torch.no_grad(), _Counter() as counter:
        counter.finish(network(torch.empty(shape, device="meta")))
    return Work(
        multiply_adds=counter.multiply_adds,
        elementwise=counter.elementwise,
        moved=counter.moved,
        layers=counter.layers,
        peak=counter.peak,
    )


def _multiply_adds(
    name: str, args: Sequence[object], read: Sequence[Tensor], results: Sequence[Tensor]
) -> int:
    """Return the multiply-adds of an operation; `read` are the tensors among its arguments."""
    if name in ("convolution", "_convolution"):
        weight, transposed = read[1], bool(args[6])
        # One product for each number of one filter at each place of the finer side: the output, or
        # the input of a transposed convolution.
        places = read[0] if transposed else results[0]
        return int(places.numel() * math.prod(weight.shape[1:]))
    if name == "mm":
        return int(results[0].numel() * read[0].shape[-1])
    if name == "addmm":
        return int(results[0].numel() * read[1].shape[-1])
    if name in ("bmm", "baddbmm"):
        left = read[0] if name == "bmm" else read[1]
        return int(results[0].numel() * left.shape[-1])
    if name.startswith("_scaled_dot_product"):
        query, key, value = read[:3]
        scores = query.numel() // query.shape[-1] * key.shape[-2]
        return int(scores * (query.shape[-1] + value.shape[-1]))
    return 0


def _tensors(values: Sequence[object]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found
