# SPDX-License-Identifier: Apache-2.0
"""An encoder's shape as Hugging Face's config.json, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mlm_jax.config import Model
from mlm_jax.errors import UserError
from mlm_jax.interchange.tensors import NAMES
from mlm_jax.model.families import Family, family_of
from mlm_jax.vocabulary import Vocabulary

CLASSES = {  # family → with a head, without
    "bert": ("BertForMaskedLM", "BertModel"),
    "xlm": ("XLMWithLMHeadModel", "XLMModel"),
    "xlm-roberta": ("XLMRobertaForMaskedLM", "XLMRobertaModel"),
    "xlm-roberta-xl": ("XLMRobertaXLForMaskedLM", "XLMRobertaXLModel"),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertModel"),
}


def exportable_family(model: Model) -> Family:
    """The family whose Hugging Face classes can hold an encoder.

    Raises:
      UserError: none; says what stands in the way.
    """

    def refuse(what: str) -> UserError:
        return UserError(
            f"export: no Hugging Face class has {what}; see docs/families.md for the encoders that have one"
        )

    family = family_of(model)
    if family == "modernbert":
        fits = {
            "model.norm": (model.norm, "pre"),
            "model.embedding_norm": (model.embedding_norm, True),
            "model.gated": (model.gated, True),
            "model.token_types": (model.token_types, 0),
            "model.language_embedding": (model.language_embedding, False),
            "model.causal": (model.causal, False),
            "model.pooler": (model.pooler, False),
        }
        for name, (found, wanted) in fits.items():
            if found != wanted:
                raise refuse(f"rotary positions and {name} {found} (ModernBERT: {wanted})")
        if model.head == "plain":
            raise refuse("rotary positions and model.head plain")
        return family
    if not model.bias or model.gated or model.global_every > 1:
        raise refuse("learned positions without biases, with a gated MLP or with local attention")
    if family == "xlm-roberta-xl":
        if model.embedding_norm or model.head == "plain" or model.causal or model.language_embedding:
            raise refuse(
                "pre-norm and learned positions with model.embedding_norm, causal, language_embedding or head plain"
            )
        if model.token_types < 1:
            raise refuse("pre-norm and learned positions without model.token_types (XLM-R XL has 1)")
        return family
    only_xlm = model.head == "plain" or model.causal or model.language_embedding
    if only_xlm and (model.head == "transform" or family != "xlm"):
        raise refuse(
            "causal attention or language embeddings unless model.head is plain, without token types, pooler or position_offset"
        )
    if family == "xlm":
        if model.head == "transform":
            raise refuse("learned positions and a transforming head without model.token_types (XLM-R has 1, BERT 2)")
        if model.position_offset or model.pooler:
            raise refuse("an XLM encoder with model.position_offset or pooler")
        if model.mlp_width != 4 * model.width:
            raise refuse(f"an XLM encoder whose model.mlp_width {model.mlp_width} is not 4 times its width")
    return family


def to_settings(model: Model, vocabulary: Vocabulary, family: str, languages: Iterable[str]) -> dict[str, Any]:
    """The content of config.json.

    Args:
      languages: in the order of the language embedding's rows.
    """
    names = list(languages)
    headed, bare = CLASSES[family]
    architecture = "BertForPreTraining" if model.next_sentence else bare if model.head == "none" else headed
    common: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": family,
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "dtype": "float32",
        "tie_word_embeddings": True,
    }
    if family == "xlm":
        return common | {
            "n_words": vocabulary.size,
            "emb_dim": model.width,
            "n_layers": model.layers,
            "n_heads": model.heads,
            "dropout": model.dropout,
            "attention_dropout": model.attention_dropout,
            "gelu_activation": True,
            "sinusoidal_embeddings": False,
            "causal": model.causal,
            "asm": False,
            "n_langs": len(names) if model.language_embedding else 1,
            "use_lang_emb": model.language_embedding,
            "lang2id": {name: i for i, name in enumerate(names)},
            "id2lang": {str(i): name for i, name in enumerate(names)},
            "max_position_embeddings": model.positions,
            "layer_norm_eps": model.norm_epsilon,
            "embed_init_std": model.initializer_std,
            "init_std": model.initializer_std,
            "bos_index": vocabulary.bos,
            "eos_index": vocabulary.eos,
            "pad_index": vocabulary.pad,
            "unk_index": vocabulary.unk,
            "mask_index": vocabulary.mask,
            "mask_token_id": vocabulary.mask,
            "is_encoder": True,
        }
    common |= {
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "intermediate_size": model.mlp_width,
        "initializer_range": model.initializer_std,
        "cls_token_id": vocabulary.bos,
        "sep_token_id": vocabulary.eos,
        "mask_token_id": vocabulary.mask,
    }
    if family == "modernbert":
        kinds = ["sliding_attention" if i % model.global_every else "full_attention" for i in range(model.layers)]
        return common | {
            "hidden_activation": "gelu",
            "classifier_activation": "gelu",
            "max_position_embeddings": model.positions,
            "norm_eps": model.norm_epsilon,
            "norm_bias": model.bias,
            "attention_bias": model.bias,
            "mlp_bias": model.bias,
            "classifier_bias": model.bias,
            "decoder_bias": True,
            "attention_dropout": model.attention_dropout,
            "embedding_dropout": model.dropout,
            "mlp_dropout": model.dropout,
            "local_attention": model.window,
            "global_attn_every_n_layers": model.global_every,
            "layer_types": kinds,
            "global_rope_theta": model.rope_theta,
            "local_rope_theta": model.rope_local_theta,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": model.rope_theta},
                "sliding_attention": {"rope_type": "default", "rope_theta": model.rope_local_theta},
            },
        }
    return common | {
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": model.attention_dropout,
        "max_position_embeddings": model.positions + (0 if family == "bert" else vocabulary.pad + 1),
        "type_vocab_size": model.token_types,
        "layer_norm_eps": model.norm_epsilon,
        "position_embedding_type": "absolute",
    }


# Fields of numbers, in whatever family's config.json.
_EPSILONS = ("layer_norm_eps", "norm_eps")
_POSITIVE = ("initializer_range", "embed_init_std", "init_std", "global_rope_theta", "local_rope_theta", "rope_theta")
_SHARES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "classifier_dropout",
    "summary_first_dropout",
)
_SIZES = (
    "vocab_size",
    "n_words",
    "num_hidden_layers",
    "n_layers",
    "hidden_size",
    "emb_dim",
    "num_attention_heads",
    "n_heads",
    "intermediate_size",
    "max_position_embeddings",
    "local_attention",
    "global_attn_every_n_layers",
    "n_langs",
)
_IDS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "cls_token_id",
    "sep_token_id",
    "unk_token_id",
    "mask_token_id",
    "pad_index",
    "bos_index",
    "eos_index",
    "unk_index",
    "mask_index",
)
_SWITCHES = ("causal", "use_lang_emb", "norm_bias", "attention_bias", "mlp_bias", "classifier_bias", "decoder_bias")
LARGEST = 10**9  # of a size or an id; larger ones are slips
LARGEST_NUMBER = 10**12  # of a rotary base
LONGEST_TEXT = 2**20  # positions without a table that would bound them

_SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings")
REQUIRED = {  # what has no default that all of a family's encoders have
    "bert": ("vocab_size", *_SHAPE, "type_vocab_size"),
    "xlm-roberta": ("vocab_size", *_SHAPE, "type_vocab_size"),
    "xlm-roberta-xl": ("vocab_size", *_SHAPE, "type_vocab_size"),
    "modernbert": ("vocab_size", *_SHAPE),
    "xlm": ("n_layers", "emb_dim", "n_heads", "max_position_embeddings"),
}


def without_nulls(settings: dict[str, Any]) -> dict[str, Any]:
    """A config.json without numbers and switches that are null, which have their defaults."""
    those = {*_EPSILONS, *_POSITIVE, *_SHARES, *_SIZES, *_IDS, *_SWITCHES, "type_vocab_size"}
    return {name: value for name, value in settings.items() if value is not None or name not in those}


def is_number(found: Any, whole: bool = False) -> bool:
    """Whether a value of JSON is a number, and a whole one where asked; true and false are none."""
    return isinstance(found, int if whole else (int, float)) and not isinstance(found, bool)


def vocabulary_size(settings: dict[str, Any], family: str) -> int:
    """Rows of the embedding that a config.json tells of; 0 where it does not."""
    return (family == "xlm" and settings.get("n_words")) or settings.get("vocab_size", 0)


def check_numbers(settings: dict[str, Any], family: str, where: str) -> None:
    """Refuse a config.json that lacks numbers, or has some that no encoder has.

    Raises:
      UserError: names the field, its value and its bounds.
    """

    def refuse(field: str, what: str) -> UserError:
        return UserError(f"{where}: config.json has {field} {_shown(settings[field])}; it has to be {what}")

    def check(fields: Iterable[str], what: str, is_right: Callable[[Any], bool], whole: bool = False) -> None:
        for field in fields:
            if field in settings and not (is_number(settings[field], whole) and is_right(settings[field])):
                raise refuse(field, what)

    for field in REQUIRED[family]:
        if field not in settings:
            raise UserError(f"{where}: config.json has no {field}; get the whole config.json")
    check(_SIZES, f"a whole number from 1 to {LARGEST:,}", lambda x: 1 <= x <= LARGEST, whole=True)
    size = vocabulary_size(settings, family)
    if not size:
        raise UserError(f"{where}: config.json has no vocab_size; get the whole config.json")
    check(_EPSILONS, "a number above 0, and at most 1", lambda x: 0 < x <= 1)
    check(_POSITIVE, f"a number above 0, and at most {LARGEST_NUMBER:,}", lambda x: 0 < x <= LARGEST_NUMBER)
    check(_SHARES, "a share from 0 and below 1", lambda x: 0 <= x < 1)
    check(["type_vocab_size"], "a whole number from 0", lambda x: 0 <= x <= LARGEST, whole=True)
    check(_IDS, f"an id of the vocabulary, from 0 and below {size:,}", lambda x: 0 <= x < size, whole=True)
    for field in _SWITCHES:
        if field in settings and not isinstance(settings[field], bool):
            raise refuse(field, "true or false")
    if family == "modernbert" and settings["max_position_embeddings"] > LONGEST_TEXT:
        raise refuse("max_position_embeddings", f"a whole number from 1 to {LONGEST_TEXT:,}")
    is_xlm = family == "xlm"
    width, heads = (settings[f] for f in (("emb_dim", "n_heads") if is_xlm else ("hidden_size", "num_attention_heads")))
    if width % heads:
        raise UserError(f"{where}: config.json has {width} dimensions and {heads} heads, which do not divide them")
    if family == "modernbert" and width // heads % 2:
        raise UserError(
            f"{where}: config.json has {width // heads} dimensions a head; rotary positions need an even number"
        )


def _shown(value: Any) -> str:
    """A value of JSON for a message."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


# Option of ModernBERT's config.json, and its default → the tensors that it gives.
MODERNBERT_BIASES = {
    "norm_bias": (False, ("norm.bias",)),
    "attention_bias": (False, ("attn.Wqkv.bias", "attn.Wo.bias")),
    "mlp_bias": (False, ("mlp.Wi.bias", "mlp.Wo.bias")),
    "classifier_bias": (False, ("head.dense.bias",)),
    "decoder_bias": (True, ("decoder.bias",)),
}


def absent_biases(settings: dict[str, Any]) -> tuple[str, ...]:
    """Endings of the biases that ours has and such an encoder has not; left at 0 they say the same.

    Ours has all of a ModernBERT's biases or none, and always one of the output layer.
    """
    if settings.get("model_type") != "modernbert":
        return ()
    return tuple(
        ending
        for option, (default, endings) in MODERNBERT_BIASES.items()
        if not settings.get(option, default)
        for ending in endings
    )


def family_of_settings(settings: dict[str, Any], where: str) -> str:
    """The family that a config.json is of.

    Raises:
      UserError: none of ours.
    """
    family = settings.get("model_type") or "missing"
    family = "xlm-roberta" if family == "roberta" else family
    if not isinstance(family, str) or family not in NAMES:
        raise UserError(
            f"{where}: model_type {family if isinstance(family, str) else _shown(family)}; those that can be imported are "
            f"{', '.join(NAMES)}"
        )
    return family


def from_settings(
    settings: dict[str, Any], family: str, names: Iterable[str], where: str
) -> tuple[Model, tuple[str, ...]]:
    """An encoder from a config.json and the names of its checkpoint's tensors, which say what heads it has.

    Args:
      settings: content of config.json.
      family: of `family_of_settings`.
      names: of the tensors.
      where: the folder, for messages.

    Returns:
      Encoder, and the languages in the order of the language embedding's rows.

    Raises:
      UserError: an encoder that ours cannot express; names the field.
    """

    def require(field: str, default: Any, *wanted: Any) -> None:
        found = settings.get(field, default)
        if found not in wanted:
            raise UserError(
                f"{where}: config.json has {field} {_shown(found)}; only {' or '.join(map(repr, wanted))} can be imported"
            )

    check_numbers(settings, family, where)
    require("tie_word_embeddings", True, True)
    has = set(names)
    parts = NAMES[family]
    head = "none" if parts["head_bias"] not in has else "transform" if "head_dense" in parts else "plain"
    if family == "modernbert" and not settings.get("decoder_bias", True):
        # A classifier has the same layer before its own output.
        is_masked_lm = f"{parts['head_dense']}.weight" in has and "classifier.weight" not in has
        head = "transform" if is_masked_lm else "none"
    common: dict[str, Any] = {"head": head}
    if family == "xlm":
        require("gelu_activation", True, True)
        require("sinusoidal_embeddings", False, False)
        require("asm", False, False)
        require("is_encoder", True, True)
        rows = settings.get("n_langs", 1)
        embedded = settings.get("use_lang_emb", True) and rows > 1
        return (
            Model(
                layers=settings["n_layers"],
                width=settings["emb_dim"],
                heads=settings["n_heads"],
                mlp_width=4 * settings["emb_dim"],
                norm_epsilon=settings.get("layer_norm_eps", 1e-12),
                positions=settings["max_position_embeddings"],
                position_offset=0,
                token_types=0,
                language_embedding=embedded,
                causal=settings.get("causal", False),
                dropout=settings.get("dropout", 0.1),
                attention_dropout=settings.get("attention_dropout", 0.1),
                initializer_std=settings.get("embed_init_std", 0.02),
                **common,
            ),
            _languages(settings, rows if embedded else LARGEST, where),
        )
    common |= {
        "layers": settings["num_hidden_layers"],
        "width": settings["hidden_size"],
        "heads": settings["num_attention_heads"],
        "mlp_width": settings["intermediate_size"],
        "initializer_std": settings.get("initializer_range", 0.02),
    }
    if family == "modernbert":
        require("hidden_activation", "gelu", "gelu")
        require("classifier_activation", "gelu", "gelu")
        for option, (default, _) in MODERNBERT_BIASES.items():
            require(option, default, False, True)
        options = ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")
        bias = any(settings.get(option, False) for option in options)
        dropout, of_attention = settings.get("mlp_dropout", 0.0), settings.get("attention_dropout", 0.0)
        require("embedding_dropout", 0.0, dropout)
        every = settings.get("global_attn_every_n_layers", 3)
        kinds = settings.get("layer_types")
        if kinds:
            layers = settings["num_hidden_layers"]
            if not isinstance(kinds, list) or len(kinds) != layers:
                raise UserError(
                    f"{where}: config.json has layer_types {_shown(kinds)} and num_hidden_layers {layers}; it has to be a list of as many"
                )
            later = [i for i, kind in enumerate(kinds) if kind == "full_attention"][1:2]
            every = later[0] if later else len(kinds)
            if kinds != ["sliding_attention" if i % every else "full_attention" for i in range(len(kinds))]:
                raise UserError(
                    f"{where}: config.json has layer_types that are not global every n-th layer from the first"
                )
        ropes = settings.get("rope_parameters") or {}
        if not isinstance(ropes, dict) or not all(isinstance(rope, dict) for rope in ropes.values()):
            raise UserError(
                f"{where}: config.json has rope_parameters {_shown(ropes)}; it has to name full_attention and sliding_attention"
            )
        for kind, rope in ropes.items():
            if rope.get("rope_type", "default") != "default":
                raise UserError(
                    f"{where}: config.json has {kind} rope_type {_shown(rope['rope_type'])}; only 'default' can be imported"
                )

        def theta(kind: str, field: str, default: float) -> float:
            found = ropes.get(kind, {}).get("rope_theta", settings.get(field, default))
            if not is_number(found) or not 0 < found <= LARGEST_NUMBER:
                raise UserError(
                    f"{where}: config.json has {kind} rope_theta {_shown(found)}; it has to be a number above 0, and at most "
                    f"{LARGEST_NUMBER:,}"
                )
            return float(found)

        return (
            Model(
                norm="pre",
                bias=bias,
                gated=True,
                position_embedding="rotary",
                positions=settings["max_position_embeddings"],
                position_offset=0,
                token_types=0,
                norm_epsilon=settings.get("norm_eps", 1e-5),
                global_every=every,
                window=settings.get("local_attention", 128),
                rope_theta=theta("full_attention", "global_rope_theta", 160_000.0),
                rope_local_theta=theta("sliding_attention", "local_rope_theta", 10_000.0),
                dropout=dropout,
                attention_dropout=of_attention,
                attention_out_dropout=of_attention,  # ModernBERT's class drops both
                **common,
            ),
            (),
        )
    require("hidden_act", "gelu", "gelu")
    require("position_embedding_type", "absolute", "absolute")
    require("is_decoder", False, False)
    offset = 0 if family == "bert" else int(settings.get("pad_token_id", 1)) + 1
    if settings["max_position_embeddings"] <= offset:
        raise UserError(
            f"{where}: config.json has max_position_embeddings {settings['max_position_embeddings']} and pad_token_id {offset - 1}, "
            "from whose place positions are counted; none are left"
        )
    is_pre = family == "xlm-roberta-xl"
    return (
        Model(
            norm="pre" if is_pre else "post",
            embedding_norm=not is_pre,
            positions=settings["max_position_embeddings"] - offset,
            position_offset=offset,
            token_types=settings["type_vocab_size"],
            norm_epsilon=settings.get("layer_norm_eps", 1e-12),
            pooler=f"{parts['prefix']}{parts['pooler']}.weight" in has,
            next_sentence=f"{parts['next_sentence']}.weight" in has,
            dropout=settings.get("hidden_dropout_prob", 0.1),
            attention_dropout=settings.get("attention_probs_dropout_prob", 0.1),
            **common,
        ),
        (),
    )


def _languages(settings: dict[str, Any], rows: int, where: str) -> tuple[str, ...]:
    """The languages of XLM's config.json, in the order of the language embedding's rows.

    Raises:
      UserError: their rows are not numbers of their own, below `rows`.
    """
    found = settings.get("lang2id") or {}
    places: list[Any] = list(found.values()) if isinstance(found, dict) else [None]
    if not all(is_number(i, whole=True) and 0 <= i < rows for i in places) or len(set(places)) < len(places):
        raise UserError(
            f"{where}: config.json has lang2id {_shown(found)}; it has to give every language a row of its own, below n_langs"
        )
    return tuple(sorted(found, key=found.__getitem__))
