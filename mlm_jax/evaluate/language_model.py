# SPDX-License-Identifier: Apache-2.0
"""How well an encoder predicts hidden tokens of plain text: loss, perplexity and bits a byte."""

from __future__ import annotations

import glob
import math
import zlib
from typing import Any

import jax
import numpy as np

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Text
from mlm_jax.finetune import packing
from mlm_jax.finetune.arrays import Items, to_arrays
from mlm_jax.finetune.predict import prediction_shape
from mlm_jax.input.arrays import local_rows, to_global
from mlm_jax.lines import read_lines
from mlm_jax.model.encoder import make_encoder
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.train.trained import Trained
from mlm_jax.train.validate import make_validation_step


def measure(trained: Trained, tokenizer: Tokenizer, text: Text, most: int, max_length: int) -> dict[str, Any]:
    """Score the first texts of a language.

    15 % of each block's tokens are hidden, chosen by the block's tokens alone, so that encoders with one vocabulary are asked
    the same; a causal encoder predicts every token. Bits a byte is the loss of a token times the text's tokens a byte,
    and lets vocabularies be compared.

    Args:
      most: texts read.
      max_length: tokens of a text that are read, specials included.

    Returns:
      loss (nats a scored token), accuracy, perplexity, bits_per_byte, examples.

    Raises:
      UserError: no text there, or the encoder has no output layer.
    """
    if trained.model.head == "none":
        raise UserError("the encoder has no output layer, so it has no language model's loss; leave language_model out")
    paths = sorted(glob.glob(text.path))
    found = [line for path in paths for _, line in read_lines(path) if line.strip()][:most]
    if not found:
        raise UserError(f"{text.path}: no text there ({text.language})")
    words, model = trained.vocabulary, trained.model
    tokens = tokenizer.encode(found)
    ids = [np.asarray([words.bos, *t[: max_length - 2], words.eos], np.int32) for t in tokens]
    number = {language: i for i, language in enumerate(trained.languages)}.get(text.language, 0)
    items = Items(ids, [np.zeros(len(x), np.int32) for x in ids], [None] * len(ids), [number] * len(ids))

    devices = jax.devices()
    shape = prediction_shape(max_length, len(devices))
    mesh = meshes.make_mesh(cfg.Mesh(), shape.rows, devices)
    sharding = meshes.batch_sharding(mesh)
    rows = local_rows(sharding, shape.rows)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    encoder = make_encoder(model, words.size, len(trained.languages))
    params = jax.device_put(trained.params, everywhere)
    plan = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), params)
    step = make_validation_step(encoder, words, shape.length, mesh, plan)
    sums = np.zeros(3)
    with meshes.mesh_context(mesh):
        for batch in packing.in_order(items.lengths, shape):
            arrays = to_arrays(items, batch, shape, words.pad, model.token_types)
            del arrays["starts"], arrays["valid"]
            arrays["next_sentence"] = np.full(shape.rows, -1, np.int32)
            arrays["repeat"] = np.zeros(shape.rows, np.int32)
            arrays["block_key"] = np.array([zlib.crc32(row.tobytes()) for row in arrays["tokens"]], np.uint32)
            arrays = {name: value[rows] for name, value in arrays.items()}
            out = jax.device_get(step(params, to_global(arrays, shape.rows, sharding)))
            sums += [out[name].sum() for name in ("loss", "correct", "targets")]
    loss = sums[0] / sums[2]
    size = sum(len(line.encode()) for line in found)
    return {
        "loss": loss,
        "accuracy": sums[1] / sums[2],
        "perplexity": math.exp(min(loss, 700)),
        "bits_per_byte": loss / math.log(2) * sum(map(len, tokens)) / size,
        "examples": len(found),
    }
