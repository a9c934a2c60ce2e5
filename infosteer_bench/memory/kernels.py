"""Triton kernels for a CUDA GPU: one program per token, each row of k read from memory once (entropy: then from cache).

Three passes over rows of k (N, F): the entropy with two numbers for its gradient, that gradient, and the row with its n
smallest coefficients lifted. The definitions are those of `entropy`, `selection` and `intervention`; the tests compare.
Arithmetic is float32 and no sum is in an order of chance: the same numbers in every run.

Chosen by measurement on an NVIDIA H200 (torch 2.11, triton 3.6; microseconds, median of `triton.testing.do_bench`, k
bfloat16, F = 8960, n = 90; forward and gradient, for the lift the selection by `topk` inside it in brackets):

    tokens                         1,024                8,192
    copying k                         14                   74
    entropy here                 15 + 17              57 + 78
    entropy by torch.compile     42 + 59            210 + 321
    entropy, plain torch       194 + 257        1,280 + 1,745
    lift here                    43 + 16             246 + 81
    lift, plain torch          313 (240)        1,727 (1,515)

With `tl.log`, which is more exact than needed, the entropy takes 21 + 20 and 95 + 98. Dispatched as an operator of
torch, the entropy and its gradient take 70 microseconds of the processor more than as a function of autograd, which is
therefore what models get that are not compiled. Whole steps: `profile train`.

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
    found = torch.empty(tokens, dtype=torch.float32, device=k.device)
    kept = torch.empty((*tokens, 2), dtype=torch.float32, device=k.device)
    _launch(_entropy, k.contiguous(), found, kept, width=width, normalize=normalize, size=_SIZE, num_warps=4)
    return found, kept


def slope(k: Tensor, kept: Tensor, grad: Tensor, normalize: str) -> Tensor:
    """grad (...) times dH/dk, as k (..., F) in k's dtype."""
    k, options = k.contiguous(), {"width": k.shape[-1], "normalize": normalize, "size": _SIZE, "num_warps": 4}
    result = torch.empty_like(k)
    _launch(_slope, k, kept, grad.contiguous(), result, **options)
    return result


def liftable(k: Tensor) -> bool:
    """Whether `lift` takes k, which is `usable`: bfloat16, rows of whole 32-bit words, places within 15 bits."""
    return k.dtype == torch.bfloat16 and k.shape[-1] % 2 == 0 and k.shape[-1] < 1 << 15


def lift(k: Tensor, n: int, alpha: float, *, keep_sign: bool) -> tuple[Tensor, Tensor]:
    """k (..., F) with its n smallest by magnitude replaced by alpha times the mean magnitude, and a bit for each key.

    The bits, (..., ceil(F / 8)) uint8: bit j of byte b is set where key 8 b + j was replaced.
    """
    k, (*tokens, width) = k.contiguous(), k.shape
    lifted, marks = torch.empty_like(k), torch.empty((*tokens, (width + 7) // 8), dtype=torch.uint8, device=k.device)
    _launch(
        *(_lift, k, lifted, marks, n, alpha),
        width=width,
        keep_sign=keep_sign,
        chunks=-(-width // (2 * _SIZE)),
        size=_SIZE,
        num_warps=8,
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
def _slope(k_ptr, kept_ptr, grad_ptr, result_ptr, width: tl.constexpr, normalize: tl.constexpr, size: tl.constexpr):
    """One row: grad dH/dk by the second forms of `entropy`."""
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
        tl.store(result_ptr + start + lane, result.to(result_ptr.dtype.element_ty), there)


# Selection works on two bfloat16 coefficients at a time, as they lie in a 32-bit word. What is compared, a magnitude or
# a place within the row, has 15 bits; the bit above each, HIGH, is the answer: after (HIGH | key) - limit it says
# whether key >= limit, and nothing is borrowed from the neighbour.

HIGH = tl.constexpr(0x80008000)
LOW = tl.constexpr(0x7FFF7FFF)
TWICE = tl.constexpr(0x00010001)


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
):
    """One row, read into registers as keys; four words at a time, so that each thread writes whole bytes of marks."""
    row = tl.program_id(0).to(tl.int64)
    words_ptr = k_ptr.to(tl.pointer_type(tl.uint32), bitcast=True) + row * (width // 2)
    lifted_ptr = lifted_ptr.to(tl.pointer_type(tl.uint32), bitcast=True) + row * (width // 2)
    marks_ptr += row * ((width + 7) // 8)
    byte = tl.arange(0, size // 4)
    place = tl.arange(0, 4)[None, :]
    lane = 4 * byte[:, None] + place
    keys = ()
    sums = tl.zeros([size // 4, 4], tl.float32)
    for chunk in tl.static_range(chunks):
        there = chunk * size + lane < width // 2
        pair = tl.load(words_ptr + chunk * size + lane, there, other=0) & LOW
        sums += (pair << 16).to(tl.float32, bitcast=True) + (pair & 0xFFFF0000).to(tl.float32, bitcast=True)
        keys += (tl.where(there, pair, LOW) | HIGH,)  # beyond the row: larger than any
    mean = tl.sum(sums) / width
    level = mean * alpha

    slots: tl.constexpr = 2 * chunks * size
    # in a row whose density is even near zero the n-th smallest lies near 2 n / F times the mean
    guess = (mean * (2 * n / width)).to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.int32)
    cut = _nth_smallest(keys, n, guess, 5, slots).to(tl.uint32)
    below = slots - _count_from(keys, cut)
    cut_pair = cut * TWICE
    last = tl.full([], 0x7FFF, tl.uint32)
    if slots - _count_from(keys, cut + 1) > n:  # not all that equal the cut belong to the n: those that come first do
        places = ()
        for chunk in tl.static_range(chunks):
            pair = (chunk * size + lane).to(tl.uint32) * 0x20002 + 0x10000
            other = _halves((keys[chunk] ^ (cut_pair | HIGH)) + LOW)
            places += (pair | other | HIGH,)
        last = _nth_smallest(places, n - below, 1 << 14, 0, slots).to(tl.uint32)

    new = level.to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.uint32) * TWICE
    for chunk in tl.static_range(chunks):
        word = chunk * size + lane
        there = word < width // 2
        pair = word.to(tl.uint32) * 0x20002 + 0x10000
        other = (keys[chunk] ^ (cut_pair | HIGH)) + LOW
        chosen = (((keys[chunk] - cut_pair) ^ HIGH) | ((other ^ HIGH) & ((last * TWICE | HIGH) - pair))) & HIGH
        old = tl.load(words_ptr + word, there, other=0)
        sign = old & ((keys[chunk] & LOW) + LOW) & HIGH if keep_sign else 0  # that of a zero is +
        lifted = old ^ ((old ^ new ^ sign) & _halves(chosen))
        tl.store(lifted_ptr + word, lifted, there)
        bits = ((chosen >> 15) | (chosen >> 30)) & 3
        mark = tl.sum(tl.where(there, bits, 0) << (2 * place), 1)
        tl.store(
            marks_ptr + chunk * (size // 4) + byte, mark.to(tl.uint8), chunk * (size // 4) + byte < (width + 7) // 8
        )


@triton.jit
def _nth_smallest(keys, n, guess, leaps: tl.constexpr, slots: tl.constexpr):
    """The n-th smallest key: bisection, after at most `leaps` steps that take the count of keys below a bfloat16 for
    proportional to it, and go 4 keys beyond so as to come from the other side next. Exact whatever they find."""
    low = tl.full([], 0, tl.int32)  # fewer than n keys are below it
    high = tl.full([], 1 << 15, tl.int32)  # at least n are below it
    trial = tl.full([], 0, tl.int32) + guess
    step = 0
    while high - low > 1:
        trial = tl.minimum(tl.maximum(trial, low + 1), high - 1)
        below = slots - _count_from(keys, trial.to(tl.uint32))
        low = tl.where(below < n, trial, low)
        high = tl.where(below < n, high, trial)
        ratio = n.to(tl.float32) / tl.maximum(below, 1).to(tl.float32)
        leap = (tl.log2(ratio) * 128).to(tl.int32) + tl.where(below < n, 4, -4)
        trial = tl.where(step < leaps, trial + leap, (low + high) // 2)
        step += 1
    return low


@triton.jit
def _count_from(keys, limit):
    """How many keys are >= limit."""
    answers = (keys[0] - limit * TWICE) & HIGH
    for chunk in tl.static_range(1, len(keys)):  # type: ignore[reportGeneralTypeIssues]
        answers |= ((keys[chunk] - limit * TWICE) & HIGH) >> chunk
    # bits set, all 32 at once
    answers = answers - ((answers >> 1) & 0x55555555)
    answers = (answers & 0x33333333) + ((answers >> 2) & 0x33333333)
    answers = (((answers + (answers >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24
    return tl.sum(answers.to(tl.int32))


@triton.jit
def _halves(answers):
    """All 15 or 16 bits of a half where its HIGH bit is set."""
    return ((answers >> 15) & TWICE) * 0xFFFF


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
