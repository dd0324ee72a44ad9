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
from analysis.metrics import METRICS, LabelledFeatures, ReferenceMoments, evaluate, frechet_distance, vendi_score

Features = NDArray[np.float64]
STUDY = {
    "Cardiomegaly": 4515,
    "Lung Opacity": 5000,
    "Edema": 5000,
    "No Finding": 2591,
    "Pneumothorax": 3027,
    "Pleural Effusion": 5000,
}
"""Films of each condition in the evaluation of Pixels under Pressure: test films, at most 5,000 of a condition."""


@dataclass(frozen=True)
class Timed:
    """A way to a number, the number, and the best of its times."""

    name: str
    value: float
    best_s: float


def main(
    *,
    dim: Annotated[int, typer.Option(help="Features an image.")] = 1024,
    num_images: Annotated[int, typer.Option(help="Images of each of the two large sets.")] = 2500,
    num_few: Annotated[int, typer.Option(help="Images of each of the two small sets.")] = 250,
    repeats: Annotated[int, typer.Option(help="Runs of each, of which the best counts.")] = 3,
    study_share: Annotated[float, typer.Option(help="Share of the study's 25,133 films; 0 leaves it out.")] = 1.0,
) -> None:
    """Compare values and times; ends with an error where two ways to a number differ by more than 1e-6.

    Example: python benchmarks/metrics.py --dim 256 --num-images 500 --num-few 60 --study-share 0.1
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
    if study_share:
        agreed.append(_report_study(dim, {name: int(study_share * count) for name, count in STUDY.items()}, repeats))
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


def _report_study(dim: int, counts: dict[str, int], repeats: int) -> bool:
    """FID and Vendi of each condition and overall, from the cache; whether second implementations agree."""
    total = sum(counts.values())
    labels = [name for name, count in counts.items() for _ in range(count)]
    generated, reference = (features.astype(np.float32) for features in _two_sets(total, dim))
    with TemporaryDirectory() as name:
        keys = _store(FeatureCache(Path(name)), generated, reference)

        def ours(kept: LabelledFeatures | None) -> dict[str, float]:
            """Both sets from the cache; the reference's derived values too, unless they are kept."""
            images, real = (FeatureCache(Path(name)).get(key) for key in keys)
            assert images is not None and real is not None
            films = kept or LabelledFeatures(real, labels)
            both = (METRICS["fid"], METRICS["vendi"])
            return evaluate(both, LabelledFeatures(images, labels), films, extractor="xrv", conditions=tuple(counts))

        kept = LabelledFeatures(reference, labels)
        values = ours(kept)
        ways: dict[str, Callable[[], float]] = {
            "this project": lambda: ours(None)["fid_xrv"],
            "this project, reference kept": lambda: ours(kept)["fid_xrv"],
        }
        _report(f"FID and Vendi, {len(counts)} conditions and overall, n = {total:,}, d = {dim}", ways, repeats)
    return _second_study(values, generated, reference, counts)


def _store(cache: FeatureCache, *sets: NDArray[np.float32]) -> list[FeatureKey]:
    """Write feature sets; their keys."""
    keys = [
        FeatureKey(
            data=f"set {number}",
            extractor="none",
            weights_hash="w",
            preprocessing="none",
            dtype="float32",
            count=len(features),
        )
        for number, features in enumerate(sets)
    ]
    for key, features in zip(keys, sets, strict=True):
        cache.get_or_compute(key, lambda features=features: features)  # type: ignore[misc]
    return keys


def _second_study(
    values: dict[str, float], generated: NDArray[np.float32], reference: NDArray[np.float32], counts: dict[str, int]
) -> bool:
    """The same by scipy's root and by n x n kernels, once each; the overall n x n kernel is out of reach."""
    stops = np.cumsum(list(counts.values()))
    rows = {f"/{name}": slice(stop - counts[name], stop) for name, stop in zip(counts, stops, strict=True)}
    start = time.perf_counter()
    distances = {
        f"fid_xrv{key}": _by_matrix_root(
            generated[rows_of_condition].astype(np.float64), reference[rows_of_condition].astype(np.float64)
        )
        for key, rows_of_condition in {"": slice(None), **rows}.items()
    }
    middle = time.perf_counter()
    scores = {
        f"vendi_xrv{key}": _by_kernel(generated[rows_of_condition].astype(np.float64))
        for key, rows_of_condition in rows.items()
    }
    typer.echo(f"  scipy sqrtm, {len(distances)} distances {middle - start:36.3f} s")
    typer.echo(
        f"  n x n kernels, {len(scores)} conditions, n <= {max(counts.values()):,}"
        f"{time.perf_counter() - middle:21.3f} s"
    )
    differences = {key: abs(values[key] / value - 1) for key, value in {**distances, **scores}.items()}
    worst, difference = max(differences.items(), key=lambda item: item[1])
    typer.echo(f"  largest relative difference {difference:.1e}, of {worst}")
    return difference < 1e-6


def _report_cache(features: NDArray[np.float32], repeats: int) -> None:
    """Time of mapping checked features, beside reading them from a NumPy file without a check."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        key = FeatureKey(
            data="d", extractor="none", weights_hash="w", preprocessing="none", dtype="float32", count=len(features)
        )
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
