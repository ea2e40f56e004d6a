"""Settings of the dataset group: what to ingest and how. Imports no torch."""

import re
from dataclasses import fields
from typing import Annotated, Literal, get_args, get_type_hints

from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.schema import schema
from pipeline.storage.addresses import is_remote, require_address, scheme_of

UNSET = "PATH_TO_YOUR_DATA"
"""What conf/ says where only the user knows the value."""
LISTING = "source.json"
"""Where the listing of a remote source is kept, in the checkout beside params.yaml."""


@schema
class SplitConfig:
    """Which pictures validate. What is drawn is drawn by `seed`, pictures of one group on one side: a group is equal bytes, and
    what `field`, `pattern` and `similar` say belongs together; pictures that share any of these are one group."""

    val: float
    """Share of the pictures that becomes the validation split, 0..1, where it is drawn."""
    existing: bool
    """True: a source's own train and val splits are kept, and only counted for groups that are in both. False: they are pooled
    and drawn anew. A test split stays as it is."""
    stratify: bool
    """True: every class has its share in val, as nearly as groups allow. False: a draw that adding pictures changes little."""
    field: str | None
    """Field of the source's image records whose values name groups, such as video_id; null: none."""
    pattern: str | None
    """Regular expression, searched in each picture's path below the source; what its parentheses catch (without any: the match)
    names the group. `^(.+)_\\d+\\.jpg$` keeps frames of one film together. null: none."""
    similar: int | None
    """Pictures of which at most so many of 256 bits of the perceptual hash differ are one group, 0 to 16: scaled and compressed
    copies and frames of one moment. Every picture is decoded for it. null: not looked at."""

    def __post_init__(self) -> None:
        if not 0 < self.val < 1:
            raise ConfigError("dataset.split.val", self.val, "must lie between 0 and 1; 0.2 is usual")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ConfigError("dataset.split.pattern", self.pattern, f"is not a regular expression: {error}") from error
        if self.similar is not None and not 0 <= self.similar <= 16:
            raise ConfigError("dataset.split.similar", self.similar, "must be 0 to 16 bits, or null; 10 suits most data")


@schema
class ArchiveLimits:
    """Caps while unpacking: an archive that goes over one is refused, and what it had unpacked is removed."""

    files: int
    """Most members."""
    gigabytes: float
    """Most unpacked content, in 10^9 bytes."""
    ratio: float
    """Most unpacked bytes per byte of the archive."""

    def __post_init__(self) -> None:
        for name in ("files", "gigabytes", "ratio"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"dataset.archive.{name}", getattr(self, name), "must be above 0")


@schema
class ShapesDataset:
    """The built-in generated dataset: textured shapes with boxes, polygons and keypoints."""

    kind: Literal["shapes"]
    source: str
    """The generator's own file: an edit of it makes the dataset stale."""
    watched: str
    """What DVC watches: the same."""
    licence: str | None
    """Written into dataset.json."""
    size: int
    """Side of the square pictures, in pixels."""
    train: int
    """Number of training pictures."""
    val: int
    """Number of validation pictures."""
    objects: tuple[int, int]
    """Fewest and most shapes per picture."""
    diameter: tuple[float, float]
    """Smallest and largest shape: diameter of its circle as a share of the picture's side."""
    hidden: float
    """A shape is placed elsewhere when this share of it, 0..1, would be covered by shapes in front of it."""
    grounds: tuple[int, int]
    """Fewest and most grounds per picture, each of a texture of its own; more than one make semantic maps worth learning."""
    dense_points: int
    """Points with a dense pose per shape, sampled where it is seen; 0 for no dense pose labels."""

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 4096:
            raise ConfigError("dataset.size", self.size, "must lie between 32 and 4096 pixels")
        if self.train < 1 or self.val < 1:
            raise ConfigError("dataset.train, dataset.val", (self.train, self.val), "must be 1 picture or more each")
        if not 1 <= self.objects[0] <= self.objects[1] <= 100:
            raise ConfigError("dataset.objects", list(self.objects), "must be [fewest, most] with 1 <= fewest <= most <= 100")
        if not 0 < self.diameter[0] <= self.diameter[1] < 1:
            raise ConfigError("dataset.diameter", list(self.diameter), "must be [smallest, largest] between 0 and 1")
        if not 1 <= self.grounds[0] <= self.grounds[1] <= 10:
            raise ConfigError("dataset.grounds", list(self.grounds), "must be [fewest, most] with 1 <= fewest <= most <= 10")
        if not 0 <= self.dense_points <= 1000:
            raise ConfigError("dataset.dense_points", self.dense_points, "must lie between 0 and 1000")
        if not 0 <= self.hidden < 1:
            raise ConfigError("dataset.hidden", self.hidden, "must be from 0 to below 1")


@schema
class CocoDataset:
    """COCO JSON beside folders of pictures."""

    kind: Literal["coco"]
    source: str
    """Folder, .zip or .tar (also .gz, .bz2, .xz); here, at s3:// (there also a prefix) or http(s)://, or in a git repository with
    DVC: dvc+https://HOST/REPOSITORY.git#PATH@REV."""
    watched: str
    """What DVC watches for changes: follows from `source` (see `watched_by_dvc`), never set by hand."""
    sha256: str | None
    """Digest that an archive must have; null: not checked."""
    licence: str | None
    """Written into dataset.json; the licences of single pictures are kept from the source."""
    annotations: str | None
    """Glob of the label files below the source, such as `person_keypoints_*.json`; null: of several the instances_* ones."""
    split: SplitConfig
    archive: ArchiveLimits

    def __post_init__(self) -> None:
        _require_source(self.source, self.watched, self.sha256)


@schema
class VocDataset:
    """Pascal VOC XML: one file per picture."""

    kind: Literal["voc"]
    source: str
    """Folder, .zip or .tar (also .gz, .bz2, .xz); here, at s3:// (there also a prefix) or http(s)://, or in a git repository with
    DVC: dvc+https://HOST/REPOSITORY.git#PATH@REV."""
    watched: str
    """What DVC watches for changes: follows from `source` (see `watched_by_dvc`), never set by hand."""
    sha256: str | None
    """Digest that an archive must have; null: not checked."""
    licence: str | None
    """Written into dataset.json."""
    classes: tuple[str, ...] | None
    """Class names in label order; another name in the data is an error. null: the names found, sorted."""
    one_based: bool
    """True: xmin, ymin, xmax, ymax are the devkit's 1-based, inclusive pixels. False: corners in continuous coordinates from 0,
    which is what most labelling tools write."""
    sets: Literal["Main", "Segmentation"] | None
    """Folder of ImageSets whose lists make the splits; null: Main, else Segmentation. With Segmentation every listed picture has
    a semantic map, as training on these needs."""
    split: SplitConfig
    archive: ArchiveLimits

    def __post_init__(self) -> None:
        _require_source(self.source, self.watched, self.sha256)
        for name in self.classes or ():
            if not name.strip() or list(self.classes or ()).count(name) > 1:
                raise ConfigError("dataset.classes", list(self.classes or ()), f"has {name!r} blank or twice")


@schema
class YoloDataset:
    """YOLO label text: one file per picture, class names and splits in a data.yaml."""

    kind: Literal["yolo"]
    source: str
    """Folder, .zip or .tar (also .gz, .bz2, .xz); here, at s3:// (there also a prefix) or http(s)://, or in a git repository with
    DVC: dvc+https://HOST/REPOSITORY.git#PATH@REV."""
    watched: str
    """What DVC watches for changes: follows from `source` (see `watched_by_dvc`), never set by hand."""
    sha256: str | None
    """Digest that an archive must have; null: not checked."""
    licence: str | None
    """Written into dataset.json."""
    data: str | None
    """Glob of the YAML file with `names`, below the source, such as `boxes/*.yaml`; null: data.yaml, or the only one."""
    upright: bool
    """True: the labels belong to pictures as viewers show them, turned by their EXIF orientation, as in YOLO's own training.
    False: to the stored pixels."""
    oriented: bool | None
    """True: lines of four points are rotated boxes. False: polygons. null: rotated boxes if data.yaml says `task: obb`."""
    split: SplitConfig
    archive: ArchiveLimits

    def __post_init__(self) -> None:
        _require_source(self.source, self.watched, self.sha256)


@schema
class LabelSource:
    """What the formats below have in common."""

    source: str
    """Folder, .zip or .tar (also .gz, .bz2, .xz); here, or at s3:// (there also a prefix) or http(s)://."""
    watched: str
    """What DVC watches for changes: follows from `source` (see `watched_by_dvc`), never set by hand."""
    sha256: str | None
    """Digest that an archive must have; null: not checked."""
    licence: str | None
    """Written into dataset.json."""
    split: SplitConfig
    archive: ArchiveLimits

    def __post_init__(self) -> None:
        _require_source(self.source, self.watched, self.sha256)


@schema
class CsvDataset(LabelSource):
    """Tables of boxes, one row per box; the columns are told by their names."""

    kind: Literal["csv"]
    labels: str | None
    """Glob of the tables below the source, such as `*_labels.csv`; null: every .csv or .tsv that has the columns of a box."""


@schema
class LabelmeDataset(LabelSource):
    """labelme JSON: one file per picture."""

    kind: Literal["labelme"]


@schema
class CvatDataset(LabelSource):
    """CVAT XML 1.1, for images or for video."""

    kind: Literal["cvat"]


@schema
class KittiDataset(LabelSource):
    """KITTI object labels: one text per picture."""

    kind: Literal["kitti"]


@schema
class OpenImagesDataset(LabelSource):
    """Open Images: tables of boxes in shares of the picture, with class-descriptions."""

    kind: Literal["openimages"]


@schema
class DatumaroDataset(LabelSource):
    """Datumaro JSON: one file per split."""

    kind: Literal["datumaro"]


@schema
class SuperviselyDataset(LabelSource):
    """Supervisely projects: meta.json, and one JSON per picture."""

    kind: Literal["supervisely"]


@schema
class CityscapesDataset(LabelSource):
    """Cityscapes polygons: one JSON per picture."""

    kind: Literal["cityscapes"]


@schema
class MasksDataset(LabelSource):
    """Instance masks: one PNG per object in a folder per picture, or one PNG of object numbers per picture."""

    kind: Literal["masks"]


@schema
class PanopticDataset(LabelSource):
    """COCO panoptic: JSON with `segments_info`, and a PNG of segment numbers per picture."""

    kind: Literal["panoptic"]
    annotations: str | None
    """Glob of the label files below the source, such as `panoptic_*.json`; null: all with segments_info."""


FormatDataset = (
    CocoDataset
    | VocDataset
    | YoloDataset
    | CsvDataset
    | LabelmeDataset
    | CvatDataset
    | KittiDataset
    | OpenImagesDataset
    | DatumaroDataset
    | SuperviselyDataset
    | CityscapesDataset
    | MasksDataset
    | PanopticDataset
)
"""The formats, one class each."""


@schema
class AutoDataset(LabelSource):
    """The format that the source's content shows; the settings of all formats, of which the found one takes its own."""

    kind: Literal["auto"]
    annotations: str | None
    """As for dataset=coco and dataset=panoptic."""
    classes: tuple[str, ...] | None
    """As for dataset=voc."""
    one_based: bool
    """As for dataset=voc."""
    sets: Literal["Main", "Segmentation"] | None
    """As for dataset=voc."""
    data: str | None
    """As for dataset=yolo."""
    upright: bool
    """As for dataset=yolo."""
    oriented: bool | None
    """As for dataset=yolo."""
    labels: str | None
    """As for dataset=csv."""

    def as_format(self, kind: str) -> FormatDataset:
        """The settings of the format `kind`."""
        chosen = next(one for one in get_args(FormatDataset) if get_args(get_type_hints(one)["kind"]) == (kind,))
        values = {one.name: kind if one.name == "kind" else getattr(self, one.name) for one in fields(chosen)}
        settings: FormatDataset = chosen(**values)
        return settings


SourceDataset = FormatDataset | AutoDataset
"""What reads a source of the user's."""
DatasetConfig = Annotated[ShapesDataset | SourceDataset, Field(discriminator="kind")]


def watched_by_dvc(source: str) -> str:
    """The path through which DVC sees a source: its own, or that of the recorded listing where it is on another machine."""
    if is_remote(source):
        return LISTING
    return source.partition("://")[2] if scheme_of(source) == "file" else source


def _require_source(source: str, watched: str, sha256: str | None) -> None:
    if source == UNSET:
        raise ConfigError("dataset.source", None, "is not set: add dataset.source=PATH, a folder, .zip or .tar, or an address")
    require_address("dataset.source", source)
    if watched != watched_by_dvc(source):
        rule = f"does not follow from dataset.source; write both by: python -m pipeline config dataset.source={source}"
        raise ConfigError("dataset.watched", watched, rule)
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError("dataset.sha256", sha256, "must be 64 hexadecimal digits, as `sha256sum` prints them")
