"""CSV of boxes: a row per box, whose columns are told by their names. Reader and writer.

Known tables: TensorFlow's (`filename,width,height,class,xmin,ymin,xmax,ymax`), make-sense's (`label_name,bbox_x,bbox_y,...`),
Kaggle's (`image_id,...,bbox` with "[x, y, w, h]"), RetinaNet's without a header (`path,x1,y1,x2,y2,class`); from spreadsheets
also with semicolons, decimal commas, a byte order mark, UTF-16 or a line `sep=;`. Coordinates that all lie in 0..1 are shares.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.data.config import CsvDataset
from pipeline.data.formats.coco_json import COLUMNS
from pipeline.data.formats.labelled import Labelled, Record, assemble, box_fields
from pipeline.data.formats.pictures import find_pictures, stated_name, with_suffixes
from pipeline.data.formats.things import Export
from pipeline.data.formats.xml_file import decimal
from pipeline.data.formats.yolo_txt import read_frame
from pipeline.data.sources import PICTURES, SourceData, SourceFiles, list_files
from pipeline.data.splits import WORDS, split_named
from pipeline.errors import DataError

OPEN_IMAGES = {"imageid", "labelname", "xmin", "xmax", "ymin", "ymax"}
"""Columns of Open Images, which has a reader of its own."""
ONE_CLASS = "object"
"""Class of the boxes of a table that names none."""
_PICTURE = (
    "filename file_name file image image_name image_file image_path image_filename imagename path img img_name img_path imageid"
    " image_id"
)
_CLASS = "class class_name classname label label_name labelname category category_name name object_name"
_SPLIT = "split set subset"
_EDGES = (
    "xmin x_min x1 left xtl bbox_xmin bbox_x1",
    "ymin y_min y1 top ytl bbox_ymin bbox_y1",
    "xmax x_max x2 right xbr bbox_xmax bbox_x2",
    "ymax y_max y2 bottom ybr bbox_ymax bbox_y2",
)
_CORNER = ("x bbox_x left xmin x_min", "y bbox_y top ymin y_min")
_CENTRE = ("cx x_center x_centre xcenter center_x", "cy y_center y_centre ycenter center_y")
_SIDES = ("w bbox_width bbox_w box_width width", "h bbox_height bbox_h box_height height")
_SIZE = ("image_width img_width image_w img_w", "image_height img_height image_h img_h")
_HEADLESS = 6


@dataclass(slots=True)
class Table:
    """A table as texts."""

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    """Line of the file in which each row ends."""
    decimal_comma: bool


@dataclass(slots=True)
class Columns:
    """Which column says what; -1 = none does."""

    picture: int
    name: int
    box: tuple[int, ...]
    """Four columns, or one with a list of four numbers."""
    form: str
    """What the four are: "corners", "size" (left, top, width, height), or "centre"."""
    width: int = -1
    height: int = -1
    split: int = -1
    header: bool = True
    """False: the first row is one of the data."""

    def named(self, header: list[str]) -> list[str]:
        """Titles of picture, class and box, or "no header"."""
        used = (self.picture, self.name, *self.box)
        return [header[place] for place in used if place >= 0] if self.header else ["no header: a picture, four numbers, a class"]


def read_csv(cfg: CsvDataset, source: Path) -> SourceData:
    """All tables of a source. DataError names file, line and column, or says which columns are missing."""
    files = list_files(source)
    tables = _choose_tables(files, cfg.labels)
    entries = [entry for path, found in tables.items() for entry in _entries(files, path, *found, only=len(tables) == 1)]
    return assemble(files, entries, used=tables)


def read_table(path: Path, limit: int | None = None) -> Table:
    """The rows, at most `limit`. DataError for a file that is no table."""
    try:
        text = _decoded(path.read_bytes())
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    first, _, rest = text.partition("\n")
    skipped = 0
    stated = re.fullmatch(r"\"?sep=(.)\"?\s*", first)
    if stated:
        text, skipped, first = rest, 1, rest.partition("\n")[0]
    delimiter = stated[1] if stated else max(",;\t|", key=first.count)
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(reader.line_num + skipped)
            if limit is not None and len(rows) > limit:
                break
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num + skipped}", f"not valid CSV ({error})", "repair the file") from error
    if not rows:
        raise DataError(path, "is empty", "a table of boxes has a header and a row per box")
    return Table(rows[0], rows[1:], lines[1:], decimal_comma=delimiter != ",")


def columns_of(header: list[str]) -> Columns | None:
    """The columns that a table of boxes must have; None when it has not."""
    titles: dict[str, int] = {}
    for number, title in enumerate(header):
        titles.setdefault(re.sub(r"[^a-z0-9]+", "_", title.strip().lower()).strip("_"), number)

    def place(names: str, but: tuple[int, ...] = ()) -> int:
        return next((titles[name] for name in names.split() if name in titles and titles[name] not in but), -1)

    picture, name = place(_PICTURE), place(_CLASS)
    corners = tuple(map(place, _EDGES))
    sides = tuple(map(place, _SIDES))
    centre, corner = tuple(map(place, _CENTRE)), tuple(map(place, _CORNER))
    if picture < 0:
        return _headless(header)
    if -1 not in corners:
        box, form = corners, "corners"
    elif -1 not in (*centre, *sides):
        box, form = (*centre, *sides), "centre"
    elif -1 not in (*corner, *sides):
        box, form = (*corner, *sides), "size"
    elif "bbox" in titles:
        box, form = (titles["bbox"],), "size"
    else:
        return None
    width, height = (
        place(_SIZE[axis]) if place(_SIZE[axis]) >= 0 else place(("width", "height")[axis], box) for axis in range(2)
    )
    return Columns(picture, name, box, form, width, height, place(_SPLIT))


def _headless(row: list[str]) -> Columns | None:
    """`path,x1,y1,x2,y2,class`: the first row is told by a picture's suffix and four numbers."""
    if len(row) != _HEADLESS or PurePosixPath(row[0].replace("\\", "/").strip()).suffix.lower() not in PICTURES:
        return None
    numbers = all(re.fullmatch(r"-?[\d.]+", cell.strip()) for cell in row[1:5])
    return Columns(0, 5, (1, 2, 3, 4), "corners", header=False) if numbers or not any(row[1:]) else None


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")  # what spreadsheets write in the west


def _choose_tables(files: SourceFiles, pattern: str | None) -> dict[PurePosixPath, tuple[Table, Columns]]:
    paths = [path for path in files.with_suffix(".csv", ".tsv") if pattern is None or path.match(pattern)]
    found: dict[PurePosixPath, tuple[Table, Columns]] = {}
    seen = []
    for path in paths:
        table = read_table(files.folder / path)
        columns = columns_of(table.header)
        if columns is not None:
            if not columns.header:
                table.rows.insert(0, table.header)
                table.lines.insert(0, 1)
            found[path] = table, columns
        else:
            seen.append(f"{path} has {', '.join(table.header[:12])}")
    if not found:
        todo = "; ".join(("a table of boxes has a picture's name, and xmin, ymin, xmax, ymax or x, y, w, h", *seen[:3]))
        raise DataError(files.folder, f"has no table of boxes {pattern or '*.csv'}", todo[:600])
    return found


def _entries(files: SourceFiles, path: PurePosixPath, table: Table, columns: Columns, only: bool) -> list[Labelled]:
    """A picture each, in the order of the table."""
    place = files.folder / path
    by_name: dict[str, Labelled] = {}
    corners: list[tuple[Labelled, Record, tuple[float, ...]]] = []
    of_file = split_named(path.stem) or split_named(path.parent.name)
    for row, line in zip(table.rows, table.lines, strict=True):
        where = f"{place}: line {line}"
        row = [cell.strip() for cell in row] + [""] * (len(table.header) - len(row))
        if not row[columns.picture]:
            raise DataError(where, "names no picture", "fill in the row, or remove it")
        name = stated_name(row[columns.picture], where)
        split = WORDS.get(row[columns.split].lower()) if columns.split >= 0 else None
        entry = by_name.setdefault(name, Labelled(PurePosixPath(name), path, split=split or of_file))
        if columns.width >= 0 and columns.height >= 0:
            entry.width = _side(table, row, columns.width, where) or entry.width
            entry.height = _side(table, row, columns.height, where) or entry.height
        box = _box(table, row, columns, where)
        if box is not None:
            record: Record = {"class": row[columns.name] if columns.name >= 0 else ONE_CLASS} | _extra(table, row, columns)
            entry.objects.append(record)
            corners.append((entry, record, box))
    entries = list(by_name.values())
    stated = with_suffixes(list(by_name), files.pictures)
    for entry, found in zip(entries, find_pictures(stated, of_file or "all", path, files.pictures, only), strict=True):
        entry.picture = PurePosixPath(found)
    shares = _are_shares([box for _, _, box in corners])
    for entry, record, box in corners:
        record |= box_fields(*(_in_pixels(box, entry, files) if shares else box))
    return entries


def _box(table: Table, row: list[str], columns: Columns, where: str) -> tuple[float, ...] | None:
    """(x1, y1, x2, y2); None for a row without a box; NaN for a number that is missing."""
    if len(columns.box) == 1:
        cells = re.split(r"[,;\s]+", row[columns.box[0]].strip("[]() "))
        if cells == [""]:
            return None
        if len(cells) != 4:
            raise DataError(where, f"{table.header[columns.box[0]]}: must be four numbers, has {len(cells)}", "repair the row")
        values = [_number(table, cell, table.header[columns.box[0]], where) for cell in cells]
    else:
        if not any(row[place] for place in columns.box):
            return None
        titles = table.header if columns.header else ["", "x1", "y1", "x2", "y2", ""]
        values = [_number(table, row[place], titles[place], where) for place in columns.box]
    a, b, c, d = values
    if columns.form == "corners":
        return a, b, c, d
    return (a, b, a + c, b + d) if columns.form == "size" else (a - c / 2, b - d / 2, a + c / 2, b + d / 2)


def _number(table: Table, cell: str, title: str, where: str) -> float:
    text = cell.replace(",", ".") if table.decimal_comma else cell
    try:
        if "_" in text:  # Python's float would read 1_0 as 10
            raise ValueError
        return float(text) if text else float("nan")
    except ValueError as error:
        raise DataError(where, f"{title}: must be a number, is {cell[:40]!r}", "repair or remove the row") from error


def _side(table: Table, row: list[str], column: int, where: str) -> int:
    value = _number(table, row[column], table.header[column], where)
    if value != value:
        return 0
    if not abs(value) < 2**31:
        raise DataError(where, f"{table.header[column]}: {value:g} is no picture's size")
    return int(value)


def _extra(table: Table, row: list[str], columns: Columns) -> Record:
    """The cells of all other columns, as texts."""
    used = {columns.picture, columns.name, columns.width, columns.height, columns.split, *columns.box}
    cells = [(title.strip(), row[place]) for place, title in enumerate(table.header) if columns.header and place not in used]
    return {title: cell for title, cell in cells if cell and title and title not in COLUMNS and title != "class"}


def _are_shares(boxes: list[tuple[float, ...]]) -> bool:
    """Whether all coordinates lie in 0..1, and not as pixels 0 and 1 do."""
    values = [value for box in boxes for value in box if value == value]
    return bool(values) and all(0 <= value <= 1 for value in values) and any(not value.is_integer() for value in values)


def _in_pixels(box: tuple[float, ...], entry: Labelled, files: SourceFiles) -> tuple[float, ...]:
    if not (entry.width and entry.height):
        entry.width, entry.height, _ = read_frame(files.folder / entry.picture, upright=False)
    x1, y1, x2, y2 = box
    return x1 * entry.width, y1 * entry.height, x2 * entry.width, y2 * entry.height


# -- writing --


def write_csv(data: Export, out: Path) -> None:
    """TensorFlow's table per split, `<split>_labels.csv`, beside images/."""
    for split, pictures in data.splits.items():
        folder = "images" if split == "all" else f"images/{split}"
        path = out / ("labels.csv" if split == "all" else f"{split}_labels.csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"))
            for picture in pictures:
                picture.copy_to(out / folder / picture.name)
                boxes = [(thing.name, thing.box) for thing in picture.things if thing.box is not None]
                if picture.labelled and not boxes:
                    data.losses.add("pictures without objects", "become unlabelled: a table has no row for them")
                for name, box in boxes:
                    writer.writerow((picture.name, picture.width, picture.height, name, *map(decimal, box)))
