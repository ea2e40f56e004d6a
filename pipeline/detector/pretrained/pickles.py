"""Weights from pickles, without executing them: numpy arrays and plain containers, nothing else.

Public model zoos give weights as `.pkl` files: dicts of numpy arrays, written by Python 2 (protocol 2, text as latin1) or 3. A
pickle is a program, so two fences stand around the interpreter. First every instruction is read without being run, and refused
unless such files need it: none that makes objects of a class or asks the outside for one. Then the few functions that arrays are
rebuilt with are ours: no function of numpy, or of anything else, is ever reached.

Limits: files up to `LARGEST` bytes. What a file may allocate is bounded by its size: arrays are views of its bytes; lengths and
memo numbers are checked before they are used.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pipeline.errors import DataError

LARGEST = 4 * 2**30
"""Bytes of a file: several times the largest detector of the public zoos."""
MOST_INSTRUCTIONS = 5_000_000
PLAIN = frozenset(
    name
    for line in (
        "PROTO FRAME STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET",
        "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT",
        "STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8",
        "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8",
        "EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS",
        "GLOBAL STACK_GLOBAL REDUCE BUILD",
    )
    for name in line.split()
)
"""Instructions that arrays and plain containers are made of. Not among them: INST, OBJ, NEWOBJ, NEWOBJ_EX, the persistent and the
extension ones, buffers from outside, sets."""
KINDS = "fiub"
"""Letters of numpy's number types; objects, text and records are refused."""


def read_pickle(path: Path) -> dict[str, Any]:
    """The dict in the file, its arrays as numpy arrays. DataError for anything that such a file has no need of."""
    size = path.stat().st_size
    if size > LARGEST:
        raise DataError(path, f"has {size} bytes; a pickle of weights may have {LARGEST}")
    data = path.read_bytes()
    check_instructions(data, path)
    unpickler = ArrayUnpickler(data, path)
    try:
        value = unpickler.load()
    except DataError:
        raise
    except Exception as error:  # whatever a damaged pickle makes the interpreter say
        raise DataError(path, f"is not a pickle of weights: {type(error).__name__}: {error}") from error
    plain = _plain(value, path)
    if not isinstance(plain, dict):
        raise DataError(path, f"holds {type(plain).__name__}, not a dict of arrays")
    return plain


def check_instructions(data: bytes, place: object) -> None:
    """Read the whole program without running it. DataError for an instruction that is not plain, or a number out of bounds."""
    count = 0
    try:
        for code, argument, position in pickletools.genops(data):
            count += 1
            if code.name not in PLAIN:
                raise DataError(place, f"instruction {code.name} at byte {position} is refused: weights have no need of it")
            if count > MOST_INSTRUCTIONS:
                raise DataError(place, f"has more than {MOST_INSTRUCTIONS} instructions: more than weights have need of")
            if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(str(argument)) > count:
                raise DataError(place, f"memo number {argument} at byte {position} is refused: it is larger than the program")
            if code.name == "GLOBAL" and tuple(str(argument).split(" ", 1)) not in REBUILDING:
                raise DataError(
                    place, f"{str(argument).replace(' ', '.')} at byte {position} is refused: weights have no need of it"
                )
    except DataError:
        raise
    except Exception as error:  # pickletools raises what its readers happen to
        raise DataError(place, f"is not a pickle: {error}") from error


class _Array:
    """An array in the making: filled by `BUILD`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, data = state
        self.value = _from_bytes(data, dtype, shape, "F" if column_major else "C")


class _Type:
    """A number type in the making: `BUILD` gives it its byte order."""

    __slots__ = ("value",)

    def __init__(self, name: Any) -> None:
        value = np.dtype(name) if isinstance(name, str) and len(name) <= 8 else None
        if value is None or value.kind not in KINDS:
            raise ValueError(f"arrays of type {name!r} are refused: numbers only")
        self.value = value

    def __setstate__(self, state: Any) -> None:
        if any(part is not None for part in state[2:5]):
            raise ValueError("arrays of records are refused: numbers only")
        self.value = self.value.newbyteorder(state[1])


class _Rebuild:
    """One of our functions, as a pickle may name it. `BUILD` on it is refused: it would reach the function's attributes."""

    __slots__ = ("function",)

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise ValueError("a function is given a state")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """A view of `data`; its bytes must be just those of the shape. Python 2 wrote them as text, one character a byte."""
    if not isinstance(dtype, _Type) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise ValueError("an array lacks a type or a shape")
    if len(shape) > 8 or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"shape {shape!r} is refused")
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes | bytearray) or len(raw) != math.prod(shape) * dtype.value.itemsize:
        raise ValueError(f"an array of shape {shape!r} does not have the bytes for it")
    return np.frombuffer(raw, dtype.value).reshape(shape, order=order)


def _array(kind: Any, shape: Any, code: Any) -> _Array:
    """`numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")`."""
    if kind is not NDARRAY:
        raise ValueError("an array of another class is refused")
    return _Array()


def _number(dtype: Any, data: Any) -> Any:
    return _from_bytes(data, dtype, (), "C").item()


def _ordered(*pairs: Any) -> dict[Any, Any]:
    return dict(*pairs)


NDARRAY = _Rebuild(None)
ARRAY, NUMBER = _Rebuild(_array), _Rebuild(_number)
FROM_BUFFER = _Rebuild(_from_bytes)
REBUILDING: dict[tuple[str, str], _Rebuild | None] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _Rebuild(lambda name, *_: _Type(name)),
    ("collections", "OrderedDict"): _Rebuild(_ordered),
    ("__builtin__", "bytes"): _Rebuild(lambda: b""),  # how protocol 2 writes no bytes
    ("_codecs", "encode"): None,  # how protocol 2 writes bytes; each unpickler has its own, which counts them
    **{(f"numpy.{core}.multiarray", "_reconstruct"): ARRAY for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): NUMBER for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): FROM_BUFFER for core in ("core", "_core")},
}
"""What a pickle of arrays names, and what it gets."""


class ArrayUnpickler(pickle.Unpickler):
    """The interpreter, with no way out: names lead to `REBUILDING` alone."""

    def __init__(self, data: bytes, place: object) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.place, self.left = place, 2 * len(data)

    def find_class(self, module: str, name: str) -> Any:
        """Ours of that name; DataError for any other."""
        if (module, name) not in REBUILDING:
            raise DataError(self.place, f"{module}.{name} is refused: weights have no need of it")
        return REBUILDING[module, name] or _Rebuild(self._encode)

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refused."""
        raise DataError(self.place, "a persistent object is refused: weights have no need of it")

    def _encode(self, text: Any, codec: Any = "latin1") -> bytes:
        if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
            raise ValueError(f"codec {codec!r} is refused")
        self.left -= len(text)
        if self.left < 0:
            raise ValueError("holds more bytes than the file has")
        return text.encode("latin1")


def _plain(value: Any, place: object) -> Any:
    """`value` with its arrays in place, to the depth that weights have: a dict, in which a dict may lie."""
    if isinstance(value, _Array):
        if value.value is None:
            raise DataError(place, "holds an array without content")
        return value.value
    if isinstance(value, _Rebuild | _Type):
        raise DataError(place, "holds something that is no array")
    if isinstance(value, dict):
        inner = {key: entry for key, entry in value.items() if not isinstance(entry, dict)}
        deeper = {key: entry for key, entry in value.items() if isinstance(entry, dict)}
        plain = {key: _plain(entry, place) for key, entry in inner.items()}
        return plain | {
            key: {k: _plain(v, place) for k, v in entry.items() if not isinstance(v, dict)} for key, entry in deeper.items()
        }
    return value
