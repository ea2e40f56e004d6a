"""Pickles of weights: what model zoos write is read; no route through which a pickle could run or allocate something is open."""

import collections
import contextlib
import copyreg
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.detector.pretrained.files import read_state
from pipeline.detector.pretrained.pickles import ArrayUnpickler, read_pickle
from pipeline.errors import DataError

HIT: list[str] = []


def strike(*_: object) -> None:
    """What a malicious pickle would call."""
    HIT.append("struck")


class Struck:
    """A class whose objects a malicious pickle would make."""

    def __new__(cls, *_: object, **__: object) -> "Struck":
        HIT.append("made")
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        HIT.append("given a state")


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    HIT.clear()
    yield
    assert not HIT


def weights() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "a.weight": generator.standard_normal((3, 2, 1)).astype(np.float32),
        "column.major": np.asfortranarray(generator.standard_normal((4, 5))),
        "big.endian": np.arange(6, dtype=">f4"),
        "half": np.arange(5, dtype=np.float16),
        "counter": np.array(7),
        "empty": np.zeros((0, 4), np.float32),
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "wrap", [lambda w: w, lambda w: {"model": w, "__author__": "zoo"}, lambda w: {"blobs": w}, collections.OrderedDict]
)
def test_arrays_come_back(tmp_path: Path, protocol: int, wrap: Callable[[Any], Any]) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(wrap(weights()), protocol))
    state = read_state(path)
    for name, value in weights().items():
        np.testing.assert_array_equal(state[name].numpy(), value)
        assert state[name].dtype == read_state(path)[name].dtype and state[name].is_contiguous()


def test_python_2_wrote_bytes_as_text(tmp_path: Path) -> None:
    """As in MSRA's files: protocol 2, arrays by `numpy.core`, their bytes as a latin1 string."""
    value = np.array([1.5, -2.0, 3e8], np.float32)
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x01(cnumpy\nndarray\nq\x02K\x00\x85U\x01btq\x03Rq\x04"
    dtype = b"cnumpy\ndtype\nq\x05(U\x02f4K\x00K\x01tq\x06Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x08b"
    raw = value.tobytes()
    state = b"(K\x01K\x03\x85" + dtype + b"\x89U" + bytes([len(raw)]) + raw + b"tb"
    path = tmp_path / "R-50.pkl"
    path.write_bytes(b"\x80\x02}q\x00U\x07conv1_w" + array + state + b"s.")
    np.testing.assert_array_equal(read_state(path)["conv1_w"].numpy(), value)


def test_numbers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"lr": np.float32(0.5), "iteration": 3, "x": np.ones(2)}, 2))
    assert read_pickle(path)["lr"] == 0.5 and list(read_state(path)) == ["x"]


HERE = __name__
NAME = f"c{HERE}\nstrike\n".encode()
TEXT = struct.Struct("<I")


def text(value: str) -> bytes:
    return b"X" + TEXT.pack(len(value)) + value.encode()


def global_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


ROUTES = {
    "GLOBAL and REDUCE": NAME + b"(tR.",
    "GLOBAL and REDUCE of os.system": b"cposix\nsystem\n(U\x04truetR.",
    "GLOBAL alone": NAME + b".",
    "STACK_GLOBAL": b"\x80\x04" + text(HERE) + text("strike") + b"\x93)R.",
    "STACK_GLOBAL of an attribute": b"\x80\x04" + text("numpy") + text("ndarray.__class__") + b"\x93)R.",
    "STACK_GLOBAL of what arrays need, from elsewhere": b"\x80\x04" + text(HERE) + text("_reconstruct") + b"\x93)R.",
    "INST": f"(i{HERE}\nStruck\n.".encode(),
    "OBJ": b"(" + global_of(HERE, "Struck") + b"o.",
    "NEWOBJ": b"\x80\x02" + global_of(HERE, "Struck") + b")\x81.",
    "NEWOBJ of a class that is allowed": b"\x80\x02" + global_of("collections", "OrderedDict") + b")\x81.",
    "NEWOBJ_EX": b"\x80\x04" + global_of(HERE, "Struck") + b")}\x92.",
    "PERSID": b"Pstrike\n.",
    "BINPERSID": b"U\x06strikeQ.",
    "EXT1": b"\x80\x02\x82\xf0)R.",
    "EXT2": b"\x80\x02\x83\xf0\x00)R.",
    "EXT4": b"\x80\x02\x84\xf0\x00\x00\x00)R.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "getattr": b"c__builtin__\ngetattr\n(" + global_of("numpy", "ndarray") + b"U\x09__class__tR.",
    "eval": b"c__builtin__\neval\n(U\x04True" + b"tR.",
    "numpy.load": b"cnumpy\nload\n(U\x01xtR.",
    "numpy's own test runner": b"cnumpy.testing._private.utils\nrunstring\n(U\x01x}tR.",
    "BUILD on a function": global_of("numpy", "dtype") + b"}U\x08functionK\x01sb.",
    "BUILD with slots on a function": global_of("collections", "OrderedDict") + b"N}U\x0c__defaults__K\x01s\x86b.",
    "BUILD on a function of codecs": global_of("_codecs", "encode") + b"}b.",
    "codec that decompresses": global_of("_codecs", "encode") + b"(U\x01xU\x04ziptR.",
    "array of another class": global_of("numpy.core.multiarray", "_reconstruct")
    + b"("
    + global_of("numpy", "dtype")
    + b"K\x00\x85U\x01btR.",
    "array without content": global_of("numpy.core.multiarray", "_reconstruct")
    + b"("
    + global_of("numpy", "ndarray")
    + b"K\x00\x85U\x01btR.",
    "type of objects": global_of("numpy", "dtype") + b"(U\x01OK\x00K\x01tR.",
    "type of records": global_of("numpy", "dtype") + b"(U\x05i4,i4K\x00K\x01tR.",
    "function in place of an array": b"}U\x01w" + global_of("numpy", "ndarray") + b"s.",
    "called in place of a dict": global_of("collections", "OrderedDict") + b"(K\x01tR.",
    "no dict": b"K\x01.",
    "memo number of gigabytes": b"}r\xff\xff\xff\x7f.",
    "length of a terabyte": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "length of a gigabyte": b"\x80\x04B" + TEXT.pack(1 << 30) + b"x.",
    "bytes copied again and again": b"U\xff"
    + b"x" * 255
    + b"q\x000"
    + (global_of("_codecs", "encode") + b"(h\x00U\x06latin1tR0") * 200
    + b"}.",
    "not a pickle": b"weights",
    "cut off": pickle.dumps(weights())[:-20],
    "nothing": b"",
}


@pytest.mark.parametrize("route", ROUTES)
def test_no_route_is_open(tmp_path: Path, route: str) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(ROUTES[route])
    extensions = 240
    copyreg.add_extension(HERE, "Struck", extensions)  # what EXT instructions would find
    try:
        with pytest.raises(DataError, match=r"weights\.pkl"):
            read_pickle(path)
        second = ArrayUnpickler(ROUTES[route], path)  # the interpreter alone holds too, should an instruction be read wrongly
        if "gigabyte" not in route and "terabyte" not in route:
            with contextlib.suppress(Exception):
                second.load()
    finally:
        copyreg.remove_extension(HERE, "Struck", extensions)


@pytest.mark.parametrize("shape", [(1 << 40,), (-1,), (2, 2), (True,), (1,) * 9])
def test_shapes_that_do_not_fit_their_bytes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.ones(3, np.float32)
    rebuild, arguments, (version, _, dtype, order, raw) = array.__reduce__()  # type: ignore[misc, str-unpack]

    class Wrong:
        def __reduce__(self) -> Any:
            return rebuild, arguments, (version, shape, dtype, order, raw)

    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"w": Wrong()}, 2))
    with pytest.raises(DataError, match=r"shape|bytes"):
        read_pickle(path)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"w": np.array([strike], dtype=object)}))
    with pytest.raises(DataError, match="refused"):
        read_pickle(path)


def test_a_malicious_pth_is_refused(tmp_path: Path) -> None:
    import torch

    class Malicious:
        def __reduce__(self) -> Any:
            return strike, ()

    torch.save({"model": Malicious()}, tmp_path / "weights.pth")
    with pytest.raises(DataError, match="more than tensors"):
        read_state(tmp_path / "weights.pth")
