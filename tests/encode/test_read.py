# SPDX-License-Identifier: Apache-2.0
"""One reader: of a run's checkpoint, an imported encoder and a fine-tuned one, on the host or split over a mesh."""

import dataclasses
import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict

from mlm_jax import config as cfg
from mlm_jax import pretrained as pretrained_module
from mlm_jax.encode.read import read_pretrained
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Finetune, Task
from mlm_jax.finetune.models import save_model
from mlm_jax.mesh import make_mesh
from mlm_jax.model.encoder import parameter_shapes
from mlm_jax.pretrained import FinetunedHead, parameter_shardings, place
from mlm_jax.train.initial import read_initial, write_initial
from tests.corpora import make_workdir
from tests.encode.meshes import MESHES, buffers, shard_bytes, whole_bytes
from tests.finetune.toys import make_start


def same(a, b):
    one, two = flatten_dict(a, sep="/"), flatten_dict(b, sep="/")
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(two[name]), err_msg=name)


def random_like(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint that holds parameters and nothing else, and the parameters."""
    config = make_workdir(tmp_path / "run", {"de": 4, "en": 4}, model={"width": 64, "mlp_width": 128})
    (tmp_path / "run" / "config.json").write_text(cfg.config_to_json(config))
    params = random_like(parameter_shapes(config.model, 100, 2))
    manager = ocp.CheckpointManager(tmp_path / "run" / "checkpoints")
    identity = json.loads((tmp_path / "run" / "corpus" / "manifest.json").read_text())
    from mlm_jax import manifest

    prepared = manifest.read_manifest(tmp_path / "run" / "corpus")
    identity = {"manifest_sha256": prepared.sha256(), "vocabulary_sha256": prepared.vocabulary_sha256}
    saved = ocp.args.Composite(state=ocp.args.StandardSave({"params": params}), identity=ocp.args.JsonSave(identity))
    manager.save(7, args=saved)
    manager.close()
    return tmp_path / "run", params


def test_parameters_alone_are_read_from_a_checkpoint(run):
    """The optimizer's state is not asked for: this checkpoint has none."""
    workdir, params = run
    found = read_pretrained(workdir)
    assert (found.step, found.source, found.languages) == (7, f"{workdir} at step 7", ("de", "en"))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found.params))
    same(found.params, params)
    with pytest.raises(UserError, match="no checkpoint 8; there are best, last, 7"):
        read_pretrained(workdir, "8")
    with pytest.raises(UserError, match="nothing was fine-tuned there"):
        read_pretrained(workdir, model="a")


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("kind", ["checkpoint", "imported", "fine-tuned"])
def test_each_device_gets_its_share_of_the_parameters(run, tmp_path, mesh, kind):
    workdir, params = run
    here = make_mesh(MESHES[mesh])
    pretrained = read_pretrained(workdir)
    if kind != "checkpoint":
        (tmp_path / "other").mkdir()
        (workdir / "vocabulary").rename(tmp_path / "other" / "vocabulary")
        workdir = tmp_path / "other"
        write_initial(workdir, pretrained)
    if kind == "fine-tuned":
        config = Finetune(task=Task(kind="tag"))
        (workdir / "config.json").write_text(cfg.config_to_json(config))
        head = {"output_kernel": np.ones((64, 3), np.float32), "output_bias": np.ones(3, np.float32)}
        head["transitions"] = np.eye(4, dtype=np.float32)
        tuned = FinetunedHead(dataclasses.asdict(config.task), ("O", "B-X", "I-X"), head)
        save_model(workdir / "models" / "a", dataclasses.replace(pretrained, head=tuned))
        params = {name: params[name] for name in ("embedding", "layers")}
    device = jax.devices()[0]
    before = buffers(device)
    found = read_pretrained(workdir, mesh=here)
    added = {place: size for place, size in buffers(device).items() if place not in before}
    assert sum(added.values()) == shard_bytes((found.params, found.head and found.head.params))
    same(found.params, params)
    shardings = parameter_shardings(found.model, here)
    for name, leaf in flatten_dict(found.params, sep="/").items():
        assert leaf.sharding.is_equivalent_to(shardings[name], leaf.ndim), name
    if mesh != "data 8":
        # What is not split: positions, biases and norms.
        assert shard_bytes(found.params) < whole_bytes(params) / 6
    if kind == "fine-tuned":
        assert found.head.labels == ("O", "B-X", "I-X") and found.head.task["kind"] == "tag"
        same(found.head.params, head)
        kernel = found.head.params["output_kernel"]
        assert kernel.sharding.shard_shape(kernel.shape)[0] == 64 // here.shape["fsdp"]
        same(read_pretrained(workdir / "models" / "a").params, params)


@pytest.mark.parametrize("mesh", MESHES)
def test_what_is_written_from_a_mesh_is_what_was_there(tmp_path, mesh):
    start = read_initial(make_start(tmp_path / "run"))
    write_initial(tmp_path / "again", place(start, make_mesh(MESHES[mesh])))
    for name in ("initial.safetensors", "initial.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_a_mesh_that_does_not_divide_a_parameter_is_refused(tmp_path):
    start = read_initial(make_start(tmp_path / "run"))
    tree = {
        **start.params,
        "embedding": {**start.params["embedding"], "token_embedding": np.zeros((128, 36), np.float32)},
    }
    with pytest.raises(
        UserError, match=r"mesh: embedding/token_embedding of shape \[128, 36\] does not divide over fsdp 8"
    ):
        place(dataclasses.replace(start, params=tree), make_mesh(MESHES["fsdp 8"]))


def test_stacked_layers_come_to_the_host_one_at_a_time(tmp_path, monkeypatch):
    start = place(read_initial(make_start(tmp_path / "run")), make_mesh(MESHES["fsdp 8"]))
    gathered = []
    to_host = pretrained_module.to_host
    monkeypatch.setattr(pretrained_module, "to_host", lambda array: gathered.append(array.shape) or to_host(array))
    write_initial(tmp_path / "again", start)
    stacked = {leaf.shape for leaf in jax.tree.leaves(start.params["layers"])}
    assert stacked.isdisjoint(gathered) and {shape[1:] for shape in stacked} <= set(gathered)


def test_a_folder_without_an_encoder_is_refused(tmp_path):
    (tmp_path / "vocabulary").mkdir()
    with pytest.raises(UserError, match="no checkpoints and no imported encoder there"):
        read_pretrained(tmp_path)
