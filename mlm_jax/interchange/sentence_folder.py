# SPDX-License-Identifier: Apache-2.0
"""A folder of sentence-transformers (Reimers and Gurevych 2019): a Hugging Face folder, and files that say how vectors are made of it.

modules.json lists modules, each of which reads what the one before gives: the encoder, pooling, and after it what we have too: a Dense module
that keeps the first dimensions, and Normalize.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.files import write_json
from mlm_jax.given import LARGEST_JSON, given_file, given_json, given_text
from mlm_jax.interchange.weights import read_weights, write_weights
from mlm_jax.lines import at_line, parse_json
from mlm_jax.model.task_head import Pooling
from mlm_jax.pretrained import Pretrained, SentenceVectors

MODULES, PROMPTS, LENGTH = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
# Our pooling → the name of its mode, and the field that says whether it is used.
MODES: dict[Pooling, tuple[str, str]] = {
    "mean": ("mean", "pooling_mode_mean_tokens"),
    "first": ("cls", "pooling_mode_cls_token"),
    "max": ("max", "pooling_mode_max_tokens"),
}
IDENTITY = "torch.nn.modules.linear.Identity"


def for_sentences(pretrained: Pretrained) -> Pretrained:
    """The encoder whose last layer is the one that vectors are made of, without an output layer, and with `vectors`.

    Raises:
      UserError: sentence-transformers cannot run it.
    """
    where = "export --as sentence-transformers"
    if pretrained.head is not None:
        raise UserError(f"{where}: a fine-tuned head has no place there; leave --as out")
    if pretrained.model.language_embedding:
        raise UserError(f"{where}: gives an encoder no language, whose embedding this one reads; leave --as out")
    vectors, model = pretrained.vectors or SentenceVectors(), pretrained.model
    layer = vectors.layer or model.layers
    if layer > model.layers:
        raise UserError(f"{where}: layer {layer}, the encoder has {model.layers}")
    params = {name: part for name, part in pretrained.params.items() if name != "head"}
    if layer < model.layers:
        params["layers"] = jax.tree.map(lambda leaf: leaf[:layer], params["layers"])  # [layers, ...] → [layer, ...]
        params.pop("pooler", None)  # it read the last layer
    model = dataclasses.replace(model, layers=layer, head="none", next_sentence=False, pooler="pooler" in params)
    return dataclasses.replace(pretrained, model=model, params=params, vectors=dataclasses.replace(vectors, layer=0))


def write_modules(folder: Path, pretrained: Pretrained) -> None:
    """Write, beside the encoder's files, those that say how vectors are made of it.

    Args:
      pretrained: of `for_sentences`.
    """
    vectors, width = pretrained.vectors or SentenceVectors(), pretrained.model.width
    positions = pretrained.model.positions
    write_json(
        folder / LENGTH, {"max_seq_length": min(pretrained.trained or positions, positions), "do_lower_case": False}, 1
    )
    modules = ["Transformer", "Pooling"]
    settings: dict[str, Any] = {"word_embedding_dimension": width}
    settings |= {field: vectors.pooling == how for how, (_, field) in MODES.items()}
    settings |= {"pooling_mode_mean_sqrt_len_tokens": False}
    _write_config(folder / "1_Pooling", settings)
    if 0 < vectors.dimensions < width:
        name = f"{len(modules)}_Dense"
        modules.append("Dense")
        shape = (vectors.dimensions, width)
        of_dense = {"in_features": width, "out_features": shape[0], "bias": False, "activation_function": IDENTITY}
        _write_config(folder / name, of_dense)
        write_weights(folder / name, {"linear.weight": shape}, lambda _: np.eye(*shape, dtype=np.float32))
    if vectors.normalise:
        modules.append("Normalize")
        _write_config(folder / f"{len(modules) - 1}_Normalize", {})
    described = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(modules)
    ]
    prompts = {"prompts": dict(vectors.prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / PROMPTS, prompts, 1)
    write_json(folder / MODULES, described, 1)


def _write_config(folder: Path, settings: dict[str, Any]) -> None:
    folder.mkdir()
    write_json(folder / "config.json", settings, 1)


def read_modules(folder: Path, pretrained: Pretrained) -> Pretrained:
    """The encoder of a folder with how sentence-transformers makes vectors of it; as it is, where the folder is none of theirs.

    Raises:
      UserError: a module is one that ours have no counterpart of, or does otherwise than ours; names it.
    """
    path = given_file(folder, MODULES, LARGEST_JSON)
    if path is None:
        return pretrained
    listed = parse_json(given_text(path), partial(at_line, str(path)))
    if not isinstance(listed, list) or not all(
        isinstance(m, dict) and isinstance(m.get("type"), str) and isinstance(m.get("path"), str) for m in listed
    ):
        raise UserError(f"{path}: no list of modules with type and path; get the right file")
    kinds = [module["type"].rpartition(".")[2] for module in listed]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise UserError(
            f"{path}: {', '.join(kinds) or 'no modules'}; only a Transformer and then Pooling can be imported"
        )
    if listed[0]["path"] not in ("", "."):
        raise UserError(f"{path}: the encoder lies in {listed[0]['path']}; give that folder, which has no pooling then")
    vectors = SentenceVectors(_pooling(folder, listed[1]["path"]), normalise=False)
    for kind, module in zip(kinds[2:], listed[2:], strict=True):
        where = f"{path}: module {module['path'] or kind}"
        if vectors.normalise:
            raise UserError(f"{where} after Normalize has no counterpart here")
        if kind == "Normalize":
            vectors = dataclasses.replace(vectors, normalise=True)
        elif kind == "Dense" and not vectors.dimensions:
            vectors = dataclasses.replace(vectors, dimensions=_kept(folder, module["path"], where))
        else:
            raise UserError(f"{where} ({kind}) has no counterpart here; only Pooling, Dense and Normalize have")
    settings = given_json(folder, PROMPTS)
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise UserError(f"{folder / PROMPTS}: prompts is no object of texts; get the right file")
    default = settings.get("default_prompt_name")
    if default and prompts.get(default):
        console.warn(
            f"{folder}: its default prompt is not put before a text by itself here; ask for --prompt {default}"
        )
    sizes = given_json(folder, LENGTH)
    if sizes.get("do_lower_case"):
        raise UserError(
            f"{folder / LENGTH}: do_lower_case has no counterpart here; lower the text's case, and set it to false"
        )
    length = sizes.get("max_seq_length") or 0
    if not isinstance(length, int) or length < 0:
        raise UserError(f"{folder / LENGTH}: max_seq_length {length!r} is no number of tokens; get the right file")
    trained = min(length, pretrained.model.positions) or pretrained.trained
    vectors = dataclasses.replace(vectors, prompts=prompts)
    return dataclasses.replace(pretrained, vectors=vectors, trained=trained)


def _pooling(folder: Path, path: str) -> Pooling:
    """The pooling of a module.

    Raises:
      UserError: it is another than ours, or several.
    """
    settings = given_json(folder, f"{_inside(folder, path)}/config.json")
    where = f"{folder / path / 'config.json'}: Pooling"
    if settings.get("include_prompt", True) is not True:
        raise UserError(f"{where} without the prompt's tokens has no counterpart here")
    used = settings.get("pooling_mode")
    if used is None:
        used = [
            name.removeprefix("pooling_mode_")
            for name, on in settings.items()
            if name.startswith("pooling_mode_") and on
        ]
        names = {field.removeprefix("pooling_mode_"): how for how, (_, field) in MODES.items()}
    else:
        names = {mode: how for how, (mode, _) in MODES.items()}
    used = used if isinstance(used, list) else [used]
    if len(used) != 1 or used[0] not in names:
        raise UserError(
            f"{where} by {' and '.join(map(str, used)) or 'nothing'}; only one of {', '.join(names)} can be imported"
        )
    return names[used[0]]


def _kept(folder: Path, path: str, where: str) -> int:
    """How many of the first dimensions a Dense module keeps.

    Raises:
      UserError: it does anything else.
    """
    inside = _inside(folder, path)
    settings, weights = given_json(folder, f"{inside}/config.json"), read_weights(folder / inside)
    weight = weights["linear.weight"].read() if set(weights) == {"linear.weight"} else np.zeros((0, 0))
    is_cut = weight.size and np.array_equal(weight, np.eye(*weight.shape, dtype=weight.dtype))
    plain = str(settings.get("activation_function", "")).endswith("Identity") and not settings.get("use_residual")
    if not is_cut or not plain:
        raise UserError(
            f"{where} (Dense) projects vectors, which has no counterpart here; only one that keeps the first n has"
        )
    return len(weight)


def _inside(folder: Path, path: str) -> str:
    """A module's folder by the path in modules.json.

    Raises:
      UserError: it is not within the folder.
    """
    parts: Sequence[str] = Path(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise UserError(f"{folder / MODULES}: {path!r} is no folder beside it; get the right file")
    return path
