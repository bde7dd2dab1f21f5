# SPDX-License-Identifier: Apache-2.0
"""What the command `finetune` does; `mlm_jax.finetune(config)` is `mlm_jax.functions.finetune`."""

from mlm_jax.called import make_callable

make_callable(__name__)
