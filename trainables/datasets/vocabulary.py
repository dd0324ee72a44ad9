"""What findings are called: the known ones in whatever spelling, a user's own names, and what names none."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from trainables.datasets.problems import Ledger, count_of
from trainables.datasets.rows import is_missing

NO_FINDING = "No Finding"
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    NO_FINDING: ("Normal", "Healthy"),
    "Atelectasis": (),
    "Cardiomegaly": (),
    "Consolidation": (),
    "Edema": ("Oedema", "Pulmonary Edema", "Pulmonary Oedema"),
    "Emphysema": (),
    "Enlarged Cardiomediastinum": (),
    "Fibrosis": (),
    "Fracture": (),
    "Hernia": (),
    "Infiltration": ("Infiltrate",),
    "Lung Lesion": (),
    "Lung Opacity": (),
    "Mass": (),
    "Nodule": (),
    "Pleural Effusion": ("Effusion",),
    "Pleural Other": (),
    "Pleural Thickening": (),
    "Pneumonia": (),
    "Pneumothorax": (),
    "Support Devices": (),
}
"""The findings of ChestX-ray14 and CheXpert in the project's words, with other words for them."""
SEPARATORS = ",;|\t\n"
BRACKETS = "[({"
QUOTES = BRACKETS + "'\""
JOINED = re.compile(r"\s*[/&+]\s*|\s+(?:and|with)\s+", re.IGNORECASE)
MISSPELT = 0.9
"""Labels at least so similar to a known finding are taken for misspellings of it."""
OWN_NAME = "Write them as one of the known findings, or say with --label-map FILE what they are."
Refuse = Callable[[str, str], None]
"""Takes what came and the remedy."""


@lru_cache(maxsize=4096)
def fold(label: str) -> str:
    """What is equal for all spellings of a label that differ in case, underscores, hyphens, dots and white space."""
    return re.sub(r"[\s_\-.]+", "", unicodedata.normalize("NFKC", label).casefold())


KNOWN: Mapping[str, str] = {
    fold(spelling + plural): finding
    for finding, others in SPELLINGS.items()
    for spelling in (finding, *others)
    for plural in ("", "s", "es")
}


@dataclass
class Vocabulary:
    """Reads the labels of one collection, and counts what it makes of them.

    Attributes:
        separator: between the labels of a film.
        words: what the project calls a finding, where the collection calls it otherwise by its own rules.
        label_map: findings that a user's labels stand for.
    """

    separator: str
    words: Mapping[str, str] = field(default_factory=dict)
    label_map: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin without counts."""
        self._words = {fold(word): finding for word, finding in self.words.items()}
        self._by_label = {fold(label): findings for label, findings in self.label_map.items()}
        self._unknown: dict[str, Counter[str]] = {}
        self._folded: Counter[tuple[str, str]] = Counter()
        self._own_kind: Counter[str] = Counter()
        self._used: set[str] = set()
        self._repeated = self._otherwise = 0

    def learn(self, cells: Iterable[str]) -> None:
        """Note in which spellings labels come that are not known, so that all of one are read alike."""
        for cell in cells:
            for label in self._split(cell):
                if self._known(label) is None:
                    self._unknown.setdefault(fold(label), Counter())[label] += 1

    def findings(self, cell: str, refuse: Refuse) -> tuple[str, ...]:
        """The findings of a film, each once, in the order of its labels; none after calling `refuse`."""
        named = self._own_findings(cell) or self._of_labels(cell, refuse)
        once = tuple(dict.fromkeys(named))
        self._repeated += len(once) < len(named)
        if contradicts_itself(once):
            refuse(f"{cell!r}, which contradicts itself", "Remove one or the other.")
            return ()
        return once

    def of_collection(self, labels: Iterable[str], refuse: Refuse) -> tuple[str, ...]:
        """The findings that a collection has by its own rules, each once; a user's own names go before."""
        once = self.named(labels)
        for name in once:
            self._own_kind[name] += name not in SPELLINGS
        if contradicts_itself(once):
            refuse(f"{'|'.join(once)!r}, which contradicts itself", "Remove one or the other.")
            return ()
        return once

    def named(self, labels: Iterable[str]) -> tuple[str, ...]:
        """What the project calls a collection's own findings; those that it does not know keep their names."""
        findings: list[str] = []
        for label in labels:
            findings += self._own_findings(label) or self._known(label) or (label,)
        return tuple(dict.fromkeys(findings))

    def name(self, label: str) -> str:
        """What the collection calls a finding that a user names in any spelling; the label itself if it is not known."""
        known = self._known(label)
        if known is not None and len(known) == 1:
            return known[0]
        return self._common(fold(label)) or label

    def report(self, ledger: Ledger) -> None:
        """Say what was folded, split, repeated and not known."""
        if self._folded:
            folded = [f"{spelt!r} ({count}) as {finding}" for (spelt, finding), count in sorted(self._folded.items())]
            ledger.say(f"Labels in other words are read as known findings: {', '.join(folded)}.")
        if self._otherwise:
            ledger.say(
                f"Labels of {count_of(self._otherwise, 'film')} are separated otherwise than by {self.separator!r} "
                "and are read as several."
            )
        if self._repeated:
            ledger.say(f"Labels of {count_of(self._repeated, 'film')} name a finding twice; it counts once.")
        own_kind = +self._own_kind
        if own_kind:
            names = [f"{name!r} ({count}{_nearest(name)})" for name, count in sorted(own_kind.items())]
            ledger.say(f"Labels that are not known count as findings of their own: {', '.join(names)}.")

    def unused(self) -> list[str]:
        """The user's own labels that no film has."""
        return [label for label in self.label_map if fold(label) not in self._used]

    def _split(self, cell: str) -> list[str]:
        return [label.strip() for label in cell.split(self.separator) if label.strip()]

    def _known(self, label: str) -> tuple[str, ...] | None:
        key = fold(label)
        if key in self._by_label:
            return self._by_label[key]
        finding = self._words.get(key) or KNOWN.get(key)
        return None if finding is None else (finding,)

    def _common(self, key: str) -> str | None:
        """The most frequent spelling of an unknown label, the first by name among equals."""
        forms = self._unknown.get(key)
        return min(forms, key=lambda form: (-forms[form], form)) if forms else None

    def _own_findings(self, cell: str) -> tuple[str, ...]:
        """What a user's own name for a whole cell stands for, whatever signs are in it."""
        key = fold(cell)
        if key in self._by_label:
            self._used.add(key)
        return self._by_label.get(key, ())

    def _of_labels(self, cell: str, refuse: Refuse) -> tuple[str, ...]:
        labels = self._split(cell)
        if is_missing(cell) or not labels:
            refuse(repr(cell), "Remove the row, or write 'No Finding' where that is meant.")
            return ()
        if cell[0] in BRACKETS:
            refuse(repr(cell), f"Write labels without brackets and quotes, separated by {self.separator!r}.")
            return ()
        return self._of_all(cell, labels, refuse)

    def _of_all(self, cell: str, labels: list[str], refuse: Refuse) -> tuple[str, ...]:
        findings: list[str] = []
        split_otherwise = False
        for label in labels:
            named = self._own_findings(label) or self._of_label(label)
            if named is None:
                named = self._of_several(label)
                split_otherwise |= named is not None
            if named is None:
                named = self._of_unknown(cell, label, refuse)
            if not named:
                return ()
            findings += named
        self._otherwise += split_otherwise
        return tuple(findings)

    def _of_label(self, label: str) -> tuple[str, ...] | None:
        known = self._known(label)
        if known is not None and label not in (*known, *self.words):
            self._folded[label, known[0]] += 1
        return known

    def _of_several(self, label: str) -> tuple[str, ...] | None:
        """The findings of labels separated by another sign, where each of them is known."""
        parts = [part.strip() for part in re.split(f"[{re.escape(SEPARATORS)}]", label) if part.strip()]
        if len(parts) < 2 or any(self._known(part) is None for part in parts):
            return None
        return tuple(finding for part in parts for finding in self._own_findings(part) or self._of_label(part) or ())

    def _of_unknown(self, cell: str, label: str, refuse: Refuse) -> tuple[str, ...]:
        """The label itself, unless it looks like something else than a label."""
        several = f"Separate labels by {self.separator!r}, or say with --label-map FILE what the whole is called."
        if is_missing(label) or not any(sign.isalpha() for sign in label):
            refuse(f"{cell!r}, in which {label!r} names nothing", "Write the finding's name.")
        elif label[0] in QUOTES:
            refuse(repr(cell), f"Write labels without brackets and quotes, separated by {self.separator!r}.")
        elif set(label) & set(SEPARATORS) or self._joins_known(label):
            refuse(f"{cell!r}, which may be several findings", several)
        elif near := misspelt(label):
            refuse(f"{label!r}, which looks like {near}", OWN_NAME)
        else:
            name = self._common(fold(label)) or label
            self._own_kind[name] += 1
            return (name,)
        return ()

    def _joins_known(self, label: str) -> bool:
        parts = [part for part in JOINED.split(label) if part]
        return len(parts) > 1 and all(self._known(part) is not None for part in parts)


def contradicts_itself(findings: Collection[str]) -> bool:
    """Whether a film would have findings and none; devices are no finding."""
    return NO_FINDING in findings and not {NO_FINDING, "Support Devices"}.issuperset(findings)


def nearest_known(label: str) -> str | None:
    """The known finding whose name is most similar, if any is."""
    near = difflib.get_close_matches(fold(label), KNOWN, n=1, cutoff=0.5)
    return KNOWN[near[0]] if near else None


def misspelt(label: str) -> str | None:
    """The known finding that an unknown label is so similar to that it must be meant, if there is one."""
    near = difflib.get_close_matches(fold(label), KNOWN, n=1, cutoff=MISSPELT)
    return KNOWN[near[0]] if near else None


def _nearest(label: str) -> str:
    near = nearest_known(label)
    return f"; nearest known: {near}" if near else ""
