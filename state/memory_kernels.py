"""Loads, stores and bit operations on raw addresses for kernels. Knows no layout; the caller keeps buffers alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

_I64 = ir.IntType(64)


def _operation(typed: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's `intrinsic`, with the type that its users see."""
    return intrinsic(typed)


inlined = njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # pyright: ignore[reportCallIssue]
"""Marks a small function that only kernels call: nothing is compiled to call it from Python."""

internal = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # pyright: ignore[reportCallIssue]
"""Marks a function that only kernels call."""


def _load(bits: int, result: Any) -> Callable[..., Any]:
    """An intrinsic `address -> value`: an unaligned little-endian load, widened to 64 bits."""

    def typed(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            narrow = ir.DoubleType() if result is types.float64 else ir.IntType(bits)
            pointer = builder.inttoptr(arguments[0], narrow.as_pointer())
            value = builder.load(pointer, align=1)
            if bits == 64:
                return value
            return builder.sext(value, _I64) if result is types.int64 else builder.zext(value, _I64)

        return result(types.int64), generate

    return _operation(typed)


load_i32 = _load(32, types.int64)
load_i64 = _load(64, types.int64)
load_u8 = _load(8, types.uint64)
load_u16 = _load(16, types.uint64)
load_u32 = _load(32, types.uint64)
load_u64 = _load(64, types.uint64)
load_f64 = _load(64, types.float64)


def _store(bits: int, given: Any = types.uint64) -> Callable[..., Any]:
    """An intrinsic `(address, value)`: an unaligned little-endian store of the low bits of a 64-bit value."""

    def typed(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            narrow = ir.DoubleType() if given is types.float64 else ir.IntType(bits)
            pointer = builder.inttoptr(arguments[0], narrow.as_pointer())
            stored = arguments[1] if bits == 64 else builder.trunc(arguments[1], narrow)
            builder.store(stored, pointer, align=1)
            return context.get_dummy_value()

        return types.void(types.int64, given), generate

    return _operation(typed)


store_u8 = _store(8)
store_u16 = _store(16)
store_u32 = _store(32)
store_u64 = _store(64)
store_i64 = _store(64, types.int64)
store_f64 = _store(64, types.float64)


@_operation
def multiply_fold(typing_context: Any, left: Any, right: Any) -> Any:
    """The two halves of the 128-bit product, xored."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _I64)
        return builder.xor(builder.trunc(product, _I64), high)

    return types.uint64(types.uint64, types.uint64), generate


@_operation
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """The position of the lowest bit set in `word`, which must not be 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_operation
def bits_set(typing_context: Any, word: Any) -> Any:
    """How many bits of `word` are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@_operation
def prefetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at `address`; harmless where nothing is mapped."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        int32 = ir.IntType(32)
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [pointer.type, int32, int32, int32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], function_type)
        builder.call(function, [pointer, *(ir.Constant(int32, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@inlined
def signed(word: np.integer[Any] | int) -> int:
    """A word as int64: Numba makes a float of a sum of int64 and uint64."""
    return np.int64(word)  # type: ignore[return-value]


@inlined
def is_set(bitmap: int, position: int) -> bool:
    """Whether bit `position` of the Arrow bitmap at address `bitmap` is set."""
    return (load_u8(bitmap + (position >> 3)) >> (position & 7)) & 1 != 0


@internal
def copy_bytes(target: int, source: int, length: int) -> None:
    """Copy `length` bytes between addresses that do not overlap."""
    if length >= 8:
        done = 0
        while done + 8 <= length:
            store_u64(target + done, load_u64(source + done))
            done += 8
        store_u64(target + length - 8, load_u64(source + length - 8))
        return
    for i in range(length):
        store_u8(target + i, load_u8(source + i))


@internal
def same_bytes(left: int, right: int, length: int) -> bool:
    """Whether `length` bytes at both addresses agree."""
    if length >= 8:
        done = 0
        while done + 8 <= length:
            if load_u64(left + done) != load_u64(right + done):
                return False
            done += 8
        return load_u64(left + length - 8) == load_u64(right + length - 8)
    for i in range(length):  # noqa: SIM110 - Numba compiles no generator
        if load_u8(left + i) != load_u8(right + i):
            return False
    return True
