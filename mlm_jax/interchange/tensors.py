# SPDX-License-Identifier: Apache-2.0
"""What Hugging Face calls each of an encoder's parameters, and in which shape it stores it.

One list serves both directions: `views` says of every tensor of a Hugging Face checkpoint which part of which of our
parameters it is, transposed, cut or reshaped. Importing copies into the parts, exporting copies them out, one after
another, so that one is the other's inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from mlm_jax.config import Model
from mlm_jax.pretrained import Params, to_host

Tensors = dict[str, np.ndarray]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class View:
    """A tensor of a checkpoint as a part of one of our parameters.

    Attributes:
      path: of the parameter, parts joined with "/".
      layer: of a parameter that is stacked over layers; None: it is not.
      take: from the parameter (of the layer) to the tensor; a NumPy view of a NumPy array.
    """

    path: str
    layer: int | None
    take: Callable[[Any], Any]

    def of(self, params: dict[str, np.ndarray]) -> np.ndarray:
        """The tensor, as a NumPy view of flat parameters: [...] of its `shape`, of the parameter's dtype."""
        return self.take(params[self.path] if self.layer is None else params[self.path][self.layer])

    def shape(self, shapes: dict[str, Shape]) -> Shape:
        """Its shape, from those of the flat parameters."""
        shape = shapes[self.path] if self.layer is None else shapes[self.path][1:]
        return jax.eval_shape(self.take, jax.ShapeDtypeStruct(shape, np.float32)).shape

    def read(self, params: dict[str, Any]) -> np.ndarray:
        """The tensor on the host, and no more than its parameter (of its layer), from flat parameters anywhere.

        Returns:
          [...] of its `shape`, of the parameter's dtype.
        """
        parameter = params[self.path]
        return self.take(to_host(parameter if self.layer is None else parameter[self.layer]))


# Family → the names of its parts. "{}" is the layer's number; ".weight" and ".bias" are added.
NAMES: dict[str, dict[str, str]] = {
    "bert": {
        "prefix": "bert.",
        "token": "embeddings.word_embeddings",
        "position": "embeddings.position_embeddings",
        "token_type": "embeddings.token_type_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "query": "encoder.layer.{}.attention.self.query",
        "key": "encoder.layer.{}.attention.self.key",
        "value": "encoder.layer.{}.attention.self.value",
        "attention_out": "encoder.layer.{}.attention.output.dense",
        "attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
        "mlp_in": "encoder.layer.{}.intermediate.dense",
        "mlp_out": "encoder.layer.{}.output.dense",
        "mlp_norm": "encoder.layer.{}.output.LayerNorm",
        "pooler": "pooler.dense",
        "head_dense": "cls.predictions.transform.dense",
        "head_norm": "cls.predictions.transform.LayerNorm",
        "head_bias": "cls.predictions.bias",
        "next_sentence": "cls.seq_relationship",
    },
    "xlm": {
        "prefix": "transformer.",
        "token": "embeddings",
        "position": "position_embeddings",
        "language": "lang_embeddings",
        "embedding_norm": "layer_norm_emb",
        "query": "attentions.{}.q_lin",
        "key": "attentions.{}.k_lin",
        "value": "attentions.{}.v_lin",
        "attention_out": "attentions.{}.out_lin",
        "attention_norm": "layer_norm1.{}",
        "mlp_in": "ffns.{}.lin1",
        "mlp_out": "ffns.{}.lin2",
        "mlp_norm": "layer_norm2.{}",
        "head_bias": "pred_layer.proj.bias",
    },
    "modernbert": {
        "prefix": "model.",
        "token": "embeddings.tok_embeddings",
        "embedding_norm": "embeddings.norm",
        "qkv": "layers.{}.attn.Wqkv",
        "attention_out": "layers.{}.attn.Wo",
        "attention_norm": "layers.{}.mlp_norm",
        "mlp_in": "layers.{}.mlp.Wi",
        "mlp_out": "layers.{}.mlp.Wo",
        "mlp_norm": "layers.{}.attn_norm",  # of the next layer
        "final_norm": "final_norm",
        "head_dense": "head.dense",
        "head_norm": "head.norm",
        "head_bias": "decoder.bias",
    },
}
_LM_HEAD = {"head_dense": "lm_head.dense", "head_norm": "lm_head.layer_norm", "head_bias": "lm_head.bias"}
NAMES["xlm-roberta"] = NAMES["bert"] | {"prefix": "roberta."} | _LM_HEAD
NAMES["xlm-roberta-xl"] = NAMES["xlm-roberta"] | {
    "embedding_norm": "encoder.layer.0.attention.self_attn_layer_norm",
    "attention_norm": "encoder.layer.{}.LayerNorm",
    "mlp_norm": "encoder.layer.{}.attention.self_attn_layer_norm",  # of the next layer
    "final_norm": "encoder.LayerNorm",
}

# Copies that a checkpoint may hold of what is tied, and buffers that are no parameters.
TIED = ("cls.predictions.decoder", "lm_head.decoder", "pred_layer.proj", "decoder")
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids", "position_ids")


def tensors(params: Params, model: Model, family: str, size: int) -> Tensors:
    """Every tensor of a Hugging Face checkpoint, as a view of our parameters.

    Args:
      params: NumPy arrays; others as in `views`.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    return {name: view.of(flat) for name, view in views(model, family, size).items()}


def views(model: Model, family: str, size: int) -> dict[str, View]:
    """Every tensor of a Hugging Face checkpoint as a part of our parameters.

    Args:
      family: of `NAMES`.
      size: ids in use; the embedding's rows beyond have no place in the checkpoint.
    """
    return {name: View(path, layer, take) for name, path, layer, take in _views(model, NAMES[family], size)}


def _views(
    model: Model, names: dict[str, str], size: int
) -> Iterator[tuple[str, str, int | None, Callable[[Any], Any]]]:
    width, inner = model.width, model.mlp_width
    prefix = names["prefix"]

    def same(x: Any) -> Any:
        return x

    def rows(x: Any) -> Any:  # [rows, ...] → [size, ...]
        return x[:size]

    def turned(inputs: int) -> Callable[[Any], Any]:  # [inputs, ...] → [outputs, inputs]
        return lambda x: x.reshape(inputs, -1).T

    def flat(x: Any) -> Any:
        return x.reshape(-1)

    def norm(name: str, path: str, layer: int | None = None) -> Iterator[tuple[str, str, int | None, Any]]:
        yield f"{name}.weight", f"{path}/scale", layer, same
        if model.bias:
            yield f"{name}.bias", f"{path}/bias", layer, same

    yield f"{prefix}{names['token']}.weight", "embedding/token_embedding", None, rows
    for part, has in (
        ("position", model.position_embedding == "learned"),
        ("token_type", model.token_types),
        ("language", model.language_embedding),
    ):
        if has:
            yield f"{prefix}{names[part]}.weight", f"embedding/{part}_embedding", None, same
    yield from norm(prefix + names["embedding_norm"], "embedding/norm")

    for i in range(model.layers):

        def named(part: str, layer: int = i) -> str:
            return prefix + names[part].format(layer)

        kernel, bias = "layers/attention/qkv_kernel", "layers/attention/qkv_bias"
        if "qkv" in names:
            yield f"{named('qkv')}.weight", kernel, i, turned(width)
            if model.bias:
                yield f"{named('qkv')}.bias", bias, i, flat
        else:
            for j, part in enumerate(("query", "key", "value")):

                def cut_kernel(x: Any, j: int = j) -> Any:  # [width, 3, heads, head] → [width, width]
                    return x[:, j].reshape(width, width).T

                def cut_bias(x: Any, j: int = j) -> Any:  # [3, heads, head] → [width]
                    return x[j].reshape(width)

                yield f"{named(part)}.weight", kernel, i, cut_kernel
                if model.bias:
                    yield f"{named(part)}.bias", bias, i, cut_bias
        yield f"{named('attention_out')}.weight", "layers/attention/out_kernel", i, turned(width)
        yield f"{named('mlp_in')}.weight", "layers/mlp/in_kernel", i, turned(width)
        yield f"{named('mlp_out')}.weight", "layers/mlp/out_kernel", i, turned(inner)
        if model.bias:
            yield f"{named('attention_out')}.bias", "layers/attention/out_bias", i, same
            yield f"{named('mlp_in')}.bias", "layers/mlp/in_bias", i, flat
            yield f"{named('mlp_out')}.bias", "layers/mlp/out_bias", i, same
        yield from norm(named("attention_norm"), "layers/attention_norm", i)
        if "final_norm" not in names:
            yield from norm(named("mlp_norm"), "layers/mlp_norm", i)
        elif i + 1 < model.layers:  # a norm is ours after the MLP, and theirs before the next attention
            yield from norm(named("mlp_norm", i + 1), "layers/mlp_norm", i)
        else:
            yield from norm(prefix + names["final_norm"], "layers/mlp_norm", i)

    if model.head != "none":
        yield names["head_bias"], "head/output_bias", None, rows
    if model.head == "transform":
        yield f"{names['head_dense']}.weight", "head/dense_kernel", None, turned(width)
        if model.bias:
            yield f"{names['head_dense']}.bias", "head/dense_bias", None, same
        yield from norm(names["head_norm"], "head/norm")
    if model.pooler:
        yield f"{prefix}{names['pooler']}.weight", "pooler/dense_kernel", None, turned(width)
        yield f"{prefix}{names['pooler']}.bias", "pooler/dense_bias", None, same
    if model.next_sentence:
        yield f"{names['next_sentence']}.weight", "pooler/next_sentence_kernel", None, turned(width)
        yield f"{names['next_sentence']}.bias", "pooler/next_sentence_bias", None, same
