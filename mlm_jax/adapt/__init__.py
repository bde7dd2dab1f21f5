# SPDX-License-Identifier: Apache-2.0
"""Another vocabulary for an encoder that is there."""
