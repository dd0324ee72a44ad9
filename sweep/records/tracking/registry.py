"""The adapter that a sweep proposes, in MLflow's model registry."""

from __future__ import annotations

import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from sweep.records.tracking.store import Runs, link

MODEL: Final = "model"
"""Folder of the model among the artifacts of the knee's run."""
KNEE: Final = "knee"
"""Alias of the version that is the knee of the sweep that ended last."""
PACKAGES: Final = ("torch", "diffusers", "transformers", "peft", "safetensors", "pillow", "pandas")


def register_knee(runs: Runs, trial_id: str, preset: str) -> None:
    """Give the knee's adapter the alias `knee` in the registry, as a version of `radiograph-PRESET`.

    One that has it already keeps its version. Its files are links to the trial's own where the store is of the run directory.

    Args:
        runs: of the sweep.
        trial_id: of the knee.
        preset: names the model.
    """
    from mlflow.exceptions import MlflowException

    client, name, run_id = runs.client, f"radiograph-{preset}", runs.children[trial_id]
    adapter = runs.place.out / "trials" / trial_id / "adapter"
    if not adapter.is_dir():
        return
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = [version for version in client.search_model_versions(f"name = '{name}'") if version.run_id == run_id]
    registered_version = versions[0] if versions else _new_version(runs, run_id, adapter, name)
    client.set_registered_model_alias(name, KNEE, registered_version.version)


def _new_version(runs: Runs, run_id: str, adapter: Path, name: str) -> Any:
    with tempfile.TemporaryDirectory(prefix=".model-", dir=runs.place.out) as folder:
        model = Path(folder) / MODEL
        _save(model, adapter)
        link(adapter, model / "artifacts" / adapter.name)  # in the place of the copies
        runs.keep(run_id, [model])
    artifacts = runs.client.get_run(run_id).info.artifact_uri
    return runs.client.create_model_version(name, f"{artifacts}/{MODEL}", run_id)


def _save(to: Path, adapter: Path) -> None:
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    params = [
        ParamSpec("seed", DataType.long, 0),
        ParamSpec("num_steps", DataType.long, 20),
        ParamSpec("guidance_scale", DataType.double, 4.0),
    ]
    # The signature is exact, and an example would be sampled by the model while the sweep ends.
    warnings.filterwarnings("ignore", ".*An input example was not provided", UserWarning)
    prompt, png = ColSpec(DataType.string, "prompt"), ColSpec(DataType.binary, "png")
    save_model(
        to,
        python_model=str(Path(__file__).with_name("film_model.py")),
        artifacts={"adapter": adapter.resolve().as_uri()},  # of a plain path, MLflow takes some letters for others
        signature=ModelSignature(Schema([prompt]), Schema([prompt, png]), ParamSchema(params)),
        pip_requirements=[f"{package}=={version(package)}" for package in PACKAGES],
    )
