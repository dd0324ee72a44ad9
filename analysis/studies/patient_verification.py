"""Whether two films are of one patient, by a network that was trained to tell: CheXGenBench's measure of privacy."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

from analysis.features.weights import hash_state, load_exactly, read_state
from analysis.films.labelled import check_images

INPUT_PX: Final = 224
NUM_FEATURES: Final = 128
BATCH_SIZE: Final = 64


class SiameseNetwork(nn.Module):
    """A ResNet-50 that describes a film, and a layer that compares two descriptions.

    Its parts are named as in the files that its authors publish.

    Source: Packhäuser et al. 2022, Deep learning-based patient re-identification is able to exploit the biometric nature of
    medical chest X-ray data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = resnet50(weights=None, num_classes=NUM_FEATURES)
        self.fc_end = nn.Linear(NUM_FEATURES, 1)

    def describe(self, pixels: Tensor) -> Tensor:
        """float[n, 3, 224, 224] in [0, 1] to float[n, 128] in (0, 1)."""
        described: Tensor = torch.sigmoid(self.model(pixels))
        return described

    def forward(self, first: Tensor, other: Tensor) -> Tensor:
        """The probability that two films are of one patient, of their descriptions float[..., 128]."""
        probability: Tensor = torch.sigmoid(self.fc_end((first - other).abs())).squeeze(-1)
        return probability


class PatientVerifier:
    """Compares films with films.

    Args:
        network: with the weights to use.
        device: where to compute.
    """

    def __init__(self, network: SiameseNetwork, device: str | torch.device = "cpu") -> None:
        self.weights_hash = hash_state(network.state_dict())
        self._network, self._device = network.eval().requires_grad_(False).to(device), torch.device(device)

    @torch.inference_mode()
    def describe(self, films: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the network makes of each film: uint8[n, H, W] grey to float32[n, 128].

        Films are made of 224 px as Pillow does it, and their levels are shares of white, without any other norm.
        """
        check_images(films)
        size = (INPUT_PX, INPUT_PX)
        small = np.stack([np.asarray(Image.fromarray(film).resize(size, Image.Resampling.BILINEAR)) for film in films])
        parts = [
            self._network.describe(part.to(self._device).float()[:, None].expand(-1, 3, -1, -1) / 255).cpu()
            for part in torch.split(torch.from_numpy(small), BATCH_SIZE)
        ]
        described: NDArray[np.float32] = torch.cat(parts).numpy()
        return described

    @torch.inference_mode()
    def same_patient(self, real: NDArray[np.float32], generated: NDArray[np.float32]) -> NDArray[np.float32]:
        """How likely each generated film is of the patient of its real one.

        Args:
            real: float32[p, 128], descriptions of a film for each prompt.
            generated: float32[p, s, 128], those of s films for each prompt.

        Returns:
            float32[p, s] in (0, 1); lower is better.
        """
        first, others = (torch.from_numpy(each).to(self._device) for each in (real, generated))
        likely: NDArray[np.float32] = self._network(first[:, None], others).cpu().numpy()
        return likely


def load_verifier(weights: Path, device: str | torch.device = "cpu") -> PatientVerifier:
    """The network with its authors' weights.

    Args:
        weights: their `.pth`, or the same tensors as safetensors; no code in it is run.
        device: where to compute.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another network.
    """
    network = SiameseNetwork()
    load_exactly(network, read_state(weights), weights)
    return PatientVerifier(network, device)
