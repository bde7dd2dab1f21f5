# SPDX-License-Identifier: Apache-2.0
"""A real pretrained encoder, multilingual-e5-small: the same sentence vectors as transformers', the same retrieval.

Skipped unless MLM_JAX_E5 names its Hugging Face folder, and the sentences of shared/data/tatoeba are there.
"""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from mlm_jax.encode.read import read_pretrained
from mlm_jax.interchange.workdir import import_encoder
from mlm_jax.tokenizers import load_tokenizer

TATOEBA = Path(__file__).parents[3] / "shared" / "data" / "tatoeba"
FOLDER = os.environ.get("MLM_JAX_E5", "")
LANGUAGES = ("deu", "hin", "jpn")
SENTENCES = 300


def sentences():
    for language in LANGUAGES:
        for side in (language, "eng"):
            path = next(TATOEBA.glob(f"*{language}-eng.{side}"))
            yield language, side, path.read_text().splitlines()[:SENTENCES]


def normalised(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.skipif(not FOLDER or not TATOEBA.exists(), reason="no encoder or no sentences")
def test_imported_e5_gives_the_sentence_vectors_of_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import_encoder(FOLDER, str(tmp_path / "run"))
    trained = read_pretrained(tmp_path / "run")
    tokenizer = load_tokenizer(tmp_path / "run" / "vocabulary")
    encoder = trained.encoder("float32")
    encode = jax.jit(encoder.apply)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    theirs = transformers.AutoModel.from_pretrained(FOLDER).eval()

    vectors = {}
    for language, side, texts in sentences():
        ids = [[trained.vocabulary.bos, *found, trained.vocabulary.eos] for found in tokenizer.encode(texts)]
        expected = their_tokenizer(texts, padding="max_length", max_length=64, truncation=True, return_tensors="pt")
        tokens = expected["input_ids"].numpy().astype(np.int32)
        real = expected["attention_mask"].numpy().astype(np.int32)
        assert [row[: n.sum()].tolist() for row, n in zip(tokens, real, strict=True)] == [found[:64] for found in ids]
        batch = {"tokens": tokens, "segment_ids": real, "token_types": np.zeros_like(tokens)}
        batch["positions"] = np.broadcast_to(np.arange(64, dtype=np.int32), tokens.shape)
        ours = np.asarray(encode({"params": trained.params}, batch))
        with torch.no_grad():
            hidden = theirs(**expected).last_hidden_state.numpy()
        pooled = [(h * real[..., None]).sum(axis=1) / real.sum(axis=1)[:, None] for h in (ours, hidden)]
        assert np.abs(pooled[0] - pooled[1]).max() <= 1e-4
        vectors[language, side] = [normalised(p) for p in pooled]
    for language in LANGUAGES:
        found = [(vectors[language, language][i] @ vectors[language, "eng"][i].T).argmax(axis=1) for i in (0, 1)]
        np.testing.assert_array_equal(*found)  # to the sentence
        accuracy = np.mean(found[0] == np.arange(len(found[0])))
        print(f"{language}: {100 * accuracy:.1f} % of {len(found[0])}")
        assert accuracy > 0.6
