# SPDX-License-Identifier: Apache-2.0
"""The `vocabulary/` folder of an adapted encoder, beside it what an imported one keeps of its Hugging Face folder."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from etils import epath

from mlm_jax import vocabulary as vocabularies
from mlm_jax.adapt.pieces import Pieces
from mlm_jax.files import make_folder, write_whole
from mlm_jax.given import given_json
from mlm_jax.interchange.tokenizer_files import KEPT_FOLDER, SPECIALS
from mlm_jax.pretrained import Pretrained
from mlm_jax.vocabulary import Vocabulary

CLASS = "PreTrainedTokenizerFast"  # which does what tokenizer.json says, and nothing else


def write_pieces(
    made: Pieces, kept: np.ndarray, before: Pretrained, source: epath.Path, folder: epath.Path
) -> Vocabulary:
    """Write the folder.

    Args:
      made: the new pieces.
      kept: old ids of its first pieces, int64 [n].
      before: the encoder with the vocabulary before, of the folder `source`.
    """
    old, ids = before.vocabulary, {number: i for i, number in enumerate(kept.tolist())}
    make_folder(folder)
    write_whole(folder / "tokenizer.json", made.text())
    roles = {role: ids[getattr(old, role)] for role in SPECIALS}
    special = tuple(sorted(ids[number] for number in old.special_ids if number in ids))
    described = dataclasses.replace(
        vocabularies.with_specials(len(made.names), roles, set(special)),
        second_type=old.second_type,
        separators=old.separators,
    )
    described = vocabularies.with_file(described, folder / "tokenizer.json")
    if (source / KEPT_FOLDER).exists():
        kept = folder / KEPT_FOLDER
        make_folder(kept)
        write_whole(kept / "tokenizer.json", made.text())
        settings = _settings(
            source / KEPT_FOLDER,
            ids,
            {role: made.names[number] for role, number in roles.items()},
            before.model.token_types,
        )
        write_whole(kept / "tokenizer_config.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    vocabularies.write_vocabulary(described, folder)
    return described


def _settings(source: epath.Path, ids: dict[int, int], names: dict[str, str], token_types: int) -> dict[str, Any]:
    """tokenizer_config.json, in which special_tokens_map.json is taken up: the same tokens by their new ids."""
    settings = given_json(source, "tokenizer_config.json") | given_json(source, "special_tokens_map.json")
    if settings.get("tokenizer_class") != CLASS:
        # What a class of its own would have said by itself.
        types = ["token_type_ids"] * min(max(token_types - 1, 0), 1)  # of a table of one row there is no second type
        settings = (
            {"model_input_names": ["input_ids", *types, "attention_mask"]} | settings | {"tokenizer_class": CLASS}
        )
    named = {field: names[role] for role, field in SPECIALS.items()} | {
        "bos_token": names["bos"],
        "eos_token": names["eos"],
    }
    settings = named | {field: value for field, value in settings.items() if value is not None}
    if decoder := settings.get("added_tokens_decoder"):
        settings["added_tokens_decoder"] = {str(ids[int(number)]): token for number, token in decoder.items()}
    return settings
