# SPDX-License-Identifier: Apache-2.0
"""What the representations know of language: the probes of Libovický, Rosa and Fraser (2019, 2020)."""
