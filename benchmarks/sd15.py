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
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from rich.console import Console
from rich.table import Table
from torch import nn

from trainables.base_models.models import DiffusionModels
from trainables.base_models.sd15 import sd15_on, thin_sd15

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
        self.file, self.rows = file, list[Row]()
        self.about = {**machine(), "settings": dict(settings), "command": " ".join(sys.argv)}

    def add(self, row: Row) -> None:
        """Keep a row, and say it."""
        self.rows.append(row)
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**self.about, "rows": [asdict(one) for one in self.rows]}, indent=1)
            self.file.write_text(text + "\n")
        print(f"{row.name}, batch {row.batch}: {row.error or f'{row.images_per_s:.2f} images/s'}", file=sys.stderr)

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


def random_sd15(width_divisor: int, latent_side: int) -> DiffusionModels:
    """The base in float32 with random weights on the device, of full size for a divisor of 1; the same at every call."""
    torch.manual_seed(0)
    base = sd15_on(the_device()) if width_divisor == 1 else thin_sd15(width_divisor, latent_side).to(the_device())
    for module in base.components().values():
        module.eval().requires_grad_(False)
    return base


def compile_blocks(unet: nn.Module, backend: str) -> None:
    """Compile each residual and transformer block by itself, in place: 38 of them, of which alike ones share a graph."""
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D | BasicTransformerBlock):
            module.compile(backend=backend, dynamic=False)


@contextmanager
def uncompiled(unet: nn.Module) -> Iterator[None]:
    """Compute without what `compile_blocks` made of the blocks, for a while."""
    made = {module: module._compiled_call_impl for module in unet.modules()}
    for module in made:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in made.items():
            module._compiled_call_impl = call


def measure(candidates: Sequence[Candidate], rows: Rows, *, rounds: int, deadline_s: float) -> None:
    """Time candidates in turns, A B C A B C, after a first turn each; what does not work becomes a row that says why."""
    rows_of = {one.name: first_turn(one, deadline_s) for one in candidates}
    turns: dict[str, list[float]] = {one.name: [] for one in candidates}
    memory: dict[str, float] = {}
    for number in range(rounds):
        for one in candidates:
            if not rows_of[one.name].error and (number == 0 or time.monotonic() < deadline_s):
                elapsed_s, _, memory[one.name] = timed(one.turn)
                turns[one.name].append(elapsed_s)
    for one in candidates:
        rows.add(complete(rows_of[one.name], one, turns[one.name], memory.get(one.name)))


def first_turn(one: Candidate, deadline_s: float) -> Row:
    """A candidate's first turn: its time, and the drift of what it gives."""
    if time.monotonic() > deadline_s:
        return Row(name=one.name, batch=one.batch, error="not measured: the time is up")
    try:
        elapsed_s, result, _ = timed(one.turn)
        return Row(name=one.name, batch=one.batch, first_s=elapsed_s, drift=one.drift(result))
    except (RuntimeError, ValueError, NotImplementedError) as error:  # torch's out of memory is a RuntimeError
        text = str(error).strip().splitlines() or [""]
        return Row(name=one.name, batch=one.batch, error=f"{type(error).__name__}: {text[0][:300]}")


def complete(row: Row, one: Candidate, turns_s: Sequence[float], step_gib: float | None) -> Row:
    """The row with the median of its turns."""
    if row.error or not turns_s:
        return row
    median_s, peak = statistics.median(turns_s), peak_flops()
    share = one.flops / median_s / peak if one.flops and peak else None
    figures = {"images_per_s": one.images / median_s, "share_of_peak": share, "step_gib": step_gib}
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
    before, (start, end) = torch.cuda.memory_allocated(), (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.reset_peak_memory_stats()
    start.record()
    result = work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000, result, (torch.cuda.max_memory_allocated() - before) / 2**30


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
