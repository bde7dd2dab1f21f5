# SPDX-License-Identifier: Apache-2.0
"""The encoder: a pure function of parameters and a batch (`init` and `apply` are all the rest sees)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax.model.attention import Attention, Context, make_context
from mlm_jax.model.dropout import dropout, site_keys
from mlm_jax.model.embedding import Embedding
from mlm_jax.model.head import Head, Pooler
from mlm_jax.model.layers import LayerNorm, gelu, matrix, zeros

# The residual stream and what the next layer reads, [batch, length, width] each.
Carry = tuple[jax.Array, jax.Array]

REMAT = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def padded_rows(vocabulary_size: int) -> int:
    """Rows of the embedding: the vocabulary's size, rounded up to a multiple of 128 for the matrix units."""
    return -(-vocabulary_size // 128) * 128


def example_batch(length: int) -> dict[str, jax.Array]:
    """A batch of one block of zeros, to initialise an encoder with."""
    names = ("tokens", "positions", "segment_ids", "token_types", "language_ids")
    return dict.fromkeys(names, jnp.zeros((1, length), jnp.int32))


def compute_dtype(dtype: str = "auto", platform: str | None = None) -> jnp.dtype:
    """The dtype of matrix products and activations.

    Args:
      dtype: its name; auto: bfloat16 on GPU and TPU, float32 on CPU.
      platform: of the devices; None: of those that are here.
    """
    if dtype != "auto":
        return jnp.dtype(dtype)
    return jnp.dtype(jnp.float32 if (platform or jax.default_backend()) == "cpu" else jnp.bfloat16)


def backbone(model: cfg.Model, layers: int | None = None) -> cfg.Model:
    """The model without output layer and pooler.

    Args:
      layers: of the model returned; None: as many as `model` has.
    """
    layers = model.layers if layers is None else layers
    return dataclasses.replace(model, layers=layers, head="none", pooler=False, next_sentence=False)


def make_encoder(
    model: cfg.Model,
    vocabulary_size: int,
    languages: int = 1,
    dtype: str = "auto",
    layers: int | None = None,
    platform: str | None = None,
) -> Encoder:
    """Build an encoder for the devices that are here: the one place that does.

    Args:
      vocabulary_size: ids in use.
      languages: rows of the language embedding, where the model has one.
      dtype: see `compute_dtype`.
      layers: None: the whole encoder, with output layer and pooler as `model` has them; n: the `backbone` of n layers.
      platform: of the devices it will run on, where they are not here ("tpu").
    """
    if layers is not None:
        model = backbone(model, layers)
    # XLA's CPU backend is faster without a loop over layers; elsewhere the loop keeps compilation short.
    unroll = max(model.layers, 1) if (platform or jax.default_backend()) == "cpu" else 1
    return Encoder(model, vocabulary_size, compute_dtype(dtype, platform), unroll, max(languages, 1))


def boxed_shapes(encoder: Encoder) -> Any:
    """Shapes and types of an encoder's parameters, heads included, in boxes with their logical axes, without making any."""
    position = jnp.zeros((1, 1), jnp.int32)

    def init(key: jax.Array) -> Any:
        return encoder.init(key, example_batch(8), position, method="features")["params"]

    return jax.eval_shape(init, jax.random.key(0))


def parameter_shapes(config: cfg.Model, size: int, languages: int = 1) -> Any:
    """Shapes and types of an encoder's parameters, unboxed, without making any."""
    return nn.meta.unbox(boxed_shapes(make_encoder(config, size, languages)))


class Mlp(nn.Module):
    """Two matrix products with a GELU between; gated, the first gives GELU's input and a factor of its output."""

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, length, width] → the same."""
        config, dtype = self.config, self.dtype
        width, inner, std = config.width, config.mlp_width, config.initializer_std
        halves, axes = ((2,), ("half",)) if config.gated else ((), ())
        in_kernel = matrix(self, "in_kernel", ("embed", *axes, "mlp"), (width, *halves, inner), std, dtype)
        h = jnp.einsum("blw,wcm->cblm" if config.gated else "blw,wm->blm", x, in_kernel)
        if config.bias:
            bias = zeros(self, "in_bias", (*axes, "mlp"), (*halves, inner), dtype)
            h = h + jnp.expand_dims(bias, (-2, -3))
        h = gelu(h[0]) * h[1] if config.gated else gelu(h)
        h = nn.with_logical_constraint(h, ("act_batch", "act_length", "act_mlp"))
        out_kernel = matrix(self, "out_kernel", ("mlp", "embed"), (inner, width), std, dtype)
        out = jnp.einsum("blm,mw->blw", h, out_kernel)
        if config.bias:
            out = out + zeros(self, "out_bias", ("embed",), (width,), dtype)[None, None]
        return out


class Layer(nn.Module):
    """Attention and MLP, each added to the residual stream and followed by a norm.

    A norm's output is what the next sublayer reads, so that the norms of a pre-norm layer are counted from
    its attention's output to the next layer's attention, and the last is the encoder's final norm. In a
    post-norm layer the normalised sum is also the residual stream.
    """

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, carry: Carry, number: jax.Array, context: Context, keys: jax.Array | None) -> tuple[Carry, None]:
        """The body of a scan over layers.

        Args:
          carry: the residual stream and what the layer reads, [batch, length, width] each.
          number: of the layer, uint32 [].
        """
        config = self.config
        if keys is not None:
            keys = site_keys(keys, number + 1)

        def add(x: jax.Array, out: jax.Array, rate: float, place: int, name: str) -> tuple[jax.Array, jax.Array]:
            x = x + dropout(out, rate, None if keys is None else site_keys(keys, place))
            read = LayerNorm(config.norm_epsilon, config.bias, name=name)(x)
            return (read if config.norm == "post" else x), read

        x, read = carry
        attended = Attention(config, self.dtype, name="attention")(read, number, context, keys)
        rate = config.dropout if config.attention_out_dropout < 0 else config.attention_out_dropout
        x, read = add(x, attended, rate, 1, "attention_norm")
        x, read = add(x, Mlp(config, self.dtype, name="mlp")(read), config.dropout, 2, "mlp_norm")
        read = nn.with_logical_constraint(read, ("act_batch", "act_length", "act_embed"))
        return (read if config.norm == "post" else x, read), None


class Encoder(nn.Module):
    """A stack of identical layers over an embedding, and the heads.

    Attributes:
      config: shape and dropout.
      size: ids in use; the token embedding has `padded_rows(size)` rows, those beyond being zero.
      dtype: of matrix products and activations; norms, softmax and loss are float32.
      unroll: layers that the compiler sees at once; the parameters are stacked all the same. Counts as 1
        where `config.remat` is on.
      languages: rows of the language embedding, where there is one.
    """

    config: cfg.Model
    size: int
    dtype: jnp.dtype
    unroll: int = 1
    languages: int = 1

    def setup(self) -> None:
        layer = Layer
        if self.config.remat != "none":
            layer = nn.remat(layer, policy=REMAT[self.config.remat], prevent_cse=False)
        self.embedding = Embedding(self.config, self.size, padded_rows(self.size), self.languages, self.dtype)
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
        if self.config.head != "none":
            self.head = Head(self.config, padded_rows(self.size), self.dtype)
        if self.config.pooler:
            self.pooler = Pooler(self.config, self.dtype)

    def __call__(self, batch: dict[str, jax.Array], keys: jax.Array | None = None) -> jax.Array:
        """Encode a batch.

        Args:
          batch: tokens, positions, segment_ids (0 is padding) and, where the config has such embeddings,
            token_types and language_ids: int32 [batch, length] each.
          keys: dropout keys, uint32 [batch] (`dropout.row_keys`); None: no dropout.

        Returns:
          [batch, length, width] in the compute dtype.
        """
        return self._encode(batch, keys)[0]

    def _encode(self, batch: dict[str, jax.Array], keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """What `__call__` returns, and the token embedding."""
        carry, token = self.begin(batch, keys)
        return self.go_on(carry, batch, keys)[1], token

    def begin(self, batch: dict[str, jax.Array], keys: jax.Array | None = None) -> tuple[Carry, jax.Array]:
        """What the first layer begins with, and the token embedding; arguments as in `__call__`."""
        x, read, token = self.embedding(batch, keys)
        x, read = (nn.with_logical_constraint(y, ("act_batch", "act_length", "act_embed")) for y in (x, read))
        return (x, read), token

    def go_on(
        self, carry: Carry, batch: dict[str, jax.Array], keys: jax.Array | None = None, first: int | jax.Array = 0
    ) -> Carry:
        """The layers, all of this encoder's, as those of a deeper one from number `first` on.

        Args:
          carry: of `begin`, or of the layers below.
          batch, keys: as in `__call__`.

        Returns:
          The carry for layers above; its second part is the encoder's output where there are none.
        """
        context = make_context(self.config, batch["segment_ids"], batch["positions"])
        numbers = first + jnp.arange(self.config.layers, dtype=jnp.uint32)
        return self.layers(carry, numbers, context, keys)[0]

    def features(
        self, batch: dict[str, jax.Array], scored: jax.Array, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
        """What the output layers see, at the scored positions only.

        Args:
          batch, keys: as in `__call__`.
          scored: int32 [batch, bound], places in the block.

        Returns:
          features [batch, bound, width], and the output layer's matrix [copies, rows, width], which is the token
          embedding, a copy a device that has its own (`embedding.look_up`), and bias [rows] (None without a head): scores are
          features · matrix[0]ᵀ + bias. And, where the config has a
          pooler, its float32 [batch, 2] scores of (next sentence, random sentence), or its [batch, width]
          where there is no such task; else None.
        """
        x, token = self._encode(batch, keys)
        features, bias = jnp.take_along_axis(x, scored[:, :, None], axis=1), None
        if self.config.head != "none":
            features, bias = self.head(features)
        return features, token, bias, self.pooler(x[:, 0]) if self.config.pooler else None
