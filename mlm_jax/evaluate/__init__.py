# SPDX-License-Identifier: Apache-2.0
"""What the command `evaluate` does; `mlm_jax.evaluate(config)` is `mlm_jax.functions.evaluate`."""

from mlm_jax.called import make_callable

make_callable(__name__)
