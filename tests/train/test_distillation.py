# SPDX-License-Identifier: Apache-2.0
"""A student learns of its teacher, under every promise of the trainer."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.encode.read import read_pretrained
from mlm_jax.errors import UserError
from mlm_jax.interchange.layers import keep_layers
from mlm_jax.model.encoder import parameter_shapes
from mlm_jax.pretrained import Pretrained, SentenceVectors
from mlm_jax.stored import read_json
from mlm_jax.train.distillation import plan_matches
from mlm_jax.train.initial import read_initial, write_initial
from mlm_jax.train.metrics import read_metrics
from mlm_jax.train.pretraining import build, train
from mlm_jax.vocabulary import read_vocabulary
from tests.corpora import logged, make_workdir
from tests.train.test_loop import checkpoint

SIZES = {"de": 20, "en": 40}
TEACHER = cfg.Model(layers=4, width=32, heads=2, mlp_width=64, positions=16)
ALL = {"relations": 1.0, "hidden": 0.5, "vectors": 2.0, "masked": 0.1}


def encoder(model, words, seed=0):
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(model, words.size)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    params["embedding"]["token_embedding"][words.size :] = 0
    return Pretrained(model, params, words, ("de", "en"), "a teacher", vectors=SentenceVectors("max"))


def make_student(folder, distillation, model=None, teacher=TEACHER, starts=True, **sections):
    """A workdir whose run learns from a teacher, and starts from its layers 1 and 4 unless it has a `model` of its own."""
    settings = {"learn": "distillation"}
    config = make_workdir(
        folder,
        SIZES,
        distillation={"teacher": "somewhere"} | distillation,
        objective=settings,
        **{"data": {"packing": "segments"}} | sections,
    )
    words = read_vocabulary(folder / "vocabulary")
    whole = encoder(teacher, words)
    shutil.copytree(folder / "vocabulary", folder / "teacher" / "vocabulary")
    write_initial(folder / "teacher", whole)
    head = "transform" if config.distillation.masked else "none"
    model = model or dataclasses.replace(TEACHER, layers=2, head=head)
    if starts:
        write_initial(folder, keep_layers(whole, (1, 4)), (1, 4))
    config = dataclasses.replace(config, model=model)
    (folder / "config.json").write_text(cfg.config_to_json(config))
    return config


def of_kind(workdir, kind):
    return [r for r in read_metrics(workdir) if r["kind"] == kind]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all that can be learned, on one device."""
    config = make_student(tmp_path_factory.mktemp("student") / "run", ALL)
    train(config, jax.devices()[:1])
    return config


def test_a_student_comes_nearer_to_its_teacher_in_all_that_it_learns(whole):
    lines, validations = of_kind(whole.workdir, "train"), of_kind(whole.workdir, "validation")
    for kind in ALL:
        assert lines[-1][f"{kind}_loss"] < lines[0][f"{kind}_loss"], kind
    for line in (lines[0], lines[-1], *validations[-1]["languages"].values()):
        total = sum(weight * line[f"{kind}_loss"] for kind, weight in ALL.items())
        np.testing.assert_allclose(line["loss"], total, rtol=1e-4)
        assert 0 <= line["accuracy"] <= 1
    assert {*validations[-1]["languages"]} == set(SIZES)
    macros = [np.mean([of["loss"] for of in line["languages"].values()]) for line in validations]
    np.testing.assert_allclose([line["macro_loss"] for line in validations], macros)
    assert macros[-1] < macros[0]

    found = read_pretrained(whole.workdir)
    assert found.model.layers == 2 and found.vectors == SentenceVectors("max")
    # The checkpoint holds the student alone.
    stored = checkpoint(whole.workdir, 12)["params"]
    assert sorted(stored) == sorted(found.params) == ["embedding", "head", "layers"]
    assert stored["layers"]["mlp"]["in_kernel"].shape[0] == 2


def test_who_is_its_teacher_has_no_loss(tmp_path):
    config = make_student(
        tmp_path / "run", ALL | {"masked": 0.0}, dataclasses.replace(TEACHER, head="none"), starts=False
    )
    words = read_vocabulary(tmp_path / "run" / "vocabulary")
    mesh = meshes.make_mesh(config.mesh, 8, jax.devices()[:1])
    learning = build(config, words, 2, mesh).learning
    params = read_initial(tmp_path / "run" / "teacher").params
    rng = np.random.default_rng(0)
    segments = np.sort(rng.integers(0, 3, (8, 16)), axis=1)[:, ::-1].astype(np.int32)  # 2, 1 and padding
    rows = {"tokens": rng.integers(5, words.size, segments.shape, dtype=np.int32), "segment_ids": segments}
    rows |= {name: np.zeros_like(segments) for name in ("positions", "token_types", "language_ids")}
    rows |= {"block_key": np.arange(8, dtype=np.uint32)}
    with meshes.mesh_context(mesh):
        # Fetched before what it may still be reading changes.
        same = jax.device_get(jax.jit(learning.validation)(params, learning.frozen, rows))
        # And another, who has: the last layer's weights count, of relations the queries' and keys'.
        params["layers"]["attention"]["qkv_kernel"][-1] *= 20
        other = jax.jit(learning.validation)(params, learning.frozen, rows)
    for kind in ("relations", "hidden", "vectors"):
        assert np.max(np.abs(same[f"{kind}_sum"])) < 1e-5 < np.min(other[f"{kind}_sum"])
        assert np.all(same[f"{kind}_number"] > 0)
    # Weights are of tokens, and of texts.
    np.testing.assert_array_equal(same["relations_number"], (segments > 0).sum(axis=1))
    np.testing.assert_array_equal(same["vectors_number"], [len(set(row) - {0}) for row in segments.tolist()])


@pytest.mark.slow
def test_a_text_and_its_translation_learn_the_texts_vector(tmp_path):
    parallel = {"packing": "pairs", "parallel": (cfg.Parallel(("de", "en"), ("none",)),), "pairs_per_block": 3}
    config = make_student(tmp_path / "run", {"vectors": 1.0, "pooling": "mean"}, data=parallel)
    words = read_vocabulary(tmp_path / "run" / "vocabulary")
    mesh = meshes.make_mesh(config.mesh, 8, jax.devices()[:1])
    learning = build(config, words, 2, mesh).learning
    whole = read_initial(tmp_path / "run" / "teacher")
    student = keep_layers(whole, (1, 4))
    rng = np.random.default_rng(0)
    # Two pairs in a row of sixteen; each text is encoded by itself below.
    lengths = (3, 4, 5, 2)
    texts = [rng.integers(5, words.size, n).astype(np.int32) for n in lengths]
    row = {
        "tokens": np.concatenate([*texts, [0, 0]]),
        "segment_ids": np.repeat([1, 2, 3, 4, 0], [*lengths, 2]),
        "positions": np.concatenate([*map(np.arange, lengths), [0, 0]]),
    }

    def rows(row):
        arrays = {name: np.asarray(x, np.int32)[None] for name, x in row.items()}
        return arrays | {name: np.zeros_like(arrays["tokens"]) for name in ("token_types", "language_ids")}

    def vector(of, text):
        alone = {"tokens": text, "segment_ids": np.ones(len(text)), "positions": np.arange(len(text))}
        return np.asarray(of.encoder().apply({"params": of.params}, rows(alone)))[0].mean(axis=0)

    with meshes.mesh_context(mesh):
        found = learning.validation(student.params, learning.frozen, rows(row) | {"block_key": np.zeros(1, np.uint32)})
    pairs = [(0, 0), (0, 1), (2, 2), (2, 3)]  # whose vector of the teacher's, and whose of the student's
    expected = sum(np.mean((vector(whole, texts[a]) - vector(student, texts[b])) ** 2) for a, b in pairs)
    np.testing.assert_allclose(found["vectors_sum"], [expected], rtol=1e-4)
    assert found["vectors_number"].tolist() == [4]


@pytest.mark.slow
def test_killed_and_continued_is_bit_for_bit_the_unbroken_run(tmp_path, whole, capsys):
    config = make_student(tmp_path / "run", ALL)
    for seconds in (1e-9, 0.0):
        train(cfg.with_sections(config, train={"max_seconds": seconds}), jax.devices()[:1])
    said = capsys.readouterr().out
    assert "learning from a teacher: 4 layers of width 32" in said and "starting from layers 1, 4 of a teacher" in said
    assert "continuing at step 1 of 12" in said
    assert logged(whole.workdir) == logged(config.workdir)
    ends = [read_pretrained(run.workdir, "last").params for run in (whole, config)]
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "sections"),
    [
        (2, {}),
        (1, {"train": {"accumulate": 2}}),
        (8, {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}}),
    ],
)
def test_devices_microbatches_and_meshes_change_nothing(tmp_path, whole, devices, sections):
    config = make_student(tmp_path / "run", ALL, **sections)
    train(config, jax.devices()[:devices])
    for a, b in zip(read_metrics(whole.workdir), read_metrics(config.workdir), strict=True):
        for name in ("loss", *(f"{kind}_loss" for kind in ALL), "macro_loss"):
            if name in a:
                np.testing.assert_allclose(a[name], b[name], rtol=2e-5, err_msg=name)


@pytest.mark.slow
def test_another_width_learns_through_a_projection_that_is_no_part_of_it(tmp_path):
    narrow = cfg.Model(
        layers=2, width=24, heads=2, mlp_width=48, positions=16, head="none", dropout=0, attention_dropout=0
    )
    learned = {"relations": 1.0, "hidden": 1.0, "projection": True}
    config = make_student(tmp_path / "run", learned, narrow, starts=False)
    assert train(cfg.with_sections(config, train={"max_seconds": 1e-9})).step == 1
    assert train(config).step == 12  # its projections come back
    lines = of_kind(config.workdir, "train")
    assert (
        lines[-1]["hidden_loss"] < lines[0]["hidden_loss"] and lines[-1]["relations_loss"] < lines[0]["relations_loss"]
    )
    found = read_pretrained(config.workdir)
    assert sorted(found.params) == ["embedding", "layers"] and found.vectors is None


@pytest.mark.slow
def test_a_teacher_that_changed_is_refused(tmp_path):
    config = make_student(tmp_path / "run", {"vectors": 1.0}, train={"steps": 2})
    train(config)
    changed = encoder(TEACHER, read_vocabulary(tmp_path / "run" / "vocabulary"), seed=1)
    write_initial(tmp_path / "run" / "teacher", changed)
    longer = cfg.with_sections(config, train={"steps": 4})
    with pytest.raises(UserError, match=r"trained with another teacher .* put the teacher back"):
        train(longer)
    read_pretrained(config.workdir)  # to read what it learned, no teacher is needed
    shutil.rmtree(tmp_path / "run" / "teacher")
    assert read_pretrained(config.workdir).vectors == SentenceVectors()
    with pytest.raises(UserError, match="teacher is missing; put the folder back"):
        train(longer)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = make_student(tmp_path / "run", {"vectors": 1.0}, train={"steps": 2})
    whole = encoder(TEACHER, read_vocabulary(tmp_path / "run" / "vocabulary"))
    whole.params["layers"]["mlp"]["in_kernel"][0] = np.nan
    write_initial(tmp_path / "run" / "teacher", whole)
    with pytest.raises(UserError, match="step 0: the loss or its gradient is not finite"):
        train(config)


@pytest.mark.slow
def test_another_vocabulary_is_refused_and_the_same_pieces_are_not(tmp_path):
    config = make_student(tmp_path / "run", {"relations": 1.0}, train={"steps": 1})
    described = tmp_path / "run" / "teacher" / "vocabulary" / "vocabulary.json"
    file = described.parent / "sentencepiece.model"
    # Of another file with the same pieces: a field that says nothing of them.
    import hashlib

    import sentencepiece

    file.write_bytes(file.read_bytes() + b"\x9a\x06\x00")
    stored = json.loads(described.read_text()) | {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    described.write_text(json.dumps(stored))
    assert sentencepiece.SentencePieceProcessor(model_file=str(file)).get_piece_size() == stored["size"]
    assert train(config).step == 1
    described.write_text(json.dumps(stored | {"size": stored["size"] + 1}))
    with pytest.raises(
        UserError, match=r"has another vocabulary \(101 pieces\) than .* \(100\), .*; begin the student with some"
    ):
        train(config)


@pytest.mark.slow
def test_the_commands_take_a_teacher_and_its_vocabulary_and_give_a_folder(tmp_path, capsys):
    pytest.importorskip("django")
    configs = Path(__file__).parents[2] / "configs"
    teacher, student, folder = (str(tmp_path / name) for name in ("teacher", "student", "folder"))
    short = [
        "--train.steps",
        "4",
        "--train.validate_every",
        "4",
        "--train.log_every",
        "2",
        "--train.validation_blocks",
        "2",
    ]
    assert cli.main(["pretrain", str(configs / "tiny_xlmr.py"), "--workdir", teacher, *short]) == 0
    command = ["pretrain", str(configs / "tiny_distill.py"), "--workdir", student, "--distillation.teacher", teacher]
    assert cli.main([*command, *short]) == 0
    said = capsys.readouterr().out
    assert f"learning from {teacher} at step 4: 2 layers of width 64" in said
    files = [tmp_path / name / "vocabulary" / "sentencepiece.model" for name in ("teacher", "student")]
    assert files[0].read_bytes() == files[1].read_bytes()
    page = (tmp_path / "student" / "report" / "index.html").read_text()
    assert "Validation loss (distillation) is" in page and "nats per token" not in page
    assert cli.main(["export", student, folder]) == 0
    assert read_json(tmp_path / "folder" / "config.json")["num_hidden_layers"] == 1
    # Another teacher is none to go on with, and plan says that it is of no use here.
    assert cli.main([*command[:-1], folder, *short]) == 2
    assert f"learns from {teacher} already, not from {folder}" in capsys.readouterr().err
    assert cli.main(["plan", *command[1:], "--topology", "v5e:2x2"]) == 2
    assert "distillation is not planned" in capsys.readouterr().err


def settings(**options):
    return cfg.Config(
        data=cfg.Data(sources=(cfg.Source("*", "none"),), sequence_length=16, packing="segments"),
        model=dataclasses.replace(TEACHER, layers=2),
        objective=cfg.Objective(learn="distillation"),
        distillation=cfg.Distillation(**{"teacher": "e5"} | options),
    )


@pytest.mark.parametrize(
    ("options", "sections", "said"),
    [
        ({"teacher": "", "hidden": 1}, {}, "distillation.teacher: empty; name a run or a Hugging Face folder"),
        ({}, {}, "nothing of the teacher has a weight; set distillation.relations, hidden or vectors above 0"),
        ({"masked": 1}, {}, "nothing of the teacher has a weight"),
        ({"vectors": -1}, {}, "distillation.vectors: -1 is less than 0"),
        (
            {"hidden": 1},
            {"objective": {"learn": "language_model"}},
            "objective.learn is language_model; set it to distillation",
        ),
        ({"hidden": 1}, {"model": {"causal": True}}, "model.causal: a student and its teacher look both ways"),
        ({"vectors": 1}, {"data": {"packing": "concatenate"}}, "distillation.vectors: are of whole texts"),
    ],
)
def test_options_that_cannot_work_are_refused(options, sections, said):
    with pytest.raises(UserError) as e:
        cfg.validate_pretraining(cfg.with_sections(settings(**options), **sections))
    assert said in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("options", "teacher", "said"),
    [
        (
            {"hidden": 1},
            {"width": 48},
            "distillation.hidden: the teacher's width is 48, the student's 32; set distillation.projection",
        ),
        ({"vectors": 1, "projection": True}, {"width": 48}, "distillation.vectors: the teacher's width is 48"),
        (
            {"relations": 1, "relation_heads": 5},
            {"width": 48},
            "5 does not divide the widths 32 (student) and 48 (teacher); use one of 1, 2, 4",
        ),
        ({"relations": 1, "relation_layer": 5}, {}, "relation_layer: 5 is no layer of the teacher, which has 1 to 4"),
        (
            {"hidden": 1, "hidden_layers": ((5, 1),)},
            {},
            "hidden_layers: 5 is no layer of the teacher, which has 1 to 4",
        ),
        (
            {"hidden": 1, "hidden_layers": ((4, 3),)},
            {},
            "hidden_layers: 3 is no layer of the student, which has 1 to 2",
        ),
        ({"hidden": 1}, {"positions": 8}, "data.sequence_length: 16, but the teacher has 8 positions"),
        ({"hidden": 1}, {"language_embedding": True}, "has language embeddings"),
        ({"hidden": 1}, {"causal": True}, "is causal"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(options, teacher, said):
    whole = Pretrained(dataclasses.replace(TEACHER, **teacher), {}, None, (), "e5")
    with pytest.raises(UserError) as e:
        plan_matches(settings(**options), whole)
    assert said in str(e.value) and "\n" not in str(e.value)


def test_hidden_layers_are_spread_evenly_unless_they_are_named():
    whole = Pretrained(dataclasses.replace(TEACHER, layers=12), {}, None, (), "e5")
    assert plan_matches(settings(hidden=1), whole).hidden == ((6, 1), (12, 2))
    assert plan_matches(settings(hidden=1, hidden_layers=((3, 2),)), whole).hidden == ((3, 2),)
    assert plan_matches(settings(relations=1, relation_layer=10), whole).relations == (10, 2)
    assert plan_matches(settings(vectors=1), whole).vectors == SentenceVectors("mean")
