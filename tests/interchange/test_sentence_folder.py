# SPDX-License-Identifier: Apache-2.0
"""Folders of sentence-transformers: theirs makes the vectors that ours does, both ways, and what has no counterpart is named."""

import dataclasses
import json
import warnings

import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax.encode.embed import Wanted, embed_file
from mlm_jax.encode.read import read_pretrained
from mlm_jax.errors import UserError
from mlm_jax.interchange.sentence_folder import read_modules, write_modules
from mlm_jax.interchange.workdir import import_encoder
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.train.initial import write_initial
from tests.finetune.toys import MODEL, make_start

TEXTS = ["the film was great", "so", "Anna 1 2 3 4 5", "der Film war mies", "Otto so sad 1 2 3 4 5 6 7"]
PROMPTS = {"query": "so ", "passage": "the "}
BERT = dataclasses.replace(MODEL, token_types=2)
ROTARY = dataclasses.replace(
    MODEL, norm="pre", bias=False, gated=True, position_embedding="rotary", token_types=0, global_every=2, window=8, layers=3
)  # fmt: skip


def make(folder, model, vectors):
    made = dataclasses.replace(read_pretrained(make_start(folder, model)), vectors=vectors, trained=32)
    write_initial(folder, made)
    return str(folder)


def embedded(workdir, tmp_path, **wanted):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    embed_file(workdir, str(tmp_path / "text.txt"), str(tmp_path / "out.npy"), Wanted(**wanted))
    return np.load(tmp_path / "out.npy")


@pytest.mark.parametrize(
    ("model", "vectors"),
    [
        (BERT, SentenceVectors("mean", 0, True, PROMPTS)),
        (BERT, SentenceVectors("max", 1, True, PROMPTS, 8)),
        (ROTARY, SentenceVectors("first", 2, False)),
    ],
    ids=["mean", "max of a lower layer, cut", "first, rotary"],
)
def test_vectors_are_the_same_after_export_there_and_back(tmp_path, model, vectors):
    run, folder = make(tmp_path / "run", model, vectors), str(tmp_path / "folder")
    prompt = "query" if vectors.prompts else ""
    right = embedded(run, tmp_path, prompt=prompt)
    assert cli.main(["export", run, folder, "--as", "sentence-transformers"]) == 0
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "SentenceTransformer(" in card and 'pipeline_tag: "sentence-similarity"' in card
    assert all(json.dumps(text) in card for text in vectors.prompts.values())
    import_encoder(folder, str(tmp_path / "back"))
    back = read_pretrained(tmp_path / "back")
    assert back.vectors == dataclasses.replace(vectors, layer=0) and back.trained == 32
    assert back.model.layers == (vectors.layer or model.layers)
    np.testing.assert_allclose(embedded(str(tmp_path / "back"), tmp_path, prompt=prompt), right, atol=1e-6)
    their = pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = their.SentenceTransformer(folder, device="cpu")
        found = loaded.encode(TEXTS, prompt_name=prompt or None)
    assert loaded.max_seq_length == 32
    np.testing.assert_allclose(found, right, atol=1e-4)


def test_options_choose_the_vectors_of_an_encoder_that_has_none(tmp_path, capsys):
    run, folder = make(tmp_path / "run", BERT, None), str(tmp_path / "folder")
    assert cli.main(["export", run, str(tmp_path / "other"), "--layer", "1"]) == 2
    assert "--layer: a Hugging Face folder does not say how vectors are made" in capsys.readouterr().err
    assert cli.main(["export", run, folder, "--as", "sentence_transformers"]) == 2
    assert "--as sentence_transformers: use hugging-face or sentence-transformers" in capsys.readouterr().err
    options = ["--as", "sentence-transformers", "--layer", "1", "--pooling", "first", "--normalise", "false"]
    assert cli.main(["export", run, folder, *options]) == 0
    import_encoder(folder, str(tmp_path / "back"))
    back = read_pretrained(tmp_path / "back")
    assert (back.vectors, back.model.layers) == (SentenceVectors("first", 0, False), 1)


T, P, N, D = ({"type": f"sentence_transformers.models.{x}", "path": y} for x, y in (
    ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"), ("Dense", "2_Dense"),
))  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", {}, "modules.json: no list of modules"),
        ("modules.json", [T], "modules.json: Transformer; only a Transformer and then Pooling"),
        ("modules.json", [T, P, {"type": "a.LSTM", "path": "2_LSTM"}], r"module 2_LSTM \(LSTM\) has no counterpart"),
        ("modules.json", [T, P, N, N], "module 2_Normalize after Normalize has no counterpart"),
        ("modules.json", [{**T, "path": "0_Transformer"}, P], "the encoder lies in 0_Transformer; give that folder"),
        ("modules.json", [T, {**P, "path": "../1_Pooling"}], "'../1_Pooling' is no folder beside it"),
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "Pooling by lasttoken; only one of mean_tokens"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "max"]}, "Pooling by mean and max; only one of mean, cls"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "without the prompt's tokens"),
        ("config_sentence_transformers.json", {"prompts": {"query": 1}}, "prompts is no object of texts"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case has no counterpart here"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length 'long' is no number of tokens"),
    ],
)
def test_modules_without_a_counterpart_are_named(tmp_path, file, content, message):
    made = dataclasses.replace(read_pretrained(make_start(tmp_path / "run", BERT)), vectors=SentenceVectors())
    write_modules(tmp_path, made)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_modules(tmp_path, made)


def test_a_dense_module_that_projects_is_refused_and_newer_files_are_read(tmp_path, capsys):
    made = dataclasses.replace(
        read_pretrained(make_start(tmp_path / "run", BERT)), vectors=SentenceVectors(dimensions=8)
    )
    write_modules(tmp_path, made)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 32, "pooling_mode": "cls"}')
    (tmp_path / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "q: "}, "default_prompt_name": "query"}'
    )
    found = read_modules(tmp_path, made).vectors
    assert found == SentenceVectors("first", 0, True, {"query": "q: "}, 8)
    assert (
        "its default prompt is not put before a text by itself here; ask for --prompt query" in capsys.readouterr().err
    )
    config = json.loads((tmp_path / "2_Dense" / "config.json").read_text())
    (tmp_path / "2_Dense" / "config.json").write_text(json.dumps(config | {"activation_function": "torch.nn.Tanh"}))
    with pytest.raises(UserError, match=r"module 2_Dense \(Dense\) projects vectors, which has no counterpart here"):
        read_modules(tmp_path, made)
