"""What the two benchmarks at Stable Diffusion 1.5's size share: device, clock, candidates in turns, rows on the disk."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from analysis.files import whole_file
from trainables.base_models.models import DiffusionModels, load_base
from trainables.base_models.sd15 import sd15_on
from trainables.compiling import blocks_to_compile

PEAK_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
}
"""Of dense bf16 products, by a part of the card's name, as its maker states it; the first that fits counts."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one candidate.

    Attributes:
        first_s: of its first turn, in which kernels are chosen and compiled.
        turns_s: of the turns that count, by the device's own events.
        step_gib: what a turn takes on the device beside what is held between turns.
        drift: how far its results are from float32's, by name.
        error: why it was not measured.
    """

    name: str
    batch: int
    images_per_s: float | None = None
    share_of_peak: float | None = None
    first_s: float | None = None
    turns_s: Sequence[float] = ()
    step_gib: float | None = None
    drift: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(kw_only=True)
class Candidate:
    """Something to time.

    Attributes:
        turn: does the work once; returns what `drift` compares.
        images: of one turn.
        flops: of one turn, where they are known.
    """

    name: str
    batch: int
    turn: Callable[[], Any]
    images: int
    flops: float | None = None
    drift: Callable[[Any], Mapping[str, float]] = lambda _: {}


class Rows:
    """Rows in a JSON file, written anew with each one, so that nothing is lost that was measured."""

    def __init__(self, file: Path | None, settings: Mapping[str, Any]) -> None:
        self.file, self._held = file, dict[tuple[str, int], Row]()
        self.about = {**machine(), "settings": dict(settings), "command": " ".join(sys.argv)}

    @property
    def rows(self) -> list[Row]:
        """Those kept so far."""
        return list(self._held.values())

    def keep(self, row: Row) -> None:
        """Keep a row, in place of an earlier one of the same candidate."""
        self._held[row.name, row.batch] = row
        if self.file is not None:
            text = json.dumps({**self.about, "rows": [asdict(each) for each in self.rows]}, indent=1)
            with whole_file(self.file) as file:
                file.write(text.encode() + b"\n")

    def table(self, title: str) -> Table:
        """All rows for the terminal."""
        table = Table(title=title, title_justify="left")
        for name in ("candidate", "batch", "images / s", "of peak", "first, s", "memory, GiB", "drift"):
            table.add_column(name, justify="left" if name in ("candidate", "drift") else "right")
        for row in self.rows:
            drift = row.error[:60] or ", ".join(f"{name} {value:.2g}" for name, value in row.drift.items())
            share = None if row.share_of_peak is None else 100 * row.share_of_peak
            figures = (told(row.images_per_s, 2), told(share, 1, " %"), told(row.first_s, 1), told(row.step_gib, 2))
            table.add_row(row.name, str(row.batch), *figures, drift)
        return table

    def show(self, title: str) -> None:
        """Print the table, and where the file is."""
        console = Console(width=130)
        console.print(self.table(f"{title}, {self.about['device']}, torch {self.about['versions']['torch']}"))
        if self.file is not None:
            console.print(f"All figures: {self.file}", soft_wrap=True, highlight=False)


def told(value: float | None, digits: int, unit: str = "") -> str:
    """A figure for a table; nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}{unit}"


def machine() -> dict[str, Any]:
    """What figures depend on beside the code."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "accelerate", "peft")},
    }


def the_device() -> torch.device:
    """The accelerator where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def base_to_time(is_toy: bool) -> DiffusionModels:
    """SD 1.5 in float32 with random weights on the device, the same at every call; as a toy the mini base."""
    torch.manual_seed(0)
    base = load_base("mini").to(the_device()) if is_toy else sd15_on(the_device())
    for module in base.components().values():
        module.eval().requires_grad_(False)
    return base


@contextmanager
def uncompiled(unet: nn.Module) -> Iterator[None]:
    """Compute without what `compile_blocks` made of the blocks, for a while."""
    made = {module: module._compiled_call_impl for module in blocks_to_compile(unet)}
    for module in made:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in made.items():
            module._compiled_call_impl = call


def measure(candidates: Sequence[Candidate], rows: Rows, *, rounds: int, deadline_s: float) -> None:
    """Time candidates in turns, A B C A B C, after a first turn each; what does not work becomes a row that says why."""
    first: dict[str, Row] = {}
    turns: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for candidate in candidates:
        first[candidate.name] = first_turn(candidate, deadline_s)
        rows.keep(first[candidate.name])
    for number in range(rounds):
        for candidate in candidates:
            if not first[candidate.name].error and (number == 0 or time.monotonic() < deadline_s):
                elapsed_s, _, memory_gib = timed(candidate.turn)
                turns[candidate.name].append(elapsed_s)
                rows.keep(complete(first[candidate.name], candidate, turns[candidate.name], memory_gib))


def first_turn(candidate: Candidate, deadline_s: float) -> Row:
    """A candidate's first turn: its time, and the drift of what it gives."""
    if time.monotonic() > deadline_s:
        return Row(name=candidate.name, batch=candidate.batch, error="not measured: the time is up")
    try:
        elapsed_s, result, _ = timed(candidate.turn)
        return Row(name=candidate.name, batch=candidate.batch, first_s=elapsed_s, drift=candidate.drift(result))
    except (RuntimeError, ValueError, NotImplementedError) as error:  # torch's out of memory is a RuntimeError
        text = str(error).strip().splitlines() or [""]
        return Row(name=candidate.name, batch=candidate.batch, error=f"{type(error).__name__}: {text[0][:300]}")


def complete(row: Row, candidate: Candidate, turns_s: Sequence[float], step_gib: float | None) -> Row:
    """The row with the median of its turns."""
    median_s, peak = statistics.median(turns_s), peak_flops()
    share = candidate.flops / median_s / peak if candidate.flops and peak else None
    figures = {"images_per_s": candidate.images / median_s, "share_of_peak": share, "step_gib": step_gib}
    return Row(**{**asdict(row), **figures, "turns_s": list(turns_s)})


def peak_flops() -> float | None:
    """What the card does at most in a second, where it is known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((1e12 * peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def timed(work: Callable[[], Any]) -> tuple[float, Any, float | None]:
    """Seconds of some work by the device's events, its result, and the GiB that it took on the device for a while."""
    if not torch.cuda.is_available():
        started_s = time.perf_counter()
        result = work()
        return time.perf_counter() - started_s, result, None
    before, (start, end) = torch.cuda.memory_allocated(), (_event() for _ in range(2))
    torch.cuda.reset_peak_memory_stats()
    start.record()
    result = work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000, result, (torch.cuda.max_memory_allocated() - before) / 2**30


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@contextmanager
def freed_afterwards() -> Iterator[None]:
    """Give back the device's memory of what a block made and no one refers to any more."""
    yield
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def listed(text: str, valid: Sequence[str], option: str) -> list[str]:
    """Names that an option gives, separated by commas; `none` gives none.

    Raises:
        ValueError: one is not valid.
    """
    names = [name.strip() for name in text.split(",") if name.strip() and name.strip() != "none"]
    for name in names:
        if name not in valid:
            raise ValueError(f"`{option}` must be names among {', '.join(valid)}, but got {name!r}. Correct it.")
    return names
