# SPDX-License-Identifier: Apache-2.0
"""Safetensors files a tensor at a time: the library's bytes, and what is damaged is refused."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from mlm_jax.errors import UserError
from mlm_jax.tensor_files import read_tensors, write_tensors

TENSORS = {
    "layers/mlp/in_kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "embedding": np.ones((3, 5), np.float32),
    "é": np.zeros((0, 2), np.float32),
    "a": np.asarray(7, np.float32),
}
SHAPES = {name: tensor.shape for name, tensor in TENSORS.items()}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_bytes_are_those_of_the_library(tmp_path, metadata):
    def parts(name):
        tensor = TENSORS[name]
        return [tensor] if tensor.ndim < 3 else [tensor[:1], tensor[1:]]

    write_tensors(tmp_path / "x.safetensors", SHAPES, parts, metadata)
    assert (tmp_path / "x.safetensors").read_bytes() == save(TENSORS, metadata=metadata)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    back = dict(read_tensors(tmp_path / "x.safetensors"))
    assert back.keys() == load_file(tmp_path / "x.safetensors").keys()
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_tensors_are_made_one_after_another(tmp_path):
    asked = []
    write_tensors(tmp_path / "x", SHAPES, lambda name: asked.append(name) or [TENSORS[name]])
    assert asked == sorted(SHAPES)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(TENSORS)[:-60])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        list(read_tensors(path))
    path.write_bytes(save({"a": np.ones(3, np.float16)}))
    with pytest.raises(UserError, match="a is of F16"):
        list(read_tensors(path))
    path.write_bytes(b"no")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        list(read_tensors(path))
