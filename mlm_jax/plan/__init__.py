# SPDX-License-Identifier: Apache-2.0
"""What a run will need on chips that are not here: the training step, compiled for them and looked at."""
