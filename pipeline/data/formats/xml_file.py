"""XML that someone else wrote: parsed without entities, which can blow up or read files."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, ParseError, SubElement, indent

from defusedxml.ElementTree import parse

from pipeline.errors import DataError


def parse_xml(path: Path) -> Element:
    """The root element. DataError names the file, and line and column of what is no XML."""
    todo = "repair or remove the file"
    try:
        root: Element | None = parse(path).getroot()
    except ParseError as error:
        line, column = error.position
        raise DataError(
            f"{path}: line {line}, column {column + 1}", f"not valid XML ({str(error).split(':')[0]})", todo
        ) from error
    except (ValueError, LookupError) as error:  # entities; unknown encodings
        raise DataError(path, f"not acceptable XML ({error})", "save it as plain UTF-8 without entities") from error
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    if root is None:
        raise DataError(path, "holds no XML element", todo)
    return root


def real(text: str | None, place: object, name: str) -> float | None:
    """The number that an attribute or element says; None where it is absent or blank."""
    text = (text or "").strip()
    try:
        return float(text) if text else None
    except ValueError as error:
        raise DataError(place, f"{name}: must be a number, is {text[:40]!r}") from error


def child(parent: Element, tag: str, text: object = None, **attributes: object) -> Element:
    """A new element in `parent`; characters that XML cannot hold become `_`."""
    element = SubElement(parent, tag, {name: _writable(value) for name, value in attributes.items()})
    element.text = None if text is None else _writable(text)
    return element


def write_xml(path: Path, root: Element) -> None:
    """The tree as an indented UTF-8 file; folders are made."""
    indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def decimal(value: float) -> str:
    """A number as text: up to 12 digits, whole ones without a point."""
    return f"{value:.12g}"


def _writable(value: object) -> str:
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "_", str(value))
