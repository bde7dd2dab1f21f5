# SPDX-License-Identifier: Apache-2.0
"""Sources: a kind of source is one entry, whose slices and documents the rest takes as they come."""

import pytest

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.prepare import sources
from mlm_jax.prepare.slices import Slice, SourceKind


def test_a_kind_of_source_is_one_entry(monkeypatch):
    toy = SourceKind(
        slices=lambda source, data: [Slice(source, "both", (source.path,), index=i, count=2) for i in range(2)],
        documents=lambda part: iter([[f"{part.source.language} {part.index}"]]),
        languages=lambda: ["sw", "de"],
    )
    monkeypatch.setitem(sources.KINDS, "toy", toy)
    slices = sources.language_slices(cfg.Data(sources=(cfg.Source("*", "toy:text"),)))
    assert list(slices) == ["de", "sw"] and str(slices["de"][1]) == "toy:text shard 1 of 2"
    assert [batch for part in slices["sw"] for batch in sources.read_documents(part)] == [["sw 0"], ["sw 1"]]
    assert slices["de"][0].fingerprint() != slices["de"][1].fingerprint()
    with pytest.raises(UserError, match="toy:text: sentence pairs are not read from this kind of source"):
        sources.pair_slices(cfg.Data(parallel=(cfg.Parallel(("de", "sw"), ("toy:text",)),)))
    assert cfg.text_files(cfg.Data(sources=(cfg.Source("de", "toy:text"), cfg.Source("sw", "gs://text/sw.txt")))) == [
        "gs://text/sw.txt"
    ]
