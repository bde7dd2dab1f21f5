# SPDX-License-Identifier: Apache-2.0
"""Retrieval by every layer of a real encoder, plain and centred, beside transformers and NumPy: to the sentence.

Skipped unless MLM_JAX_E5 names the Hugging Face folder of multilingual-e5-small, and the sentences of shared/data/tatoeba are there.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from mlm_jax import config as cfg
from mlm_jax.encode.read import read_pretrained
from mlm_jax.evaluate.retrieval import nearest
from mlm_jax.interchange.workdir import import_encoder
from mlm_jax.mesh import make_mesh
from mlm_jax.neutrality.transformations import transform
from mlm_jax.neutrality.vectors import make_vectors
from mlm_jax.tokenizers import load_tokenizer

TATOEBA = Path(__file__).parents[3] / "shared" / "data" / "tatoeba"
FOLDER = os.environ.get("MLM_JAX_E5", "")
FIT, TEST = 100, 300


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.skipif(not FOLDER or not TATOEBA.exists(), reason="no encoder or no sentences")
def test_retrieval_by_every_layer_is_that_of_transformers_and_numpy(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import_encoder(FOLDER, str(tmp_path / "run"))
    trained = read_pretrained(tmp_path / "run")
    made = make_vectors(
        trained, load_tokenizer(tmp_path / "run" / "vocabulary"), make_mesh(cfg.Mesh()), 128, tmp_path / "vectors"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    model = transformers.AutoModel.from_pretrained(FOLDER).eval()

    text = {x: (TATOEBA / f"tatoeba.deu-eng.{x}").read_text().splitlines()[: FIT + TEST] for x in ("deu", "eng")}
    ours = {x: np.asarray(made.sentences(lines, x)) for x, lines in text.items()}
    theirs = {}
    for language, lines in text.items():
        parts = []
        for begin in range(0, len(lines), 50):
            batch = tokenizer(lines[begin : begin + 50], padding=True, return_tensors="pt")
            mask = batch["attention_mask"].numpy()[None, :, :, None]
            with torch.no_grad():
                hidden = np.stack([h.numpy() for h in model(**batch, output_hidden_states=True).hidden_states])
            parts.append(np.stack([hidden[:, :, 0], (hidden * mask).sum(axis=2) / mask.sum(axis=2)]))
        theirs[language] = np.concatenate(parts, axis=2)
    wrong: list[tuple[int, int, str, int]] = []
    for layer in range(trained.model.layers + 1):
        # The mean alone: first tokens of low layers are so alike that rounding decides which is nearest.
        pooling = 1
        for kind in ("plain", "centred"):
            a, b = ({x: v[pooling, layer, part] for x, v in ours.items()} for part in (slice(FIT), slice(FIT, None)))
            found = transform(kind, a, b, "eng")
            mine, _ = nearest(found["deu"], found["eng"])
            x, y = (v[pooling, layer] for v in (theirs["deu"], theirs["eng"]))
            np.testing.assert_allclose(ours["deu"][pooling, layer], x, atol=2e-4)
            if kind == "centred":
                x, y = x - x[:FIT].mean(axis=0), y - y[:FIT].mean(axis=0)
            x, y = (v[FIT:] / np.linalg.norm(v[FIT:], axis=1, keepdims=True) for v in (x, y))
            best = (x @ y.T).argmax(axis=1)
            # A sentence that occurs twice may be found at either place.
            english = text["eng"][FIT:]
            differ = [i for i in np.flatnonzero(mine != best) if english[mine[i]] != english[best[i]]]
            wrong += [(layer, pooling, kind, int(i)) for i in differ]
    assert not wrong
