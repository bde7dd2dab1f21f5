# SPDX-License-Identifier: Apache-2.0
"""Of documents that are nearly the same one stays, with the number of those it stands for.

Documents that share a MinHash band are of one cluster, and so are those that they share one with. The size of the cluster stays with the document
that is kept, as FineWeb-2 upsamples by it.

    a record per band of each document  →  sorted by key (spill)  →  links  →  union-find on disk  →  per document: its cluster's size, or 0: it goes
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mlm_jax.curate import spill
from mlm_jax.curate.groups import RECORD, make_records, with_heads
from mlm_jax.curate.minhash import BANDS, ROWS, band_keys, shingles, signature
from mlm_jax.curate.spill import MEMORY, Records

LINK = np.dtype([(name, np.uint64) for name in ("one", "other", "order_of_one", "order_of_other")])
NODE = np.dtype([("where", np.uint64), ("order", np.uint64)])
SIZE = np.dtype([("where", np.uint64), ("size", np.uint64)])
_CHUNK = 1 << 16


def document_records(text: str, language: str, order: int, where: int, bands: int = BANDS, rows: int = ROWS) -> Records:
    """A record per band; none for a text without words.

    Args:
      order: the document's (`groups.order_of`).
      where: its number in the corpus.
    """
    found = shingles(text)
    if not len(found):
        return np.empty(0, RECORD)
    return make_records(band_keys(signature(found, bands * rows), language, bands), order, where)


def find_links(runs: Sequence[Path], folder: Path, memory: int = MEMORY) -> list[Path]:
    """From the first of each group of records that share a key to its others.

    Args:
      runs: of records, as `spill.write_runs` wrote them: of all keys, or of a range of them.

    Returns:
      Sorted runs of links (dtype `LINK`), each once.
    """

    def make() -> Iterator[Records]:
        for chunk, heads, is_head in with_heads(spill.merge(runs, RECORD, memory)):
            linked = ~is_head & (chunk["where"] != heads["where"])
            links = np.empty(int(linked.sum()), LINK)
            links["one"], links["other"] = heads["where"][linked], chunk["where"][linked]
            links["order_of_one"], links["order_of_other"] = heads["order"][linked], chunk["order"][linked]
            yield links

    return spill.write_runs(make(), folder, LINK, memory, once=True)


def find_clusters(links: Sequence[Path], folder: Path, memory: int = MEMORY) -> Path:
    """The clusters of documents that are linked.

    Args:
      links: sorted runs, of `find_links` for every range of keys.

    Returns:
      A file (dtype `SIZE`, sorted by where) of the documents that share a key with another: the cluster's size where a document stays, 0 where it goes.
    """
    nodes = _nodes(links, folder, memory)
    parents = _union(links, nodes, folder / "parents", memory)
    path = _sizes(nodes, parents, folder, memory)
    (folder / "nodes").unlink()
    return path


def sizes_of(where: np.ndarray, clusters: Records) -> np.ndarray:
    """The cluster sizes of documents, 0 where one goes, 1 where it is alone; int64 [documents].

    Args:
      clusters: `spill.open_sorted` of what `find_clusters` wrote.
    """
    where = np.asarray(where, np.uint64)
    if not len(clusters):
        return np.ones(len(where), np.int64)
    at = np.minimum(np.searchsorted(clusters["where"], where), len(clusters) - 1)
    return np.where(clusters["where"][at] == where, clusters["size"][at], 1).astype(np.int64)


def _nodes(links: Sequence[Path], folder: Path, memory: int) -> Records:
    """All that are linked with their order, sorted by where."""

    def ends() -> Iterator[Records]:
        for chunk in spill.merge_distinct(links, LINK, memory):
            for where, order in (("one", "order_of_one"), ("other", "order_of_other")):
                part = np.empty(len(chunk), NODE)
                part["where"], part["order"] = chunk[where], chunk[order]
                yield part

    written = spill.write_runs(ends(), folder / "ends", NODE, memory, once=True)
    spill.write_sorted(spill.merge_distinct(written, NODE, memory), folder / "nodes")
    for run in written:
        run.unlink()
    return spill.open_sorted(folder / "nodes", NODE)


def _union(links: Sequence[Path], nodes: Records, path: Path, memory: int) -> np.ndarray:
    """The number of each node's cluster: the least number of a node in it; int64 [nodes], on disk."""
    if not len(nodes):
        return np.zeros(0, np.int64)
    parents = np.memmap(path, np.int64, "w+", shape=(len(nodes),))
    for at in range(0, len(nodes), _CHUNK):
        parents[at : at + _CHUNK] = np.arange(at, min(at + _CHUNK, len(nodes)))

    def root(i: int) -> int:
        while (up := int(parents[i])) != i:
            parents[i] = parents[up]  # halve the way for those who come later
            i = up
        return i

    for chunk in spill.merge_distinct(links, LINK, memory):
        ones = np.searchsorted(nodes["where"], chunk["one"])
        others = np.searchsorted(nodes["where"], chunk["other"])
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            one, other = root(one), root(other)
            if one != other:
                parents[max(one, other)] = min(one, other)
    for at in range(0, len(nodes), _CHUNK):  # parents have lower numbers: what lies before is final
        part = parents[parents[at : at + _CHUNK]]
        while (parents[part] != part).any():
            part = parents[part]
        parents[at : at + _CHUNK] = part
    return parents


def _sizes(nodes: Records, parents: np.ndarray, folder: Path, memory: int) -> Path:
    def members() -> Iterator[Records]:
        for at in range(0, len(nodes), _CHUNK):
            part = np.empty(len(nodes[at : at + _CHUNK]), RECORD)
            part["key"] = parents[at : at + _CHUNK]
            part["order"], part["where"] = nodes["order"][at : at + _CHUNK], nodes["where"][at : at + _CHUNK]
            yield part

    by_cluster = spill.write_runs(members(), folder / "members", RECORD, memory)
    by_where = spill.write_runs(_count(spill.merge(by_cluster, RECORD, memory)), folder / "counted", SIZE, memory)
    path = folder / "clusters"
    spill.write_sorted(spill.merge(by_where, SIZE, memory), path)
    for run in (*by_cluster, *by_where):
        run.unlink()
    (folder / "parents").unlink(missing_ok=True)
    return path


def _count(chunks: Iterable[Records]) -> Iterator[Records]:
    """The first of each cluster with the number of its members, the others with 0. A cluster's size is known once it ends."""
    open_where, open_size = None, 0
    for chunk, _, is_head in with_heads(chunks):
        starts = np.flatnonzero(is_head)
        sizes = np.empty(len(chunk), SIZE)
        sizes["where"], sizes["size"] = chunk["where"], 0
        sizes["size"][starts] = np.diff(np.append(starts, len(chunk)))
        until = int(starts[0]) if len(starts) else len(chunk)
        if open_where is not None:
            open_size += until
        if not len(starts):
            yield sizes
            continue
        if open_where is not None:
            yield np.array([(open_where, open_size)], SIZE)
        last = int(starts[-1])  # it may go on in the next chunk
        open_where, open_size = chunk["where"][last], len(chunk) - last
        yield np.delete(sizes, last)
    if open_where is not None:
        yield np.array([(open_where, open_size)], SIZE)
