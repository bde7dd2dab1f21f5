# SPDX-License-Identifier: Apache-2.0
"""Options: what cannot work is refused by name, before anything is loaded."""

import dataclasses
import json
import os

import pytest

from mlm_jax import config as cfg
from mlm_jax.errors import UserError


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
    cfg.validate(config)
    m = config.model
    assert (m.layers, m.width, m.heads, m.mlp_width, config.sampling.exponent) == (12, 768, 12, 3072, 0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data__sources": ()}, "data.sources: empty"),
        ({"model__heads": 7}, "model.heads: 7 does not divide model.width 768; use one of 1, 2, 3"),
        ({"data__sequence_length": 1024}, "data.sequence_length: 1024 is beyond model.positions 512"),
        ({"sampling__exponent": 1.5}, "sampling.exponent: 1.5 is outside 0 to 1"),
        ({"sampling__exponent": -0.1}, "sampling.exponent: -0.1 is outside 0 to 1"),
        ({"sampling__temperature": 0.5}, "sampling.temperature: 0.5 is less than 1"),
        ({"sampling__strategy": "unimax"}, "sampling.max_epochs: UniMax needs"),
        ({"sampling__stages": (cfg.Stage(5, 0.3), cfg.Stage(5, 0.2))}, "sampling.stages: starts"),
        ({"objective__mask_rate": 0.0}, "objective.mask_rate: 0.0 is outside 0 to 1"),
        ({"objective__mask_rate_schedule": ((5, 1.2),)}, r"mask_rate_schedule\[0\]: 1.2"),
        ({"objective__replace_random": 0.5}, "must be shares that sum to at most 1"),
        ({"model__dropout": 1.0}, "model.dropout: 1.0"),
        ({"train__batch_size": 10, "train__accumulate": 3}, "does not divide into train.accumulate 3"),
        ({"train__steps": 0}, "train.steps: 0 is less than 1"),
        ({"optimizer__schedule": "wsd"}, "optimizer.decay_steps: 0"),
        ({"mesh__data": -1, "mesh__fsdp": -1}, "at most one of them -1"),
        ({"vocabulary__character_coverage": 0.0}, "vocabulary.character_coverage"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(UserError, match=message) as caught:
        cfg.validate(changed(**options))
    assert "\n" not in str(caught.value)


def test_json_holds_everything_and_differences_are_named():
    config = changed()
    stored = json.loads(cfg.to_json(config))
    assert cfg.differences(stored, config) == []
    other = changed(model__layers=6, sampling__exponent=0.7, train__steps=5, mesh__data=2)
    assert cfg.differences(stored, other) == [
        "model.layers: 12 there, 6 here",
        "sampling.exponent: 0.3 there, 0.7 here",
    ]
    missing = {k: v for k, v in stored.items() if k != "seed"}
    assert cfg.differences(missing, config) == ["seed: null there, 0 here"]


def test_every_exception_to_differences_is_an_option():
    assert set(cfg.MAY_CHANGE) <= set(cfg.flatten(changed()))


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
        cfg.load(str(tmp_path / "c.py"))
    with pytest.raises(UserError, match="no such config file"):
        cfg.load(str(tmp_path / "d.py"))


def test_a_file_changed_within_a_second_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    path = tmp_path / "c.py"
    for layers in (2, 3):
        path.write_text(f"from mlm_jax.config import *\n\n\ndef get_config():\n    return Config(seed={layers})\n")
        os.utime(path, (1, 1))
        assert cfg.load(str(path)).seed == layers
    assert list(tmp_path.iterdir()) == [path]
