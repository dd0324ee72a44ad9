"""Small stand-ins for real collections, in the layouts that their users have on disk."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from film_folders import film
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from trainables.datasets import SourceOptions
from trainables.datasets.graded import CHEXPERT

NUM_FILMS = 150
SHOWN = ("Cardiomegaly", "Lung Opacity", "Edema", "No Finding", "Pneumothorax", "Pleural Effusion")
INDIANA_MAJOR = (
    "Cardiomegaly/mild",
    "Opacity/lung/base/left",
    "Pulmonary Edema",
    "normal",
    "Pneumothorax",
    "Pleural Effusion",
)
EVALUATED = ("No Finding",)
"""The automatic choice asks for five films of a finding in every split, which so few films may not have."""
Row = Sequence[object]


def chexpert(root: Path, num_films: int = NUM_FILMS) -> SourceOptions:
    """CheXpert's small release: two films a patient, every ninth a lateral one, every fifth with an uncertain edema."""
    rows: dict[str, list[Row]] = {"train": [], "valid": []}
    for number in range(num_films):
        lateral = number % 9 == 8
        side, split = "lateral" if lateral else "frontal", "valid" if number // 2 % 7 == 6 else "train"
        place = f"{split}/patient{number // 2:05d}/study1/view{number % 2 + 1}_{side}.jpg"
        save(root / place, number)
        about = (f"CheXpert-v1.0-small/{place}", ("Female", "Male")[number // 2 % 2], 20 + number % 60)
        views = ("Lateral", "") if lateral else ("Frontal", ("AP", "PA")[number % 2])
        rows[split].append((*about, *views, *graded(number)))
    for split, table in rows.items():
        write(root / f"{split}.csv", ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT), table)
    return SourceOptions(root=root, conditions=EVALUATED)


def mimic_cxr(root: Path, num_films: int = NUM_FILMS) -> SourceOptions:
    """MIMIC-CXR-JPG with the reports beside it: a study a film, two studies a patient."""
    films, labels, splits = [], [], []
    for number in range(num_films):
        subject, study, name = f"1{number // 2:07d}", f"5{number:07d}", f"{number:08x}-film"
        folder = root / "files" / f"p{subject[:2]}" / f"p{subject}"
        save(folder / f"s{study}" / f"{name}.jpg", number)
        (folder / f"s{study}.txt").write_text(report(number))
        films.append((name, subject, study, ("PA", "AP", "LATERAL")[number % 3]))
        labels.append((subject, study, *graded(number)))
        splits.append((name, study, subject, ("train", "train", "validate", "test")[number // 2 % 4]))
    start = root / "mimic-cxr-2.0.0-"
    write(Path(f"{start}metadata.csv"), ("dicom_id", "subject_id", "study_id", "ViewPosition"), films)
    write(Path(f"{start}chexpert.csv"), ("subject_id", "study_id", *CHEXPERT), labels)
    write(Path(f"{start}split.csv"), ("dicom_id", "study_id", "subject_id", "split"), splits)
    return SourceOptions(root=root, conditions=EVALUATED)


def iu_xray(root: Path, num_films: int = NUM_FILMS) -> SourceOptions:
    """Open-I's reports and films, with the names that its first films have."""
    package = importlib.util.find_spec("torchxrayvision")
    assert package is not None and package.origin is not None
    with gzip.open(Path(package.origin).parent / "data" / "nlmcxr_tsne_pa.csv.gz", "rt") as file:
        names = [line.split(",")[0] for line in file.read().splitlines()[1 : num_films + 1]]
    (root / "ecgen-radiology").mkdir(parents=True)
    for number, name in enumerate(names):
        save(root / "NLMCXR_png" / f"{name}.png", number)
        major = INDIANA_MAJOR[number % 6]
        texts = (("IMPRESSION", f"XXXX film {number}."), ("FINDINGS", f"Film {number} is clear of XXXX."))
        sections = "".join(f'<AbstractText Label="{label}">{text}</AbstractText>' for label, text in texts)
        named = f'<uId id="CXR{number}"/><MeSH><major>{major}</major></MeSH><parentImage id="{name}"/>'
        path = root / "ecgen-radiology" / f"{number}.xml"
        path.write_text(f"<eCitation>{named}{sections}</eCitation>")
    return SourceOptions(root=root, conditions=EVALUATED)


def montgomery(root: Path, num_films: int = 138) -> SourceOptions:
    """Montgomery County's films and readings."""
    (root / "ClinicalReadings").mkdir(parents=True)
    for number in range(num_films):
        name = f"MCUCXR_{number:04d}_{number % 5 % 2}"
        save(root / "CXR_png" / f"{name}.png", number)
        said = "normal" if name.endswith("0") else "bilateral miliary nodules, TB"
        reading = f"Patient's Sex: {'FM'[number % 2]}\r\nPatient's Age: {20 + number % 50:03d}Y\r\n{said}\r\n"
        (root / "ClinicalReadings" / f"{name}.txt").write_bytes(reading.encode())
    return SourceOptions(root=root, conditions=EVALUATED)


def padchest(root: Path, num_films: int = NUM_FILMS) -> SourceOptions:
    """PadChest's table and PNGs of 16 bits."""
    header = ("", "ImageID", "StudyDate_DICOM", "PatientID", "PatientBirth", "PatientSex_DICOM", "Projection", "Labels")
    terms = (
        ["normal"],
        ["cardiomegaly"],
        ["pleural effusion", "unchanged"],
        ["pneumothorax", "normal"],
        ["infiltrates"],
    )
    rows: list[Row] = []
    for number in range(num_films):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(film(number, 65535).astype(np.uint16)).save(root / "images" / f"{number}.png")
        view = ("PA", "AP", "L", "AP_horizontal", "COSTAL")[number % 5]
        rows.append(
            (number, f"{number}.png", 20150914, number // 2, 1950.0, "FM"[number % 2], view, terms[number % 7 % 5])
        )
    write(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", header, rows)
    return SourceOptions(root=root, conditions=EVALUATED)


def vindr(root: Path, num_films: int = NUM_FILMS) -> SourceOptions:
    """VinDr-CXR as PhysioNet has it: three readers of each training film, one reading of each test film."""
    names = ("Cardiomegaly", "Pleural effusion", "Pneumothorax", "No finding")
    tables: dict[str, list[Row]] = {"train": [], "test": []}
    for number in range(num_films):
        split = "test" if number % 5 == 4 else "train"
        save_dicom(root / split / f"{number:032x}.dicom", number)
        for reader in range(3 if split == "train" else 1):
            marks = [float(names[number % 4] == name and (reader < 2)) for name in names]
            tables[split].append((f"{number:032x}", f"R{reader}", *marks))
    (root / "annotations").mkdir()
    for split, rows in tables.items():
        write(root / "annotations" / f"image_labels_{split}.csv", ("image_id", "rad_id", *names), rows)
    return SourceOptions(root=root, conditions=EVALUATED)


def rsna(root: Path, num_films: int = NUM_FILMS) -> SourceOptions:
    """The RSNA challenge's tables and films."""
    classes = ("Normal", "Lung Opacity", "No Lung Opacity / Not Normal")
    boxes: list[Row] = []
    for number in range(num_films):
        save_dicom(root / "stage_2_train_images" / f"film-{number}.dcm", number)
        boxes += [(f"film-{number}", 1, 2, 3, 4, int(number % 3 == 1))] * (1 + number % 2)
    write(root / "stage_2_train_labels.csv", ("patientId", "x", "y", "width", "height", "Target"), boxes)
    kinds = [(f"film-{number}", classes[number % 3]) for number in range(num_films)]
    write(root / "stage_2_detailed_class_info.csv", ("patientId", "class"), kinds)
    views = [(f"film-{number}", 40, "F", ("PA", "AP")[number % 2]) for number in range(num_films)]
    write(
        root / "stage_2_train_images_dicom_headers.csv",
        ("PatientID", "PatientAge", "PatientSex", "ViewPosition"),
        views,
    )
    return SourceOptions(root=root, conditions=EVALUATED)


def folder(root: Path, num_films: int = NUM_FILMS) -> SourceOptions:
    """An imagefolder of JSON lines, with lists of labels and with texts."""
    lines = []
    for number in range(num_films):
        save(root / "films" / f"{number}.png", number)
        labels = [SHOWN[number % 6]] if number % 6 == 3 or number % 5 else [SHOWN[number % 6], "Mass"]
        row: dict[str, object] = {
            "file_name": f"films/{number}.png",
            "patient_id": number // 2,
            "labels": labels,
            "text": f"{SHOWN[number % 6]}\nin film {number} of ___.",
        }
        row["split"] = ("train", "train", "val", "test")[number // 2 % 4]
        lines.append(json.dumps(row | {"view": ("PA", "AP", None)[number % 3], "age": float(20 + number % 60)}))
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return SourceOptions(root=root, conditions=EVALUATED)


def dicom(root: Path, num_films: int = NUM_FILMS) -> SourceOptions:
    """A tree of DICOM files with a table of labels."""
    for number in range(num_films):
        save_dicom(root / f"{number // 10}" / f"{number}.dcm", number)
    rows = [(f"{number // 10}/{number}.dcm", SHOWN[number % 6]) for number in range(num_films)]
    write(root / "labels.csv", ("file", "labels"), rows)
    return SourceOptions(root=root, conditions=EVALUATED)


STAND_INS: dict[str, Callable[..., SourceOptions]] = {
    make.__name__: make for make in (chexpert, mimic_cxr, iu_xray, montgomery, padchest, vindr, rsna, folder, dicom)
}


def graded(number: int) -> list[str]:
    """A finding that is present, by turns, and every fifth film with an uncertain edema."""
    cells = dict.fromkeys(CHEXPERT, "")
    if number % 5 == 4:
        cells |= {"Edema": "-1.0", "Pneumonia": "0.0", "Support Devices": "1.0"}
    cells[SHOWN[number % 6]] = "1.0"
    if number % 6 == 3:
        cells |= {"Edema": ""}
    return [cells[name] for name in CHEXPERT]


def report(number: int) -> str:
    """A report with headings and blanks, as MIMIC-CXR has them."""
    return (
        f"                     FINAL REPORT\n EXAMINATION:  CHEST\n\n FINDINGS: \n Film {number}, compared to ___, is\n"
        f" unchanged.\n\n IMPRESSION: \n\n {SHOWN[number % 6]} in film {number}.  Seen by Dr. ___.\n"
    )


def write(path: Path, header: Row, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film(number).astype(np.uint8)).save(path, quality=95)


def save_dicom(path: Path, number: int, **tags: object) -> None:
    """A film of 12 bits with a patient of its own for each two."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
    levels = film(number, 4095).astype(np.uint16)
    data = FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    known = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientID": f"SECRET-{number // 2}",
        "PatientName": "Doe^Jane",
        "PatientSex": "F",
        "PatientAge": "054Y",
        "ViewPosition": ("PA", "AP", "")[number % 3],
        "Rows": levels.shape[0],
        "Columns": levels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": levels.tobytes(),
    }
    for tag, value in (known | tags).items():
        setattr(data, tag, value)
    data.save_as(path, enforce_file_format=True)
