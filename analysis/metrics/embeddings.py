"""CLIP score: how well images match the prompts that they were made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.metrics.inputs import as_floats, unit_rows


def clip_score(images: ArrayLike, texts: ArrayLike) -> float:
    """Mean of 100 max(cos, 0) between the embedding of each image and that of its prompt.

    Args:
        images: float[n, d] image embeddings.
        texts: float[n, d] text embeddings of the same model, one for each image.

    Returns:
        A value in [0, 100]; higher is better.

    Raises:
        ValueError: different shapes, no image, NaN or infinity, or a row of zeros.

    Source:
        Hessel et al. 2021, eq. 1, with w = 100 in place of 2.5, as is usual.
    """
    pictures, prompts = as_floats(images, "images", min_images=1), as_floats(texts, "texts", min_images=1)
    if pictures.shape != prompts.shape:
        raise ValueError(
            f"`images` and `texts` must have one embedding of the same model for each image, but got "
            f"{list(pictures.shape)} and {list(prompts.shape)}. Repeat a prompt for each of its images."
        )
    cosines = np.einsum("ij,ij->i", unit_rows(pictures, "images"), unit_rows(prompts, "texts"))
    return float(100 * np.clip(cosines, 0, 1).mean())
