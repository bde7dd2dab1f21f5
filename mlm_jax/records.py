# SPDX-License-Identifier: Apache-2.0
"""A block as it lies on disk: a tf.Example in a TFRecord file, with an index of offsets beside it.

SeqIO and T5X read the TFRecord files as an ordinary SeqIO cache and never look at the index. Grain
reads single records by the index, without TensorFlow: tf.Example is rebuilt here as a protobuf
message of the same wire format. What is read is checked as TensorFlow checks it, by its length and checksums.

A record holds the block's tokens and its *spans*: runs of tokens whose positions count up. A span has
a length, a segment id (attention stays within a segment), a language id, a token type and a first
position, from which `expand_block` makes the per-token features. A block of running text is one span; a
packed block has one per document; a translation pair is two spans of one segment, both from position 0;
a sentence pair is two spans of one segment and two types, whose positions run on.
"""

from __future__ import annotations

import struct
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SPANS = ("span_lengths", "span_segments", "span_languages", "span_types", "span_positions")
FEATURES = ("tokens", *SPANS, "next_sentence")


def _example_class() -> type[Any]:
    """tf.train.Example (tensorflow/core/example/{example,feature}.proto), int64 features only."""
    file = descriptor_pb2.FileDescriptorProto(name="mlm_jax/example.proto", package="mlm_jax", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[int, tuple[str, Any, Any, str | None]]) -> descriptor_pb2.DescriptorProto:
        m = file.message_type.add(name=name)
        for number, (field_name, label, type_, type_name) in fields:
            m.field.add(name=field_name, number=number, label=label, type=type_, type_name=type_name)
        return m

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("Int64List", (1, ("value", many, field.TYPE_INT64, None)))
    message("Feature", (3, ("int64_list", one, field.TYPE_MESSAGE, ".mlm_jax.Int64List")))
    features = message("Features", (1, ("feature", many, field.TYPE_MESSAGE, ".mlm_jax.Features.FeatureEntry")))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=one, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=one, type=field.TYPE_MESSAGE, type_name=".mlm_jax.Feature")
    message("Example", (1, ("features", one, field.TYPE_MESSAGE, ".mlm_jax.Features")))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mlm_jax.Example"))


_Example = _example_class()

FRAMING = 16  # bytes that TFRecord adds to a payload: length, its checksum, and the payload's
_HEAD, _FOOT = struct.Struct("<QI"), struct.Struct("<I")

TOKEN_FEATURES = ("tokens", "segment_ids", "positions", "language_ids", "token_types")  # of `expand_block`


def encode_block(block: dict[str, np.ndarray]) -> bytes:
    """Serialise a block's features (`FEATURES`, int32 or int64 [n] each) as a tf.Example."""
    example = _Example()
    for name in FEATURES:
        example.features.feature[name].int64_list.value.extend(block[name].tolist())
    return example.SerializeToString(deterministic=True)


def decode_block(record: bytes) -> dict[str, np.ndarray]:
    """Parse what `encode_block` (or TensorFlow) wrote: each of `FEATURES` as int32 [n]."""
    feature = _Example.FromString(record).features.feature
    return {name: np.array(feature[name].int64_list.value, np.int32) for name in FEATURES}


def expand_block(block: dict[str, np.ndarray], length: int, pad: int) -> dict[str, np.ndarray]:
    """A block's features as training sees them: per-token ones are int32 [length].

    Args:
      block: `FEATURES` of one record, at most `length` tokens.
      length: tokens to pad to.
      pad: id of the padding token.

    Returns:
      tokens; segment_ids, from 1, and 0 on padding; positions; language_ids; token_types. And, int32 [],
      next_sentence: 0 where the second sentence follows the first, 1 where it is a random one, -1 where
      the block is no sentence pair.
    """
    spans, used = block["span_lengths"], len(block["tokens"])

    def fill(values: np.ndarray, padding: int = 0) -> np.ndarray:
        out = np.full(length, padding, np.int32)
        out[:used] = values
        return out

    starts = np.repeat(np.cumsum(spans) - spans, spans)
    return {
        "tokens": fill(block["tokens"], pad),
        "segment_ids": fill(np.repeat(block["span_segments"], spans)),
        "positions": fill(np.arange(used, dtype=np.int32) - starts + np.repeat(block["span_positions"], spans)),
        "language_ids": fill(np.repeat(block["span_languages"], spans)),
        "token_types": fill(np.repeat(block["span_types"], spans)),
        "next_sentence": np.asarray(block["next_sentence"][0] if len(block["next_sentence"]) else -1, np.int32),
    }


def index_path(file: str) -> str:
    """Where a TFRecord file's index is: little-endian uint64 [records + 1], each record's first byte
    (of the framing, not of the payload) and last the file's size."""
    return file + ".index"


def frame(payload: bytes) -> bytes:
    """A TFRecord record: length, its checksum, payload, its checksum (tensorflow/core/lib/io/record_writer.h)."""
    length = struct.pack("<Q", len(payload))
    return length + _FOOT.pack(_checksum(length)) + payload + _FOOT.pack(_checksum(payload))


def unframe(framed: bytes) -> bytes | None:
    """The payload of what `frame` made; None where the length or a checksum is another."""
    if len(framed) < FRAMING:
        return None
    payload = framed[12:-4]
    length, of_length = _HEAD.unpack_from(framed)
    whole = (
        length == len(payload)
        and of_length == _checksum(framed[:8])
        and _FOOT.unpack_from(framed, len(framed) - 4)[0] == _checksum(payload)
    )
    return payload if whole else None


def _checksum(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
