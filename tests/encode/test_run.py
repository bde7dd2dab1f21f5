# SPDX-License-Identifier: Apache-2.0
"""One way to run an encoder over texts: on any mesh what one device computes, and no parameter copied where a mesh splits it."""

import dataclasses

import jax
import numpy as np
import pytest

from mlm_jax import config as cfg
from mlm_jax import tokenizers
from mlm_jax.encode import run as running
from mlm_jax.encode.read import read_pretrained
from mlm_jax.encode.rows import Items, by_length
from mlm_jax.encode.run import make_run
from mlm_jax.encode.sentences import make_embedder
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Text
from mlm_jax.evaluate.language_model import make_measure
from mlm_jax.finetune.predict import Predictor
from mlm_jax.mesh import make_mesh
from mlm_jax.model.encoder import apply_encoder
from mlm_jax.neutrality.vectors import make_vectors
from mlm_jax.pretrained import SentenceVectors, place
from mlm_jax.train.initial import read_initial
from tests.encode.meshes import MESHES, one_device
from tests.finetune.toys import MODEL, make_finetuned, make_start

TEXTS = ["the film was great", "so", "Anna 1 2 3 4 5 6 7 8 9", "the film was great and so sad 1 2 3 4", "Otto"] * 3
PLAIN = dataclasses.replace(MODEL, head="transform")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """An encoder with an output layer, and a text to measure it on."""
    folder = make_start(tmp_path_factory.mktemp("start") / "run", PLAIN)
    (folder / "text.txt").write_text("\n".join(text for text in TEXTS if text) + "\n")
    return folder


def computed(workdir, mesh, folder):
    """What `evaluate` and `analyze` compute on a mesh: vectors of a layer, of all layers, of words; the language model's loss."""
    pretrained = read_pretrained(workdir, mesh=mesh)
    tokenizer = tokenizers.load_tokenizer(workdir / "vocabulary")
    vectors = make_vectors(pretrained, tokenizer, mesh, 24, folder)
    measured = make_measure(pretrained, tokenizer, mesh, 24)(Text("en", str(workdir / "text.txt")), 100)[0]
    return {
        "last": make_embedder(pretrained, tokenizer, mesh, SentenceVectors("mean", 0, False), 24)(TEXTS, "en"),
        "first": make_embedder(pretrained, tokenizer, mesh, SentenceVectors("first", 1, False), 24)(TEXTS, "en"),
        "layers": np.asarray(vectors.sentences(TEXTS, "en")),
        "words": np.concatenate(vectors.words([text.split() for text in TEXTS], "en"), axis=1),
        "language model": np.array([measured[name] for name in ("loss", "accuracy", "targets")]),
    }


@pytest.fixture(scope="module")
def on_one_device(workdir, tmp_path_factory):
    return computed(workdir, one_device(), tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("mesh", MESHES)
def test_evaluation_and_probes_agree_with_one_device(workdir, on_one_device, tmp_path, mesh):
    found = computed(workdir, make_mesh(MESHES[mesh]), tmp_path)
    for name, expected in on_one_device.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_predictions_agree_with_one_device(workdir, tmp_path, kind):
    make_finetuned(workdir, tmp_path, kind)
    texts = [text.split() for text in TEXTS] if kind == "tag" else TEXTS
    one, *others = (Predictor.load(tmp_path, mesh=mesh).texts(texts) for mesh in (cfg.Mesh(data=8), *MESHES.values()))
    for other in others:
        assert [p.value for p in other] == [p.value for p in one]
        for p, q in zip(one, other, strict=True):
            np.testing.assert_allclose(p.probability, q.probability, atol=1e-5)


def test_prediction_reads_short_texts_in_short_rows(workdir, tmp_path, monkeypatch):
    """Packed into rows of 256 tokens, each token was compared with the tokens of 30 other texts."""
    shapes = []
    to_arrays = running.to_arrays
    monkeypatch.setattr(running, "to_arrays", lambda *args: shapes.append(args[2]) or to_arrays(*args))
    predictor = Predictor.load(make_finetuned(workdir, tmp_path, "classify"), mesh=cfg.Mesh())
    found = predictor.texts(["the film was great"] * 300 + ["the film was great and so sad 1 2 3 4"] * 20)
    assert len(found) == 320 and len({p.value for p in found[:300]}) == 1
    cells = sum(shape.rows * shape.length**2 for shape in shapes)
    assert cells < 320 * 16 * 256 / 4


def test_no_parameter_is_copied_where_the_mesh_splits_it(workdir):
    """The program's own parameters are each device's parts: nothing is made whole to be handed to it."""
    mesh = make_mesh(MESHES["fsdp 8"])
    start = place(read_initial(workdir), mesh)
    seen = []
    encoder = start.encoder(layers=2)

    def function(params, batch):
        jax.debug.inspect_array_sharding(params["embedding"]["token_embedding"], callback=seen.append)
        return apply_encoder(encoder, params, batch)[:, 0]

    items = Items([np.array([3, 7, 1], np.int32)], [np.zeros(3, np.int32)], [0])
    params = {name: start.params[name] for name in ("embedding", "layers")}
    [(batch, out)] = make_run(function, mesh, 0, 1)(items, params)
    assert batch == [[0]] and out.shape[1:] == (32,)
    assert [s.shard_shape((128, 32)) for s in seen] == [(128, 4)]


def test_results_come_for_every_item_once_in_batches_of_like_lengths():
    ids = [np.full(n, n, np.int32) for n in (3, 60, 5, 33, 4, 70, 3)]
    items = Items(ids, [np.zeros(len(x), np.int32) for x in ids], [0] * len(ids))

    def function(params, batch):
        return {"sum": batch["tokens"].sum(axis=1), "length": (batch["segment_ids"] > 0).sum(axis=1)}

    run = make_run(function, one_device(), 0, 1, lambda lengths: by_length(lengths, 64, 1))
    found = {}
    for batch, out in run(items, {}):
        for row, [item] in enumerate(batch):
            assert item not in found
            found[item] = (int(out["sum"][row]), int(out["length"][row]))
    assert found == {i: (len(x) ** 2, len(x)) for i, x in enumerate(ids)}


def test_a_language_that_an_encoder_does_not_know_is_refused(tmp_path):
    model = dataclasses.replace(MODEL, language_embedding=True)
    mesh = one_device()
    pretrained = read_pretrained(make_start(tmp_path / "run", model), mesh=mesh)
    embed = make_embedder(
        pretrained, tokenizers.load_tokenizer(tmp_path / "run/vocabulary"), mesh, SentenceVectors("mean", 0, False), 24
    )
    assert embed(["so"], "de").shape == (1, 32)
    with pytest.raises(UserError, match="no language embedding for fr; it has de, en"):
        embed(["so"], "fr")
    with pytest.raises(UserError, match="max_length: 65 is beyond the encoder's 64 positions"):
        make_embedder(pretrained, None, mesh, SentenceVectors("mean", 0, False), 65)
