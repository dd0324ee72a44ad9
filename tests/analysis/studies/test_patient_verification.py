"""CheXGenBench's privacy against its plain loop, on torchvision's own transforms, and in closed form."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.models import resnet50

from analysis.studies.chexgenbench import feature_distances, privacy_row
from analysis.studies.patient_verification import PatientVerifier, SiameseNetwork, load_verifier

FILMS = np.random.default_rng(0).integers(0, 256, (4, 96, 96), np.uint8)


class Plain(nn.Module):
    """The network as its authors' file has it, with one film in each of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.model = resnet50(weights=None)
        self.model.fc = nn.Linear(2048, 128)
        self.fc_end = nn.Linear(128, 1)

    def forward(self, first: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        apart = torch.abs(torch.sigmoid(self.model(first)) - torch.sigmoid(self.model(other)))
        return torch.sigmoid(self.fc_end(apart))


@pytest.fixture(scope="module")
def plain() -> Plain:
    torch.manual_seed(0)
    network = Plain()
    with torch.no_grad():
        network.fc_end.weight.mul_(30)  # else all films are alike to it
    return network.eval()


@pytest.fixture(scope="module")
def verifier(plain: Plain, tmp_path_factory: pytest.TempPathFactory) -> PatientVerifier:
    """From a file as the authors publish theirs: a pickled state dict."""
    path = tmp_path_factory.mktemp("weights") / "verifier.pth"
    torch.save(OrderedDict(plain.state_dict()), path)
    return load_verifier(path)


@pytest.mark.slow
@torch.inference_mode()
def test_it_is_the_authors_network_on_torchvisions_transforms(plain: Plain, verifier: PatientVerifier) -> None:
    seen = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])
    inputs = [seen(Image.fromarray(film).convert("RGB"))[None] for film in FILMS]
    expected = [[float(plain(inputs[real], inputs[made])) for made in (2, 3)] for real in (0, 1)]
    described = verifier.describe(FILMS)
    likely = verifier.same_patient(described[:2], np.stack([described[2:]] * 2))
    np.testing.assert_allclose(likely, expected, rtol=1e-4)
    assert np.ptp(likely) > 1e-3


@pytest.mark.slow
def test_a_film_beside_itself_is_worth_the_bias_alone(plain: Plain, verifier: PatientVerifier) -> None:
    described = verifier.describe(FILMS[:2])
    likely = verifier.same_patient(described, described[:, None])
    np.testing.assert_allclose(likely, torch.sigmoid(plain.fc_end.bias).item(), rtol=1e-6)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="`weights` must fit SiameseNetwork as configured"):
        load_verifier(tmp_path / "other.pth")


def test_the_row_takes_the_mean_and_the_nearest_of_each_prompt() -> None:
    likely, distances = np.array([[0.1, 0.3], [0.5, 0.9]]), np.array([[4.0, 2.0], [8.0, 6.0]])
    row = privacy_row(likely, distances, "mini")
    assert row == {
        "benchmark_reid_mean": pytest.approx(0.45),
        "benchmark_reid_max": pytest.approx(0.6),
        "benchmark_distance_mean_mini": pytest.approx(5.0),
        "benchmark_distance_min_mini": pytest.approx(4.0),
    }
    with pytest.raises(ValueError, match="must be of the same prompts and films"):
        privacy_row(likely, distances[:1], "mini")


def test_distances_are_those_of_its_code() -> None:
    real, made = np.random.default_rng(1).normal(size=(2, 6)), np.random.default_rng(2).normal(size=(2, 3, 6))
    expected = [[float(np.linalg.norm(real[p] - made[p, s]) / 6**0.5) for s in range(3)] for p in range(2)]
    np.testing.assert_allclose(feature_distances(real, made), expected, rtol=1e-12)


def test_the_network_is_named_as_in_its_authors_files(plain: Plain) -> None:
    with torch.device("meta"):
        assert SiameseNetwork().state_dict().keys() == plain.state_dict().keys()
