# SPDX-License-Identifier: Apache-2.0
"""The manifest: read back as written, refused when it cannot be understood."""

import dataclasses
import json

import pytest

from mlm_jax import manifest
from mlm_jax.errors import UserError
from tests.corpora import make_corpus


def test_round_trip_and_identity(tmp_path):
    made = make_corpus(tmp_path, {"en": 4, "sw": 2})
    assert manifest.read_manifest(tmp_path) == made
    assert dataclasses.replace(made, tools={"x": "1"}).sha256() == made.sha256()
    assert dataclasses.replace(made, sequence_length=9).sha256() != made.sha256()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"schema": manifest.SCHEMA + 1}, "is newer than the .* that this mlm_jax reads; upgrade"),
        (lambda m: {k: v for k, v in m.items() if k != "streams"}, "damaged"),
        (lambda m: {k: v for k, v in m.items() if k != "schema"}, "lacks schema"),
        (lambda m: [], "a list is not an object.; delete it and run: mlm-jax prepare"),
    ],
)
def test_what_cannot_be_understood_is_refused(tmp_path, change, message):
    make_corpus(tmp_path, {"en": 4})
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message) as caught:
        manifest.read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_manifest_and_half_a_manifest(tmp_path):
    with pytest.raises(UserError, match="no manifest, so the corpus is not prepared"):
        manifest.read_manifest(tmp_path)
    make_corpus(tmp_path, {"en": 4})
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(UserError, match="not JSON"):
        manifest.read_manifest(tmp_path)
