"""Checks of structure: ids and names, annotations to pictures and classes, classes to splits."""

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Category
from pipeline.labels.check import Check, Fix
from pipeline.labels.class_fixes import repeated
from pipeline.labels.columns import Columns, Findings

UNSEEN = ("Cc", "Cf", "Pd")
"""Unicode's kinds of characters that names may differ in unnoticed: controls, formats such as joiners, dashes."""


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
        count_SK = class_counts(data)
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
        unused = np.flatnonzero(class_counts(data).sum(axis=0) == 0)
        return data.on_dataset(
            self, [f"class {data.dataset.classes[label]} has no annotation in any split" for label in unused.tolist()]
        )


class RepeatedAnnotationId(Check):
    """One id on several labels of a split: tools that look labels up by id keep one of them. Here each gets its own in ingest."""

    code = "annotation-id-repeated"

    def find(self, data: Columns) -> Findings:
        rows: list[int] = []
        for start, split in zip(data.annotation_start.tolist(), data.dataset.splits.values(), strict=False):
            repeated = _repeated(split.annotations.ids_A, split.annotations.ids_A >= 0)
            known = [identity for identity in split.annotations.source_ids if identity is not None]
            seen: set[int | str] = set()
            for row, identity in enumerate(split.annotations.source_ids if len(set(known)) < len(known) else ()):
                if identity is not None:
                    repeated[row] |= identity in seen
                    seen.add(identity)
            rows += (np.flatnonzero(repeated) + start).tolist()
        return data.on_annotations(self, np.array(rows, np.int64), "an earlier label of the split has its id too")


class RepeatedImageId(Check):
    """One id on several pictures of a split: nobody can tell which of them the labels belong to."""

    code, fix = "image-id-repeated", Fix.QUARANTINE

    def find(self, data: Columns) -> Findings:
        rows: list[int] = []
        for start, split in zip(data.image_start.tolist(), data.dataset.splits.values(), strict=False):
            ids_I = split.images.ids_I
            values, counts = np.unique(ids_I, return_counts=True)
            rows += (np.flatnonzero(np.isin(ids_I, values[counts > 1])) + start).tolist()
        numbers = [_image_id(data, row) for row in rows]
        return data.on_pictures(self, np.array(rows, np.int64), "image id {number} is another picture's too", number=numbers)


class MissingArea(Check):
    """A label without the area that COCO's format asks for: pycocotools stops at it."""

    code, fix = "annotation-area-missing", Fix.FILL

    def find(self, data: Columns) -> Findings:
        width_A, height_A = (data.boxes_A4[:, 2:] - data.boxes_A4[:, :2]).T
        drawable = np.isfinite(width_A * height_A) & (width_A > 0) & (height_A > 0)
        return data.on_annotations(self, np.flatnonzero(drawable & ~np.isfinite(data.area_A)), "no area is stored")


class RepeatedClassName(Check):
    """Two classes of one name: the detector is taught to tell apart what is the same."""

    code, fix = "class-name-repeated", Fix.UNITE

    def find(self, data: Columns) -> Findings:
        found = repeated(data.dataset.info.categories)
        return data.on_dataset(self, [_pair(first, second) for first, second in found])


class AlikeClassNames(Check):
    """Class names that differ only in case, blanks, dashes, unseen characters or a plural's s: most likely one class."""

    code = "class-name-alike"

    def find(self, data: Columns) -> Findings:
        def key(name: str) -> str:
            plain = "".join(one for one in unicodedata.normalize("NFKC", name) if unicodedata.category(one) not in UNSEEN)
            bare = re.sub(r"[\s_-]+", "", plain).casefold()
            return bare[:-1] if len(bare) > 3 and bare.endswith("s") and not bare.endswith("ss") else bare

        first: dict[str, Category] = {}
        found = []
        for category in data.dataset.info.categories:
            other = first.setdefault(key(category.name), category)
            if other.name != category.name:
                found.append(_pair(other, category))
        return data.on_dataset(self, found)


class ClassIdGap(Check):
    """Category ids with gaps: fine here, but tools that count classes by the highest id make outputs for classes that are not."""

    code = "class-id-gap"

    def find(self, data: Columns) -> Findings:
        ids = [category.id for category in data.dataset.info.categories]
        missing = sorted(set(range(ids[0], ids[-1])) - set(ids)) if ids and ids[-1] - ids[0] < 10**6 else []
        if not missing and ids and ids[-1] - ids[0] >= 10**6:
            return data.on_dataset(self, [f"{len(ids)} classes have ids from {ids[0]} to {ids[-1]}"])
        listed = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        return data.on_dataset(
            self, [f"{len(missing)} ids between {ids[0]} and {ids[-1]} are no class: {listed}"] if missing else []
        )


class ClassCount(Check):
    """Another number of classes stated than named: the list of names is of another version, so any name may be a wrong one."""

    code = "class-count-differs"

    def find(self, data: Columns) -> Findings:
        stated, named = data.dataset.info.stated_classes, len(data.dataset.classes)
        wrong = stated is not None and stated != named
        return data.on_dataset(self, [f"the source states {stated} classes and names {named}"] if wrong else [])


class LabelsWithoutPicture(Check):
    """Label files of the source that belong to no picture: a picture was lost or renamed, its labels teach nothing."""

    code = "label-file-unused"

    def find(self, data: Columns) -> Findings:
        suffixes = (".txt", ".xml")  # a file per picture; other files of COCO are captions and the like
        unused = [one for one in data.dataset.info.unlisted if one.rpartition(": ")[0].lower().endswith(suffixes)]
        return data.on_dataset(self, [f"files that belong to no split or picture: {one}" for one in unused])


def _repeated(values_A: NDArray[np.int64], counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows whose value an earlier counted row has."""
    order = np.argsort(values_A, kind="stable")
    repeated = np.zeros(len(values_A), np.bool_)
    repeated[order[1:]] = np.diff(values_A[order]) == 0
    return repeated & counted


def _image_id(data: Columns, row: int) -> int:
    split = int(data.split_I[row])
    return int(data.dataset.splits[data.names[split]].images.ids_I[row - int(data.image_start[split])])


def _pair(first: Category, second: Category) -> str:
    return f"classes {first.id} {first.name!r} and {second.id} {second.name!r}"


def class_counts(data: Columns) -> NDArray[np.int64]:
    """Annotations [splits, classes] that belong to a listed picture; crowds and ignored ones do not count."""
    classes = len(data.dataset.classes)
    good = (data.label_A >= 0) & (data.image_A >= 0) & ~data.ignored_A
    flat = data.split_A[good] * classes + data.label_A[good]
    return np.bincount(flat, minlength=len(data.names) * classes).reshape(len(data.names), classes)
