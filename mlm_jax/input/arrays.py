# SPDX-License-Identifier: Apache-2.0
"""Host batches → global arrays."""

from __future__ import annotations

import jax
import numpy as np


def local_rows(sharding: jax.sharding.NamedSharding, batch_size: int) -> np.ndarray:
    """The rows of a batch that this process's devices hold, ascending, int64 [rows of this process]."""
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    held = [np.arange(batch_size)[index] for index in slices if index is not None]
    return np.unique(np.concatenate(held))


def to_global(
    batch: dict[str, np.ndarray], batch_size: int, sharding: jax.sharding.NamedSharding
) -> dict[str, jax.Array]:
    """Arrays over all processes' devices, from this process's rows of them.

    Args:
      batch: feature → [rows of this process, ...].
      sharding: of the rows.

    Returns:
      Feature → [batch_size, ...], of the same dtype.
    """
    # Asked for, and yet JAX counts it among the transfers that slip in where there are several processes.
    with jax.transfer_guard_host_to_device("allow"):
        return {
            name: jax.make_array_from_process_local_data(sharding, rows, (batch_size, *rows.shape[1:]))
            for name, rows in batch.items()
        }
