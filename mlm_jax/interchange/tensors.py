# SPDX-License-Identifier: Apache-2.0
"""What Hugging Face calls each of an encoder's parameters, and in which shape it stores it.

One list serves both directions: `tensors` gives every tensor of a Hugging Face checkpoint as a NumPy view
of our parameters, transposed, cut or reshaped. Exporting copies the views out, importing copies into
them, so that one is the other's inverse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlm_jax.config import Model

Tensors = dict[str, np.ndarray]

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


def tensors(params: Any, model: Model, family: str, size: int) -> Tensors:
    """Every tensor of a Hugging Face checkpoint, as a view of our parameters.

    Args:
      params: tree of NumPy arrays, as `Encoder.init` gives them unboxed.
      model: the encoder.
      family: of `NAMES`.
      size: ids in use; the embedding's rows beyond have no place in the checkpoint.
    """
    return dict(_tensors(params, model, NAMES[family], size))


def _tensors(params: Any, model: Model, names: dict[str, str], size: int) -> Iterator[tuple[str, np.ndarray]]:
    width, inner = model.width, model.mlp_width
    prefix = names["prefix"]

    def norm(name: str, ours: Any, layer: int | None = None) -> Iterator[tuple[str, np.ndarray]]:
        for kind, part in (("weight", "scale"), ("bias", "bias")):
            if part in ours:
                yield f"{name}.{kind}", ours[part] if layer is None else ours[part][layer]

    embedding, layers = params["embedding"], params["layers"]
    yield f"{prefix}{names['token']}.weight", embedding["token_embedding"][:size]
    for part in ("position", "token_type", "language"):
        if f"{part}_embedding" in embedding:
            yield f"{prefix}{names[part]}.weight", embedding[f"{part}_embedding"]
    yield from norm(prefix + names["embedding_norm"], embedding["norm"])

    attention, mlp = layers["attention"], layers["mlp"]
    for i in range(model.layers):

        def named(part: str, layer: int = i) -> str:
            return prefix + names[part].format(layer)

        kernel = attention["qkv_kernel"][i]  # [width, 3, heads, head]
        if "qkv" in names:
            yield f"{named('qkv')}.weight", kernel.reshape(width, 3 * width).T
            if model.bias:
                yield f"{named('qkv')}.bias", attention["qkv_bias"][i].reshape(3 * width)
        else:
            for j, part in enumerate(("query", "key", "value")):
                yield f"{named(part)}.weight", kernel[:, j].reshape(width, width).T
                if model.bias:
                    yield f"{named(part)}.bias", attention["qkv_bias"][i, j].reshape(width)
        yield f"{named('attention_out')}.weight", attention["out_kernel"][i].reshape(width, width).T
        yield f"{named('mlp_in')}.weight", mlp["in_kernel"][i].reshape(width, -1).T
        yield f"{named('mlp_out')}.weight", mlp["out_kernel"][i].reshape(inner, width).T
        if model.bias:
            yield f"{named('attention_out')}.bias", attention["out_bias"][i]
            yield f"{named('mlp_in')}.bias", mlp["in_bias"][i].reshape(-1)
            yield f"{named('mlp_out')}.bias", mlp["out_bias"][i]
        yield from norm(named("attention_norm"), layers["attention_norm"], i)
        if "final_norm" not in names:
            yield from norm(named("mlp_norm"), layers["mlp_norm"], i)
        elif i + 1 < model.layers:  # a norm is ours after the MLP, and theirs before the next attention
            yield from norm(named("mlp_norm", i + 1), layers["mlp_norm"], i)
        else:
            yield from norm(prefix + names["final_norm"], layers["mlp_norm"], i)

    if model.head != "none":
        yield names["head_bias"], params["head"]["output_bias"][:size]
    if model.head == "transform":
        yield f"{names['head_dense']}.weight", params["head"]["dense_kernel"].T
        if model.bias:
            yield f"{names['head_dense']}.bias", params["head"]["dense_bias"]
        yield from norm(names["head_norm"], params["head"]["norm"])
    if model.pooler:
        yield f"{prefix}{names['pooler']}.weight", params["pooler"]["dense_kernel"].T
        yield f"{prefix}{names['pooler']}.bias", params["pooler"]["dense_bias"]
    if model.next_sentence:
        yield f"{names['next_sentence']}.weight", params["pooler"]["next_sentence_kernel"].T
        yield f"{names['next_sentence']}.bias", params["pooler"]["next_sentence_bias"]
