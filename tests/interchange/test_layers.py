# SPDX-License-Identifier: Apache-2.0
"""Students of some of an encoder's layers: the same as transformers' model with the others taken out."""

import dataclasses
import json

import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.encode.read import read_pretrained
from mlm_jax.errors import UserError
from mlm_jax.interchange.folder import read_folder, write_folder
from mlm_jax.interchange.layers import keep_layers, read_layers
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.train.initial import read_initial, read_kept, write_initial
from tests.corpora import make_workdir
from tests.interchange import peers
from tests.interchange.test_folder import ENCODERS, compute, pretrained, random_params, same, small, words_of

MODERN = small(ENCODERS["modernbert"])  # of five layers, the first and the fourth global
KEPT = {
    "bert": ("bert", (2, 3)),
    "xlm-roberta": ("roberta", (1, 3)),
    "xlm-roberta-xl": ("roberta", (2, 3)),
    "xlm-roberta-xl, its first": ("roberta", (1, 3)),
    "modernbert": ("model", (1, 3, 5)),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", KEPT)
def test_a_student_is_transformers_model_without_the_other_layers(tmp_path, name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind, config = peers.cases(transformers)[name.split(",", maxsplit=1)[0]]
    theirs = peers.randomised(torch, kind(config))
    theirs.save_pretrained(tmp_path / "teacher")
    part, kept = KEPT[name]
    whole = read_folder(tmp_path / "teacher", words_of)
    student = keep_layers(whole, read_layers(",".join(map(str, kept)), whole.model))
    assert student.model == dataclasses.replace(whole.model, layers=len(kept))

    base = getattr(theirs, part)
    holder, attribute = (base, "layers") if part == "model" else (base.encoder, "layer")
    setattr(holder, attribute, torch.nn.ModuleList(getattr(holder, attribute)[i - 1] for i in kept))
    theirs.config.num_hidden_layers = len(kept)
    batch = peers.make_batch(student.model, config.pad_token_id)
    expected = peers.run(torch, theirs, batch, student.model)
    same(compute(student.model, student.params, batch), expected, batch["segment_ids"] > 0)

    # Its folder is one of transformers' own, of fewer layers.
    write_folder(tmp_path / "student", student)
    loaded, said = kind.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not said["missing_keys"] and loaded.config.num_hidden_layers == len(kept)
    same(
        compute(student.model, student.params, batch),
        peers.run(torch, loaded.eval(), batch, student.model),
        batch["segment_ids"] > 0,
    )


def test_all_layers_are_the_encoder_itself():
    for name in ("xlm-roberta-xl", "modernbert"):
        model = small(ENCODERS[name])
        params = random_params(model)
        student = keep_layers(pretrained(model, params), range(1, model.layers + 1))
        batch = peers.make_batch(model, 1)
        np.testing.assert_array_equal(compute(model, params, batch)[0], compute(model, student.params, batch)[0])


def test_sentence_vectors_are_of_the_layer_they_were_of():
    model = dataclasses.replace(small(cfg.Model()), layers=4)
    whole = pretrained(model, random_params(model))
    for layer, kept, expected in ((3, (1, 3, 4), 2), (2, (1, 3, 4), 0), (4, (1, 4), 0), (0, (2,), 0)):
        found = keep_layers(dataclasses.replace(whole, vectors=SentenceVectors(layer=layer)), kept)
        assert found.vectors == SentenceVectors(layer=expected)


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        (cfg.Model(), "", 'layers : "" is not the number of a layer; write a list such as 1,3,5'),
        (cfg.Model(), "1,,3", '"" is not the number'),
        (cfg.Model(), "1,-3", '"-3" is not the number'),
        (cfg.Model(), "0,3", "no layer 0; the encoder has layers 1 to 12"),
        (cfg.Model(), "1,13", "no layer 13; the encoder has layers 1 to 12"),
        (cfg.Model(), "3,1,3", "once each and in their order; write 1,3"),
        (cfg.Model(), "1,3,3", "once each and in their order; write 1,3"),
        (MODERN, "1,3,4", "attend globally"),
        (MODERN, "1,4", "attend globally"),
        (MODERN, "4,5", "layer 1 alone reads the embedding's norm; keep 1,5, say"),
        (dataclasses.replace(MODERN, global_every=1), "2,3", "keep 1,3, say"),
    ],
)
def test_lists_that_make_no_encoder_are_refused_in_one_line(model, given, said):
    with pytest.raises(UserError) as e:
        read_layers(given, model)
    assert said in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("wanted", [(2,), (2, 4), (1, 4), (3, 4, 5), (1, 2, 4, 5), (4, 5)])
def test_the_list_that_is_named_works_and_is_as_long(wanted):
    with pytest.raises(UserError) as e:
        read_layers(",".join(map(str, wanted)), MODERN)
    named = str(e.value).split("keep ")[1].split(", say")[0]
    assert len(read_layers(named, MODERN)) == len(wanted)


def test_import_keeps_layers_of_a_workdir_and_says_so(tmp_path, capsys):
    config = make_workdir(tmp_path / "run", {"en": 20})
    model = dataclasses.replace(config.model, layers=4, head="none")
    source = dataclasses.replace(pretrained(model, {}), params=random_params(model), languages=("en",))
    write_initial(tmp_path / "run", dataclasses.replace(source, vocabulary=words_of(100)))
    (tmp_path / "run" / "config.json").unlink(missing_ok=True)
    command = ["import", str(tmp_path / "run"), str(tmp_path / "student"), "--layers", "1,4"]
    assert cli.main(command) == 0
    assert "2 layers of width 32" in capsys.readouterr().out
    assert (
        read_kept(tmp_path / "student")
        == json.loads((tmp_path / "student" / "initial.json").read_text())["kept"]
        == [1, 4]
    )
    found = read_pretrained(tmp_path / "student")
    before = read_initial(tmp_path / "run")
    assert found.model.layers == 2
    for name in ("in_kernel", "out_kernel"):
        np.testing.assert_array_equal(found.params["layers"]["mlp"][name], before.params["layers"]["mlp"][name][[0, 3]])
    # Who starts from the student starts from all of it.
    assert cli.main(["import", str(tmp_path / "student"), str(tmp_path / "next")]) == 0
    assert read_kept(tmp_path / "next") == [] and read_pretrained(tmp_path / "next").model.layers == 2
    assert cli.main([*command[:2], str(tmp_path / "wrong"), "--layers", "1,9"]) == 2
    assert "--layers 1,9: no layer 9; the encoder has layers 1 to 4" in capsys.readouterr().err
