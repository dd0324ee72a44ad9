"""The plan of a sweep for the terminal."""

from __future__ import annotations

import time
from typing import Any, Final

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from sweep.config import ComputeConfig, SweepConfig
from sweep.records.earlier import Identity, read_all
from sweep.records.tables import Past
from sweep.search.checkpoint_room import checkpoints_gib, trials_at_once
from sweep.search.earlier import MOST_PROPOSED
from sweep.search.forecast import TERA, Forecast, StrategyCosts, Workload, forecast, strategy_costs, workload
from sweep.search.stopping import LEAST_OTHERS, finishes_each
from sweep.search.stopping_rules import GAIN
from sweep.trials.resources import fewest_workers
from trainables.base_models.models import load_base, states_width
from trainables.budgets import EPOCHS
from trainables.datasets.store import PreparedDataset

GPU_TFLOPS: Final = 300.0
"""What an H100 is expected to sustain in bf16, a third of its peak: an estimate, not a measurement."""
PROBED_FILMS: Final = 8
UNITS: Final = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6))


def print_plan(config: SweepConfig, console: Console, tflops: float | None, past: Past = Past()) -> None:
    """Print what each strategy costs and, where the films are there, what the sweep will.

    Args:
        config: of the sweep.
        console: where to.
        tflops: that one worker sustains, in TFLOP/s; None: measured here for workers without GPUs, else an estimate.
        past: of a sweep that goes on, what is done.

    Raises:
        ConfigError: no strategy can meet the limits, or the base is not there.
        ValueError: the data do not show a condition that is to be scored.
    """
    config = config.located()
    with console.status("Counting ..."):
        films = workload(config)
        prediction = forecast(config, films, past) if films else None
        costs = prediction.strategies if prediction else strategy_costs(config, config.data.conditions or ())
    console.print(_table(costs, config))
    if prediction is None or films is None:
        console.print(f"{_not_there(config)}, and this says what the sweep takes.", soft_wrap=True)
        return
    if films.expected:
        console.print(f"{_not_there(config)}. What follows counts {films.expected}.", soft_wrap=True, highlight=False)
    rate, source = (tflops, "as given") if tflops else sustained(config.compute)
    costs_left = _costs(prediction, config, rate, source) if prediction.num_trials else ()
    for line in (*_lines(config, films, past), *_earlier(config, past), *costs_left, _ends(config)):
        console.print(line, soft_wrap=True, highlight=False)


def _not_there(config: SweepConfig) -> str:
    return f"[yellow]The films are not there yet:[/yellow] prepare {str(config.data.path)!r}"


def sustained(compute: ComputeConfig) -> tuple[float, str]:
    """TFLOP/s of one worker, and where the figure comes from."""
    if compute.gpus_per_worker:
        return GPU_TFLOPS * compute.gpus_per_worker, "an estimate for an H100 in bf16; --tflops gives your own"
    return probed_tflops(round(compute.cpus_per_worker) or 1), "measured here on the mini base's U-Net"


def probed_tflops(num_threads: int) -> float:
    """TFLOP/s of passes of the bundled base's U-Net and their gradients on so many threads of this machine."""
    unet, before = load_base("mini").unet.requires_grad_(True), torch.get_num_threads()
    config: Any = unet.config
    size, channels = config.sample_size, config.in_channels
    latents = torch.randn(PROBED_FILMS, channels, size, size)
    states = torch.randn(PROBED_FILMS, 77, states_width(unet))
    steps = torch.zeros(PROBED_FILMS, dtype=torch.int64)
    torch.set_num_threads(num_threads)
    try:
        with FlopCounterMode(display=False) as counter:  # the first pass also warms up
            unet(latents, steps, states).sample.sum().backward()
        begun = time.perf_counter()
        unet(latents, steps, states).sample.sum().backward()
        return float(counter.get_total_flops()) / (time.perf_counter() - begun) / TERA
    finally:
        torch.set_num_threads(before)


def _table(costs: tuple[StrategyCosts, ...], config: SweepConfig) -> Table:
    table = Table(title=f"{config.preset}: {len(costs)} strategies on {config.base}", title_justify="left")
    table.add_column("strategy", no_wrap=True)
    for name in ("parameters", "adapter, MiB", "operations of a training image"):
        table.add_column(name, justify="right")
    for row in costs:
        operations = _span(*map(_flop, row.operations_per_image))
        parameters = _span(*(f"{count:,.0f}" for count in row.trainable_parameters))
        table.add_row(row.strategy, parameters, _span(*(f"{mib:.3g}" for mib in row.adapter_mib)), operations)
    return table


def _lines(config: SweepConfig, films: Workload, past: Past) -> list[str]:
    search, settings = config.search, config.evaluation
    each = search.budget.told(config.training.num_epochs) + (" of" if search.budget.way == EPOCHS else " from")
    left = f"; {past.num_ended} have ended, and what follows is of the other {search.num_trials - past.num_ended}"
    generated = sum(min(settings.images_per_condition, most) for most in films.num_held_out.values())
    return [
        f"Trials      {search.num_trials} by {search.sampler}, {trials_at_once(config)} at once, each at most "
        f"{each} {films.num_train:,} films{left if past.num_ended else ''}",
        f"Evaluation  at most {generated:,} films in {settings.num_steps} steps, guidance {settings.guidance_scale:g}",
    ]


def _earlier(config: SweepConfig, past: Past) -> list[str]:
    """What the search is told of earlier sweeps; of the data no more is looked at than the configuration says."""
    prior = config.search.prior
    known = past.earlier or (read_all(prior, config, _identity(config)) if prior else ())
    return [f"Prior       {sweep.told()}" for sweep in known] + (
        [f"            of other data or evaluation at most {MOST_PROPOSED} configurations are tried, once each"]
        if any(sweep.differs for sweep in known)
        else []
    )


def _identity(config: SweepConfig) -> Identity:
    path = config.data.path
    return Identity(data=PreparedDataset.open(path).fingerprint if path is not None and path.is_dir() else None)


def _costs(prediction: Forecast, config: SweepConfig, tflops: float, source: str) -> list[str]:
    least, most = prediction.operations()
    compute = config.compute
    hours, at_once = prediction.hours(tflops), min(compute.concurrent_trials, prediction.num_trials)
    unit = "GPU-hours" if compute.gpus_per_worker else "hours of a worker"
    whole = [_hours(each * (compute.gpus_per_worker or 1)) for each in hours]
    in_all = [_hours(each / at_once) for each in prediction.hours(tflops, fewest_workers(compute))]
    adapters = prediction.num_trials * prediction.adapter_mib / 1024
    largest = max((strategy.trainable_parameters[1] for strategy in prediction.strategies), default=0.0)
    checkpoints = checkpoints_gib(config, min(trials_at_once(config), prediction.num_trials), largest)
    return [
        f"Operations  {_span(_flop(least), _flop(most))} in all; of a complete trial's, {_share(prediction)} are evaluations",
        f"Time        {_span(*whole)} {unit} at {tflops:.3g} TFLOP/s of a worker ({source}); {_span(*in_all)} h in all",
        f"Disk        at most {adapters:.2g} GiB of adapters, where trials are spread evenly over the strategies, and while they "
        f"run about {checkpoints:.2g} GiB of checkpoints",
    ]


def _share(prediction: Forecast) -> str:
    (least, most), (few, many) = prediction.training, prediction.evaluation
    return _span(f"{few / (most + few):.0%}", f"{many / (least + many):.0%}")


def _ends(config: SweepConfig) -> str:
    search = config.search
    rungs = search.ladder(config.training.num_epochs).epochs
    after = " or ".join(map(str, rungs))
    each = "one" if search.scheduler == GAIN else "the first"
    first = f"{each} of each strategy and " if finishes_each(search.scheduler, search.sampler) else ""
    stops = f"{search.scheduler} may stop trials after {after} epochs, but {first}the first {LEAST_OTHERS} of all"
    limits = [f"{name}={value:g}" for name, value in search.stop.model_dump(exclude_none=True).items()]
    earlier = (
        f"search.stop ends the sweep earlier: {', '.join(limits)}" if limits else "the sweep ends with its last trial"
    )
    return f"Ends        {stops if rungs else 'no trial is stopped'}; {earlier}"


def _flop(count: float) -> str:
    name, unit = next(((name, unit) for name, unit in UNITS if count >= unit), UNITS[-1])
    return f"{count / unit:.3g} {name}FLOP"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
