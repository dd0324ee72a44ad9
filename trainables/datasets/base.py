"""The contract of an image-text source: where the radiographs, their prompts and their findings come from."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.captions import PromptTemplate, named_template
from trainables.datasets.containers import GreyRange
from trainables.datasets.parallel import Mapper, in_order
from trainables.datasets.problems import Problem
from trainables.datasets.rules import AS_THEY_ARE, LabelRules

if TYPE_CHECKING:
    from trainables.datasets.validation import SampleChecker

CONDITIONS = ("Cardiomegaly", "Lung Opacity", "Edema", "No Finding", "Pneumothorax", "Pleural Effusion")
SPLITS = ("train", "validation", "test")
SPLIT_SHARES = (0.70, 0.15, 0.15)
SPLIT_ENDS = tuple(itertools.accumulate(SPLIT_SHARES))
MAX_SIDE_PX = 8192
VIEWS = ("PA", "AP")
SplitSizes = Mapping[str, Mapping[str, int]]
"""Films by split and finding; those of all films together stand under the empty text."""
SplitShares = tuple[float, float, float]
"""Parts of all films, from 0 to 1, in the order of `SPLITS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextSample:
    """One radiograph with what is known of it.

    Attributes:
        image: grey levels, uint8[H, W], square, air dark and bone bright.
        prompt: the text that a diffusion model is trained on.
        conditions: findings in the words of the source's `conditions`; never empty.
        patient_id: equal for all images of a patient, so that a split can be made by patient.
        image_id: unique within the source.
        age: in years, where known.
        sex: "F" or "M", where known.
        view: "PA" or "AP", where known.
        unknown: findings that may be there or not; none of `conditions`.
    """

    image: NDArray[np.uint8]
    prompt: str
    conditions: tuple[str, ...]
    patient_id: str
    image_id: str
    age: int | None = None
    sex: str | None = None
    view: str | None = None
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what the models and metrics could not use."""
        if self.image.dtype != np.uint8 or self.image.ndim != 2 or self.image.shape[0] != self.image.shape[1]:
            raise ValueError(
                f"`image` must be a square uint8[H, W], but got {self.image.dtype}{list(self.image.shape)} "
                f"for {self.image_id}. Convert it to grey and resize it first."
            )
        if not self.conditions:
            raise ValueError(
                f"`conditions` must name at least one finding, but got none for {self.image_id}. Use 'No Finding'."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """What a user may say about any source; each takes what concerns it and refuses what cannot.

    Attributes:
        root: folder of the raw data.
        resolution_px: side of the images.
        seed: of the split, or of generated patients.
        num_patients: how many patients to generate.
        conditions: findings to evaluate by; None leaves the choice to the source.
        caption: name of the template of the prompts.
        with_view, with_age, with_sex: name them in the prompts.
        rules: how labels, texts and splits of a collection are read.
        sizes: how many films each split is to hold, in all or of each finding, or which share of all; None: shares of the
            patients.
        num_train: training films to keep; fewer are always among more.
        fit: how films become square: `stretch`ed, the middle `crop`ped out, or with black bars as a `letterbox`.
        max_rejects: share of the films that may be left out for they are not there or cannot be read; above it, none is
            and the collection is refused.
        num_tokens_of: counts the tokens of a text, where own texts are to be cut to what the text encoder takes.
        bits: that pictures of more than 8 bits store; None leaves it to the films.
        grey_range: the levels that are black and white; None leaves it to the films.
        window: name of the window through which CT is seen; None leaves it to each film's own.
        label_map: a CSV file that says which findings labels stand for.
        on_film: told how many films have been looked at, of how many, before any is prepared.
        mapper: does the work on each film, by default on this machine's cores.
        scratch: folder on whose disk films may wait, prepared at the first look, until all are looked at; None: they are decoded
            twice.
    """

    root: Path | None = None
    resolution_px: int = 64
    seed: int = 0
    num_patients: int | None = None
    conditions: tuple[str, ...] | None = None
    caption: str = "subject"
    with_view: bool = False
    with_age: bool = False
    with_sex: bool = False
    rules: LabelRules = AS_THEY_ARE
    sizes: SplitSizes | SplitShares | None = None
    num_train: int | None = None
    fit: str = "stretch"
    max_rejects: float = 0.01
    num_tokens_of: Callable[[str], int] | None = None
    bits: int | None = None
    grey_range: GreyRange | None = None
    window: str | None = None
    label_map: Path | None = None
    on_film: Callable[[int, int], None] | None = None
    mapper: Mapper = in_order
    scratch: Path | None = None

    def template(self) -> PromptTemplate:
        """How captions are to be made.

        Raises:
            ValueError: there is no such template, or it cannot say what is asked for.
        """
        return named_template(self.caption, with_view=self.with_view, with_age=self.with_age, with_sex=self.with_sex)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What a look at raw data found.

    Attributes:
        problems: all that keeps them from being prepared.
        said: what was understood, merged and left out.
        captions: of all films that could be read so far.
    """

    problems: tuple[Problem, ...] = ()
    said: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


class ImageTextSource(ABC):
    """A data set of radiographs with prompts, split by patient into train, validation and test.

    A source is deterministic: two iterations give the same samples in the same order, and no patient is in two splits.
    """

    name: ClassVar[str]
    conditions: tuple[str, ...]
    """Findings to evaluate by; each occurs in every split."""
    prompts: PromptTemplate
    """How the captions of its samples are made."""
    rules: LabelRules = AS_THEY_ARE
    """How its labels, texts and splits were read."""
    resolution_px: int
    said: tuple[str, ...] = ()
    """What was understood, merged and left out, a sentence each."""

    @classmethod
    @abstractmethod
    def create(cls, options: SourceOptions) -> Self:
        """The source that these options describe.

        Raises:
            ValueError: an option is missing, or makes no sense for this source.
        """

    @classmethod
    def check(cls, options: SourceOptions) -> Checked:
        """Look for all that is wrong with the raw data, in one pass and without preparing them.

        Raises:
            ValueError, FileNotFoundError: as `create`, for options; problems of the data are returned.
        """
        return Checked(said=cls.create(options).said)

    @abstractmethod
    def samples(self, split: str) -> Iterator[ImageTextSample]:
        """The samples of `train`, `validation` or `test`, always in the same order.

        Raises:
            ValueError: an unknown split, or an image that cannot be read.
        """

    def samples_after(self, split: str, number: int) -> Iterator[ImageTextSample]:
        """The samples of a split but the first few; a source that need not make these to leave them out overrides it."""
        return itertools.islice(self.samples(split), number, None)

    def written(self, folder: Path) -> SampleChecker | None:
        """Have the files of all splits in a folder, as `tensors.film_writer` writes them, if the source has made them already.

        Args:
            folder: where they are to be; files of their names are replaced.

        Returns:
            What has checked and hashed their samples; None where they are still to be written, as they are by default.
        """
        return None

    @abstractmethod
    def num_samples(self, split: str) -> int:
        """How many samples the split holds, without drawing or reading them."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hexadecimal hash that changes with anything that changes the samples."""


def require_split(split: str) -> str:
    """The split itself, if it is one.

    Raises:
        ValueError: it is none of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, but got {split!r}")
    return split


def require_resolution(resolution_px: int) -> int:
    """The side of the images, if it is from 64 to 8,192 px and a multiple of 8.

    Raises:
        ValueError: it is not.
    """
    if not 64 <= resolution_px <= MAX_SIDE_PX or resolution_px % 8:
        raise ValueError(
            f"`resolution_px` must be a multiple of 8 from 64 to {MAX_SIDE_PX:,}, but got {resolution_px}. "
            "Use for example 64 or 512."
        )
    return resolution_px


def split_of_patient(patient_id: str, seed: int = 0) -> str:
    """The split that all images of a patient belong to, by the hash of the patient alone.

    Adding or removing other patients never moves a patient from one split to another.

    Args:
        patient_id: the patient.
        seed: another seed gives another split.

    Returns:
        One of `SPLITS`; the expected shares are 70, 15 and 15 %.
    """
    digest = hashlib.sha256(f"{seed}/{patient_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for split, end in zip(SPLITS, SPLIT_ENDS, strict=True):
        if position < end:
            return split
    return SPLITS[-1]
