"""The work on each film of a preparation, spread over the machines of a Ray cluster by Ray Data."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from ray.data import DataContext, from_items

from sweep.config import ComputeConfig
from sweep.trials.runtime import ray_runtime
from trainables.datasets.parallel import Mapper

Item = TypeVar("Item")
Result = TypeVar("Result")
PER_TASK: Final = 64
PER_BATCH: Final = 16
"""Pictures of the largest side, 64 MiB each, that come back together: Arrow's columns of bytes end at 2 GiB."""


@contextmanager
def ray_mapper(address: str) -> Iterator[Mapper]:
    """Does the work on the cluster at an address; its machines see the films under the same path.

    Args:
        address: HOST:PORT of its head, `auto` or `local`, as `compute.address`.

    Raises:
        ConfigError: no cluster can be at the address.
        ConnectionError: it does not answer or lets nobody in.
    """
    with ray_runtime(ComputeConfig(address=address)):
        yield in_order_by_ray


def in_order_by_ray(work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
    """The results of `work` in the order of the items, as of `trainables.datasets.parallel.in_order`.

    Args:
        work: can be pickled.
        items: can be pickled; all are taken at once.

    Raises:
        OSError, ValueError: what `work` raised on an item, in its place.
    """
    rows = [{"item": pickle.dumps(item)} for item in items]
    if not rows:
        return
    with _ordered_and_silent():
        packed = from_items(rows, override_num_blocks=-(-len(rows) // PER_TASK))
        done = packed.map_batches(_results, batch_size=PER_BATCH, fn_kwargs={"work": work})
        results = done.iter_batches(batch_size=None, prefetch_batches=1)
    for batch in results:
        for content in batch["result"]:
            result, error = pickle.loads(content)
            if error is not None:
                raise error
            yield result


def _results(batch: dict[str, NDArray[Any]], work: Callable[[Any], Any]) -> dict[str, NDArray[Any]]:
    """Results and errors, pickled: NumPy would cut bytes that end in zeros if it took them for texts."""
    packed = np.empty(len(batch["item"]), object)
    for number, item in enumerate(batch["item"]):
        packed[number] = pickle.dumps(_result(work, pickle.loads(item)))
    return {"result": packed}


def _result(work: Callable[[Any], Any], item: object) -> tuple[Any, Exception | None]:
    try:
        return work(item), None
    except (OSError, ValueError) as error:  # raised where its result is taken, without Ray's account of it
        return None, error


@contextmanager
def _ordered_and_silent() -> Iterator[None]:
    """Have Ray Data keep the order of what is planned in the block, and leave the terminal to others."""
    context = DataContext.get_current()
    options = context.execution_options
    before = options.preserve_order, context.enable_progress_bars
    options.preserve_order, context.enable_progress_bars = True, False
    try:
        yield
    finally:
        options.preserve_order, context.enable_progress_bars = before
