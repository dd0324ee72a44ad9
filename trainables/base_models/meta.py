"""Modules on the meta device: shapes and names alone, without the time that it takes to draw numbers which nobody keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FILLING: Final = frozenset(
    (nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_, Tensor.uniform_, Tensor.normal_)
)


@contextmanager
def on_meta() -> Iterator[None]:
    """Make modules and tensors on the meta device, in this thread."""
    with torch.device("meta"), Unfilled():
        yield


class Unfilled(TorchFunctionMode):
    """Within it and in its thread, what fills a tensor does nothing to one on the meta device, which has no numbers.

    Torch would work out in Python what it cannot keep, which takes a third of the time of making a model there.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call torch's function, unless it would fill such a tensor."""
        named = kwargs or {}
        if func in FILLING:
            tensor: Tensor = args[0] if args else named["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **named)
