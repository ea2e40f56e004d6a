"""Self-contained HTML pages: every picture and style inside the one file, nothing loaded from anywhere.

The same content gives the same bytes. All text is escaped; a caption or cell can hold whatever a label file held. The only script
is the one that sorts tables, which the page names by its digest: a browser runs no other.
"""

import base64
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from pipeline.files import write_atomically

TEMPLATES = Path(__file__).with_name("templates")
WIDE = 1.8
"""Width over height from which a picture needs a wider tile."""
Pixels = NDArray[np.uint8]
Tone = Literal["error", "warning", "info", "good"]


class Badge(NamedTuple):
    """A cell that stands out by colour."""

    text: str
    tone: Tone


class Link(NamedTuple):
    """A cell that leads somewhere; only http(s), file and relative addresses are made clickable."""

    text: str
    address: str


Cell = str | int | float | bool | None | Badge | Link


class _Picture(NamedTuple):
    address: str
    caption: str


@dataclass(slots=True)
class _Section:
    kind: Literal["text", "table", "pictures", "plot"]
    heading: str
    note: str = ""
    anchor: str = ""
    wide: bool = False
    sortable: bool = False
    columns: list[dict[str, str]] = field(default_factory=list)
    rows: list[list[dict[str, str]]] = field(default_factory=list)
    pictures: list[_Picture] = field(default_factory=list)
    paragraphs: list[str] = field(default_factory=list)


class Report:
    """A page that grows section by section, in the order of the calls, and is written at the end.

    An empty `heading` continues the section before it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._facts: list[tuple[str, str]] = []
        self._sections: list[_Section] = []

    def facts(self, figures: Mapping[str, Cell]) -> None:
        """Key figures, as tiles under the title: name to value."""
        self._facts += [(name, format_cell(value)) for name, value in figures.items()]

    def text(self, heading: str, *paragraphs: str) -> None:
        """Plain paragraphs."""
        self._add(_Section("text", heading, paragraphs=list(paragraphs)))

    def table(
        self, heading: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], note: str = "", sortable: bool = False
    ) -> None:
        """A table; numbers are set right and shortened to four digits. `note` is a line above it.

        The reader sorts a `sortable` one by a click on a column's name: numbers by value, badges by tone.
        """
        cells = [[_cell(value) for value in row] for row in rows]
        heads = [{"text": name, "kind": ""} for name in columns]
        for place, head in enumerate(heads):
            column = [row[place] for row in cells]
            if any(cell["kind"] == "number" for cell in column):
                head["kind"] = "number"
                for cell in column:
                    cell["kind"] = "number" if cell["kind"] in ("number", "none") else cell["kind"]
        self._add(_Section("table", heading, note, sortable=sortable, columns=heads, rows=cells))

    def pictures(self, heading: str, pictures: Iterable[tuple[Pixels | bytes, str]], note: str = "") -> None:
        """A grid of pictures with captions: RGB arrays [H, W, 3] (kept as JPEG), or the bytes of JPEG, PNG or SVG files.

        A caption's first line is bold, further ones follow below. Wide arrays (two pictures side by side) get wider tiles.
        """
        given = list(pictures)
        wide = any(not isinstance(picture, bytes) and picture.shape[1] > WIDE * picture.shape[0] for picture, _ in given)
        shown = [_Picture(data_address(picture), caption) for picture, caption in given]
        self._add(_Section("pictures", heading, note, wide=wide, pictures=shown))

    def plot(self, heading: str, image: bytes, caption: str = "") -> None:
        """One wide figure: the bytes of an SVG or PNG file (matplotlib: set `svg.hashsalt` for equal bytes)."""
        self._add(_Section("plot", heading, pictures=[_Picture(data_address(image), caption)]))

    def html(self) -> str:
        """The page."""
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        template = environment.get_template("report.html")
        script = (TEMPLATES / "sort.js").read_text() if any(section.sortable for section in self._sections) else ""
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return template.render(
            title=self.title,
            subtitle=self.subtitle,
            facts=self._facts,
            sections=self._sections,
            script=script,
            script_digest=f"sha256-{digest}",
        )

    def write(self, path: Path) -> None:
        """Write the page to `path`, atomically."""
        write_atomically(path, self.html().encode())

    def _add(self, section: _Section) -> None:
        section.anchor = f"s{len(self._sections)}"
        self._sections.append(section)


def format_cell(value: Cell) -> str:
    """A value as people read it: whole numbers with thin groups, others with four digits, None as a dash."""
    match value:
        case None:
            return "–"
        case Badge() | Link():
            return value.text
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}".replace(",", "\u2009")
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def data_address(image: Pixels | bytes) -> str:
    """`image` as a data: address; arrays as JPEG."""
    if not isinstance(image, bytes):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(
            buffer, "JPEG", quality=85, subsampling=0, optimize=True
        )  # thin coloured lines keep their colour
        image = buffer.getvalue()
    return f"data:{_media_type(image)};base64,{base64.b64encode(image).decode()}"


def _media_type(image: bytes) -> str:
    if image.startswith(b"\xff\xd8"):
        return "image/jpeg"
    if image.startswith(b"\x89PNG"):
        return "image/png"
    if b"<svg" in image[:2000]:
        return "image/svg+xml"
    raise ValueError("a report's picture must be an RGB array, or the bytes of a JPEG, PNG or SVG file")


def _cell(value: Cell) -> dict[str, str]:
    cell = {"text": format_cell(value), "kind": ""}
    if value is None:
        cell |= {"kind": "none", "value": "-Infinity"}
    elif isinstance(value, int | float) and not isinstance(value, bool):
        cell |= {"kind": "number", "value": repr(value) if math.isfinite(value) else "-Infinity"}
    if isinstance(value, Badge):
        cell |= {"tone": value.tone, "value": str(get_args(Tone).index(value.tone))}
    if isinstance(value, Link) and (value.address.startswith(("http://", "https://", "file://")) or ":" not in value.address):
        cell["address"] = value.address
    return cell
