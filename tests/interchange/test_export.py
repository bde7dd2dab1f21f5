# SPDX-License-Identifier: Apache-2.0
"""Export from a mesh: the same files, each device with its share of the parameters and the host with one tensor."""

import dataclasses
import json
import re
import shlex
import weakref

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save
from tokenizers import normalizers

from mlm_jax import cli
from mlm_jax.finetune.config import Task
from mlm_jax.interchange import folder as folders
from mlm_jax.interchange import tensors
from mlm_jax.interchange.folder import write_folder
from mlm_jax.interchange.workdir import untrained
from mlm_jax.mesh import make_mesh
from mlm_jax.pretrained import FinetunedHead, Pretrained, place
from mlm_jax.train.initial import read_initial, write_initial
from tests.encode.meshes import MESHES, buffers, shard_bytes, whole_bytes
from tests.finetune.toys import MODEL, make_start
from tests.interchange.test_folder import ENCODERS, LANGUAGES, WORDS, random_params, small

PLAIN = dataclasses.replace(MODEL, head="transform")


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "xlm-roberta-xl", "xlm", "modernbert"])
@pytest.mark.parametrize("mesh", MESHES)
def test_what_is_exported_from_a_mesh_is_what_one_host_exports(tmp_path, family, mesh):
    model = dataclasses.replace(small(ENCODERS[family]), width=32, heads=4, mlp_width=128)
    pretrained = Pretrained(model, random_params(model), WORDS, LANGUAGES, "random")
    write_folder(tmp_path / "one", pretrained)
    write_folder(tmp_path / "mesh", place(pretrained, make_mesh(MESHES[mesh])))
    one, many = (tmp_path / name / "model.safetensors" for name in ("one", "mesh"))
    assert one.read_bytes() == many.read_bytes()
    # Byte for byte what the library makes of all tensors at once.
    assert one.read_bytes() == save(load_file(one), metadata={"format": "pt"})


def test_a_device_holds_its_share_and_the_host_one_tensor(tmp_path, monkeypatch):
    """Peak memory of exporting under fsdp 8, by the arrays' shardings and what is gathered when."""
    model = dataclasses.replace(small(ENCODERS["xlm-roberta"]), layers=4, width=64, heads=4, mlp_width=256)
    mesh = make_mesh(MESHES["fsdp 8"])
    params = random_params(model)
    head = {"output_kernel": np.ones((64, 8), np.float32), "output_bias": np.ones(8, np.float32)}
    tuned = FinetunedHead(dataclasses.asdict(Task(kind="tag")), tuple("abcdefgh"), head)
    model = dataclasses.replace(model, head="none")
    params = {name: params[name] for name in ("embedding", "layers")}
    device = jax.devices()[0]
    before = buffers(device)
    pretrained = place(Pretrained(model, params, WORDS, LANGUAGES, "random", head=tuned), mesh)

    # A device has an eighth of what is split, and what is not: positions, norms and biases.
    share = shard_bytes((pretrained.params, pretrained.head.params))
    copied = sum(
        leaf.nbytes for leaf in jax.tree.leaves((pretrained.params, pretrained.head.params)) if leaf.is_fully_replicated
    )
    assert share == copied + (whole_bytes((params, head)) - copied) // 8
    largest = max(leaf.nbytes for leaf in jax.tree.leaves(params["embedding"]))
    layer = max(leaf.nbytes // 4 for leaf in jax.tree.leaves(params["layers"]))

    alive, on_host, on_device = weakref.WeakValueDictionary(), [], []
    to_host = tensors.to_host

    def watched(array):
        gathered = to_host(array)
        if not isinstance(array, np.ndarray):
            alive[id(gathered)] = gathered
        on_host.append(sum(a.nbytes for a in alive.values()))
        on_device.append(sum(size for place, size in buffers(device).items() if place not in before))
        return gathered

    for module in (tensors, folders):
        monkeypatch.setattr(module, "to_host", watched)
    write_folder(tmp_path / "out", pretrained)
    assert len(on_host) > 4 * 16
    assert max(on_host) <= max(largest, layer) + whole_bytes(head)  # the head is small, and gathered whole
    # Beside its share a device has its part of the tensor that is being gathered, and a copy of it.
    assert max(on_device) <= share + 2 * max(largest, layer) // 8 + 2 * copied
    assert max(on_device) < whole_bytes(params) / 2


@pytest.mark.parametrize(
    "options", [(), ("--mesh.fsdp", "8"), ("--mesh.data", "2", "--mesh.tensor", "2", "--mesh.fsdp", "2")]
)
def test_the_commands_take_a_mesh(tmp_path, options, capsys):
    start = make_start(tmp_path / "run", PLAIN)
    assert cli.main(["export", str(start), str(tmp_path / "out")]) == 0
    assert cli.main(["import", str(start), str(tmp_path / "copy"), *options]) == 0
    assert cli.main(["export", str(tmp_path / "copy"), str(tmp_path / "again"), *options]) == 0
    one, two = (tmp_path / name / "model.safetensors" for name in ("out", "again"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mesh.fsdp", "3"), "mesh: data -1, fsdp 3, tensor 1 do not multiply to the 8 devices"),
        (("--mesh.fsdp", "two"), "--mesh.fsdp: two is not a number"),
        (("--mesh.fsdp", "-1"), "at most one of them -1"),
        (("--mesh.fsd", "2"), "did you mean --mesh.fsdp?"),
    ],
)
def test_a_mesh_that_cannot_be_is_one_line(tmp_path, options, said, capsys):
    start = make_start(tmp_path / "run", PLAIN)
    assert cli.main(["export", str(start), str(tmp_path / "out"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_was_not_trained_is_said_and_the_tokenizers_length_is_the_trained_one(tmp_path, capsys):
    start = make_start(tmp_path / "run", PLAIN)
    found = read_initial(start)
    write_initial(start, dataclasses.replace(found, trained=16))
    assert cli.main(["export", str(start), str(tmp_path / "out")]) == 0
    assert "positions 16 to 63 were never trained" in " ".join(capsys.readouterr())
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 16
    # It goes with the encoder.
    assert cli.main(["import", str(start), str(tmp_path / "copy")]) == 0
    assert read_initial(tmp_path / "copy").trained == 16
    write_initial(start, dataclasses.replace(found, trained=64))
    assert untrained(start, read_initial(start)) == []


def test_parts_that_a_runs_own_updates_made_are_said(tmp_path):
    start = make_start(tmp_path / "run")  # an encoder without an output layer
    found = read_initial(start)
    head = {"head": {"output_bias": np.zeros(128, np.float32)}}
    trained = dataclasses.replace(found, params=found.params | head, step=30)
    assert untrained(start, trained) == [
        f"the output layer (head) is new: {start} had none, and 30 updates of this run made it"
    ]
    assert untrained(start, dataclasses.replace(found, step=30)) == []


def test_a_tokenizer_that_differs_is_exported_where_that_is_asked_for(tmp_path, monkeypatch, capsys):
    start = make_start(tmp_path / "run", PLAIN)
    monkeypatch.setattr("mlm_jax.interchange.sentencepiece_json._normalizers", lambda *_: [normalizers.Lowercase()])
    assert cli.main(["export", str(start), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert re.search(r"cuts the line '.*' otherwise .*\d+ of [\d,]+ lines differ; nothing was exported", said)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial"))
    option = said.strip().split(" or, if so few do not matter, ")[1].split()
    assert cli.main(["export", str(start), str(tmp_path / "out"), *option]) == 0
    assert "lines differ" in " ".join(capsys.readouterr())
    assert cli.main(["export", str(start), str(tmp_path / "more"), "--differing", "few"]) == 2


def test_a_hugging_face_folder_is_called_that_and_how_to_go_on_works(tmp_path, capsys):
    start = make_start(tmp_path / "run", PLAIN)
    out = tmp_path / "a folder"
    assert cli.main(["export", str(start), str(out)]) == 0
    capsys.readouterr()
    assert cli.main(["export", str(out), str(tmp_path / "again")]) == 2
    said = capsys.readouterr().err
    assert "a Hugging Face folder already (xlm-roberta)" in said and said.count("\n") == 1
    advice = shlex.split(said.strip().split("run: mlm-jax ")[1].replace("RUN", str(tmp_path / "new")))
    assert cli.main(advice) == 0
