"""What kernels are written with, as numba lowers it for the device; see `_simulated` for what each function means.

Pointers are `CPointer`s, which know no half types and no atomics: both are given here. Not imported in the simulator.
"""

import importlib
from collections.abc import Callable
from typing import Any

from llvmlite import ir

types: Any = importlib.import_module("numba.cuda.types")  # numba's modules are not typed
libdevice: Any = importlib.import_module("numba.cuda.libdevice")
nvvm: Any = importlib.import_module("numba.cuda.nvvmutils")
intrinsic: Any = importlib.import_module("numba.cuda.extending").intrinsic


def _bitcast(source: Any, target: Any, llvm: ir.Type) -> Callable[..., Any]:
    def typed(typingctx: Any, value: Any) -> Any:
        if value != source:
            return None
        return target(source), lambda context, builder, signature, given: builder.bitcast(given[0], llvm)

    return intrinsic(typed)


float_bits = _bitcast(types.float32, types.int32, ir.IntType(32))
bits_float = _bitcast(types.int32, types.float32, ir.FloatType())


_I32 = ir.IntType(32)


def _element(builder: Any, pointer: Any, index: Any) -> Any:
    return builder.gep(pointer, [index])


@intrinsic
def load(typingctx: Any, pointer: Any, index: Any) -> Any:
    """The element in arithmetic precision."""
    result = types.float64 if pointer.dtype == types.float64 else types.float32

    def lower(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        value = builder.load(_element(builder, given[0], context.cast(builder, given[1], index, types.int64)))
        if pointer.dtype == types.uint16:  # bfloat16: the upper half of a float32
            return builder.bitcast(builder.shl(builder.zext(value, _I32), ir.Constant(_I32, 16)), ir.FloatType())
        return context.cast(builder, value, pointer.dtype, result)

    return result(pointer, index), lower


@intrinsic
def store(typingctx: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write an element, rounded to the pointer's type, ties to even."""

    def lower(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        target = _element(builder, given[0], context.cast(builder, given[1], index, types.int64))
        if pointer.dtype == types.uint16:
            rounded = _to_bfloat16(builder, context.cast(builder, given[2], value, types.float32))
        else:
            rounded = context.cast(builder, given[2], value, pointer.dtype)
        builder.store(rounded, target)
        return context.get_dummy_value()

    return types.void(pointer, index, value), lower


def _to_bfloat16(builder: Any, value: Any) -> Any:
    bits = builder.bitcast(value, _I32)
    odd = builder.and_(builder.lshr(bits, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
    rounded = builder.add(builder.add(bits, ir.Constant(_I32, 0x7FFF)), odd)
    unordered = builder.fcmp_unordered("uno", value, value)
    rounded = builder.select(unordered, ir.Constant(_I32, 0x7FC00000), rounded)
    return builder.trunc(builder.lshr(rounded, ir.Constant(_I32, 16)), ir.IntType(16))


@intrinsic
def product(typingctx: Any, a: Any, b: Any) -> Any:
    """a * b, rounded, never fused."""
    name = {types.float32: "llvm.nvvm.mul.rn.f", types.float64: "llvm.nvvm.mul.rn.d"}.get(a)
    if name is None or a != b:
        return None

    def lower(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kind = given[0].type
        function = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(kind, [kind, kind]))
        return builder.call(function, given)

    return a(a, b), lower


sinpi = libdevice.sinpif
cospi = libdevice.cospif


def _address(context: Any, builder: Any, kind: Any, base: Any, index: Any, index_type: Any) -> Any:
    """Address of an element of a pointer, or of a one-dimensional array such as one in shared memory."""
    index = context.cast(builder, index, index_type, types.int64)
    if isinstance(kind, types.Array):
        base = context.make_array(kind)(context, builder, base).data
    return builder.gep(base, [index])


@intrinsic
def atomic_add(typingctx: Any, target: Any, index: Any, value: Any) -> Any:
    """Add to an element; what was there before."""

    def lower(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        address = _address(context, builder, target, given[0], given[1], index)
        amount = context.cast(builder, given[2], value, target.dtype)
        if isinstance(target.dtype, types.Float):
            declare = nvvm.declare_atomic_add_float32 if target.dtype == types.float32 else nvvm.declare_atomic_add_float64
            return builder.call(declare(builder.module), (address, amount))
        return builder.atomic_rmw("add", address, amount, "monotonic")

    return target.dtype(target, index, value), lower


@intrinsic
def atomic_max(typingctx: Any, target: Any, index: Any, value: Any) -> Any:
    """Replace an integer element by a larger one; what was there before."""

    def lower(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        address = _address(context, builder, target, given[0], given[1], index)
        order = "max" if target.dtype.signed else "umax"
        return builder.atomic_rmw(order, address, context.cast(builder, given[2], value, target.dtype), "monotonic")

    if not isinstance(target.dtype, types.Integer):
        return None
    return target.dtype(target, index, value), lower
