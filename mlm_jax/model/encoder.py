# SPDX-License-Identifier: Apache-2.0
"""The encoder: a pure function of parameters and a batch (`init` and `apply` are all the rest sees)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax.model.attention import Attention
from mlm_jax.model.dropout import dropout, site_keys
from mlm_jax.model.embedding import Embedding
from mlm_jax.model.head import Head
from mlm_jax.model.layers import LayerNorm, gelu, part

REMAT = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def padded_rows(vocabulary_size: int) -> int:
    """Rows of the embedding: the vocabulary's size, rounded up to a multiple of 128 for the matrix units."""
    return -(-vocabulary_size // 128) * 128


class Mlp(nn.Module):
    """Two matrix products with a GELU between."""

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, length, width] → the same."""
        width, inner = self.config.width, self.config.mlp_width
        in_kernel = part(self, "in_kernel", ("embed", "mlp"), (width, inner))
        in_bias = part(self, "in_bias", ("mlp",), (inner,), nn.initializers.zeros)
        out_kernel = part(self, "out_kernel", ("mlp", "embed"), (inner, width))
        out_bias = part(self, "out_bias", ("embed",), (width,), nn.initializers.zeros)
        h = jnp.einsum("blw,wm->blm", x, in_kernel.astype(self.dtype)) + in_bias.astype(self.dtype)[None, None]
        h = nn.with_logical_constraint(gelu(h), ("act_batch", "act_length", "act_mlp"))
        return jnp.einsum("blm,mw->blw", h, out_kernel.astype(self.dtype)) + out_bias.astype(self.dtype)[None, None]


class Layer(nn.Module):
    """Attention and MLP, each added to its input and then normalised (post-norm)."""

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, number: jax.Array, same_segment: jax.Array, keys: jax.Array | None
    ) -> tuple[jax.Array, None]:
        """The body of a scan over layers: carry [batch, length, width], the layer's number uint32 []."""
        if keys is not None:
            keys = site_keys(keys, number + 1)
        epsilon, rate = self.config.norm_epsilon, self.config.dropout

        def site(place: int) -> jax.Array | None:
            return None if keys is None else site_keys(keys, place)

        attended = Attention(self.config, self.dtype, name="attention")(x, same_segment, keys)
        x = LayerNorm(epsilon, name="attention_norm")(x + dropout(attended, rate, site(1)))
        mapped = Mlp(self.config, self.dtype, name="mlp")(x)
        x = LayerNorm(epsilon, name="mlp_norm")(x + dropout(mapped, rate, site(2)))
        return nn.with_logical_constraint(x, ("act_batch", "act_length", "act_embed")), None


class Encoder(nn.Module):
    """A stack of identical layers over an embedding, and the head's transformation.

    Attributes:
      config: shape and dropout.
      rows: of the token embedding, `padded_rows(vocabulary size)`.
      dtype: of matrix products and activations; norms, softmax and loss are float32.
      unroll: layers that the compiler sees at once; the parameters are stacked all the same. Counts as 1
        where `config.remat` is on.
    """

    config: cfg.Model
    rows: int
    dtype: jnp.dtype
    unroll: int = 1

    def setup(self) -> None:
        layer = Layer
        if self.config.remat != "none":
            layer = nn.remat(layer, policy=REMAT[self.config.remat], prevent_cse=False)
        self.embedding = Embedding(self.config, self.rows, self.dtype)
        self.layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=self.config.layers,
            # Without a loop XLA finds what is computed twice, and keeps it after all.
            unroll=self.unroll if self.config.remat == "none" else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.config, self.dtype)
        self.head = Head(self.config, self.rows, self.dtype)

    def __call__(
        self, tokens: jax.Array, positions: jax.Array, segment_ids: jax.Array, keys: jax.Array | None = None
    ) -> jax.Array:
        """Encode a batch.

        Args:
          tokens, positions, segment_ids: int32 [batch, length]; segment 0 is padding.
          keys: dropout keys, uint32 [batch] (`dropout.row_keys`); None: no dropout.

        Returns:
          [batch, length, width] in the compute dtype.
        """
        return self._encode(tokens, positions, segment_ids, keys)[0]

    def _encode(
        self, tokens: jax.Array, positions: jax.Array, segment_ids: jax.Array, keys: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """What `__call__` returns, and the token embedding."""
        x, matrix = self.embedding(tokens, positions, keys)
        x = nn.with_logical_constraint(x, ("act_batch", "act_length", "act_embed"))
        same_segment = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
        numbers = jnp.arange(self.config.layers, dtype=jnp.uint32)
        x, _ = self.layers(x, numbers, same_segment, keys)
        return x, matrix

    def features(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array,
        scored: jax.Array,
        keys: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the language model's output layer sees at the scored positions only.

        Args:
          scored: int32 [batch, bound], places in the block.

        Returns:
          features [batch, bound, width], and the output layer's matrix [rows, width], which is the token
          embedding, and bias [rows]: scores are features · matrixᵀ + bias.
        """
        x, matrix = self._encode(tokens, positions, segment_ids, keys)
        features, bias = self.head(jnp.take_along_axis(x, scored[:, :, None], axis=1))
        return features, matrix, bias
