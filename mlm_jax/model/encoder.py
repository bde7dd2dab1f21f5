# SPDX-License-Identifier: Apache-2.0
"""The encoder: a pure function of parameters and a batch (`init` and `apply` are all the rest sees)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from mlm_jax import config as cfg
from mlm_jax.model.attention import Attention, Context, make_context
from mlm_jax.model.attention_kernels import is_kernel
from mlm_jax.model.batch import Batch
from mlm_jax.model.dropout import dropout, site_keys
from mlm_jax.model.embedding import Embedding, Residual
from mlm_jax.model.head import Head, Pooler
from mlm_jax.model.layers import LayerNorm, gelu, matrix, zeros
from mlm_jax.model.products import product

# What the backward pass of a layer finds; it computes the rest again. none: what a product with a weight matrix reads or is added
# to, before what is cheap (norm, GELU, dropout), and what an attention kernel gives. What plain attention computes on the way,
# arrays of [batch, heads, length, length], is in nobody's list.
REMAT = {
    "none": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.save_only_these_names("qkv", "attended", "mlp_in", "sum"), is_kernel
    ),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def padded_rows(vocabulary_size: int) -> int:
    """Rows of the embedding: the vocabulary's size, rounded up to a multiple of 128 for the matrix units."""
    return -(-vocabulary_size // 128) * 128


def example_batch(length: int) -> Batch:
    """A batch of one block of zeros, to initialise an encoder with: feature → int32 [1, length]."""
    x = jnp.zeros((1, length), jnp.int32)
    return {"tokens": x, "positions": x, "segment_ids": x, "token_types": x, "language_ids": x}


def compute_dtype(dtype: str = "auto", platform: str | None = None) -> jnp.dtype:
    """The dtype that operands of matrix products have; sums are float32.

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
    training: bool = True,
) -> Encoder:
    """Build an encoder for the devices that are here: the one place that does.

    Args:
      vocabulary_size: ids in use.
      languages: rows of the language embedding, where the model has one.
      dtype: see `compute_dtype`.
      layers: None: the whole encoder, with output layer and pooler as `model` has them; n: the `backbone` of n layers.
      platform: of the devices it will run on, where they are not here ("tpu").
      training: whether it is differentiated.
    """
    if layers is not None:  # for whoever reads vectors and no scores
        model = backbone(model, layers)
    # XLA's CPU backend differentiates faster without a loop over layers. Elsewhere, and forwards, the loop is as fast and
    # keeps compilation short, which counts where each length of a batch is a program.
    on_cpu = (platform or jax.default_backend()) == "cpu"
    unroll = max(model.layers, 1) if training and on_cpu else 1
    # Only products gain by bfloat16 on a CPU (`products`).
    kind = compute_dtype(dtype, platform)
    activations = jnp.dtype(jnp.float32) if on_cpu else kind
    return Encoder(model, vocabulary_size, kind, unroll, max(languages, 1), activations)


def boxed_shapes(encoder: Encoder) -> Any:
    """Shapes and types of an encoder's parameters, heads included, in boxes with their logical axes, without making any."""
    position = jnp.zeros((1, 1), jnp.int32)

    def init(key: jax.Array) -> Any:
        return encoder.init(key, example_batch(8), position, method="features")["params"]

    return jax.eval_shape(init, jax.random.key(0))


def apply_encoder(encoder: Encoder, params: Any, batch: Batch) -> jax.Array:
    """An encoder's output without dropout, [batch, length, embed] in the dtype of activations; batch as in `Encoder.__call__`."""
    return cast(jax.Array, encoder.apply({"params": params}, batch))


def parameter_shapes(config: cfg.Model, size: int, languages: int = 1) -> Any:
    """Shapes and types of an encoder's parameters, unboxed, without making any."""
    return nn.meta.unbox(boxed_shapes(make_encoder(config, size, languages)))


class Features(NamedTuple):
    """What the output layers read: scores over the vocabulary are `vectors · matrix[0]ᵀ + bias`.

    Attributes:
      vectors: of the masked positions, [batch, max_predictions, embed].
      matrix: the output layer's, which is the token embedding, float32 [copies, rows, embed]: devices that hold the same
        part of it have a copy each (`embedding.look_up`), so that its gradient is summed over them once. One device: one copy.
      bias: the output layer's, float32 [rows]; None without a head.
      pooled: float32 [batch, 2] scores of (next sentence, random sentence) where the model has that task; [batch, embed]
        where it has a pooler alone; else None.
    """

    vectors: jax.Array
    matrix: jax.Array
    bias: jax.Array | None
    pooled: jax.Array | None


class Mlp(nn.Module):
    """Two matrix products with a GELU between. If gated (GeGLU): gelu(x W0) * (x W1) is what the last product reads."""

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, length, embed] → the same shape and dtype."""
        config, dtype = self.config, self.dtype
        width, inner, std = config.width, config.mlp_width, config.initializer_std
        halves, axes = ((2,), ("half",)) if config.gated else ((), ())
        # Both halves of a gated unit in one product, which is larger and so nearer to the hardware's peak.
        in_kernel = matrix(self, "in_kernel", ("embed", *axes, "mlp"), (width, *halves, inner), std)
        # Letters of the products: batch, length, embed, mlp; c is the half.
        # [batch, length, mlp]; gated: [2, batch, length, mlp], the halves first so that each is contiguous.
        h = product("ble,ecm->cblm" if config.gated else "ble,em->blm", x, in_kernel, dtype)
        if config.bias:
            bias = zeros(self, "in_bias", (*axes, "mlp"), (*halves, inner), h.dtype)  # [mlp] or [2, mlp]
            h = h + jnp.expand_dims(bias, (-2, -3))
        h = checkpoint_name(h, "mlp_in")
        h = gelu(h[0]) * h[1] if config.gated else gelu(h)  # [batch, length, mlp]
        h = nn.with_logical_constraint(h, ("act_batch", "act_length", "act_mlp"))
        out_kernel = matrix(self, "out_kernel", ("mlp", "embed"), (inner, width), std)
        out = product("blm,me->ble", h, out_kernel, dtype)  # [batch, length, embed]
        if config.bias:
            out = out + zeros(self, "out_bias", ("embed",), (width,), out.dtype)[None, None]
        return out


class Layer(nn.Module):
    """Attention and MLP, each added to the residual stream and followed by a norm.

    A norm's output is what the next sublayer reads, so that the norms of a pre-norm layer are counted from
    its attention's output to the next layer's attention, and the last is the encoder's final norm. In a
    post-norm layer the normalised sum is also the residual stream. So one layer serves both, and no layer is special.
    """

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, residual: Residual, number: jax.Array, context: Context, keys: jax.Array | None
    ) -> tuple[Residual, None]:
        """The body of a scan over layers.

        Args:
          residual: activations, [batch, length, embed] each.
          number: of the layer, uint32 [].
          context: of `make_context`.
          keys: dropout keys of the rows, uint32 [batch], or None.

        Returns:
          The residual after the layer; and None, as a scan collects nothing.
        """
        config = self.config
        if keys is not None:
            keys = site_keys(keys, number + 1)  # 0 is the embedding

        def add(stream: jax.Array, out: jax.Array, rate: float, site: int, name: str) -> Residual:
            """Add a sublayer's output, [batch, length, embed], and normalise the sum."""
            stream = stream + dropout(out, rate, None if keys is None else site_keys(keys, site))
            stream = checkpoint_name(stream, "sum")
            normed = LayerNorm(config.norm_epsilon, config.bias, name=name)(stream)
            # The one difference between the two kinds of encoder: post-norm goes on with what it normalised.
            return Residual(normed if config.norm == "post" else stream, normed)

        # Sites 1 and 2 of dropout; 0 is attention's probabilities.
        attended = Attention(config, self.dtype, name="attention")(residual.normed, number, context, keys)
        rate = config.dropout if config.attention_out_dropout < 0 else config.attention_out_dropout
        residual = add(residual.stream, attended, rate, 1, "attention_norm")
        out = Mlp(config, self.dtype, name="mlp")(residual.normed)
        stream, normed = add(residual.stream, out, config.dropout, 2, "mlp_norm")
        # What is handed on lies as what was handed in: rows over devices, each with its whole width.
        normed = nn.with_logical_constraint(normed, ("act_batch", "act_length", "act_embed"))
        return Residual(normed if config.norm == "post" else stream, normed), None


class Encoder(nn.Module):
    """A stack of identical layers over an embedding, and the heads.

    Attributes:
      config: shape and dropout.
      size: ids in use; the token embedding has `padded_rows(size)` rows, those beyond being zero.
      dtype: that operands of matrix products have; norms, softmax and loss are float32.
      unroll: layers that the compiler sees at once; the parameters are stacked all the same. Counts as 1
        where `config.remat` is not none.
      languages: rows of the language embedding, where there is one.
      activations: dtype of what lies between products; None: as `dtype`.
    """

    config: cfg.Model
    size: int
    dtype: jnp.dtype
    unroll: int = 1
    languages: int = 1
    activations: jnp.dtype | None = None

    def setup(self) -> None:
        layer = Layer
        # Layers in a row are left to XLA, which finds what is computed twice, and keeps it after all.
        if self.config.remat != "none" or self.unroll == 1:
            layer = nn.remat(Layer, policy=REMAT[self.config.remat], prevent_cse=False)
        activations = self.dtype if self.activations is None else self.activations
        self.embedding = Embedding(self.config, self.size, padded_rows(self.size), self.languages, activations)
        # A scan, so that a deep encoder compiles as fast as one layer; parameters are stacked, [layers, ...].
        self.layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),  # each layer has its number; context and keys are all layers'
            length=self.config.layers,
            unroll=self.unroll if self.config.remat == "none" else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.config, self.dtype)
        # The output layer's matrix is the token embedding, so that the head has the rest only.
        if self.config.head != "none":
            self.head = Head(self.config, padded_rows(self.size), self.dtype)
        if self.config.pooler:
            self.pooler = Pooler(self.config, self.dtype)

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Encode a batch.

        Args:
          batch: tokens, positions, segment_ids (0 is padding) and, where the config has such embeddings,
            token_types and language_ids: int32 [batch, length] each.
          keys: dropout keys, uint32 [batch] (`dropout.row_keys`); None: no dropout.

        Returns:
          [batch, length, embed], of the dtype of activations.
        """
        residual, _ = self.embed(batch, keys)
        return self.run_layers(residual, batch, keys).normed

    def embed(self, batch: Batch, keys: jax.Array | None = None) -> tuple[Residual, jax.Array]:
        """The residual that the first layer reads, and the token embedding for an output layer.

        Args:
          batch, keys: as in `__call__`.

        Returns:
          Arrays of [batch, length, embed]; and float32 [copies, rows, embed], see `Features.matrix`.
        """
        residual, matrix = self.embedding(batch, keys)
        stream, normed = (nn.with_logical_constraint(x, ("act_batch", "act_length", "act_embed")) for x in residual)
        return Residual(stream, normed), matrix

    def run_layers(
        self, residual: Residual, batch: Batch, keys: jax.Array | None = None, first: int | jax.Array = 0
    ) -> Residual:
        """Run this encoder's layers, as those of a deeper encoder from number `first` on.

        Args:
          residual: of `embed`, or of the layers below; [batch, length, embed] each.
          batch, keys: as in `__call__`.
          first: int, or uint32 []. Dropout and what a layer attends to depend on a layer's number.

        Returns:
          The residual for layers above; where there are none, its `normed` is the encoder's output.
        """
        # Masks and rotary angles are the same in all layers, so they are computed once, outside the scan.
        context = make_context(self.config, batch["segment_ids"], batch["positions"])
        numbers = first + jnp.arange(self.config.layers, dtype=jnp.uint32)  # [layers]
        return self.layers(residual, numbers, context, keys)[0]

    def features(self, batch: Batch, masked_positions: jax.Array, keys: jax.Array | None = None) -> Features:
        """What the output layers read, at the masked positions only: scoring a vocabulary is most of an encoder's work.

        Args:
          batch, keys: as in `__call__`.
          masked_positions: int32 [batch, max_predictions], each a position in its row.
        """
        # The matrix goes through `look_up`, so that its two gradients, the look-up's and the loss', become one array.
        residual, matrix = self.embed(batch, keys)
        return self.read(self.run_layers(residual, batch, keys).normed, matrix, masked_positions)

    def read(self, hidden: jax.Array, matrix: jax.Array, masked_positions: jax.Array) -> Features:
        """What the output layers read of what the layers gave.

        Args:
          hidden: of `run_layers`, [batch, length, embed], activations.
          matrix: of `embed`, float32.
          masked_positions: as in `features`.
        """
        # Before the head's dense layer, which so has a seventh of the work at 15 % masked.
        vectors, bias = jnp.take_along_axis(hidden, masked_positions[:, :, None], axis=1), None
        if self.config.head != "none":
            vectors, bias = self.head(vectors)
        # BERT's pooler reads the first token, <s> or [CLS], of each row.
        return Features(vectors, matrix, bias, self.pooler(hidden[:, 0]) if self.config.pooler else None)
