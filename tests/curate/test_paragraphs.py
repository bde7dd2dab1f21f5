# SPDX-License-Identifier: Apache-2.0
"""Of each paragraph one copy stays, the same one for any order and split of the documents."""

import random
import tracemalloc

import pytest

from mlm_jax.curate import paragraphs, spill
from mlm_jax.curate.contamination import contaminating, read_evaluation
from mlm_jax.curate.document import Document
from mlm_jax.curate.filters import measure
from mlm_jax.curate.groups import RECORD, fullness, order_of
from mlm_jax.curate.minhash import shingles
from mlm_jax.curate.paragraphs import (
    WHERE,
    choose_paragraphs,
    count_lines,
    keep_paragraphs,
    paragraph_hashes,
    paragraph_records,
)


def deduplicate(documents, folder, parts=1, memory=1 << 20):
    """The texts that are left, by address."""
    wheres = list(count_lines(document.text for document in documents))
    runs = []
    for part in range(parts):
        mine = list(zip(documents, wheres, strict=True))[part::parts]
        batches = (paragraph_records(d.text, order_of(d), where) for d, where in mine)
        runs += spill.write_runs(batches, folder / str(part), RECORD, memory)
    chosen = spill.open_sorted(choose_paragraphs(runs, folder / "out", memory), WHERE)
    return {d.url: keep_paragraphs(d.text, where, chosen)[0] for d, where in zip(documents, wheres, strict=True)}


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Copyright 2024, ACME!", "copyright  1999 acme", True),
        ("Straße", "STRASSE", False),  # lower case is all that is done
        ("a b", "ab", False),
        ("a b", "b a", False),
        ("हिन्दी", "हन्दी", False),  # marks are not punctuation
        ("第一", "第二", False),
        ("page 7", "page 77", False),
    ],
)
def test_what_counts_as_the_same_paragraph(a, b, same):
    hashes, _ = paragraph_hashes(f"{a}\n{b}")
    assert (hashes[0] == hashes[1]) == same


def test_lines_without_words_are_never_copies():
    hashes, filled = paragraph_hashes("İx\n\n---\nb\n")
    assert filled.tolist() == [True, False, False, True, False]
    assert hashes[0] == paragraph_hashes("i\u0307x")[0][0]
    assert len(paragraph_hashes("")[0]) == 1 and not paragraph_hashes("")[1].any()
    assert not len(paragraph_records("\n--\n", 1, 5))


def test_long_texts_are_looked_at_in_parts(monkeypatch):
    text = "\n".join(["A line, 1.", "", "another line", "x" * 30, "--"] * 20)
    whole = [part.tolist() for part in paragraph_hashes(text)]
    monkeypatch.setattr(paragraphs, "LONGEST", 31)
    assert [part.tolist() for part in paragraph_hashes(text)] == whole
    hashes, _ = paragraph_hashes("b" * 31 + "1\n" + "b" * 31 + "2\n" + "b" * 30 + "cd")
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_line_of_any_length_takes_little_memory():
    text = "word " * 4_000_000
    tracemalloc.start()
    (
        paragraph_records(text, 1, 0),
        shingles(text),
        measure(text),
        contaminating(text, read_evaluation({"a": ["b " * 13]})),
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6, peak  # a part takes 100; the whole would take 2 GB


def test_by_hand(tmp_path):
    documents = [Document("Menu\nOne text.\n\nFooter 1", "a"), Document("menu\nOther text.\nFooter 2\nFooter 3", "b")]
    left = deduplicate(documents, tmp_path)
    first, second = sorted(documents, key=order_of)
    assert left[first.url] == first.text if first.url == "a" else "menu\nOther text.\nFooter 2"
    assert left[second.url] == ("One text." if second.url == "a" else "Other text.")


def random_corpus(seed, count=60):
    draw = random.Random(seed)
    lines = ["line " + "".join(draw.choices("abcdefgh", k=5)) for _ in range(40)] + ["", "--"]
    made = [Document("\n".join(draw.choices(lines, k=draw.randint(1, 8))), f"url{i}") for i in range(count)]
    return made


@pytest.mark.parametrize("seed", range(3))
def test_every_paragraph_stays_once_whatever_the_order_and_the_split(tmp_path, seed):
    documents = random_corpus(seed)
    left = deduplicate(documents, tmp_path / "a")
    lines = [line for text in left.values() for line in text.split("\n") if line.strip("-")]
    assert len(lines) == len(set(lines))
    assert set(lines) == {line for d in documents for line in d.text.split("\n") if line.strip("-")}
    for turn, parts in enumerate((2, 7)):
        random.Random(turn).shuffle(documents)
        assert deduplicate(documents, tmp_path / f"b{turn}", parts, memory=1) == left


def test_of_equal_documents_one_stays_whole(tmp_path):
    documents = [Document("one\ntwo\nthree", "same")] * 3
    wheres = list(count_lines(d.text for d in documents))
    runs = spill.write_runs(
        [paragraph_records(d.text, order_of(d), w) for d, w in zip(documents, wheres, strict=True)], tmp_path, RECORD
    )
    chosen = spill.open_sorted(choose_paragraphs(runs, tmp_path), WHERE)
    left = [keep_paragraphs(d.text, w, chosen) for d, w in zip(documents, wheres, strict=True)]
    assert left == [("one\ntwo\nthree", 0), ("", 3), ("", 3)]


def test_order_is_of_all_that_a_document_is_and_of_quality_first():
    document = Document("text", "url")
    others = [
        Document("text", "url2"),
        Document("text2", "url"),
        Document("texturl", ""),
        Document("text", "url", "2020"),
    ]
    assert len({order_of(d) for d in (document, *others)}) == 5
    assert all(order_of(d, 1.0) < order_of(e, 0.5) < order_of(d, 0.0) < 2**64 for d in others for e in others)


def test_what_two_pages_have_stays_where_the_most_is_beside_it():
    page, scrap = Document("shared\n" + "text " * 300, "b"), Document("shared\nfew", "a")
    assert order_of(page, fullness(page)) < order_of(scrap, fullness(scrap))
    assert 0 <= fullness(Document("")) <= fullness(Document("x" * 20_000_000)) <= 1
