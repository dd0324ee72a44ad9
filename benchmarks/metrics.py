"""Times the metrics against second implementations of the same numbers: `python benchmarks/metrics.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import scipy.linalg
import typer
from numpy.typing import NDArray

from analysis.features.cache import FeatureCache, FeatureKey
from analysis.metrics import ReferenceMoments, frechet_distance, vendi_score

Features = NDArray[np.float64]


@dataclass(frozen=True)
class Timed:
    """A way to a number, the number, and the best of its times."""

    name: str
    value: float
    best_s: float


def main(
    dim: Annotated[int, typer.Option(help="Features an image.")] = 1024,
    num_images: Annotated[int, typer.Option(help="Images of each of the two large sets.")] = 2500,
    num_few: Annotated[int, typer.Option(help="Images of each of the two small sets.")] = 250,
    repeats: Annotated[int, typer.Option(help="Runs of each, of which the best counts.")] = 3,
) -> None:
    """Compare values and times; ends with an error where two ways to a number differ by more than 1e-6.

    Example: python benchmarks/metrics.py --dim 256 --num-images 500 --num-few 60
    """
    large, few = _two_sets(num_images, dim), _two_sets(num_few, dim)
    moments = ReferenceMoments.of(large[1])
    groups = {
        f"Fréchet distance, n = {num_images}, d = {dim}": {
            "scipy sqrtm of the product": lambda: _by_matrix_root(*large),
            "eigenvalues of the product": lambda: _by_eigenvalues(*large),
            "this project": lambda: frechet_distance(*large),
            "this project, reference kept": lambda: frechet_distance(large[0], moments),
        },
        f"Fréchet distance, n = {num_few}, d = {dim}": {
            "scipy sqrtm of the product": lambda: _by_matrix_root(*few),
            "this project": lambda: frechet_distance(*few),
        },
        f"Vendi score, n = {num_images}, d = {dim}": {
            "n x n kernel": lambda: _by_kernel(large[0]),
            "this project": lambda: vendi_score(large[0]),
        },
    }
    agreed = [_report(title, ways, repeats) for title, ways in groups.items()]
    _report_cache(large[1].astype(np.float32), repeats)
    if not all(agreed):
        typer.echo("Two implementations differ by more than 1e-6.", err=True)
        raise typer.Exit(1)


def _two_sets(num_images: int, dim: int) -> tuple[Features, Features]:
    """Generated and reference features with a decaying spectrum, as a network's have, none of them negative."""
    rng = np.random.default_rng(0)
    scales = np.arange(1, dim + 1) ** -0.7
    first, second = (np.abs(rng.standard_normal((num_images, dim)) * scales + 0.2 * scales) for _ in range(2))
    return first + 0.05, second


def _by_matrix_root(generated: Features, reference: Features) -> float:
    ours, theirs = np.cov(generated, rowvar=False), np.cov(reference, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(ours @ theirs))
    return _distance(generated, reference, float(np.trace(root)))


def _by_eigenvalues(generated: Features, reference: Features) -> float:
    ours, theirs = np.cov(generated, rowvar=False), np.cov(reference, rowvar=False)
    eigenvalues = np.real(scipy.linalg.eigvals(ours @ theirs))
    return _distance(generated, reference, float(np.sqrt(np.clip(eigenvalues, 0, None)).sum()))


def _distance(generated: Features, reference: Features, root_trace: float) -> float:
    means = generated.mean(axis=0) - reference.mean(axis=0)
    traces = generated.var(axis=0, ddof=1).sum() + reference.var(axis=0, ddof=1).sum()
    return float(means @ means + traces - 2 * root_trace)


def _by_kernel(features: Features) -> float:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    eigenvalues = eigenvalues[eigenvalues > 1e-14]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def _report(title: str, ways: dict[str, Callable[[], float]], repeats: int) -> bool:
    """Print one group; whether its values agree."""
    timed = [_timed(name, way, repeats) for name, way in ways.items()]
    typer.echo(title)
    for way in timed:
        typer.echo(f"  {way.name:30s} {way.value:14.8f} {way.best_s:9.3f} s {timed[0].best_s / way.best_s:8.1f} x")
    return bool(np.allclose([way.value for way in timed], timed[0].value, rtol=1e-6))


def _timed(name: str, way: Callable[[], float], repeats: int) -> Timed:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = way()
        times.append(time.perf_counter() - start)
    return Timed(name, value, min(times))


def _report_cache(features: NDArray[np.float32], repeats: int) -> None:
    """Time of mapping checked features, beside reading them from a NumPy file without a check."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        key = FeatureKey(
            data="d", extractor="none", weights_hash="w", preprocessing="none", dtype="float32", count=len(features)
        )  # fmt: skip
        cache = FeatureCache(folder / "cache")
        cache.get_or_compute(key, lambda: features)
        np.save(folder / "plain.npy", features)
        ways: dict[str, Callable[[], float]] = {
            "numpy.load": lambda: float(np.load(folder / "plain.npy")[-1, -1]),
            "feature cache, checked": lambda: float(cache.get_or_compute(key, lambda: features)[-1, -1]),
        }
        _report(f"Features from disk, {features.nbytes / 2**20:.1f} MiB", ways, repeats)


if __name__ == "__main__":
    typer.run(main)
