"""Is this GPU's work sound, and how fast is it? `make gpu-check`, in at most nine minutes, with what to send us.

Numbers of every strategy on the mini base are compared with float32 on the CPU; then a short sweep runs where Ray and
MLflow are installed; then `benchmarks.sd15_step` and `benchmarks.sd15_sampling` run. Each writes what it has as it has it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.sd15 import machine, the_device
from benchmarks.strategy_step import RandomBatches, strategy_of
from trainables.accelerators import new_accelerator
from trainables.base_models.models import DiffusionModels, load_base
from trainables.batches import BatchPlan
from trainables.draws import EpochDraws
from trainables.numerics import half_of_device, numerics_on
from trainables.sampling import generate_batches
from trainables.settings import TrainingConfig
from trainables.strategies import STRATEGIES, load_adapter
from trainables.training import FineTuning

BATCH, STEPS = 4, 3
LOSS_BOUNDS = {"no": 0.005, "bf16": 0.02, "fp16": 0.02}
"""Relative, of any step's loss; torch may compute float32's convolutions in TF32."""
PIXEL_BOUNDS = {"no": 0.01, "bf16": 0.03, "fp16": 0.02}
"""In the mean, of pixels in 0 to 1."""
SAMPLED_IN = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
STEP_OPTIONS = ("--strategies", "unet,lora,dora", "--batch", "32")
SAMPLING_OPTIONS = ("--films", "64", "--batch", "8,16,32")
STARTING_S = 30.0
"""Of a process, and of the turn that is running when its time is up."""
SWEEP = (
    *("-m", "sweep.run", "--num-trials", "4", "--set", "data.num_patients=80", "--set", "training.num_epochs=1"),
    *("--set", "compute.gpus_per_worker=0.5", "--set", "compute.evaluation_gpus=0.5"),
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """A strategy's numbers on the device beside those of float32 on the CPU.

    Attributes:
        loss: the largest relative difference of a step's loss.
        pixels: the mean difference of a film's pixels in 0 to 1.
        error: why there are none.
    """

    strategy: str
    precision: str
    loss: float = float("nan")
    pixels: float = float("nan")
    error: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether both are within their bounds."""
        return self.loss <= LOSS_BOUNDS[self.precision] and self.pixels <= PIXEL_BOUNDS[self.precision]


def trained(base: DiffusionModels, name: str, accelerator: Accelerator, folder: Path) -> list[float]:
    """Losses of a few steps from the same numbers on any device; the adapter is left in the folder."""
    models, strategy = base.fresh(), strategy_of(name, base)
    torch.manual_seed(0)
    strategy.attach(models)  # before it is moved: random numbers of devices differ
    models.to(accelerator.device)
    feeder = RandomBatches(models, strategy.trains, torch.Generator().manual_seed(0))
    tuning = FineTuning(
        models,
        strategy,
        feeder=feeder,  # type: ignore[arg-type]
        plan=BatchPlan(num_images=BATCH * STEPS, batch_size=BATCH),
        lr=1e-4,
        config=TrainingConfig(num_epochs=1),
        accelerator=accelerator,
    )
    draws = EpochDraws(0, 0, BATCH * STEPS)
    batches = feeder.batches(tuning.plan.epoch(0, 0), draws, accelerator.device)
    losses = [float(tuning._train_step(share, host)) for share, host in batches]
    strategy.export(models, folder)
    return losses


def on_cpu() -> Accelerator:
    """Float32 on the CPU, also where there is a GPU."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(cpu=True, mixed_precision="no")


def films(base: DiffusionModels, adapter: Path, device: torch.device, precision: str) -> NDArray[np.float32]:
    """Two films by an adapter, float32 in 0 to 1."""
    models = base.fresh().to(device).computing_in(numerics_on(device, precision))
    load_adapter(models, adapter)
    options: dict[str, Any] = {"num_steps": 4, "guidance_scale": 3.0, "batch_size": 2}
    (images,) = generate_batches(models.to(device), ["a chest film", "a film with edema"], [1, 2], **options)
    pixels: NDArray[np.float32] = images.cpu().numpy()
    return pixels


def checks(base: DiffusionModels, name: str, precisions: Sequence[str], folder: Path) -> Iterator[Check]:
    """A strategy in each precision on the device, beside float32 on the CPU; films are those of the same adapter."""
    expected = trained(base, name, on_cpu(), folder / name)
    shown = films(base, folder / name, torch.device("cpu"), "fp32")
    for precision in precisions:
        try:
            losses = trained(base, name, new_accelerator(precision), folder / f"{name}-{precision}")
            pixels = films(base, folder / name, the_device(), SAMPLED_IN[precision])
        except (RuntimeError, ValueError) as error:
            yield Check(strategy=name, precision=precision, error=f"{type(error).__name__}: {error}"[:300])
            continue
        apart = max(abs(loss - other) / abs(other) for loss, other in zip(losses, expected, strict=True))
        difference = float(np.abs(pixels - shown).mean())
        yield Check(strategy=name, precision=precision, loss=apart, pixels=difference)


def correctness(strategies: Sequence[str], precisions: Sequence[str], to: Path) -> list[Check]:
    """Every strategy's checks, each kept in `checks.json` as it is had."""
    base, results = load_base("mini"), list[Check]()
    with tempfile.TemporaryDirectory() as folder:
        for name in strategies:
            for check in checks(base, name, precisions, Path(folder)):
                results.append(check)
                (to / "checks.json").write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return results


def shown(results: Sequence[Check]) -> Table:
    """The checks for the terminal."""
    table = Table(title="Beside float32 on the CPU, mini base", title_justify="left")
    for name in ("strategy", "precision", "loss, relative", "pixels, mean", "verdict"):
        table.add_column(name, justify="right" if "," in name else "left")
    for result in results:
        verdict = "sound" if result.is_sound else result.error or "OUT OF BOUNDS"
        table.add_row(result.strategy, result.precision, f"{result.loss:.2g}", f"{result.pixels:.2g}", verdict)
    return table


def ran(command: Sequence[str], log: Path, limit_s: float) -> bool:
    """Run a part in a process of its own, which leaves what it says in a log; whether it ended well and in time."""
    with log.open("w") as file:
        try:
            done = subprocess.run(
                [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def swept(to: Path, limit_s: float) -> str:
    """How a short sweep on the GPU ended, in which evaluation and training share it."""
    lacking = [name for name in ("ray", "mlflow", "optuna") if importlib.util.find_spec(name) is None]
    if lacking:
        return f"skipped: {', '.join(lacking)} not installed"
    return "done" if ran([*SWEEP, "--out", str(to / "sweep")], to / "sweep.log", limit_s) else "FAILED, see sweep.log"


def main(
    to: Annotated[Path, typer.Option(help="Where everything goes.", metavar="DIR")] = Path("gpu-check"),
    budget_s: Annotated[float, typer.Option(help="Of all together.")] = 540.0,
    strategies: Annotated[str, typer.Option(help="To check, separated by commas.")] = ",".join(STRATEGIES),
) -> None:
    """Check this GPU's numbers, then measure it; leaves a folder to send.

    Example: python -m benchmarks.gpu_check --to gpu-check
    """
    if not torch.cuda.is_available():
        raise SystemExit(
            "`make gpu-check` must run where torch sees a GPU, but got none. Run it on a machine with one."
        )
    started_s, console = time.monotonic(), Console(width=130)
    to.mkdir(parents=True, exist_ok=True)
    (to / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
    half = ("bf16", "fp16") if half_of_device() == "bf16" else ("fp16",)
    results = correctness(strategies.split(","), ("no", *half), to)
    console.print(shown(results))
    sweep = swept(to, 120.0)
    console.print(f"A sweep of four trials, training and evaluation on one GPU: {sweep}")
    left_s = budget_s - (time.monotonic() - started_s) - 2 * STARTING_S
    for name, share, options in (("sd15_step", 0.6, STEP_OPTIONS), ("sd15_sampling", 0.4, SAMPLING_OPTIONS)):
        part_s = share * left_s
        command = [
            "-m",
            f"benchmarks.{name}",
            *options,
            "--budget-s",
            f"{part_s:.0f}",
            "--json",
            str(to / f"{name}.json"),
        ]
        is_done = ran(command, to / f"{name}.log", part_s + STARTING_S)
        console.print((to / f"{name}.log").read_text(), markup=False, highlight=False)
        if not is_done:
            console.print(f"{name}: ended early; what it measured is in {name}.json")
    console.print(f"Please send us the folder {to}: figures, versions and logs; no data, no weights.", soft_wrap=True)
    if sweep.startswith("FAILED") or not all(result.is_sound for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
