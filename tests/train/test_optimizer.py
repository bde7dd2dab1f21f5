# SPDX-License-Identifier: Apache-2.0
"""Schedules against their formulas, optimizers against the papers', and which parameter gets what.

A change of `tests/golden/optimizers.json` is to be read.
"""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from mlm_jax.config import Mesh, Model, Optimizer
from mlm_jax.fields import differences
from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Finetune, Task
from mlm_jax.finetune.forward import make_head, params_of_head
from mlm_jax.finetune.learner import random_start
from mlm_jax.finetune.parameters import Partition, boxed_head
from mlm_jax.mesh import make_mesh
from mlm_jax.model import families
from mlm_jax.model.axes import encoder_axes, matrix_axes, parameter_axes
from mlm_jax.model.encoder import boxed_shapes, make_encoder
from mlm_jax.pretrained import Pretrained
from mlm_jax.train.optimizer import MUON_MOMENTUM, MUON_RMS, endless_warmup, make_optimizer, make_schedule
from mlm_jax.typed import as_type
from mlm_jax.vocabulary import Vocabulary

GOLDEN = Path(__file__).parents[1] / "golden" / "optimizers.json"
FAMILIES = {name: value for name, value in vars(families).items() if isinstance(value, Model)}


def rates(steps=100, **options):
    schedule = make_schedule(Optimizer(learning_rate=1.0, warmup_steps=10, **options), steps)
    return np.array([float(schedule(jnp.int32(i))) for i in range(steps)])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "inverse_sqrt", "wsd"])
def test_warm_up_rises_to_the_peak_at_its_last_update(schedule):
    found = rates(schedule=schedule, decay_steps=20)
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10, rtol=1e-6)
    assert found.argmax() == 9 and (np.diff(found[9:]) <= 1e-7).all()


@pytest.mark.parametrize(
    ("options", "steps", "endless"),
    [
        ({"warmup_steps": 10}, 11, False),
        ({"warmup_steps": 10}, 10, True),
        ({"warmup_steps": 10_000}, 2_000, True),
        ({"warmup_steps": 10_000, "warmup_share": 0.1}, 2_000, False),
        ({"warmup_steps": 1}, 1, False),
        ({"warmup_steps": 0}, 1, False),
    ],
)
def test_a_warm_up_that_outlasts_the_run_is_told_with_what_ends_it(options, steps, endless):
    config = Optimizer(schedule="linear", **options)
    said = endless_warmup(config, steps)
    assert bool(said) == endless
    if said:
        assert f"{options['warmup_steps']:,} of {steps:,} updates would all warm up" in said
        assert not endless_warmup(dataclasses.replace(config, warmup_share=0.1), steps)  # as it advises


@pytest.mark.parametrize("schedule", ["linear", "constant"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_fine_tuning_keeps_the_rates_it_had_with_an_optimizer_of_its_own(schedule, share):
    """As finished runs stored it, and as those runs translated it into pretraining's."""
    stored = {"learning_rate": 3e-5, "schedule": schedule, "warmup_share": share, "weight_decay": 0.01}
    stored |= {"b1": 0.9, "b2": 0.999, "epsilon": 1e-8, "clip_norm": 1.0, "layer_decay": 1.0, "freeze": -1}
    found = as_type(Finetune, {"optimizer": stored}).optimizer
    assert found == dataclasses.replace(FINETUNE_OPTIMIZER, learning_rate=3e-5, schedule=schedule, warmup_share=share)
    assert not differences({"optimizer": stored}, Finetune(optimizer=found))
    for steps in (1, 7, 100):
        before = Optimizer(
            learning_rate=3e-5,
            warmup_steps=max(1, round(share * steps)),
            final_share=0.0 if schedule == "linear" else 1.0,
        )
        updates = jnp.arange(steps)
        np.testing.assert_array_equal(make_schedule(found, steps)(updates), make_schedule(before, steps)(updates))


def test_after_the_warm_up():
    np.testing.assert_allclose(rates(schedule="linear", final_share=0.1)[[9, 54, 99]], [1, 0.55, 0.1], rtol=1e-6)
    np.testing.assert_allclose(rates(schedule="cosine")[[9, 54, 99]], [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(rates(schedule="inverse_sqrt")[[9, 39, 89]], [1, 0.5, 1 / 3], rtol=1e-6)
    wsd = rates(schedule="wsd", decay_steps=20)
    np.testing.assert_allclose(wsd[[10, 79, 84, 99]], [1, 1, 0.5, 0], atol=1e-6)


def names_of(path):
    return "/".join(key.key for key in path if isinstance(key, jax.tree_util.DictKey))


def test_every_parameter_of_every_family_gets_what_the_golden_file_says():
    found = {}
    for family, model in FAMILIES.items():
        encoder = make_encoder(model, 256, 3)
        boxes = jax.tree_util.tree_leaves_with_path(boxed_shapes(encoder), is_leaf=lambda x: hasattr(x, "names"))
        for (path, axes), (_, box) in zip(
            jax.tree_util.tree_leaves_with_path(encoder_axes(encoder)), boxes, strict=True
        ):
            # As it was told before there was a table.
            assert axes.is_matrix == names_of(path).endswith(("kernel", "embedding")), names_of(path)
            parts = [" ".join(box.names[i] for i in group) for group in (axes.stacked, axes.inputs, axes.outputs)]
            said = f"{'muon' if axes.is_hidden else 'adamw'}, rate of {'its layer' if axes.layers else axes.place}, "
            said += "decayed: {} [{} → {}]".format(*parts).replace(":  [", ": [") if axes.is_matrix else "not decayed"
            found.setdefault(names_of(path), {}).setdefault(said, []).append(family)
    # Which families, where not all have it, or not all the same.
    found = {
        name: said if len(said) > 1 or list(said.values()) != [list(FAMILIES)] else next(iter(said))
        for name, said in found.items()
    }
    if os.environ.get("UPDATE_GOLDEN"):
        lines = [f" {json.dumps(name)}: {json.dumps(found[name], ensure_ascii=False)}" for name in sorted(found)]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("freeze", [-1, 0, 1, 2])
def test_what_fine_tuning_trains_has_the_same_table(freeze):
    model = dataclasses.replace(families.MBERT, layers=2)
    config = Finetune(task=Task(kind="tag", crf=True))
    head = make_head(config, model, 3, jnp.dtype("float32"))
    start = Pretrained(model, {}, Vocabulary(300, 0, 1, 2, 3, 4, tuple(range(5)), ""), ("en",), "nothing")
    start = random_start(start, 0)
    partition = Partition(start, freeze, np.arange(20), make_mesh(Mesh(), devices=jax.devices()[:1]))
    boxed = {**partition.boxed_trained(), "head": boxed_head(head, params_of_head(config, head, start.params, 0))}
    axes = parameter_axes(boxed)
    whole = encoder_axes(make_encoder(model, 1))
    kept = {-1: ("embedding", "layers"), 0: ("layers",), 1: ("layers",), 2: ()}[freeze]
    assert {name: axes[name] for name in axes if name != "head"} == {name: whole[name] for name in kept}
    head = {name: leaf.is_matrix for name, leaf in axes["head"].items()}
    assert head == {name: name.endswith("kernel") for name in head} and {"transitions", "output_kernel"} <= set(head)
    assert not any(leaf.is_hidden for leaf in axes["head"].values())


KERNEL = ("layers", "embed", "qkv", "heads", "head")
AXES = {
    "layers": {"kernel": matrix_axes(KERNEL, "layers"), "bias": matrix_axes(("layers", "heads", "head"), "layers")},
    "embedding": {"table": matrix_axes(("vocab", "embed"), "embedding"), "norm": matrix_axes(("norm",), "embedding")},
    "head": {"kernel": matrix_axes(("embed", "embed_out"), "head")},
}
SHAPES = {
    "layers": {"kernel": (2, 6, 3, 2, 4), "bias": (2, 2, 4)},
    "embedding": {"table": (9, 6), "norm": (6,)},
    "head": {"kernel": (6, 6)},
}


def follow(optimizer, params, gradients):
    """Parameters after some updates."""
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def random_trees(count):
    rng = np.random.default_rng(0)
    return [
        jax.tree.map(
            lambda s: jnp.asarray(rng.normal(size=s), jnp.float32), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
        )
        for _ in range(count)
    ]


def test_muon_is_optax_muon_on_every_matrix_that_is_stacked():
    params, *gradients = random_trees(5)
    options = Optimizer(
        name="muon", learning_rate=0.05, warmup_steps=0, schedule="constant", weight_decay=0.1, clip_norm=0
    )
    found = follow(make_optimizer(options, 10, AXES), params, gradients)
    by_hand = optax.contrib.muon(0.05, beta=MUON_MOMENTUM, weight_decay=0.1, consistent_rms=MUON_RMS)
    for layer in range(2):
        for which in range(3):  # queries, keys, values
            cut = lambda tree: tree["layers"]["kernel"][layer, :, which].reshape(6, 8)  # noqa: B023, E731
            expected = follow(by_hand, cut(params), [cut(gradient) for gradient in gradients])
            np.testing.assert_allclose(cut(found), expected, rtol=1e-4, atol=1e-6)
    # All else as AdamW has it.
    adamw = follow(make_optimizer(dataclasses.replace(options, name="adamw"), 10, AXES), params, gradients)
    for tree in (found, adamw):
        del tree["layers"]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, found, adamw)


def test_layer_wise_rates_follow_the_table_whatever_the_optimizer():
    params, *gradients = random_trees(3)
    for name in ("adamw", "stable_adamw", "muon"):
        options = Optimizer(name=name, learning_rate=0.05, warmup_steps=0, weight_decay=0.1)
        plain, slowed = (
            make_optimizer(dataclasses.replace(options, layer_decay=factor), 10, AXES) for factor in (1.0, 0.5)
        )
        updates, _ = plain.update(gradients[0], plain.init(params), params)
        slower, _ = slowed.update(gradients[0], slowed.init(params), params)
        ratio = jax.tree.map(
            lambda a, b: np.unique(np.round(np.asarray(a) / np.asarray(b), 4)).tolist(), slower, updates
        )
        assert ratio["layers"] == {"kernel": [0.5, 1], "bias": [0.5, 1]}
        assert ratio["embedding"] == {"table": [0.25], "norm": [0.25]} and ratio["head"] == {"kernel": [1]}


def test_biases_and_norms_are_not_decayed():
    params = {
        "layers": {
            "mlp": {"kernel": jnp.ones((2, 3, 4)), "bias": jnp.ones((2, 4))},
            "norm": {"scale": jnp.ones((2, 3))},
        },
        "tokens": {"embedding": jnp.ones((5, 3))},
    }
    axes = {
        "layers": {
            "mlp": {
                "kernel": matrix_axes(("layers", "embed", "mlp"), "layers"),
                "bias": matrix_axes(("layers", "mlp"), "layers"),
            },
            "norm": {"scale": matrix_axes(("layers", "norm"), "layers")},
        },
        "tokens": {"embedding": matrix_axes(("vocab", "embed"), "embedding")},
    }
    options = Optimizer(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, schedule="linear")
    optimizer = make_optimizer(options, 10, axes)
    zeros = optax.tree_utils.tree_zeros_like(params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    decayed = updates["layers"]["mlp"]["kernel"], updates["tokens"]["embedding"]
    kept = updates["layers"]["mlp"]["bias"], updates["layers"]["norm"]["scale"]
    assert all((np.asarray(u) < 0).all() for u in decayed)
    assert all((np.asarray(u) == 0).all() for u in kept)


def stable_adamw_of_the_paper(gradients, start, rate, b1, b2, epsilon, decay):
    """Wortsman et al. 2023, algorithm 2, on one parameter in float64."""
    theta, v, u = start.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        b1_hat = b1 * (1 - b1 ** (t - 1)) / (1 - b1**t)
        b2_hat = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        v = b1_hat * v + (1 - b1_hat) * g
        u = b2_hat * u + (1 - b2_hat) * g * g
        rms = np.sqrt(np.mean(g * g / np.maximum(u, epsilon**2)))
        eta = rate / max(1, rms)
        theta = theta - eta * decay * theta - eta * v / (np.sqrt(u) + epsilon)
    return theta


def test_stable_adamw_is_the_papers():
    rng = np.random.default_rng(0)
    shapes = {"layers": {"kernel": (3, 4, 5)}, "head": {"bias": (6,)}}
    params = {outer: {n: rng.normal(size=s) for n, s in inner.items()} for outer, inner in shapes.items()}
    # A gradient that suddenly outgrows its average, in one of the stacked layers only.
    gradients = [
        {outer: {n: rng.normal(size=s) for n, s in inner.items()} for outer, inner in shapes.items()} for _ in range(6)
    ]
    gradients[4]["layers"]["kernel"][1] *= 50
    options = Optimizer(
        name="stable_adamw", learning_rate=0.1, warmup_steps=0, schedule="wsd", decay_steps=1, b1=0.9, b2=0.95
    )
    options = dataclasses.replace(options, epsilon=1e-8, weight_decay=0.1, clip_norm=0.0)
    axes = {
        "layers": {"kernel": matrix_axes(("layers", "embed", "mlp"), "layers")},
        "head": {"bias": matrix_axes(("embed_out",), "head")},
    }
    optimizer = make_optimizer(options, 1_000, axes)
    found = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    state = optimizer.init(found)
    for gradient in gradients:
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, gradient), state, found)
        found = optax.apply_updates(found, updates)
    for layer in range(3):
        expected = stable_adamw_of_the_paper(
            [g["layers"]["kernel"][layer] for g in gradients],
            params["layers"]["kernel"][layer],
            0.1,
            0.9,
            0.95,
            1e-8,
            0.1,
        )
        np.testing.assert_allclose(found["layers"]["kernel"][layer], expected, rtol=2e-4, atol=2e-5)
    bias = stable_adamw_of_the_paper(
        [g["head"]["bias"] for g in gradients], params["head"]["bias"], 0.1, 0.9, 0.95, 1e-8, 0
    )
    np.testing.assert_allclose(found["head"]["bias"], bias, rtol=2e-4, atol=2e-5)
