# SPDX-License-Identifier: Apache-2.0
"""Studies: sets of runs that differ in one thing, a table of what they measure, and the figures of it."""
