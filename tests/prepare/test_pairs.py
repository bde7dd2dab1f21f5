# SPDX-License-Identifier: Apache-2.0
"""Pairs of texts for contrastive learning: what is read of which files, and what is refused with its line."""

import dataclasses
import itertools
import json

import pytest
import sentencepiece

from mlm_jax import config as cfg
from mlm_jax import manifest, sampling
from mlm_jax.errors import UserError
from mlm_jax.prepare import sources
from mlm_jax.prepare.audit import audit
from mlm_jax.prepare.run import prepare_corpus
from mlm_jax.records import decode_block, index_path, unframe


def read(tmp_path, *paths, **options):
    parallel = cfg.Parallel(("en", "de"), tuple(str(tmp_path / path) for path in paths), **options)
    data = cfg.Data(parallel=(parallel,), packing="pairs")
    (found,) = sources.pair_slices(data).values()
    return [pair for text in found for batch in sources.read_pairs(text) for pair in batch]


def test_hard_negatives_stand_in_further_columns_and_fields(tmp_path):
    (tmp_path / "a.tsv").write_text("1\tHello\tHallo\tTschüss\n2\tGood day\tGuten Tag\t\n")
    wanted = [("Hello", "Hallo", "Tschüss"), ("Good day", "Guten Tag", "")]
    assert read(tmp_path, "a.tsv", columns=(2, 3, 4)) == wanted
    rows = [dict(zip(("anchor", "positive", "negative"), pair, strict=True)) for pair in wanted]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(tmp_path, "a.jsonl", fields=("anchor", "positive", "negative")) == wanted
    assert read(tmp_path, "a.jsonl") == [pair[:2] for pair in wanted]


def test_a_pair_with_an_empty_side_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.tsv").write_text("Hello\tHallo\nGood day\t \n")
    (tmp_path / "a.csv").write_text('Hello,Hallo\n"",Guten Tag\n')
    (tmp_path / "a.jsonl").write_text('{"en": "Hello", "de": "Hallo"}\n{"en": "Good day", "de": null}\n')
    (tmp_path / "a.en").write_text("Hello\n\n")
    (tmp_path / "a.de").write_text("Hallo\nGuten Tag\n")
    for paths, where, which, options in (
        (["a.tsv"], "a.tsv:2", "second", {"columns": (1, 2)}),
        (["a.csv"], "a.csv:2", "first", {"columns": (1, 2)}),
        (["a.jsonl"], "a.jsonl:2", "second", {}),
        (["a.en", "a.de"], "a.en:2", "first", {}),
    ):
        with pytest.raises(UserError) as refused:
            read(tmp_path, *paths, **options)
        assert str(refused.value) == (
            f"{tmp_path / where}: the {which} text of the pair is empty; give it some, or remove the row"
        )


def test_blocks_hold_prefixed_pairs_in_segments_of_their_own(tmp_path):
    text = [f"{a}{b} stands here" for a in "abcdef" for b in "klmnopqrst"]
    pairs = [f"{x}\t{x[::-1]}\t{'no ' + x if i % 2 else ''}" for i, x in enumerate(text)]
    (tmp_path / "pairs.tsv").write_text("\n".join(pairs) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*text, *(x[::-1] for x in text), "query: no passage: "] * 2),
        model_prefix=str(tmp_path / "words"), vocab_size=90, hard_vocab_limit=False, character_coverage=1.0, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=3, control_symbols=["<mask>"],
    )  # fmt: skip
    parallel = cfg.Parallel(("en", "en"), (str(tmp_path / "pairs.tsv"),), (1, 2, 3), prefixes=("query: ", "passage: "))
    data = cfg.Data(parallel=(parallel,), packing="pairs", sequence_length=192, pairs_per_block=2, workers=1)
    config = cfg.Config(
        workdir=str(tmp_path / "run"),
        data=data,
        vocabulary=cfg.Vocabulary(path=str(tmp_path / "words.model")),
        objective=cfg.Objective(learn="contrastive"),
    )
    cfg.validate_pretraining(config)
    made = prepare_corpus(config)
    (stream,) = made.streams
    assert (stream.name, stream.languages, made.packing) == ("en-en", ("en", "en"), "pairs")
    assert [r["rates"] for r in sampling.sampling_table(config, made.streams)] == [[1.0]]
    audit(config)

    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "words.model"))
    (shard,) = stream.train.shards
    path = tmp_path / "run" / "corpus" / shard.file
    content, offsets = path.read_bytes(), memoryview((tmp_path / index_path(str(path))).read_bytes()).cast("Q")
    seen = 0
    for start, end in itertools.pairwise(offsets):
        block = decode_block(unframe(content[start:end]))
        spans, begin = {}, 0
        for length, segment in zip(block["span_lengths"], block["span_segments"], strict=True):
            spans[int(segment)] = processor.decode(block["tokens"][begin : begin + length].tolist())
            begin += length
        for pair in {(segment - 1) // 3 for segment in spans}:
            first, second = (spans[pair * 3 + side].split(": ", 1) for side in (1, 2))
            assert first[0] == "query" and second == ["passage", first[1][::-1]]
            negative = spans.get(pair * 3 + 3)
            assert negative in (None, f"passage: no {first[1]}") and bool(negative) == bool(text.index(first[1]) % 2)
            seen += 1
    assert seen == stream.train.documents and stream.train.documents + stream.validation.documents == 60
    # Another way to cut them is another corpus.
    other = dataclasses.replace(
        config, workdir=str(tmp_path / "other"), data=dataclasses.replace(data, pairs_per_block=1)
    )
    assert prepare_corpus(other).sha256() != manifest.read_manifest(tmp_path / "run" / "corpus").sha256()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"packing": "segments"}}, "objective.learn: contrastive, but data.packing is segments; set it to pairs"),
        ({"objective": {"learn": "language_model"}}, "data.packing: pairs, from which no language model is learned"),
        ({"data": {"parallel": ()}}, "data.packing: pairs, but data.parallel is empty"),
        ({"contrastive": {"temperature": 0.0}}, "contrastive.temperature: 0.0 is not above 0"),
        ({"contrastive": {"matryoshka": (64, 768)}}, "contrastive.matryoshka: 768 is not within 1 to 767"),
        ({"data": {"sequence_length": 8, "parallel": (cfg.Parallel(("a", "b"), ("c",), (1, 2, 3)),)}}, "no room for the 3"),
        ({"data": {"parallel": (cfg.Parallel(("a", "b"), ("c",), (1,)),)}}, "columns: (1,); name two or more of them"),
        ({"model": {"causal": True}}, "model.causal: a text's vector needs an encoder that looks both ways"),
    ],
)  # fmt: skip
def test_configs_that_cannot_work_are_refused(changes, said):
    config = cfg.Config(
        data=cfg.Data(parallel=(cfg.Parallel(("en", "de"), ("pairs.tsv",)),), packing="pairs"),
        objective=cfg.Objective(learn="contrastive"),
    )
    cfg.validate_pretraining(config)
    with pytest.raises(UserError) as refused:
        cfg.validate_pretraining(cfg.with_sections(config, **changes))
    assert said in str(refused.value)
