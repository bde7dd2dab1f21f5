# SPDX-License-Identifier: Apache-2.0
"""Pretrain multilingual text encoders from raw text in JAX."""
