# SPDX-License-Identifier: Apache-2.0
"""Options: what cannot work is refused by name, before anything is loaded."""

import dataclasses
import json
import os

import pytest

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.fields import (
    MAY_CHANGE,
    MAY_CHANGE_ONWARDS,
    OF_VOCABULARY,
    AtLeast,
    MayChange,
    check_bounds,
    differences,
    options,
)
from mlm_jax.finetune.config import Finetune
from mlm_jax.neutrality.config import Analyze
from mlm_jax.plan.config import Plan


def changed(**options):
    """A config with dotted options set; `__` stands for the dot."""
    config = cfg.Config(data=cfg.Data(sources=(cfg.Source("en", "x.txt"),)))
    for name, value in options.items():
        section, field = name.split("__")
        config = dataclasses.replace(
            config, **{section: dataclasses.replace(getattr(config, section), **{field: value})}
        )
    return config


def test_the_default_is_xlmr_base_and_valid():
    config = changed()
    cfg.validate_pretraining(config)
    m = config.model
    assert (m.layers, m.width, m.heads, m.mlp_width, config.sampling.exponent) == (12, 768, 12, 3072, 0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data__sources": ()}, "data.sources: empty"),
        ({"model__heads": 7}, "model.heads: 7 does not divide model.width 768; use one of 1, 2, 3"),
        (
            {"data__sequence_length": 1024, "model__positions": 512},
            "data.sequence_length: 1024 is beyond model.positions 512",
        ),
        ({"sampling__exponent": 1.5}, "sampling.exponent: 1.5 is outside 0 to 1"),
        ({"sampling__exponent": -0.1}, "sampling.exponent: -0.1 is outside 0 to 1"),
        ({"sampling__temperature": 0.5}, "sampling.temperature: 0.5 is less than 1"),
        ({"sampling__strategy": "unimax"}, "sampling.max_epochs: UniMax needs"),
        ({"sampling__stages": (cfg.Stage(5, 0.3), cfg.Stage(5, 0.2))}, "sampling.stages: starts"),
        ({"objective__mask_rate": 0.0}, "objective.mask_rate: 0.0 is outside 0 to 1"),
        ({"objective__mask_rate_schedule": ((5, 1.2),)}, r"mask_rate_schedule\[0\]: 1.2"),
        ({"objective__replace_random": 0.5}, "must be shares that sum to at most 1"),
        ({"objective__fates": "unit"}, "objective.fates: unit needs whole_words or span_length"),
        ({"model__dropout": 1.0}, "model.dropout: 1.0"),
        ({"train__batch_size": 10, "train__accumulate": 3}, "does not divide into train.accumulate 3"),
        ({"train__steps": 0}, "train.steps: 0 is less than 1"),
        ({"optimizer__schedule": "wsd"}, "optimizer.decay_steps: 0"),
        ({"optimizer__learning_rate": 0.0}, "optimizer.learning_rate: 0.0 is not above 0"),
        ({"optimizer__warmup_share": 1.0}, "optimizer.warmup_share: 1.0 is outside 0 to 1"),
        ({"optimizer__layer_decay": 0.0}, "optimizer.layer_decay: 0.0 is outside 0 to 1"),
        ({"optimizer__freeze": 2}, "optimizer.freeze: 2, but pretraining trains every layer"),
        ({"mesh__data": -1, "mesh__fsdp": -1}, "at most one of them -1"),
        ({"vocabulary__character_coverage": 0.0}, "vocabulary.character_coverage"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(UserError, match=message) as caught:
        cfg.validate_pretraining(changed(**options))
    assert "\n" not in str(caught.value)


def refused(stored, config):
    return [str(d) for d in differences(stored, config) if d.may_change is None]


def test_json_holds_everything_and_differences_are_named():
    config = changed()
    stored = json.loads(cfg.config_to_json(config))
    assert differences(stored, config) == []
    other = changed(model__layers=6, sampling__exponent=0.7, train__steps=5, mesh__data=2)
    assert refused(stored, other) == [
        "model.layers: 12 there, 6 here",
        "sampling.exponent: 0.3 there, 0.7 here",
    ]
    assert {d.name for d in differences(stored, other)} == {
        "model.layers", "sampling.exponent", "train.steps", "mesh.data",
    }  # fmt: skip


def test_an_option_that_is_not_stored_has_its_default_there():
    config = changed()
    stored = json.loads(cfg.config_to_json(config))
    del stored["seed"], stored["hosts"], stored["model"]["window"], stored["data"]["sources"][0]["field"]
    assert differences(stored, config) == []
    assert refused(stored, dataclasses.replace(config, seed=1)) == ["seed: 0 there, 1 here"]
    assert refused(stored, changed(model__window=64)) == ["model.window: 128 there, 64 here"]
    assert refused(stored | {"old": 3}, config) == ["old: 3 there, null here"]


def test_a_long_value_is_shown_where_it_differs():
    paths = [f"/data/of/many/languages/in/a/folder/of/its/own/{language}/text.txt" for language in ("de", "en", "sw")]
    config = changed(data__sources=tuple(cfg.Source(path.split("/")[-2], path) for path in paths))
    stored = json.loads(cfg.config_to_json(config))
    sources = list(config.data.sources)
    sources[1] = dataclasses.replace(sources[1], path=paths[1].replace("/en/", "/en-GB/"))
    assert refused(stored, changed(data__sources=tuple(sources))) == [
        'data.sources[1].path: ...r/of/its/own/en/text.txt" there, ...r/of/its/own/en-GB/text.txt" here'
    ]
    (missing,) = refused(stored, changed(data__sources=tuple(sources[:1] + list(config.data.sources[1:2]))))
    assert missing.startswith('data.sources[2]: {"language": "sw"') and missing.endswith("there, null here")


def test_a_limit_of_epochs_may_change_where_it_is_nothing_but_a_limit():
    for strategy, may in (("exponent", True), ("unimax", False)):
        config = changed(sampling__strategy=strategy, sampling__max_epochs=5.0)
        stored = json.loads(cfg.config_to_json(config))
        sampling = dataclasses.replace(config.sampling, max_epochs=9.0)
        (found,) = differences(stored, dataclasses.replace(config, sampling=sampling))
        assert (found.may_change is not None) is may and OF_VOCABULARY in found.notes


def test_what_may_change_is_at_the_field():
    notes = {option.name: option.notes for option in options(changed())}
    assert MAY_CHANGE in notes["train.steps"] and MAY_CHANGE in notes["hosts.timeout"]
    assert MAY_CHANGE_ONWARDS in notes["optimizer.learning_rate"] and MAY_CHANGE_ONWARDS in notes["optimizer.clip_norm"]
    assert not any(isinstance(note, MayChange) for note in notes["model.layers"])


@pytest.mark.parametrize(
    "config", [cfg.Config(), Finetune(), Evaluate(), Analyze(), Plan()], ids=lambda c: type(c).__name__
)
def test_defaults_are_within_their_bounds(config):
    check_bounds(config)
    assert any(isinstance(note, AtLeast) for option in options(config) for note in option.notes) or config == Evaluate()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no get_config"),
        ("def get_config(): return 3", "returned int, not mlm_jax.config.Config"),
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
    ],
)
def test_config_files_that_are_none(tmp_path, text, message):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(UserError, match=message):
        cfg.load_config(str(tmp_path / "c.py"))
    with pytest.raises(UserError, match="no such config file"):
        cfg.load_config(str(tmp_path / "d.py"))


def test_a_file_changed_within_a_second_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    path = tmp_path / "c.py"
    for layers in (2, 3):
        path.write_text(f"from mlm_jax.config import *\n\n\ndef get_config():\n    return Config(seed={layers})\n")
        os.utime(path, (1, 1))
        assert cfg.load_config(str(path)).seed == layers
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", ["own.model", "tokenizer.json"])
def test_a_vocabulary_that_is_taken_keeps_its_normalization(path):
    data = cfg.Data(sources=(cfg.Source("en", "en.txt"),))
    config = cfg.Config(data=data, vocabulary=cfg.Vocabulary(path=path, normalization="nfkc"))
    with pytest.raises(UserError, match="has its own; leave"):
        cfg.validate_pretraining(config)
