# SPDX-License-Identifier: Apache-2.0
"""Fine-tuned encoders as Hugging Face folders, in and out, and their losses and gradients beside transformers'."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.encode.rows import to_arrays
from mlm_jax.errors import UserError
from mlm_jax.finetune import config as options
from mlm_jax.finetune.arrays import Items
from mlm_jax.finetune.forward import hidden_states, make_head, scores
from mlm_jax.finetune.learner import build_training
from mlm_jax.finetune.packing import Shape
from mlm_jax.finetune.parameters import Partition
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.interchange import task_heads
from mlm_jax.interchange.folder import read_folder, write_folder
from mlm_jax.interchange.tensors import tensors
from mlm_jax.model.encoder import apply_encoder, backbone, make_encoder
from mlm_jax.pretrained import Pretrained
from mlm_jax.train.step import make_train_step
from tests.interchange import peers
from tests.interchange.test_folder import ENCODERS, LANGUAGES, WORDS, pretrained, random_params, small, words_of

FAMILIES = ("bert", "xlm-roberta", "xlm-roberta-xl", "xlm", "modernbert")
KINDS = ("classify", "regress", "tag", "span", "multilabel")
LABELS = ("no", "perhaps", "yes")
LENGTHS = (peers.LENGTH, 15)


def make(family, kind, pooling="first"):
    """An encoder, and a head on it, with random weights; no dropout, so that training can be compared."""
    model = dataclasses.replace(backbone(small(ENCODERS[family])), dropout=0.0, attention_dropout=0.0)
    labels = LABELS if TASKS[kind].has_labels else ()
    task = options.Task(kind=kind, labels=labels, pooling=pooling, dropout=0.0)
    config = options.Finetune(task=task)
    head = make_head(config, model, TASKS[kind].outputs(labels), jnp.dtype(jnp.float32))
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(head.init, jax.random.key(0), jnp.zeros((1, 1, model.width)))["params"]
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), nn.meta.unbox(shapes))
    return config, model, head, random_params(model), params


def items(model, kind, seed=0):
    """Two texts and their targets."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(5, peers.SIZE, n).astype(np.int32) for n in LENGTHS]
    targets = {
        "classify": [2, 0],
        "regress": [0.5, -1.5],
        "tag": [np.where(rng.random(n) < 0.4, rng.integers(0, 3, n), -1).astype(np.int32) for n in LENGTHS],
        "span": [(3, 7), (14, 14)],
        "multilabel": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]],
    }[kind]
    types = [(np.arange(n) >= 9).astype(np.int32) for n in LENGTHS]
    return Items(ids, types, [1, 1], targets)


def arrays(data, kind, batch, shape, token_types):
    """A batch and its targets."""
    return to_arrays(data, batch, shape, WORDS.pad, token_types) | TASKS[kind].targets(data, batch, shape)


def ours(config, model, head, encoder, head_params, batch):
    """Scores, mean loss, and its gradient by our parameters."""
    rows = batch["tokens"].shape[0]
    keys = jnp.zeros(rows, jnp.uint32)

    def loss_of(params):
        sizes, dtype = (peers.SIZE, len(LANGUAGES)), jnp.dtype(jnp.float32)
        hidden = hidden_states(model, sizes, -1, params["encoder"], {}, dtype, batch, keys)
        found = scores(config, head, params["head"], hidden, batch, None)
        total, count = TASKS[config.task.kind].loss(params["head"], found, batch)["loss"]
        return total / count, found

    trained = {"encoder": {name: encoder[name] for name in ("embedding", "layers")}, "head": head_params}
    (loss, found), grads = jax.value_and_grad(loss_of, has_aux=True)(trained)
    return np.asarray(found), float(loss), grads


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_loss_and_gradients_equal_transformers(tmp_path, family, kind):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config, model, head, encoder, head_params = make(family, kind)
    write_folder(tmp_path, pretrained(model, encoder, config.task, head_params))
    name = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    theirs, said = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said.values()), said
    theirs.eval()

    data = items(model, kind)
    batch = arrays(data, kind, [[0], [1]], Shape(2, peers.LENGTH, 1), model.token_types)
    found, loss, grads = ours(config, model, head, encoder, head_params, batch)
    inputs = {
        "input_ids": torch.from_numpy(batch["tokens"]).long(),
        "attention_mask": torch.from_numpy(batch["segment_ids"]).long(),
    }
    if model.token_types > 1:
        inputs["token_type_ids"] = torch.from_numpy(batch["token_types"]).long()
    if model.language_embedding:
        inputs["langs"] = torch.from_numpy(batch["language_ids"]).long()
    if kind == "span":
        starts, ends = (torch.tensor([t[i] for t in data.targets]) for i in (0, 1))
        out = theirs(**inputs, start_positions=starts, end_positions=ends)
        real = batch["segment_ids"] > 0
        for i, logits in enumerate((out.start_logits, out.end_logits)):
            np.testing.assert_allclose(found[..., i][real], logits.detach().numpy()[real], atol=1e-4)
        # Theirs may put probability on padding, which ours does not.
        logits = torch.stack([out.start_logits, out.end_logits]).masked_fill(~torch.from_numpy(real), -1e30)
        other = sum(torch.nn.functional.cross_entropy(logits[i], target) for i, target in enumerate((starts, ends))) / 2
    else:
        if kind == "tag":
            targets = torch.from_numpy(np.where(batch["targets"] < 0, -100, batch["targets"])).long()
        else:
            targets = torch.tensor(data.targets)
        out = theirs(**inputs, labels=targets)
        expected, real = out.logits.detach().numpy(), batch["segment_ids"] > 0
        mine = found[real] if kind == "tag" else found[:, 0]
        np.testing.assert_allclose(mine, expected[real] if kind == "tag" else expected, atol=1e-4)
        other = out.loss
    assert loss == pytest.approx(float(other.detach()), abs=1e-4)
    other.backward()
    family_of_file = json.loads((tmp_path / "config.json").read_text())["model_type"]
    views = task_heads.head_tensors(jax.tree.map(np.asarray, grads["head"]), family_of_file, config.task)
    gradients = dict(theirs.named_parameters())
    for tensor, view in views.items():
        np.testing.assert_allclose(view, gradients[tensor].grad.numpy(), atol=1e-4, err_msg=tensor)
    token = next(p for n, p in gradients.items() if p.shape == (peers.SIZE, model.width))
    mine = np.asarray(grads["encoder"]["embedding"]["token_embedding"])[: peers.SIZE]
    kept = np.arange(peers.SIZE) != WORDS.pad  # padding's own row gets none in theirs, some in ours
    np.testing.assert_allclose(mine[kept], token.grad.numpy()[kept], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_export_then_import_is_the_identity(tmp_path, family, kind):
    config, model, _, encoder, head_params = make(family, kind)
    write_folder(tmp_path, pretrained(model, encoder, config.task, head_params))
    found = read_folder(tmp_path, words_of)
    assert found.head.task["kind"] == kind and found.head.labels == config.task.labels
    for mine, back in ((encoder, found.params), (head_params, found.head.params)):
        flat, other = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (mine, back))
        assert flat.keys() == other.keys()
        for path, leaf in flat.items():
            np.testing.assert_array_equal(leaf, other[path], err_msg=str(path))


def test_heads_that_no_class_has_are_refused(tmp_path):
    config, model, _, encoder, head_params = make("xlm-roberta", "classify", pooling="mean")
    with pytest.raises(UserError, match=r"reads the first token, not the mean"):
        write_folder(tmp_path, pretrained(model, encoder, config.task, head_params))
    crf = dataclasses.replace(config.task, kind="tag", crf=True)
    with pytest.raises(UserError, match="no Hugging Face class has a CRF"):
        write_folder(tmp_path, pretrained(model, encoder, crf, head_params))


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_packing_changes_no_score_and_no_gradient(kind, pooling):
    config, model, head, encoder, head_params = make("xlm-roberta", kind, pooling)
    data = items(model, kind)
    apart = arrays(data, kind, [[0], [1]], Shape(2, peers.LENGTH, 1), 1)
    packed = arrays(data, kind, [[1, 0]], Shape(1, 48, 3), 1)
    one = ours(config, model, head, encoder, head_params, apart)
    two = ours(config, model, head, encoder, head_params, packed)
    if not TASKS[kind].of_tokens:
        np.testing.assert_allclose(one[0][:, 0], two[0][0, [1, 0]], atol=1e-5)
    else:
        np.testing.assert_allclose(one[0][0], two[0][0, 15:39], atol=1e-5)
        np.testing.assert_allclose(one[0][1, :15], two[0][0, :15], atol=1e-5)
    assert one[1] == pytest.approx(two[1], abs=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one[2]["head"], two[2]["head"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        one[2]["encoder"]["layers"],
        two[2]["encoder"]["layers"],
    )


@pytest.mark.parametrize("freeze", [-1, 0, 1, 2])
@pytest.mark.parametrize("family", ["xlm-roberta", "xlm-roberta-xl", "modernbert"])
def test_cut_in_two_the_encoder_computes_the_same(family, freeze):
    _, model, _, encoder, _ = make(family, "tag")
    data = items(model, "tag")
    batch = arrays(data, "tag", [[0], [1]], Shape(2, peers.LENGTH, 1), 1)
    keys = jnp.zeros(2, jnp.uint32)
    used = np.unique(np.concatenate([*data.ids, [WORDS.pad]]))
    start = Pretrained(model, encoder, WORDS, LANGUAGES, "random weights")
    mesh = meshes.make_mesh(cfg.Mesh(), 1, jax.devices()[:1])

    def run(freeze):
        partition = Partition(start, freeze, used, mesh)
        tokens = np.searchsorted(used, batch["tokens"]).astype(np.int32) if freeze < 0 else batch["tokens"]
        with meshes.mesh_context(mesh):
            return hidden_states(
                model, (partition.size, 3), freeze, partition.trained, partition.frozen, jnp.dtype(jnp.float32),
                batch | {"tokens": tokens}, keys,
            )  # fmt: skip

    whole = {name: encoder[name] for name in ("embedding", "layers")}
    expected = apply_encoder(make_encoder(model, peers.SIZE, 3, "float32", model.layers), whole, batch)
    np.testing.assert_allclose(run(freeze), expected, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
@pytest.mark.slow
def test_ten_updates_equal_pytorchs(tmp_path, layer_decay):
    """AdamW, clipping, warm-up and decay, layer-wise rates, and only the rows of the pieces in use: the same weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config, model, _, encoder, head_params = make("xlm-roberta", "tag")
    optimizer = dataclasses.replace(
        options.FINETUNE_OPTIMIZER, learning_rate=3e-3, warmup_share=0.2, weight_decay=0.0, layer_decay=layer_decay
    )
    config = dataclasses.replace(config, optimizer=optimizer)
    write_folder(tmp_path, pretrained(model, encoder, config.task, head_params))
    theirs = transformers.XLMRobertaForTokenClassification.from_pretrained(tmp_path).eval()  # without dropout
    batches = [items(model, "tag", seed) for seed in range(10)]
    shape = Shape(2, peers.LENGTH, 1)

    def depth(name):
        if name.startswith("roberta.embeddings"):
            return model.layers
        return model.layers - 1 - int(name.split(".")[3]) if ".layer." in name else 0

    groups = [
        {"params": [parameter], "factor": layer_decay ** depth(name)} for name, parameter in theirs.named_parameters()
    ]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)

    used = np.unique(np.concatenate([ids for batch in batches for ids in batch.ids]))
    mesh = meshes.make_mesh(cfg.Mesh(), 2, jax.devices()[:1])
    start = pretrained(model, encoder, config.task, head_params)
    training = build_training(config, start, LABELS, used, 10, 0, mesh)
    step = make_train_step(
        training.objective, training.optimizer, training.schedule, training.abstract_state, {}, mesh, log_every=1
    )
    state = training.initialize()
    # The head that was exported, in place of the new one.
    state = dataclasses.replace(state, params=state.params | {"head": jax.tree.map(jnp.array, head_params)})
    for number, data in enumerate(batches):
        batch = arrays(data, "tag", [[0], [1]], shape, 1)
        targets = torch.from_numpy(np.where(batch["targets"] < 0, -100, batch["targets"])).long()
        attention = torch.from_numpy(batch["segment_ids"]).long()
        out = theirs(input_ids=torch.from_numpy(batch["tokens"]).long(), attention_mask=attention, labels=targets)
        adam.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        share = (number + 1) / 2 if number + 1 < 2 else 1 - (number + 1 - 2) / 8
        for group in adam.param_groups:
            group["lr"] = 3e-3 * share * group["factor"]
        adam.step()
        tokens = np.searchsorted(used, batch["tokens"]).clip(0, len(used) - 1).astype(np.int32)
        with meshes.mesh_context(mesh):
            state, window = step(state, {}, jax.device_put(batch | {"tokens": tokens}))
        assert float(window["loss"][0] / window["loss"][1]) == pytest.approx(float(out.loss.detach()), abs=2e-4), number
    whole = jax.device_get(training.partition.merge(state.params))
    views = tensors(whole | {"head": {}}, dataclasses.replace(model), "xlm-roberta", peers.SIZE)
    weights = dict(theirs.named_parameters())
    # Padding's row is left out: theirs has no gradient there.
    for name, view in views.items():
        expected = weights[name].detach().numpy()
        rows = np.arange(len(expected)) != WORDS.pad if "word_embeddings" in name else slice(None)
        if "position_embeddings" in name:
            rows = slice(2, None)
        np.testing.assert_allclose(np.asarray(view)[rows], expected[rows], atol=3e-4, err_msg=name)
