# SPDX-License-Identifier: Apache-2.0
"""MinHash against exact Jaccard similarity; clusters against a graph's components; one of each stays, whatever the order."""

import math
import random

import networkx
import numpy as np
import pytest

from mlm_jax.curate import spill
from mlm_jax.curate.document import Document
from mlm_jax.curate.groups import RECORD, make_records, order_of
from mlm_jax.curate.minhash import band_keys, chance, jaccard, shingles, signature
from mlm_jax.curate.near_duplicates import SIZE, document_records, find_clusters, find_links, sizes_of


def sets_of(similarity, size, draw):
    """Two sets of hashes whose similarity is the nearest that the sizes allow."""
    both = round(2 * size * similarity / (1 + similarity))
    values = draw.integers(0, 2**64, 2 * size, dtype=np.uint64)
    return values[:size], np.concatenate([values[:both], values[size : 2 * size - both]])


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_the_chance_of_sharing_a_band_is_the_published_one(similarity):
    draw = np.random.default_rng(1)
    pairs = 1500
    found, agreeing, exact = 0, 0, []
    for _ in range(pairs):
        a, b = sets_of(similarity, 150, draw)
        exact.append(jaccard(a, b))
        one, other = signature(a), signature(b)
        agreeing += (one == other).mean()
        found += (band_keys(one) == band_keys(other)).any()
    expected = np.mean([chance(s) for s in exact])
    assert abs(found / pairs - expected) < 4 * math.sqrt(expected * (1 - expected) / pairs) + 1e-3
    assert abs(agreeing / pairs - np.mean(exact)) < 4 * math.sqrt(0.25 / 112 / pairs)


def test_chance_by_arithmetic():
    assert chance(0.8) == pytest.approx(0.924, abs=5e-4) and chance(0.0) == 0 and chance(1.0) == 1


def sentence(draw, count):
    return [draw.randbytes(3).hex() + "w" for _ in range(count)]


def planted(pairs, low, high, seed=0):
    """Pairs of texts whose shingles' exact similarity is from low up to high: copies of which words are changed, as many as it takes."""
    draw = random.Random(seed)
    while pairs:
        words = sentence(draw, draw.randint(60, 400))
        target = draw.uniform(low, high)
        copy = list(words)
        # Each changed word changes five shingles of as many as there are words.
        for place in draw.sample(range(len(words)), max(1, round(len(words) * (1 - target) / (1 + target) / 5))):
            copy[place] = draw.randbytes(3).hex() + "v"
        pair = " ".join(words), " ".join(copy)
        if low <= jaccard(*map(shingles, pair)) < high:
            pairs -= 1
            yield pair


def run(documents, folder, parts=1, memory=1 << 22, wheres=None):
    wheres = range(len(documents)) if wheres is None else wheres
    runs = []
    for part in range(parts):
        mine = list(zip(documents, wheres, strict=True))[part::parts]
        batches = (document_records(d.text, d.language, order_of(d), where) for d, where in mine)
        runs += spill.write_runs(batches, folder / str(part), RECORD, memory)
    links = find_links(runs, folder / "links", memory)
    return sizes_of(np.array(wheres), spill.open_sorted(find_clusters(links, folder / "out", memory), SIZE))


def test_planted_near_duplicates_are_found_and_others_are_not(tmp_path):
    near = list(planted(1000, 0.80, 0.83))
    far = list(planted(1000, 0.25, 0.4, seed=1))
    documents = [Document(text, str(i)) for i, text in enumerate(text for pair in near + far for text in pair)]
    sizes = run(documents, tmp_path)
    found = (sizes[:2000].reshape(-1, 2).min(axis=1) == 0).mean()
    false = (sizes[2000:].reshape(-1, 2).min(axis=1) == 0).mean()
    assert found >= 0.92 and false <= 0.01


def test_what_stays_does_not_depend_on_order_split_or_memory(tmp_path):
    texts = [text for pair in planted(60, 0.6, 0.95) for text in pair]
    documents = [Document(text, str(i), language=random.Random(i).choice(["de", "en"])) for i, text in enumerate(texts)]
    documents += [Document(texts[0], f"copy{i}", language="en") for i in range(400)]
    expected = dict(zip([d.url for d in documents], run(documents, tmp_path / "a").tolist(), strict=True))
    for turn, parts in enumerate((1, 5)):
        draw = random.Random(turn)
        draw.shuffle(documents)
        wheres = sorted(draw.sample(range(2**40), len(documents)))
        sizes = run(documents, tmp_path / f"b{turn}", parts, 1, wheres)
        assert dict(zip([d.url for d in documents], sizes.tolist(), strict=True)) == expected
    assert max(expected.values()) >= 400 and sum(expected.values()) == len(documents)


def test_languages_do_not_meet(tmp_path):
    documents = [Document("the same text in two languages, it says", str(i), language=x) for i, x in enumerate("abb")]
    assert sorted(run(documents, tmp_path).tolist()) == [0, 1, 2]


def test_short_and_empty_texts(tmp_path):
    documents = [
        Document(text, str(i)) for i, text in enumerate(["two words", "Two  words!", "three words", "", "--", ""])
    ]
    sizes = run(documents, tmp_path)
    assert sorted(sizes[:2].tolist()) == [0, 2] and sizes[2:].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("memory", [1, 1 << 20])
def test_clusters_are_the_components_of_the_graph(tmp_path, seed, memory):
    draw = np.random.default_rng(seed)
    count, keys = 3000, int(draw.integers(500, 4000))
    batches, graph = [], networkx.Graph()
    orders = draw.permutation(count)
    for where in range(count):
        mine = draw.integers(0, keys, draw.integers(1, 3)).astype(np.uint64)
        batches.append(make_records(mine, int(orders[where]), where))
        graph.add_node(where)
        graph.add_edges_from((where, f"key{key}") for key in mine)
    expected = np.zeros(count, int)
    for component in networkx.connected_components(graph):
        members = [x for x in component if not isinstance(x, str)]
        expected[min(members, key=lambda where: orders[where])] = len(members)
    draw.shuffle(batches)
    runs = spill.write_runs(batches, tmp_path, RECORD, memory)
    links = find_links(runs, tmp_path / "links", memory)
    sizes = sizes_of(np.arange(count), spill.open_sorted(find_clusters(links, tmp_path / "out", memory), SIZE))
    assert (sizes == expected).all()
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["clusters"]
