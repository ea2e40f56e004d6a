"""Records of a COCO file while they are still text, and the shape that nearly all annotations have."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from pipeline.errors import DataError

INT32, INT64 = 2**31 - 1, 2**63 - 1
Whole = Annotated[int, msgspec.Meta(ge=-INT64, le=INT64)]
Number = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]


class PlainRecord(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An annotation as nearly all are: box, polygons, and ids that are numbers.

    Read by its type in one go; what does not fit is read field by field, with the same result where both can (a test compares).
    """

    id: Whole
    image_id: Whole
    category_id: Whole
    bbox: Annotated[list[Number], msgspec.Meta(min_length=4, max_length=4)]
    area: Number | None = None
    iscrowd: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    segmentation: list[list[Number]] | None = None
    source_id: Whole | str | None = None


class RawRecords:
    """The records of a file, each parsed when its turn comes. They can be gone through once: each pass takes them along."""

    def __init__(self, raws: list[msgspec.Raw], where: str) -> None:
        """`where` names file and list in errors."""
        self._raws, self.where = raws, where

    def take(self) -> list[msgspec.Raw]:
        """The text of all records, from now on the caller's: with the last of them the bytes of the file are let go."""
        raws, self._raws = self._raws, []
        return raws

    def __iter__(self) -> Iterator[Any]:
        for number, raw in enumerate(self.take()):
            yield decoded(raw, f"{self.where}[{number}]")


def decoded(raw: msgspec.Raw, where: str) -> Any:
    """A record as Python objects. DataError names it where it is not JSON inside."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: bytes that are not UTF-8
        raise DataError(where, f"not valid JSON ({error})", "repair the file") from error
