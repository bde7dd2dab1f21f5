# SPDX-License-Identifier: Apache-2.0
"""What a batch holds, from the input to the loss: dicts of arrays whose keys a type checker follows."""

from __future__ import annotations

from typing import Required, TypedDict

import jax


class Batch(TypedDict, total=False):
    """What an encoder reads, and what pretraining's blocks have besides (`input.mixture.batch_shapes`).

    Attributes:
      tokens, positions, segment_ids: int32 [batch, length]; segment 0 is padding.
      token_types, language_ids: int32 [batch, length], where the model has such embeddings.
      next_sentence: 0 if a block's second part follows its first, 1 if it is a random one, -1 if there is none, int32 [batch].
      block_key: names the block, uint32 [batch].
      repeat: how often it was drawn before, int32 [batch].
    """

    tokens: Required[jax.Array]
    positions: Required[jax.Array]
    segment_ids: Required[jax.Array]
    token_types: jax.Array
    language_ids: jax.Array
    next_sentence: jax.Array
    block_key: jax.Array
    repeat: jax.Array


class MaskedBatch(Batch, total=False):
    """A batch with what is to be predicted (`objectives.mask_tokens`, `objectives.predict_next`).

    Attributes:
      masked_positions: int32 [batch, predictions].
      targets: the tokens to predict there, int32 [batch, predictions].
      weights: 1 where a position is predicted and 0 where the block has fewer, float32 [batch, predictions].
      dropout_keys: uint32 [batch], in training.
    """

    masked_positions: Required[jax.Array]
    targets: Required[jax.Array]
    weights: Required[jax.Array]
    dropout_keys: jax.Array


class PackedBatch(Batch, total=False):
    """A batch of items packed into rows (`encode.rows.to_arrays`), of which a row has up to `slots`.

    Attributes:
      starts: position of each item's first token, int32 [batch, slots].
      valid: whether there is an item, bool [batch, slots].
      targets, ends: labels as the kind of task has them (`TaskKind.targets`), [batch, ...].
      dropout_keys: uint32 [batch], in training.
    """

    starts: Required[jax.Array]
    valid: Required[jax.Array]
    targets: jax.Array
    ends: jax.Array
    dropout_keys: jax.Array
