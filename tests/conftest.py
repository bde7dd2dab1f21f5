# SPDX-License-Identifier: Apache-2.0
"""Eight virtual CPU devices for every test, and a tiny prepared corpus that needs no TensorFlow."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
