"""Open Images: tables of boxes in shares of the picture, whose classes are codes such as /m/01g317 with names in another table.

Columns: ImageID, LabelName, XMin, XMax, YMin, YMax, and IsOccluded, IsTruncated, IsGroupOf, IsDepiction, IsInside;
`class-descriptions*.csv`: code, name, without a header. IsGroupOf becomes a crowd; -1 is unknown.
Source: storage.googleapis.com/openimages/web/download_v7.html.
"""

from pathlib import Path, PurePosixPath

from pipeline.data.config import OpenImagesDataset
from pipeline.data.formats.csv_boxes import OPEN_IMAGES, Table, read_table
from pipeline.data.formats.labelled import Labelled, Record, assemble, box_fields
from pipeline.data.formats.pictures import find_pictures, stated_name, with_suffixes
from pipeline.data.formats.yolo_txt import read_frame
from pipeline.data.sources import SourceData, SourceFiles, list_files
from pipeline.data.splits import split_named
from pipeline.errors import DataError

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = {"isoccluded": "occluded", "istruncated": "truncated", "isdepiction": "depiction", "isinside": "inside"}


def read_openimages(cfg: OpenImagesDataset, source: Path) -> SourceData:
    """All tables of boxes of a source. DataError names file, line and column. A code without a name stays a code."""
    files = list_files(source)
    tables = {path: read_table(files.folder / path) for path in files.with_suffix(".csv")}
    boxes = {path: table for path, table in tables.items() if {*_titles(table)} >= OPEN_IMAGES}
    if not boxes:
        raise DataError(files.folder, f"has no table with {', '.join(sorted(OPEN_IMAGES))}", "for other tables use dataset=csv")
    names = _names([table for path, table in tables.items() if path not in boxes])
    entries = [entry for path, table in boxes.items() for entry in _entries(files, path, table, names, only=len(boxes) == 1)]
    return assemble(files, entries, used=tables)


def _titles(table: Table) -> list[str]:
    return [title.strip().lower() for title in table.header]


def _names(tables: list[Table]) -> dict[str, str]:
    """Class names by code, out of every table whose rows begin with a code (/m/..., /g/..., /t/...)."""
    rows = [row for table in tables for row in (table.header, *table.rows) if len(row) >= 2]
    return {row[0].strip(): row[1].strip() for row in rows if row[0].strip()[:1] == "/" and row[1].strip()}


def _entries(files: SourceFiles, path: PurePosixPath, table: Table, names: dict[str, str], only: bool) -> list[Labelled]:
    place, titles = files.folder / path, _titles(table)
    split = split_named(path.stem) or split_named(path.parent.name)
    by_name: dict[str, tuple[Labelled, list[tuple[Record, list[float]]]]] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        where = f"{place}: line {line}"
        cells = {title: cell.strip() for title, cell in zip(titles, [*row, *[""] * len(titles)], strict=False)}
        if not cells["imageid"]:
            raise DataError(where, "ImageID: is missing", "repair or remove the row")
        name = stated_name(cells["imageid"], where)
        _, objects = by_name.setdefault(name, (Labelled(PurePosixPath(name), path, split=split), []))
        record: Record = {"class": names.get(cells["labelname"], cells["labelname"])}
        record |= {field: 1 for title, field in _FLAGS.items() if cells.get(title) == "1"}
        record |= {"iscrowd": 1} if cells.get("isgroupof") == "1" else {}
        objects.append((record, [_number(cells[edge], edge, where) for edge in _EDGES]))
    pictures = find_pictures(with_suffixes(list(by_name), files.pictures), split or "all", path, files.pictures, only)
    for (entry, objects), picture in zip(by_name.values(), pictures, strict=True):
        entry.picture = PurePosixPath(picture)
        entry.width, entry.height, _ = read_frame(files.folder / picture, upright=False)
        sides = (entry.width, entry.height, entry.width, entry.height)
        for record, shares in objects:  # without a picture there are no pixels: the shares are kept
            pixels = [share * side for share, side in zip(shares, sides, strict=True)]
            entry.objects.append(record | (box_fields(*pixels) if entry.width else {"normalized": shares}))
    return [entry for entry, _ in by_name.values()]


def _number(cell: str, title: str, where: str) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError as error:
        raise DataError(where, f"{title}: must be a number, is {cell[:40]!r}", "repair or remove the row") from error
