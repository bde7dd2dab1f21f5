# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: in any folder, read back once, and never taken for damaged because something else is short."""

import errno
import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from mlm_jax.config import Config
from mlm_jax.errors import UserError
from mlm_jax.train import checkpoints as module
from mlm_jax.train.checkpoints import Checkpoints
from mlm_jax.train.state import State, empty_window
from mlm_jax.workdir import own_workdir


def state_of(step):
    params = {"layers": {"kernel": jnp.arange(12.0).reshape(3, 4) + step, "bias": jnp.ones(4)}}
    return State(jnp.asarray(step, jnp.int32), params, optax.adam(1.0).init(params), empty_window(["loss"]))


ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_of(0))


def save(folder, *steps):
    with Checkpoints(folder, {}, {}, best=()) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_of(step), None)


def restored(folder, **options):
    with Checkpoints(folder, {}, {}, best=(), **options) as checkpoints:
        state = checkpoints.restore(ABSTRACT)
    np.testing.assert_array_equal(
        state.params["layers"]["kernel"], state_of(int(state.step)).params["layers"]["kernel"]
    )
    return int(state.step)


@pytest.mark.parametrize("name", ["[2026] mlm", "a[x]b", "a*", "a?b", "[!a]", "a]b[", "{a}", "a#b %20"])
def test_a_folder_may_have_any_name(tmp_path, capsys, name):
    (tmp_path / "axb").mkdir()
    save(tmp_path / "axb" / "checkpoints", 1, 2)  # what a pattern would match
    folder = tmp_path / name / "checkpoints"
    save(folder, 2, 3)
    assert restored(folder) == 3
    with Checkpoints(folder, {}, {}, best=()) as checkpoints:
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), ABSTRACT.params)
        np.testing.assert_array_equal(checkpoints.restore_params(wanted, 3)["layers"]["kernel"][0, 0], 3)
    # Whoever moves it can read it.
    folder.parent.rename(tmp_path / "moved")
    assert restored(tmp_path / "moved" / "checkpoints") == 3
    assert capsys.readouterr().err == ""


def test_a_checkpoint_of_an_ordinary_folder_is_read_in_an_odd_one(tmp_path):
    save(tmp_path / "plain", 1, 2)
    (tmp_path / "plain").rename(tmp_path / "[odd]")
    assert restored(tmp_path / "[odd]") == 2
    save(tmp_path / "[odd]", 3)
    assert restored(tmp_path / "[odd]") == 3


def test_a_path_with_a_backslash_is_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"a path with a backslash, .*; use another --workdir"):
        own_workdir(Config(workdir=str(tmp_path / "a\\b" / "run")))
    assert not list(tmp_path.iterdir())


def loses_the_merge(monkeypatch):
    async def nothing(*_, **__):
        logging.getLogger("absl").warning("[process=0][thread=x] Skipping merge of OCDBT checkpoints: none there")

    monkeypatch.setattr("orbax.checkpoint._src.serialization.ocdbt_utils.merge_ocdbt_per_process_files", nothing)


def other_values(monkeypatch):
    real = ocp.args.StandardSave
    monkeypatch.setattr(ocp.args, "StandardSave", lambda tree: real(jax.tree.map(lambda x: x + 1, tree)))


def other_tensors(monkeypatch):
    real = ocp.args.StandardSave
    monkeypatch.setattr(ocp.args, "StandardSave", lambda tree: real({k: v for k, v in tree.items() if k != "window"}))


@pytest.mark.parametrize("fails", [loses_the_merge, other_values, other_tensors])
def test_the_first_checkpoint_is_read_back(tmp_path, monkeypatch, capsys, fails):
    fails(monkeypatch)
    with pytest.raises(UserError, match=r"/1: the first checkpoint was written and cannot be read back \([^\n]*$"):
        save(tmp_path / "run", 1)
    said = capsys.readouterr().err
    assert (fails is loses_the_merge) == (
        said == "warning: checkpoints: Skipping merge of OCDBT checkpoints: none there\n"
    )


def test_only_the_first_is_read_back(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(Checkpoints, "_compare", lambda self, step, state: compared.append(step))
    save(tmp_path / "run", 1, 2, 3)
    assert compared == [1]


NO_DAMAGE = {
    "memory": (MemoryError("Unable to allocate 3 TiB"), "memory does not suffice: free some"),
    "a device's memory": (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "memory does not suf"),
    **{
        errno.errorcode[code]: (OSError(code, os.strerror(code)), f"{os.strerror(code)}: {advice}")
        for code, advice in [*module.NO_DAMAGE.items(), (errno.ESTALE, "mend it")]
    },
    "of TensorStore": (
        ValueError(f"RESOURCE_EXHAUSTED: Error opening: file [os_error_code='{errno.EMFILE}']"),
        "Too many open files: let a process have more files open",
    ),
    "denied": (ValueError("PERMISSION_DENIED: Error reading"), "permission denied: mend"),
    "a store": (ValueError("UNAVAILABLE: Error reading"), "the store does not answer"),
}


@pytest.mark.parametrize("error", NO_DAMAGE.values(), ids=NO_DAMAGE)
def test_what_is_short_is_no_damage(tmp_path, monkeypatch, error):
    folder = tmp_path / "run" / "checkpoints"
    save(folder, 1, 2)
    there = sorted(tmp_path.rglob("*"))

    def fails(*_, **__):
        raise ValueError("cannot restore") from error[0]

    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), ABSTRACT.params)
    with monkeypatch.context() as patched, Checkpoints(folder, {}, {}, best=()) as checkpoints:
        patched.setattr(ocp.StandardCheckpointHandler, "restore", fails)
        patched.setattr(ocp.PyTreeCheckpointHandler, "restore", fails)
        for restore in (lambda: checkpoints.restore(ABSTRACT), lambda: checkpoints.restore_params(wanted, 2)):
            with pytest.raises(UserError, match=rf"/2: checkpoint is not read now \({error[1]}[^\n]*; nothing is lost"):
                restore()
    assert sorted(tmp_path.rglob("*")) == there
    assert restored(folder) == 2


def test_a_damaged_one_is_moved_aside_whatever_is_there(tmp_path, capsys):
    folder = tmp_path / "run" / "checkpoints"
    for found in ("unreadable_checkpoint_2", "unreadable_checkpoint_2_2", "unreadable_checkpoint_2_3"):
        save(folder, 1, 2)
        (folder / "2" / "state" / "manifest.ocdbt").write_bytes(b"damaged")
        assert restored(folder) == 1
        assert (folder.parent / found).is_dir()
        assert "2: checkpoint cannot be read" in capsys.readouterr().err
