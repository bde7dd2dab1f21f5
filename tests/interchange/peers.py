# SPDX-License-Identifier: Apache-2.0
"""Encoders of transformers' own classes, with random weights, and what they compute."""

import numpy as np

LENGTH = 24
SIZE = 131  # odd, and no multiple of 128


def cases(transformers):
    """Name → class and config, over shapes: one head, two thetas, no biases, with and without heads."""
    t = transformers
    shape = {
        "vocab_size": SIZE,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 80,
    }
    roberta = shape | {"max_position_embeddings": LENGTH + 2, "type_vocab_size": 1, "pad_token_id": 1}
    bert = shape | {"max_position_embeddings": LENGTH, "layer_norm_eps": 1e-12}
    languages = {"en": 0, "de": 1, "fr": 2}
    xlm = {"vocab_size": SIZE, "n_words": SIZE, "emb_dim": 48, "n_layers": 3, "n_heads": 4, "pad_index": 2}
    xlm |= {"max_position_embeddings": LENGTH, "bos_index": 0, "eos_index": 1}
    specials = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    modern = shape | specials | {"max_position_embeddings": LENGTH, "local_attention": 8, "num_hidden_layers": 5}
    named = {"n_langs": 3, "use_lang_emb": True, "lang2id": languages, "id2lang": {i: n for n, i in languages.items()}}
    return {
        "bert for pretraining": (t.BertForPreTraining, t.BertConfig(**bert)),
        "bert": (t.BertForMaskedLM, t.BertConfig(**bert)),
        "bert, one head": (t.BertForMaskedLM, t.BertConfig(**bert | {"num_attention_heads": 1})),
        "bert without a head": (t.BertModel, t.BertConfig(**bert)),
        "xlm-roberta": (t.XLMRobertaForMaskedLM, t.XLMRobertaConfig(**roberta)),
        "xlm-roberta, one layer": (t.XLMRobertaForMaskedLM, t.XLMRobertaConfig(**roberta | {"num_hidden_layers": 1})),
        "xlm-roberta without a head": (t.XLMRobertaModel, t.XLMRobertaConfig(**roberta)),
        "xlm-roberta-xl": (t.XLMRobertaXLForMaskedLM, t.XLMRobertaXLConfig(**roberta)),
        "xlm with languages": (t.XLMWithLMHeadModel, t.XLMConfig(**xlm | named)),
        "xlm, causal": (t.XLMWithLMHeadModel, t.XLMConfig(**xlm, n_langs=1, use_lang_emb=False, causal=True)),
        "modernbert": (t.ModernBertForMaskedLM, t.ModernBertConfig(**modern)),
        "modernbert with biases": (
            t.ModernBertForMaskedLM,
            t.ModernBertConfig(
                **modern
                | dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), True)
                | {"num_attention_heads": 2, "global_attn_every_n_layers": 2}
            ),
        ),
    }


def randomised(torch, model):
    """The model with no weight left at 0, 1 or 0.02, so that every one of them counts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def make_batch(model, pad, lengths=(LENGTH, 15), size=SIZE, seed=0):
    """Our batch of two blocks, the second padded, with token types and languages where the encoder has them."""
    rng = np.random.default_rng(seed)
    segments = (np.arange(LENGTH) < np.array(lengths)[:, None]).astype(np.int32)
    shape = segments.shape
    types = np.broadcast_to((np.arange(LENGTH) >= 9).astype(np.int32), shape) if model.token_types > 1 else 0 * segments
    languages = rng.integers(0, 3, shape).astype(np.int32) if model.language_embedding else 0 * segments
    return {
        "tokens": np.where(segments > 0, rng.integers(5, size, shape), pad).astype(np.int32),
        "positions": np.broadcast_to(np.arange(LENGTH, dtype=np.int32), shape),
        "segment_ids": segments,
        "token_types": types,
        "language_ids": languages,
    }


def run(torch, theirs, batch, model):
    """What transformers' model computes of our batch: its last hidden state, logits, and the pooler's scores."""
    inputs = {
        "input_ids": torch.from_numpy(batch["tokens"]).long(),
        "attention_mask": torch.from_numpy(batch["segment_ids"]).long(),
    }
    if model.token_types > 1:
        inputs["token_type_ids"] = torch.from_numpy(batch["token_types"].copy()).long()
    if model.language_embedding:
        inputs["langs"] = torch.from_numpy(batch["language_ids"]).long()
    with torch.no_grad():
        out = theirs(**inputs)
        base = getattr(theirs, theirs.base_model_prefix, theirs)
        hidden = base(**inputs)
    logits = getattr(out, "logits", getattr(out, "prediction_logits", None))
    pooled = getattr(out, "seq_relationship_logits", getattr(hidden, "pooler_output", None))
    return tuple(None if x is None else x.numpy() for x in (hidden.last_hidden_state, logits, pooled))
