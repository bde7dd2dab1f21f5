# SPDX-License-Identifier: Apache-2.0
"""`python -m mlm_jax`: see `mlm_jax.cli`."""

import sys

from mlm_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
