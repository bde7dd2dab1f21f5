# SPDX-License-Identifier: Apache-2.0
"""Model FLOPs of a training step, and what the chips can do: what MFU is made of."""

from __future__ import annotations

import jax

from mlm_jax import config as cfg

# Published dense bfloat16 peaks, FLOP/s per device as JAX counts devices; substring of device_kind → peak.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "TPU v6 lite": 918e12,
    "TPU v5p": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
}


def step_flops(config: cfg.Model, rows: int, batch: int, length: int, predictions: int) -> float:
    """Floating-point operations that a step's matrix products need, forward and backward.

    The products of every layer, attention over the whole block (not halved: it looks both ways) or, in local layers, over the
    window, and the head at the masked positions only. Nothing that rematerialisation or a chunked loss computes
    again, no embedding look-up, no element-wise work. Backward counts twice the forward.

    Args:
      rows: of the embedding.
      batch, length: blocks and their tokens.
      predictions: masked positions per block, which alone reach the head.
    """
    width, tokens, targets = config.width, batch * length, batch * predictions
    mlp = (3 if config.gated else 2) * width * config.mlp_width
    products = config.layers * tokens * (4 * width * width + mlp)
    attention = 2 * width * batch * sum(seen_pairs(config, number, length) for number in range(config.layers))
    head = targets * ((width * width if config.head == "transform" else 0) + width * rows)
    return 3 * 2 * (products + attention + head)


def seen_pairs(config: cfg.Model, layer: int, length: int) -> int:
    """Pairs of tokens of a block of which one sees the other in a layer: all, or those within the window."""
    if layer % config.global_every == 0:
        return length * length
    aside = min(config.window // 2, length - 1)
    return length * (2 * aside + 1) - aside * (aside + 1)


def peak_flops(device: jax.Device) -> float | None:
    """Published bfloat16 peak of a device, FLOP/s; None where it is not known (CPUs)."""
    return next((peak for name, peak in PEAKS.items() if name in device.device_kind), None)
