"""Checks of references: annotations to pictures and classes, classes to splits."""

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.check import Check, Fix
from pipeline.labels.columns import Columns, Findings


class OrphanAnnotation(Check):
    """An annotation of a picture that the split does not list: it can never be shown to the detector."""

    code, fix = "annotation-orphan", Fix.DROP

    def find(self, data: Columns) -> Findings:
        return data.on_annotations(self, np.flatnonzero(data.image_A < 0), "its picture is not in the split's list")


class UnknownCategory(Check):
    """An annotation of a class that the dataset does not declare."""

    code, fix = "category-unknown", Fix.DROP

    def find(self, data: Columns) -> Findings:
        rows = np.flatnonzero(data.label_A < 0)
        known = ", ".join(f"{category.id} {category.name}" for category in data.dataset.info.categories[:8])
        more = ", ..." if len(data.dataset.info.categories) > 8 else ""
        reason = "category {id} is not among " + (known + more).replace("{", "{{").replace("}", "}}")
        return data.on_annotations(self, rows, reason, id=data.category_A[rows])


class EmptySplit(Check):
    """A split without pictures, or a training or validation split without labels: nothing can be learnt or measured on it."""

    code = "split-empty"

    def find(self, data: Columns) -> Findings:
        pictures_S = np.bincount(data.split_I, minlength=len(data.names))
        labels_S = np.bincount(data.split_A[(data.image_A >= 0) & (data.label_A >= 0)], minlength=len(data.names))
        splits, reasons = [], []
        for split, name in enumerate(data.names):
            if not pictures_S[split]:
                reasons.append(f"split {name} has no pictures")
            elif not labels_S[split] and name in ("train", "val"):
                reasons.append(f"split {name} has pictures and not one label")
            else:
                continue
            splits.append(split)
        return data.on_dataset(self, reasons, splits)


class ClassNotTrained(Check):
    """A class that other splits hold and train does not: its AP will be 0, and the mean falls with it."""

    code = "class-absent-from-train"

    def find(self, data: Columns) -> Findings:
        if "train" not in data.names:
            return data.on_dataset(self, [])
        count_SK = _class_counts(data)
        train = data.names.index("train")
        absent = np.flatnonzero((count_SK[train] == 0) & (count_SK.sum(axis=0) > 0))
        reasons = []
        for label in absent.tolist():
            others = " and ".join(name for split, name in enumerate(data.names) if count_SK[split, label])
            reasons.append(f"class {data.dataset.classes[label]} is in {others}, not in train")
        return data.on_dataset(self, reasons, [train] * len(reasons))


class UnusedClass(Check):
    """A declared class without a single annotation: the detector keeps an output for it that can only be wrong."""

    code = "class-unused"

    def find(self, data: Columns) -> Findings:
        unused = np.flatnonzero(_class_counts(data).sum(axis=0) == 0)
        return data.on_dataset(
            self, [f"class {data.dataset.classes[label]} has no annotation in any split" for label in unused.tolist()]
        )


def _class_counts(data: Columns) -> NDArray[np.int64]:
    """Annotations [splits, classes] that belong to a listed picture; crowds and ignored ones do not count."""
    classes = len(data.dataset.classes)
    good = (data.label_A >= 0) & (data.image_A >= 0) & ~data.ignored_A
    flat = data.split_A[good] * classes + data.label_A[good]
    return np.bincount(flat, minlength=len(data.names) * classes).reshape(len(data.names), classes)
