"""Triton kernels for a CUDA GPU: one program per token, each row of k read from memory once (entropy: then from cache).

Three passes over rows of k (N, F): the entropy with two numbers for its gradient; that gradient, alone or added to
another; and the row with its n smallest coefficients lifted. The definitions are those of `entropy`, `selection` and
`intervention`; the tests compare. Arithmetic is float32 and no sum is in an order of chance: the same numbers in every
run.

Chosen by measurement on an NVIDIA H200 (torch 2.11, triton 3.6; microseconds, median of `triton.testing.do_bench`, k
bfloat16, F = 8960, n = 90; forward and gradient, for the lift the selection by `topk` inside it in brackets):

    tokens                         1,024                8,192
    copying k                         14                   74
    entropy here                 15 + 17              58 + 79
    its gradient onto another     -   23               - 113
    entropy by torch.compile     42 + 59            210 + 321
    entropy, plain torch       194 + 257        1,280 + 1,745
    lift here                    25 + 16             114 + 81
    lift, plain torch          313 (240)        1,727 (1,515)

With 8 or 16 warps for a row the lift takes 129 or 206 (8,192 tokens); comparing whole numbers, as it must before
compute capability 9.0, 186 with 8. With `tl.log`, which is more exact than needed, the entropy takes 21 + 20 and
95 + 98. Dispatched as an operator of torch, the entropy and its gradient take 70 microseconds of the processor more
than as a function of autograd, which is therefore what models get that are not compiled. Whole steps: `profile train`.

Needs triton and a C compiler, which its launcher is built with; `usable` says whether they are here. Without them the
paths of other devices serve, slower.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
# (what stands under @triton.jit looks like Python and is typed by Triton)

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.language.extra import libdevice

TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
INTERPRETED = tl.constexpr(knobs.runtime.interpret)  # by TRITON_INTERPRET=1, on a CPU: in tests
_SIZE = 1024  # coefficients that one program handles at a time: 16 bytes a thread in bfloat16
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def usable(k: Tensor) -> bool:
    """Whether these kernels take k (..., F): on a CUDA GPU, 16 or 32 bits, and triton works here."""
    return k.is_cuda and k.dtype in _DTYPES and k.numel() > 0 and _works()


@functools.cache
def _works() -> bool:
    """One launch as a trial; a machine without a C compiler is told once."""
    try:
        entropy(torch.ones(1, 1, device="cuda"), "magnitude")
    except Exception as error:  # triton raises many kinds
        warnings.warn(f"triton failed ({str(error).splitlines()[0]}): steering is slower", stacklevel=2)
        return False
    return True


def entropy(k: Tensor, normalize: str) -> tuple[Tensor, Tensor]:
    """k (..., F) -> entropy (...), and centre and total of every token for `slope`, (..., 2), both float32."""
    *tokens, width = k.shape
    found, kept = k.new_empty(tokens, dtype=torch.float32), k.new_empty((*tokens, 2), dtype=torch.float32)
    _launch(_entropy, k.contiguous(), found, kept, width=width, normalize=normalize, size=_SIZE, num_warps=4)
    return found, kept


def slope(k: Tensor, kept: Tensor, grad: Tensor, onto: Tensor | None, normalize: str) -> Tensor:
    """grad (...) times dH/dk, as k (..., F) in k's dtype; added to `onto` (..., F) where that is given."""
    k, options = k.contiguous(), {"width": k.shape[-1], "normalize": normalize, "size": _SIZE, "num_warps": 4}
    result = torch.empty_like(k)
    onto = None if onto is None else onto.contiguous()
    _launch(_slope, k, kept, grad.contiguous(), onto, result, **options)
    return result


def liftable(k: Tensor) -> bool:
    """Whether `lift` takes k, which is `usable`: bfloat16, rows of whole 32-bit words, places within 15 bits.

    Rows with NaN or infinity come back with some of it left, but which keys were replaced depends on the GPU.
    """
    words = k.shape[-1] % 2 == 0 and k.data_ptr() % 4 == 0
    return k.dtype == torch.bfloat16 and words and k.shape[-1] < 1 << 15


def lift(k: Tensor, n: int, alpha: float, *, keep_sign: bool) -> tuple[Tensor, Tensor]:
    """k (..., F) with its n smallest by magnitude replaced by alpha times the mean magnitude, and a bit for each key.

    The bits, (..., ceil(F / 8)) uint8: bit j of byte b is set where key 8 b + j was replaced.
    """
    k, (*tokens, width) = k.contiguous(), k.shape
    lifted, marks = torch.empty_like(k), k.new_empty((*tokens, (width + 7) // 8), dtype=torch.uint8)
    warps = 4 if width <= 14_336 else 8 if width <= 28_672 else 16  # at most 56 words for each thread to hold
    _launch(
        *(_lift, k, lifted, marks, n, alpha),
        width=width,
        keep_sign=keep_sign,
        chunks=-(-width // (256 * warps)),
        size=128 * warps,
        native=not INTERPRETED and _capability(k.device) >= (9, 0),
        num_warps=warps,
    )
    return lifted, marks


def blank(grad: Tensor, marks: Tensor) -> Tensor:
    """grad (..., F) with zeros where a key was replaced: a replaced coefficient's old value has no say."""
    grad = grad.contiguous()
    result = torch.empty_like(grad)
    _launch(_blank, grad, marks, result, width=grad.shape[-1], size=_SIZE, num_warps=4)
    return result


def _launch(kernel: Any, k: Tensor, *arguments: Any, width: int, **options: Any) -> None:
    """One program per row, on k's GPU: by itself triton launches on the current one."""
    grid = (k.numel() // width,)
    if k.is_cuda and k.device.index != torch.cuda.current_device():
        with torch.cuda.device(k.device):
            kernel[grid](k, *arguments, width=width, **options)
    else:
        kernel[grid](k, *arguments, width=width, **options)


_capability = functools.cache(torch.cuda.get_device_capability)


@triton.jit
def _log(x):
    """The hardware's, to 2^-22; the interpreter has only the other."""
    return tl.log(x) if INTERPRETED else libdevice.fast_logf(x)


@triton.jit
def _weight(k, normalize: tl.constexpr):
    """a_i of k_i; NaN stays NaN."""
    return tl.where(k < 0, 0.0, k) if normalize == "positive" else tl.abs(k)


@triton.jit
def _mean(total, width):
    """The scale to divide by: the mean weight, or the smallest number that divides without loss."""
    mean = total / width
    return tl.where(mean < TINY, TINY, mean)


@triton.jit
def _entropy(k_ptr, entropy_ptr, kept_ptr, width: tl.constexpr, normalize: tl.constexpr, size: tl.constexpr):
    """One row: entropy, centre and total (see `entropy`)."""
    row = tl.program_id(0).to(tl.int64)
    k_ptr += row * width
    lane = tl.arange(0, size)
    first = tl.full([size], float("-inf") if normalize == "softmax" else 0.0, tl.float32)  # largest, or sum of a
    second = tl.zeros([size], tl.float32)  # sum of p-like weights times logarithms
    for start in range(0, width, size):
        there = start + lane < width
        k = tl.load(k_ptr + start + lane, there, other=0.0).to(tl.float32)
        if normalize == "softmax":
            first = tl.where(there, tl.maximum(first, k), first)
        else:
            first += _weight(k, normalize)
    if normalize == "softmax":
        largest = tl.max(first, 0)
        sums = tl.zeros([size], tl.float32)
        for start in range(0, width, size):
            there = start + lane < width
            k = tl.load(k_ptr + start + lane, there, other=0.0).to(tl.float32) - largest
            weight = tl.where(there, tl.exp(k), 0.0)
            sums += weight
            second += weight * k
        denominator = tl.sum(sums, 0)
        below = tl.sum(second, 0) / denominator  # sum_j p_j k_j, from the largest k
        total = largest + _log(denominator)
        centre = largest + below
        entropy = _log(denominator) - below
    else:
        total = tl.sum(first, 0)
        total = tl.where(total < TINY, 0.0, total)
        mean = _mean(total, width)
        for start in range(0, width, size):
            k = tl.load(k_ptr + start + lane, start + lane < width, other=0.0).to(tl.float32)
            relative = _weight(k, normalize) / mean
            second += relative * _log(tl.where(relative < TINY, TINY, relative))
        centre = tl.sum(second, 0) / (total / mean)
        entropy = _log(total / mean) - centre
        centre = tl.where(total == 0, 0.0, centre)
        entropy = tl.where(total == 0, 0.0, entropy)
    tl.store(entropy_ptr + row, tl.where(entropy < 0, 0.0, entropy))
    tl.store(kept_ptr + 2 * row, centre)
    tl.store(kept_ptr + 2 * row + 1, total)


@triton.jit
def _slope(
    k_ptr,
    kept_ptr,
    grad_ptr,
    onto_ptr,
    result_ptr,
    width: tl.constexpr,
    normalize: tl.constexpr,
    size: tl.constexpr,
):
    """One row: grad dH/dk by the second forms of `entropy`, and what it is added to."""
    row = tl.program_id(0).to(tl.int64)
    k_ptr += row * width
    result_ptr += row * width
    lane = tl.arange(0, size)
    centre, total = tl.load(kept_ptr + 2 * row), tl.load(kept_ptr + 2 * row + 1)
    grad = tl.load(grad_ptr + row)
    mean = _mean(total, width)
    scale = tl.where(total == 0, 0.0, -grad / total)
    for start in range(0, width, size):
        there = start + lane < width
        k = tl.load(k_ptr + start + lane, there, other=0.0).to(tl.float32)
        if normalize == "softmax":
            result = -grad * tl.exp(k - total) * (k - centre)
        else:
            weight = _weight(k, normalize)
            relative = weight / mean
            result = (_log(tl.where(relative < TINY, TINY, relative)) - centre) * scale
            # the defined gradient 0 at a_i = 0; NaN stays NaN
            result = tl.where(weight == 0, 0.0 * scale, tl.where(k < 0, -result, result))
        if onto_ptr is not None:
            result += tl.load(onto_ptr + row * width + start + lane, there, other=0.0).to(tl.float32)
        tl.store(result_ptr + start + lane, result.to(result_ptr.dtype.element_ty), there)


# Selection works on two bfloat16 coefficients at a time, as they lie in a 32-bit word. As whole numbers the bits of
# magnitudes are in the order of the magnitudes, so the n-th smallest is found by trying numbers of 15 bits.

LOW = tl.constexpr(0x7FFF7FFF)  # the magnitudes in a word; two NaN, which are below nothing
SIGNS = tl.constexpr(0x80008000)
TWICE = tl.constexpr(0x00010001)
BEYOND = tl.constexpr(0x7F81)  # the bits after those of infinity


@triton.jit(do_not_specialize=("n",))
def _lift(
    k_ptr,
    lifted_ptr,
    marks_ptr,
    n,
    alpha,
    width: tl.constexpr,
    keep_sign: tl.constexpr,
    chunks: tl.constexpr,
    size: tl.constexpr,
    native: tl.constexpr,
):
    """One row, held in registers; four words at a time, so that each thread writes whole bytes of marks."""
    row = tl.program_id(0).to(tl.int64)
    words_ptr = k_ptr.to(tl.pointer_type(tl.uint32), bitcast=True) + row * (width // 2)
    lifted_ptr = lifted_ptr.to(tl.pointer_type(tl.uint32), bitcast=True) + row * (width // 2)
    marks_ptr += row * ((width + 7) // 8)
    byte = tl.arange(0, size // 4)
    place = tl.arange(0, 4)[None, :]
    lane = 4 * byte[:, None] + place
    words = ()
    sums = tl.zeros([size // 4, 4], tl.float32)
    for chunk in tl.static_range(chunks):
        words += (tl.load(words_ptr + chunk * size + lane, chunk * size + lane < width // 2, other=LOW),)
    for chunk in tl.static_range(chunks):
        pair = tl.where(chunk * size + lane < width // 2, words[chunk], 0)
        sums += tl.abs((pair << 16).to(tl.float32, bitcast=True))
        sums += tl.abs((pair & 0xFFFF0000).to(tl.float32, bitcast=True))
    mean = tl.sum(sums) / width

    # of silu(g) u with normal g and u the n-th smallest lies near 0.6 n / F times the mean
    guess = (mean * (0.6 * n / width)).to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.int32)
    cut, below, until = _nth_smallest(words, n, guess, 8, native)
    end = tl.full([], width, tl.int32)
    if until > n:  # not all that equal the cut belong to the n: those before this place
        end = _place_after(words, cut, n - below, size, native)

    level = (mean * alpha).to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.uint32) * TWICE
    for chunk in tl.static_range(chunks):
        old = words[chunk]
        key = 2 * (chunk * size + lane)
        limits = (cut + (key < end)).to(tl.uint32) | ((cut + (key + 1 < end)).to(tl.uint32) << 16)
        chosen = _below(old, limits, native)
        new = level ^ (_negative(old, native) & SIGNS) if keep_sign else level
        there = chunk * size + lane < width // 2
        tl.store(lifted_ptr + chunk * size + lane, old ^ ((old ^ new) & chosen), there)
        bits = (chosen & 1) | ((chosen >> 16) & 2)
        mark = tl.sum(bits << (2 * place), 1)
        known = chunk * (size // 4) + byte < (width + 7) // 8
        tl.store(marks_ptr + chunk * (size // 4) + byte, mark.to(tl.uint8), known)


@triton.jit
def _nth_smallest(words, n, guess, leaps: tl.constexpr, native: tl.constexpr):
    """Bits of the n-th smallest magnitude, how many are below it, and how many are not above it.

    Bisection, after at most `leaps` steps that take the count of magnitudes below a number for proportional to it (bits
    of a bfloat16 are 128 times its logarithm, nearly) and go 2 beyond, so as to come from the other side next. Exact
    whatever they find.
    """
    low = tl.full([], 0, tl.int32)
    high = tl.full([], BEYOND, tl.int32)
    below_low = tl.full([], 0, tl.int32)  # always < n
    below_high = tl.full([], 0x7FFF, tl.int32)  # always >= n
    trial = tl.full([], 0, tl.int32) + guess
    step = 0
    while high - low > 1:
        trial = tl.minimum(tl.maximum(trial, low + 1), high - 1)
        below = _count_below(words, trial, native)
        few = below < n
        low, below_low = tl.where(few, trial, low), tl.where(few, below, below_low)
        high, below_high = tl.where(few, high, trial), tl.where(few, below_high, below)
        leap = _bits(n) - _bits(tl.maximum(below, 1)) + tl.where(few, 2, -2)
        trial = tl.where(step < leaps, trial + leap, (low + high) // 2)
        step += 1
    return low, below_low, below_high


@triton.jit
def _place_after(words, cut, n, size: tl.constexpr, native: tl.constexpr):
    """The place after the n-th key whose magnitude is `cut`: 1 more than how many places have fewer up to them."""
    place = tl.full([], 1, tl.int32)
    for chunk in tl.static_range(len(words)):  # type: ignore[reportGeneralTypeIssues]
        equal = _below(words[chunk], (cut + 1).to(tl.uint32) * TWICE, native)
        equal ^= _below(words[chunk], cut.to(tl.uint32) * TWICE, native)
        second = (equal >> 31).to(tl.int32)
        both = (equal & 1).to(tl.int32) + second
        upto = tl.reshape(tl.cumsum(tl.reshape(both, [size])), both.shape)
        place += tl.sum((upto - second < n).to(tl.int32) + (upto < n).to(tl.int32))
        n -= tl.sum(both)
    return place


@triton.jit
def _count_below(words, limit, native: tl.constexpr):
    """How many magnitudes are below limit."""
    limits = limit.to(tl.uint32) * TWICE
    counts = tl.zeros(words[0].shape, tl.uint32)
    for chunk in tl.static_range(len(words)):  # type: ignore[reportGeneralTypeIssues]
        counts -= _below(words[chunk], limits, native)
    # to take 0xFFFF from a half adds 1 to it; from the lower one it takes 1 from the upper too
    both = tl.sum(counts.to(tl.int32, bitcast=True))
    return (both >> 16) + 2 * (both & 0xFFFF)


@triton.jit
def _below(words, limits, native: tl.constexpr):
    """0xFFFF in each half whose magnitude is below that of limits."""
    if native:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 a; abs.bf16x2 a, $1; set.lt.u32.bf16x2 $0, a, $2; }",
            *("=r,r,r", [words, limits], tl.uint32),
            is_pure=True,
            pack=1,
        )
    # the sign's bit of the difference says it, and nothing is borrowed from the neighbour
    return ((((words | SIGNS) - limits) >> 15) & TWICE ^ TWICE) * 0xFFFF


@triton.jit
def _negative(words, native: tl.constexpr):
    """0xFFFF in each half that is below zero; -0 is not."""
    if native:
        return tl.inline_asm_elementwise(
            "set.lt.u32.bf16x2 $0, $1, $2;", "=r,r,r", [words, tl.zeros_like(words)], tl.uint32, is_pure=True, pack=1
        )
    return ((words & ((words & LOW) + LOW)) >> 15 & TWICE) * 0xFFFF


@triton.jit
def _bits(number):
    """Those of a whole number as bfloat16, cut off."""
    return number.to(tl.float32).to(tl.int32, bitcast=True) >> 16


@triton.jit
def _blank(grad_ptr, marks_ptr, result_ptr, width: tl.constexpr, size: tl.constexpr):
    """One row of grad, with zeros where its mark is set."""
    row = tl.program_id(0).to(tl.int64)
    grad_ptr += row * width
    result_ptr += row * width
    marks_ptr += row * ((width + 7) // 8)
    bit = tl.arange(0, 8)[None, :]
    for start in range(0, width, size):
        byte = start // 8 + tl.arange(0, size // 8)[:, None]
        index = 8 * byte + bit
        mark = tl.load(marks_ptr + byte, byte < (width + 7) // 8, other=0).to(tl.int32)
        grad = tl.load(grad_ptr + index, index < width, other=0.0)
        tl.store(result_ptr + index, tl.where((mark >> bit) & 1 != 0, 0.0, grad), index < width)
