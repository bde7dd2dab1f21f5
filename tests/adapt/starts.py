# SPDX-License-Identifier: Apache-2.0
"""Small random encoders with vocabularies of every kind, and text for them."""

import io
import json

import jax
import numpy as np
import sentencepiece
import tokenizers
from etils import epath
from flax import linen as nn
from tokenizers import decoders, models, pre_tokenizers, trainers

from mlm_jax import config as cfg
from mlm_jax import vocabulary
from mlm_jax.adapt.config import Adapt
from mlm_jax.interchange import agreement
from mlm_jax.model.encoder import example_batch, make_encoder
from mlm_jax.prepare.vocabulary import round_scores, train_word_piece
from mlm_jax.pretrained import Pretrained
from mlm_jax.train.initial import write_initial

MODEL = cfg.Model(layers=1, width=16, heads=2, mlp_width=32, positions=64, initializer_std=0.3)
TEXT = [line for line in agreement.ODD if len(line) > 20]  # of 40 scripts
LATIN = [line for line in TEXT if sum(c.isascii() for c in line) > len(line) / 2]
KINDS = ("unigram", "unigram with bytes", "bpe", "bpe with bytes", "wordpiece", "byte-level")


def trained(kind, text=TEXT, size=900):
    """A vocabulary's file name and content."""
    text = [line.replace("\n", " ") for line in text] * 3
    if kind == "wordpiece":
        return "tokenizer.json", train_word_piece(cfg.Vocabulary(model="wordpiece", size=size), text)
    if kind == "byte-level":
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        specials = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
        made.train_from_iterator(
            text,
            trainers.BpeTrainer(
                vocab_size=size,
                special_tokens=specials,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        return "tokenizer.json", made.to_str().encode()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=size, hard_vocab_limit=kind.startswith("bpe"),
        model_type=kind.split()[0], byte_fallback=kind.endswith("bytes"), character_coverage=0.99, pad_id=0, eos_id=1,
        unk_id=2, bos_id=3, control_symbols=["<mask>"], minloglevel=2,
    )  # fmt: skip
    found = model.getvalue()
    return "sentencepiece.model", round_scores(found) if kind.startswith("unigram") else found


def make_start(folder, name, content, model=MODEL, seed=0):
    """A workdir with a random encoder of a vocabulary."""
    words = epath.Path(folder / "vocabulary")
    words.mkdir(parents=True)
    (words / name).write_bytes(content)
    described = vocabulary.vocabulary_of_file(words / name)
    vocabulary.write_vocabulary(described, words)
    encoder = make_encoder(model, described.size, 2)
    scored = () if model.head == "none" else (np.zeros((1, 2), np.int32),)
    method = "features" if scored else "__call__"
    drawn = encoder.init(jax.random.key(seed), example_batch(8), *scored, method=method)
    params = jax.tree.map(np.array, nn.meta.unbox(drawn)["params"])
    if scored:
        params["head"]["output_bias"][: described.size] = np.random.default_rng(seed).normal(size=described.size)
    write_initial(folder, Pretrained(model, params, described, ("de", "en"), str(folder)))
    return folder


def sources(folder, **texts):
    """`data` of an adaptation, of languages' lines."""
    folder.mkdir(exist_ok=True)
    for language, lines in texts.items():
        (folder / f"{language}.txt").write_text("\n".join(line.replace("\n", " ") for line in lines) + "\n")
    return cfg.Data(sources=tuple(cfg.Source(x, f"{folder}/{x}.txt") for x in texts), workers=1)


def adaptation(tmp_path, start, data, **options):
    """A config that adapts a workdir."""
    return Adapt(workdir=str(tmp_path / "adapted"), init=str(start), data=data, **options)


def write_config(path, config):
    """A config file that returns just this config."""
    path.write_text(
        "from mlm_jax.adapt.config import *\nfrom mlm_jax.config import *\n\n\n"
        f"def get_config():\n    return {config!r}\n"
    )
    return path


def computed(pretrained, ids):
    """Hidden states and logits of one text, float32 [tokens, width] and [tokens, pieces]."""
    encoder = pretrained.encoder("float32")
    positions = np.arange(len(ids), dtype=np.int32)[None]
    batch = example_batch(len(ids)) | {"tokens": np.array([ids], np.int32), "positions": positions}
    batch["segment_ids"] = np.ones_like(positions)
    params = {"params": pretrained.params}
    hidden = encoder.apply(params, batch)
    vectors, matrix, bias, _ = encoder.apply(params, batch, positions, method="features")
    # A product for each piece by itself: a matrix product sums in an order that depends on the matrix's size.
    logits = (np.asarray(vectors)[0][:, None] * np.asarray(matrix[0])[None]).sum(-1) + np.asarray(bias)
    return np.asarray(hidden)[0], logits


def as_json(path):
    return json.loads(path.read_text())
