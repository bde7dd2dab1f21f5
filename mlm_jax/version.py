# SPDX-License-Identifier: Apache-2.0
"""The version of this package, where whatever names it finds it: setup.py, `mlm-jax --version`, workdirs."""

__version__ = "0.1.0"
