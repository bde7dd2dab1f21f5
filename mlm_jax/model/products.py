# SPDX-License-Identifier: Apache-2.0
"""Matrix products: operands in the compute dtype, sums in float32, on every platform.

GPUs and TPUs multiply bfloat16 into float32 sums by themselves, and what lies between products is bfloat16 too. XLA's CPU
backend multiplies bfloat16 (AVX-512 BF16, AMX) only where a product's result is float32; everything else it computes
in float32 and rounds. So there activations stay float32 (`encoder.make_encoder`), and a product rounds its operands.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

FLOAT32, BFLOAT16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)


def product(letters: str, x: jax.Array, y: jax.Array, dtype: jnp.dtype, result: jnp.dtype | None = None) -> jax.Array:
    """The product of two arrays.

    Args:
      letters: of `jnp.einsum`; no letter stands twice in an operand, or in one operand alone.
      x: [...], activations, in `dtype`, or float32 where `dtype` is bfloat16.
      y: [...], activations or a parameter.
      dtype: that operands are rounded to.
      result: dtype of the result; None: that of x, which it is too where x is wider than `dtype`.

    Returns:
      The array that `letters` say. Where x is wider than `dtype` its gradients are float32, of operands rounded likewise.
    """
    if x.dtype == FLOAT32 and dtype == BFLOAT16:
        return _rounding(letters, x, y)
    return jnp.einsum(letters, x, y.astype(dtype), preferred_element_type=result)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounding(letters: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """float32 → float32, by bfloat16 operands."""
    return _forward(letters, x, y)[0]


def _forward(letters: str, x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x, y = x.astype(BFLOAT16), y.astype(BFLOAT16)
    return rounded(letters, x, y), (x, y)


def _backward(letters: str, operands: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, y = operands
    left, right, out = _parts(letters)
    slope = slope.astype(BFLOAT16)
    return rounded(f"{out},{right}->{left}", slope, y), rounded(f"{left},{out}->{right}", x, slope)


_rounding.defvjp(_forward, _backward)


def rounded(letters: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """A product of bfloat16 arrays, [...] each, on a CPU: float32 [...]; `letters` as in `product`."""
    left, right, out = _parts(letters)
    summed = [letter for letter in left if letter not in out]
    # XLA multiplies bfloat16 only where the summed axis is the last of x, and widens both operands where it is not. Of two
    # summed axes it makes the last one itself, by a transposition in bfloat16: so the one is cut into two.
    if len(summed) == 1 and not left.endswith(summed[0]) and x.shape[left.index(summed[0])] % 2 == 0:
        x, y = (_halved(array, names.index(summed[0])) for array, names in ((x, left), (y, right)))
        left, right = (names.replace(summed[0], "Z" + summed[0]) for names in (left, right))
    return jnp.einsum(f"{left},{right}->{out}", x, y, preferred_element_type=FLOAT32)


def _parts(letters: str) -> tuple[str, str, str]:
    """ "xy,yz->xz" → "xy", "yz", "xz"."""
    operands, out = letters.split("->")
    left, right = operands.split(",")
    return left, right, out


def _halved(x: jax.Array, axis: int) -> jax.Array:
    """[..., n, ...] → [..., 2, n / 2, ...]."""
    return x.reshape(*x.shape[:axis], 2, -1, *x.shape[axis + 1 :])
