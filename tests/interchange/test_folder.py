# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders, in and out: the same logits as transformers, and back bit for bit."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.interchange.folder import read_folder, write_folder
from mlm_jax.model.encoder import Encoder, parameter_shapes
from mlm_jax.pretrained import FinetunedHead, Pretrained
from mlm_jax.vocabulary import with_specials
from tests.interchange import peers

ENCODERS = {
    "bert": cfg.Model(position_offset=0, token_types=2, pooler=True, next_sentence=True, norm_epsilon=1e-12),
    "bert without a head": cfg.Model(position_offset=0, token_types=2, pooler=True, head="none"),
    "xlm-roberta": cfg.Model(),
    "xlm-roberta-xl": cfg.Model(norm="pre", embedding_norm=False),
    "xlm": cfg.Model(head="plain", token_types=0, position_offset=0, language_embedding=True),
    "xlm, causal": cfg.Model(head="plain", token_types=0, position_offset=0, causal=True),
    "modernbert": cfg.Model(
        norm="pre",
        bias=False,
        gated=True,
        position_embedding="rotary",
        position_offset=0,
        token_types=0,
        global_every=3,
        window=8,
        layers=5,
    ),
}
LANGUAGES = ("de", "en", "fr")
# Padding is 1, as XLM-R's position offset of 2 has it.
WORDS = with_specials(peers.SIZE, {"pad": 1, "bos": 0, "eos": 2, "unk": 3, "mask": 4}, set())


def small(model):
    layers = 5 if model.global_every > 1 else 2
    mlp = 4 * 32 if model.head == "plain" else 56
    return dataclasses.replace(model, layers=layers, width=32, heads=2, mlp_width=mlp, positions=peers.LENGTH)


def random_params(model, seed=0):
    """Parameters with nothing zero but the rows that stand for no piece."""
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(model, peers.SIZE, len(LANGUAGES))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
    params["embedding"]["token_embedding"][peers.SIZE :] = 0
    if "position_embedding" in params["embedding"]:
        params["embedding"]["position_embedding"][: model.position_offset] = 0
    if "head" in params:
        params["head"]["output_bias"][peers.SIZE :] = 0
    return params


def pretrained(model, params, task=None, head=None):
    """An encoder, with a head where a task is given."""
    tuned = task and FinetunedHead(dataclasses.asdict(task), task.labels, head)
    return Pretrained(model, params, WORDS, LANGUAGES, "random", head=tuned)


def words_of(size):
    return dataclasses.replace(WORDS, size=size)


def compute(model, params, batch, size=peers.SIZE):
    encoder = Encoder(model, size, jnp.float32, languages=len(LANGUAGES))
    hidden = encoder.apply({"params": params}, batch)
    features, matrix, bias, pooled = encoder.apply({"params": params}, batch, batch["positions"], method="features")
    logits = None if bias is None else (np.asarray(features) @ np.asarray(matrix[0]).T + np.asarray(bias))[..., :size]
    return np.asarray(hidden), logits, pooled


def same(ours, theirs, real):
    for name, mine, other in zip(("hidden", "logits", "pooled"), ours, theirs, strict=True):
        if mine is not None and other is not None:
            mine, other = np.asarray(mine), np.asarray(other)
            difference = np.abs(mine - other)[real] if mine.ndim == 3 else np.abs(mine - other)
            assert difference.max() <= 1e-4, (name, difference.max())


@pytest.mark.parity
@pytest.mark.parametrize("name", range(12))
def test_what_transformers_wrote_computes_the_same_here_and_goes_back_bit_for_bit(tmp_path, name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind, config = list(peers.cases(transformers).values())[name]
    theirs = peers.randomised(torch, kind(config))
    theirs.save_pretrained(tmp_path / "theirs")
    found = read_folder(tmp_path / "theirs", words_of)
    pad = getattr(config, "pad_token_id", None)
    pad = getattr(config, "pad_index", 0) if pad is None else pad
    batch = peers.make_batch(found.model, pad)
    ours = compute(found.model, found.params, batch)
    expected = peers.run(torch, theirs, batch, found.model)
    assert (ours[1] is None) == (expected[1] is None)
    same(ours, expected, batch["segment_ids"] > 0)

    words = dataclasses.replace(WORDS, pad=pad)
    write_folder(tmp_path / "ours", dataclasses.replace(found, vocabulary=words))
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    dropped = {"position_embeddings.weight"}  # rows before the first position are not ours to keep
    assert before.keys() == after.keys()
    for tensor in before:
        rows = (found.model.position_offset if tensor.split(".", 2)[-1] in dropped else 0) if pad else 0
        np.testing.assert_array_equal(before[tensor][rows:], after[tensor][rows:], err_msg=tensor)


@pytest.mark.parity
@pytest.mark.parametrize("family", ENCODERS)
def test_what_we_write_computes_the_same_there_without_a_warning(tmp_path, family):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = small(ENCODERS[family])
    params = random_params(model)
    write_folder(tmp_path, pretrained(model, params))
    kind = getattr(transformers, json.loads((tmp_path / "config.json").read_text())["architectures"][0])
    theirs, said = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said.values()), said
    batch = peers.make_batch(model, WORDS.pad)
    same(compute(model, params, batch), peers.run(torch, theirs.eval(), batch, model), batch["segment_ids"] > 0)
    if model.head != "none":
        loaded, said = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
        unused = said["unexpected_keys"]
        # AutoModelForMaskedLM takes BertForMaskedLM, which has no use for the pooler and its classifier.
        assert not said["missing_keys"] and all("pooler" in k or "seq_relationship" in k for k in unused), said
        assert loaded.config.vocab_size == WORDS.size


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_export_then_import_is_the_identity(tmp_path, family, shard_bytes):
    model = small(ENCODERS[family])
    params = random_params(model)
    write_folder(tmp_path, pretrained(model, params), shard_bytes)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_bytes < 10**9)
    found = read_folder(tmp_path, words_of)
    assert found.model == dataclasses.replace(model, **{n: getattr(found.model, n) for n in ("attention_out_dropout",)})
    assert found.vocabulary.size == WORDS.size
    if model.language_embedding:
        assert found.languages == LANGUAGES
    before, after = flatten_dict(params), flatten_dict(found.params)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def written(tmp_path, family="xlm-roberta"):
    model = small(ENCODERS[family])
    write_folder(tmp_path, pretrained(model, random_params(model)))
    return load_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precision_is_read(tmp_path, kind):
    tensors = written(tmp_path)
    half = {name: np.asarray(jnp.asarray(tensor, kind)) for name, tensor in tensors.items()}
    if kind == "bfloat16":
        from safetensors.flax import save_file as save_bfloat16

        save_bfloat16({name: jnp.asarray(tensor) for name, tensor in half.items()}, tmp_path / "model.safetensors")
    else:
        save_file(half, tmp_path / "model.safetensors")
    params = read_folder(tmp_path, words_of).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    name = "roberta.encoder.layer.1.output.dense.bias"
    np.testing.assert_array_equal(params["layers"]["mlp"]["out_bias"][1], half[name].astype(np.float32))


def test_old_names_copies_of_tied_weights_and_buffers_are_taken(tmp_path):
    tensors = written(tmp_path, "bert")
    expected = flatten_dict(read_folder(tmp_path, words_of).params)
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    old["bert.embeddings.position_ids"] = np.arange(24)[None]
    save_file(old, tmp_path / "model.safetensors")
    for name, tensor in flatten_dict(read_folder(tmp_path, words_of).params).items():
        np.testing.assert_array_equal(tensor, expected[name])


def spoil(tensors, settings, how):
    name = "roberta.encoder.layer.1.output.dense.bias"
    if how == "missing":
        del tensors[name]
    elif how == "extra":
        tensors["classifier.dense.weight"] = np.ones((2, 2), np.float32)
    elif how == "shape":
        tensors[name] = np.ones(7, np.float32)
    elif how == "untied":
        tensors["lm_head.decoder.weight"] = 2 * tensors["roberta.embeddings.word_embeddings.weight"]
    elif how == "nan":
        tensors[name][3] = np.nan
    elif how == "integers":
        tensors[name] = tensors[name].astype(np.int32)
    elif how == "type":
        settings["model_type"] = "t5"
    elif how == "activation":
        settings["hidden_act"] = "relu"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "tensor roberta.encoder.layer.1.output.dense.bias is missing"),
        ("extra", "tensor classifier.dense.weight has no place in the encoder"),
        ("shape", r"layer.1.output.dense.bias has shape \[7\], config.json makes it \[32\]"),
        ("untied", "lm_head.decoder.weight differs from roberta.embeddings.word_embeddings.weight"),
        ("nan", "tensor roberta.encoder.layer.1.output.dense.bias holds NaN or infinity"),
        ("integers", "tensor roberta.encoder.layer.1.output.dense.bias is of int32"),
        ("type", "model_type t5; those that can be imported are bert"),
        ("activation", "config.json has hidden_act 'relu'; only 'gelu'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, how, said):
    tensors = written(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    spoil(tensors, settings, how)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=said) as error:
        read_folder(tmp_path, words_of)
    assert "\n" not in str(error.value)


def test_pickles_cut_files_and_missing_shards_are_refused(tmp_path):
    written(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="not a safetensors file, or cut off"):
        read_folder(tmp_path, words_of)
    file.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="only a pickle"):
        read_folder(tmp_path, words_of)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model-00001-of-00002.safetensors: missing"):
        read_folder(tmp_path, words_of)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gated": True}, "gated MLP"),
        ({"head": "plain"}, "unless model.head is plain, without token types"),
        ({"token_types": 0}, "without model.token_types"),
        ({"position_embedding": "rotary"}, "rotary positions and model.norm post"),
    ],
)
def test_an_encoder_without_a_class_is_refused(tmp_path, changes, said):
    model = dataclasses.replace(small(cfg.Model()), **changes)
    with pytest.raises(UserError, match=said):
        write_folder(tmp_path / "out", pretrained(model, random_params(model)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parity
@pytest.mark.parametrize(
    "biases",
    [
        {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": False},
        {"classifier_bias": True},
        {"attention_bias": True},
        {"norm_bias": True, "decoder_bias": False},
        {"decoder_bias": False},
    ],
)
def test_every_bias_option_of_modernbert_is_imported_and_exported(tmp_path, biases, capsys):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind, config = peers.cases(transformers)["modernbert"]
    theirs = peers.randomised(torch, kind(type(config)(**config.to_dict() | biases)))
    theirs.save_pretrained(tmp_path / "theirs")
    found = read_folder(tmp_path / "theirs", words_of)
    assert "biases that it lacks start from 0" in capsys.readouterr().out or not found.model.bias
    batch = peers.make_batch(found.model, 0)
    expected = peers.run(torch, theirs, batch, found.model)
    assert expected[1] is not None
    same(compute(found.model, found.params, batch), expected, batch["segment_ids"] > 0)
    write_folder(tmp_path / "ours", dataclasses.replace(found, vocabulary=dataclasses.replace(WORDS, pad=0)))
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    for one, other in zip(expected, peers.run(torch, again, batch, found.model), strict=True):
        assert one is None or np.abs(one - other)[batch["segment_ids"] > 0].max() <= 1e-4


def test_modernberts_attention_dropout_is_of_its_output_too(tmp_path):
    model = dataclasses.replace(small(ENCODERS["modernbert"]), dropout=0.0, attention_dropout=0.25)
    write_folder(tmp_path / "out", pretrained(model, random_params(model)))
    found = read_folder(tmp_path / "out", words_of).model
    assert (found.dropout, found.attention_dropout, found.attention_out_dropout) == (0.0, 0.25, 0.25)


@pytest.mark.parametrize(
    ("family", "field", "value", "said"),
    [
        ("xlm-roberta", "layer_norm_eps", float("nan"), "a number above 0"),
        ("xlm-roberta", "layer_norm_eps", -1, "a number above 0"),
        ("modernbert", "norm_eps", float("inf"), "a number above 0"),
        ("xlm-roberta", "hidden_dropout_prob", float("inf"), "a share from 0 and below 1"),
        ("xlm", "dropout", 1.0, "a share from 0 and below 1"),
        ("bert", "attention_probs_dropout_prob", "0.1", "a share from 0 and below 1"),
        ("xlm-roberta", "pad_token_id", -100, f"an id of the vocabulary, from 0 and below {peers.SIZE}"),
        ("xlm-roberta", "pad_token_id", 10**9, f"an id of the vocabulary, from 0 and below {peers.SIZE}"),
        ("xlm-roberta", "pad_token_id", 100, "none are left"),
        ("xlm", "mask_index", peers.SIZE, "an id of the vocabulary"),
        ("bert", "hidden_size", 10**12, "a whole number from 1"),
        ("bert", "hidden_size", 10**6, "config.json makes it"),
        ("bert", "num_hidden_layers", 10**6, "they do not belong together"),
        ("bert", "num_attention_heads", 0, "a whole number from 1"),
        ("bert", "num_attention_heads", 3, "which do not divide them"),
        ("bert", "num_hidden_layers", True, "a whole number from 1"),
        ("modernbert", "global_rope_theta", float("nan"), "a number above 0"),
        ("modernbert", "embedding_dropout", 0.3, "embedding_dropout 0.3; only 0.1 can be imported"),
    ],
)
def test_numbers_that_no_encoder_has_are_refused_by_name(tmp_path, family, field, value, said):
    model = small(ENCODERS[family])
    write_folder(tmp_path / "out", pretrained(model, random_params(model)))
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps(settings | {field: value}))
    with pytest.raises(UserError, match=said) as caught:
        read_folder(tmp_path / "out", words_of)
    assert (
        field in str(caught.value)
        or "tensor" in str(caught.value)
        or "layers" in str(caught.value)
        or "heads" in str(caught.value)
    )
