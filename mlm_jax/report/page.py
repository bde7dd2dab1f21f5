# SPDX-License-Identifier: Apache-2.0
"""Placeholder until the page lands in this session."""
