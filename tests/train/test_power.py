# SPDX-License-Identifier: Apache-2.0
"""What a power cut leaves of checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlm_jax.train.checkpoints import Checkpoints
from mlm_jax.train.state import State
from tests.power import Disk


def test_a_power_cut_while_saving_leaves_a_checkpoint_that_can_be_read(tmp_path):
    def state(step):
        return State(jnp.int32(step), {"a": jnp.full(3, 1.0 * step)}, (optax.EmptyState(),), {"x": jnp.zeros(())})

    folder = tmp_path / "run"
    with Checkpoints(folder / "checkpoints", {"manifest_sha256": "0"}, {}, keep_last=1) as checkpoints:
        checkpoints.save(1, state(1), {"macro_loss": 2.0})
        checkpoints.wait()
        with Disk(folder) as disk:
            checkpoints.save(2, state(2), {"macro_loss": 1.0})
            checkpoints.wait()
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state(0))
    # Many images are of one checkpoint before, and a new one that is not committed.
    distinct = {frozenset(name for name in image if "orbax-checkpoint-tmp" not in name): image for image in disk.images}
    assert len(distinct) > 1
    found = []
    for number, image in enumerate(distinct.values()):
        again = tmp_path / f"again{number}"
        for name, content in image.items():
            (again / name).parent.mkdir(parents=True, exist_ok=True)
            (again / name).write_bytes(content)
        with Checkpoints(again / "checkpoints", {"manifest_sha256": "0"}, {}) as checkpoints:
            step = checkpoints.latest()
            restored = checkpoints.restore(abstract, step)
            assert checkpoints.choose("best") == step
        np.testing.assert_array_equal(restored.params["a"], np.full(3, step))
        found.append(step)
    assert set(found) == {1, 2} and found[-1] == 2
