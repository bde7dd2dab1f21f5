# SPDX-License-Identifier: Apache-2.0
"""Another vocabulary for an encoder that is there; `mlm_jax.adapt(config)` is `mlm_jax.functions.adapt`."""

from mlm_jax.called import make_callable

make_callable(__name__)
