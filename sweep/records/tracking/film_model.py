"""What MLflow loads for an adapter of its model registry: prompts in, films out.

MLflow runs this file where it saves the model and where it loads it; the latter needs this project installed, and the base.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from PIL import Image

AT_ONCE = 16
"""Films that are made together; what they show does not depend on it."""


class FilmModel(PythonModel):  # type: ignore[misc]  # MLflow is not typed here
    """Films from prompts, the same from the same seed."""

    def load_context(self, context: Any) -> None:
        """Load base and adapter, on the GPU where there is one."""
        import torch

        from trainables.base_models.models import load_base
        from trainables.numerics import numerics_on
        from trainables.strategies import load_adapter
        from trainables.strategies.card import read_card

        adapter = Path(context.artifacts["adapter"])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        models = load_base(read_card(adapter)["base"]["name"]).to(device).computing_in(numerics_on(device, "auto"))
        load_adapter(models, adapter)
        self._models = models.to(device)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A film for each prompt.

        Args:
            context: MLflow's.
            model_input: a column `prompt`.
            params: `seed` of the first film, of which the next have the next numbers; `num_steps`; `guidance_scale`.

        Returns:
            The prompts, and in the column `png` the bytes of a grey PNG file each.
        """
        import torch

        from sweep.scoring.streaming import as_grey
        from trainables.sampling import generate

        prompts, given = list(model_input["prompt"]), params or {}
        seeds = [int(given["seed"]) + number for number in range(len(prompts))]
        options: dict[str, Any] = {
            "num_steps": int(given["num_steps"]),
            "guidance_scale": float(given["guidance_scale"]),
            "batch_size": AT_ONCE,
        }
        films = as_grey(torch.from_numpy(generate(self._models, prompts, seeds, **options))).numpy()
        return pd.DataFrame({"prompt": prompts, "png": [_png(film) for film in films]})


def _png(film: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(film).save(content, "PNG")
    return content.getvalue()


set_model(FilmModel())
