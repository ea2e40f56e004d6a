"""JSON that someone else wrote: objects whose fields are checked as they are taken, so that an error names file and field."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pipeline.data.formats.coco_json import read_slowly
from pipeline.errors import DataError

LARGEST = 1e300
"""Numbers beyond are taken as this: none is a pixel, and their products are still numbers."""


@dataclass(slots=True)
class Item:
    """An object of a JSON file and its position, such as `a.json: shapes[3]`. A field that is missing is as one that is null."""

    fields: dict[str, Any]
    place: str

    def text(self, key: str) -> str:
        """A text, stripped; a number is taken as one. Empty where there is none."""
        value = self.fields.get(key)
        if value is None:
            return ""
        if isinstance(value, bool | list | dict):
            raise self.wrong(key, "must be a text")
        return str(value).strip()

    def number(self, key: str) -> float | None:
        """A number."""
        value = self.fields.get(key)
        return None if value is None else as_number(value, f"{self.place}.{key}")

    def whole(self, key: str, limit: int = 2**31 - 1) -> int | None:
        """A whole number of at most `limit` in size."""
        value = self.number(key)
        if value is not None and not (value == value and value.is_integer() and abs(value) <= limit):
            raise self.wrong(key, f"must be a whole number of at most {limit}")
        return None if value is None else int(value)

    def flag(self, key: str) -> bool:
        """True, 1 or "true"."""
        value = self.fields.get(key)
        return value.lower() in ("true", "1", "yes") if isinstance(value, str) else value in (True, 1)

    def inner(self, key: str) -> "Item":
        """An object; an empty one where there is none."""
        value = self.fields.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, "must be an object")
        return Item(value or {}, f"{self.place}.{key}")

    def items(self, key: str) -> "list[Item]":
        """A list of objects."""
        return [as_item(value, f"{self.place}.{key}[{number}]") for number, value in enumerate(self.list_of(key))]

    def list_of(self, key: str) -> list[Any]:
        """A list of whatever."""
        value = self.fields.get(key)
        if value is not None and not isinstance(value, list):
            raise self.wrong(key, "must be a list")
        return value or []

    def numbers(self, key: str) -> list[float]:
        """A flat list of numbers; pairs in it, as [[x, y], ...], are laid flat."""
        return as_numbers(self.list_of(key), f"{self.place}.{key}")

    def wrong(self, key: str, rule: str) -> DataError:
        """The error for a field."""
        return DataError(f"{self.place}.{key}", f"{rule}, is {str(self.fields.get(key))[:40]!r}", "repair the file")


def read_item(path: Path) -> Item:
    """The object at the top of a JSON file. DataError with line and column when it is not JSON, or no object."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    try:
        return as_item(msgspec.json.decode(data), str(path))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return Item(read_slowly(path, data), str(path))


def as_item(value: object, place: str) -> Item:
    """The object. DataError when it is another thing."""
    if not isinstance(value, dict):
        raise DataError(place, f"must be an object, is {str(value)[:40]!r}", "repair the file")
    return Item(value, place)


def as_number(value: object, place: str) -> float:
    """A number as a float. DataError for another thing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(place, f"must be a number, is {str(value)[:40]!r}", "repair the file")
    return float(max(-LARGEST, min(LARGEST, value))) if isinstance(value, int) else value


def as_numbers(values: list[Any], place: str) -> list[float]:
    """Numbers, and lists of them laid flat."""
    found: list[float] = []
    for number, value in enumerate(values):
        if isinstance(value, list):
            found += [as_number(part, f"{place}[{number}]") for part in value]
        else:
            found.append(as_number(value, f"{place}[{number}]"))
    return found
