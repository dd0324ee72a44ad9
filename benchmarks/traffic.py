"""Counts what operators do to a device's memory, on tensors that have shapes and no values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRODUCTS: Final = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward", "scaled_dot_product")
"""Operators that compute sums of products, by their names or what is in them; they are bound by arithmetic, the others by memory."""
NO_KERNEL: Final = ("empty", "empty_like", "empty_strided", "_unsafe_view", "detach", "lift_fresh", "device")
"""Operators beside views that touch no values."""


@dataclass
class Work:
    """What a number of kernels do.

    Attributes:
        kernels: how many there are, one for each operator that touches values.
        num_bytes: that they read and write, each tensor once for each operator, as if nothing stayed in a cache.
    """

    kernels: int = 0
    num_bytes: int = 0

    def add(self, num_bytes: int) -> None:
        """Count one more kernel."""
        self.kernels += 1
        self.num_bytes += num_bytes


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that run within it, of products and of all else apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products, self.others = Work(), Work()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator, and count it."""
        output = func(*args, **(kwargs or {}))
        if touches_values(func):
            work = self.products if is_product(name_of(func)) else self.others
            work.add(sum(touched_bytes(tensor) for tensor in tensors_in(args, kwargs, output)))
        return output


def name_of(func: Any) -> str:
    """An operator's name without namespace and overload, such as `add_`."""
    name: str = func._schema.name.rpartition("::")[2]
    return name


def is_product(name: str) -> bool:
    """Whether an operator computes sums of products."""
    return name.rstrip("_") in PRODUCTS or PRODUCTS[-1] in name


def touches_values(func: Any) -> bool:
    """Whether an operator reads or writes values, and does not only look at a tensor in another way."""
    is_of_tensors = func._schema.name.startswith("aten::")
    return is_of_tensors and not func.is_view and name_of(func) not in NO_KERNEL


def tensors_in(*trees: Any) -> Iterator[Tensor]:
    """Every tensor that goes in, and every one that comes out; one that is written in place is both."""
    return (leaf for leaf in tree_leaves(trees) if isinstance(leaf, Tensor))


def touched_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's values, each counted once where it is repeated by a stride of 0."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0]
    return prod(sizes) * tensor.element_size() if tensor.numel() else 0


def traffic_of(work: Callable[[], Any]) -> Traffic:
    """What some work counts to."""
    traffic = Traffic()
    with traffic:
        work()
    return traffic
