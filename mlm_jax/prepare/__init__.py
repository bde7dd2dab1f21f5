# SPDX-License-Identifier: Apache-2.0
"""What the command `prepare` does; `mlm_jax.prepare(config)` is `mlm_jax.functions.prepare`."""

from mlm_jax.called import make_callable

make_callable(__name__)
