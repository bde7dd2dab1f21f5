# SPDX-License-Identifier: Apache-2.0
"""Preparation as a whole: from files to a corpus that training and plain SeqIO read."""

import dataclasses
import errno
import gzip
import itertools
import json
import lzma
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zstandard

from mlm_jax import config as cfg
from mlm_jax import manifest, records, tokenizers, vocabulary
from mlm_jax.errors import UserError
from mlm_jax.files import PASSING, is_aside
from mlm_jax.input.blocks import Blocks
from mlm_jax.prepare import check, pool, sample, shard, sources
from mlm_jax.prepare.audit import audit
from mlm_jax.prepare.held_out import HeldOut, is_held_out, streams_of
from mlm_jax.prepare.run import prepare_corpus
from mlm_jax.prepare.slices import Slice
from mlm_jax.prepare.vocabulary import draw_sample
from tests.power import Disk

WORDS = ["river", "stone", "light", "maji", "nyumba", "barua", "ведро", "окно", "सूरज", "नदी", "house", "tree"]


def write_text(folder, sizes):
    folder.mkdir(exist_ok=True)
    for seed, (language, count) in enumerate(sizes.items()):
        rng = random.Random(seed)
        lines = [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) for _ in range(count)]
        (folder / f"{language}.txt").write_text("\n".join(lines) + "\n")


def make_config(folder, **data):
    return cfg.Config(
        workdir=str(folder / "run"),
        data=cfg.Data(
            **{
                "sources": (cfg.Source("*", f"{folder}/text/{{language}}.txt"),),
                "sequence_length": 32,
                "validation_fraction": 0.1,
                "workers": 1,
            }
            | data
        ),
        vocabulary=cfg.Vocabulary(size=330, model="bpe", sample_bytes=50_000),
        train=cfg.Train(steps=10, batch_size=8),
    )


def test_each_length_is_the_corpus_that_a_run_of_that_length_alone_has(prepared, tmp_path):
    config, _ = prepared
    shutil.copytree(Path(config.workdir) / "vocabulary", tmp_path / "vocabulary")
    phases = cfg.Train(phases=(cfg.Phase(5, sequence_length=48), cfg.Phase(7, sequence_length=32)))
    several = dataclasses.replace(config, workdir=str(tmp_path), train=phases)
    assert prepare_corpus(several).sha256() == manifest.read_manifest(Path(config.workdir) / "corpus").sha256()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "corpus_48", "vocabulary"]
    made = manifest.read_manifest(tmp_path / "corpus_48")
    alone = dataclasses.replace(config, data=dataclasses.replace(config.data, sequence_length=48))
    shutil.copytree(tmp_path / "vocabulary", tmp_path / "alone" / "vocabulary")
    assert made.sha256() == prepare_corpus(dataclasses.replace(alone, workdir=str(tmp_path / "alone"))).sha256()
    assert made.settings["data"]["sequence_length"] == made.sequence_length == 48
    audit(several)
    # One that is gone is made again, and the others stay.
    kept = (tmp_path / "corpus" / "manifest.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "corpus_48")
    prepare_corpus(several)
    assert manifest.read_manifest(tmp_path / "corpus_48").sha256() == made.sha256()
    assert (tmp_path / "corpus" / "manifest.json").stat().st_mtime_ns == kept
    victim = tmp_path / "corpus_48" / made.streams[0].train.shards[0].file
    victim.write_bytes(victim.read_bytes()[:60] + b"x" + victim.read_bytes()[61:])
    with pytest.raises(UserError, match=r"corpus_48/.*: block \d+ is not what .* gives"):
        audit(several)


def text_of(config, language):
    return Path(config.data.sources[0].path.replace("{language}", language)).read_text().splitlines()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare")
    write_text(folder / "text", {"de": 400, "sw": 120})
    (folder / "text" / "pairs.tsv").write_text("".join(f"river {i}\tmaji {i}\n" for i in range(50)))
    config = make_config(
        folder, shard_bytes=5_000, parallel=(cfg.Parallel(("de", "sw"), (f"{folder}/text/pairs.tsv",)),)
    )
    return config, prepare_corpus(config)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", ["{}", "{}.index"])
def test_what_is_said_of_a_damaged_shard_works(prepared, split, name):
    config, made = prepared
    corpus = Path(config.workdir) / "corpus"
    shards = getattr(made.streams[0], split).shards
    victim = corpus / name.format(shards[-1].file)
    whole, others = victim.read_bytes(), {p: p.stat().st_mtime_ns for p in corpus.rglob("*.tfrecord-*") if p != victim}
    victim.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])

    def read_all():
        blocks = Blocks(corpus, "de", shards, 32, 0)
        return [blocks[i] for i in range(len(blocks))]

    with pytest.raises(UserError) as e:
        read_all()
    advised = str(e.value).split("; delete it and ")
    Path(advised[0].split(": ")[0]).unlink()
    Path(advised[1].split(", and run: mlm-jax prepare")[0]).unlink()
    assert prepare_corpus(config) == made
    assert victim.read_bytes() == whole
    # Only what was made together with it is made again.
    again = {p for p, written in others.items() if p.stat().st_mtime_ns != written}
    assert len(again) < 6 < len(others)


def test_the_manifest_counts_what_is_there(prepared):
    config, made = prepared
    assert made == manifest.read_manifest(f"{config.workdir}/corpus")
    assert made.languages == ("de", "sw") and [s.name for s in made.streams] == ["de", "sw", "de-sw"]
    for stream in made.monolingual:
        lines = text_of(config, stream.name)
        held_out = [line for line in lines if is_held_out(line, 0.1)]
        assert stream.validation.documents == len(held_out)
        assert stream.train.documents == len(lines) - len(held_out)
        assert stream.train.bytes == sum(len(line.encode()) for line in lines) - sum(len(x.encode()) for x in held_out)
        assert len(stream.train.shards) > 1 or stream.name == "sw"
    assert made.parallel[0].train.documents + made.parallel[0].validation.documents == 50


def test_blocks_spell_the_text(prepared):
    config, made = prepared
    words = vocabulary.read_vocabulary(f"{config.workdir}/vocabulary")
    pieces = tokenizers.load_pieces(f"{config.workdir}/vocabulary/sentencepiece.model")
    for stream in made.monolingual:
        lines = text_of(config, stream.name)
        for split, part in (("train", stream.train), ("validation", stream.validation)):
            found = []
            for one in part.shards:
                tokens = []
                for i in range(one.blocks):
                    block = Blocks(f"{config.workdir}/corpus", "xx", [one], 32, words.pad)[i]
                    tokens += block["tokens"][block["segment_ids"] > 0][1:].tolist()
                assert tokens[-1] == words.eos
                document = []
                for token in tokens:
                    if token == words.eos:
                        found.append(pieces.decode(document))
                        document = []
                    else:
                        document.append(token)
            assert found == [line for line in lines if is_held_out(line, 0.1) == (split == "validation")]


def test_unigram_loss_by_hand(prepared):
    config, made = prepared
    words = vocabulary.read_vocabulary(f"{config.workdir}/vocabulary")
    stream = made.monolingual[1]

    def tokens(split):
        source = Blocks(f"{config.workdir}/corpus", "xx", split.shards, 32, words.pad)
        found = np.concatenate([source[i]["tokens"] for i in range(len(source))])
        return found[np.isin(found, words.ordinary_ids)]

    train, held_out = tokens(stream.train), tokens(stream.validation)
    share = {t: (np.sum(train == t) + 1) / (len(train) + len(words.ordinary_ids)) for t in set(held_out.tolist())}
    assert stream.unigram_loss == pytest.approx(-np.mean([np.log(share[t]) for t in held_out.tolist()]))


def test_specials_have_their_ids_and_text_never_holds_the_mask(prepared):
    config, _ = prepared
    words = vocabulary.read_vocabulary(f"{config.workdir}/vocabulary")
    assert (words.pad, words.eos, words.unk, words.bos, words.mask) == (0, 1, 2, 3, 4)
    pieces = tokenizers.load_pieces(f"{config.workdir}/vocabulary/sentencepiece.model")
    assert words.mask not in pieces.encode("a <mask> b<mask> </s> <pad>")
    assert words.size == config.vocabulary.size
    assert (
        json.loads(Path(config.workdir, "vocabulary", "training.json").read_text())["trainer"]["vocab_size"]
        == words.size
    )


def test_plain_seqio_reads_the_cache_and_makes_the_same_from_text(prepared):
    seqio = pytest.importorskip("seqio")
    from mlm_jax.prepare import tasks

    config, made = prepared
    (name,) = tasks.register(config.workdir)
    assert tasks.register(config.workdir) == [name]
    words = vocabulary.read_vocabulary(f"{config.workdir}/vocabulary")
    for stream in made.streams:
        task = seqio.get_mixture_or_task(stream.task)
        for split, part in (("train", stream.train), ("validation", stream.validation)):
            read = {
                cached: list(
                    task.get_dataset(
                        sequence_length=None, split=split, use_cached=cached, shuffle=False
                    ).as_numpy_iterator()
                )
                for cached in (True, False)
            }
            source = Blocks(f"{config.workdir}/corpus", "xx", part.shards, 32, words.pad)
            assert len(read[True]) == len(read[False]) == len(source) == part.blocks
            # SeqIO reads a cache's files in blocks of 16 in turn, so the order is compared without it.
            ordered = {cached: sorted(x["tokens"].tolist() for x in examples) for cached, examples in read.items()}
            ours = sorted(b["tokens"][b["segment_ids"] > 0].tolist() for b in (source[i] for i in range(len(source))))
            assert ordered[True] == ordered[False] == ours
            example = read[True][0]
            assert set(example) == {*records.TOKEN_FEATURES, "next_sentence"}
    mixture = seqio.get_mixture_or_task(name)
    first = next(
        iter(mixture.get_dataset(sequence_length=None, split="train", use_cached=True, seed=1).as_numpy_iterator())
    )
    assert first["tokens"][0] == words.bos
    from mlm_jax import sampling

    rates = sampling.stage_rates(config, made.monolingual)[0].rates
    found = np.array([mixture.get_rate(seqio.get_mixture_or_task(s.task)) for s in made.monolingual])
    np.testing.assert_allclose(found / found.sum(), rates)


def test_tensorflow_agrees_on_records(prepared):
    tf = pytest.importorskip("tensorflow")
    config, made = prepared
    shard = made.streams[0].train.shards[0]
    path = f"{config.workdir}/corpus/{shard.file}"
    payloads = [p.numpy() for p in tf.data.TFRecordDataset(path)]  # checks every checksum
    assert len(payloads) == shard.blocks
    offsets = np.fromfile(records.index_path(path), "<u8")
    assert offsets[-1] == os.path.getsize(path) == shard.bytes


def test_a_second_call_returns_at_once_and_a_killed_one_redoes_only_what_is_missing(prepared):
    config, made = prepared
    corpus = f"{config.workdir}/corpus"
    assert prepare_corpus(config) == made
    before = {s.file: os.stat(f"{corpus}/{s.file}").st_mtime_ns for x in made.streams for s in x.train.shards}
    os.remove(f"{corpus}/manifest.json")
    victim = made.streams[0].train.shards[1].file
    os.remove(f"{corpus}/{victim}")
    os.remove(f"{corpus}/mlm_jax_de/train-00001-of-{len(made.streams[0].train.shards):05d}.done")
    again = prepare_corpus(config)
    assert again == made
    after = {file: os.stat(f"{corpus}/{file}").st_mtime_ns for file in before}
    assert {file for file in before if before[file] != after[file]} == {victim}


def test_text_that_changed_is_prepared_again(tmp_path):
    write_text(tmp_path / "text", {"de": 300})
    config = make_config(tmp_path)
    first = prepare_corpus(config)
    os.remove(f"{config.workdir}/corpus/manifest.json")
    with open(tmp_path / "text" / "de.txt", "a") as file:
        file.write("river river river\n" * 40)
    assert prepare_corpus(config).streams[0].train.tokens > first.streams[0].train.tokens


def test_several_processes_make_the_same_corpus(tmp_path):
    write_text(tmp_path / "text", {"de": 200, "sw": 120})
    one = prepare_corpus(make_config(tmp_path, shard_bytes=3_000))
    config = make_config(tmp_path, shard_bytes=3_000, workers=2)
    two = prepare_corpus(dataclasses.replace(config, workdir=f"{tmp_path}/two"))
    assert one.sha256() == two.sha256()


def test_segments_packing(tmp_path):
    write_text(tmp_path / "text", {"de": 200})
    made = prepare_corpus(make_config(tmp_path, packing="segments"))
    source = Blocks(f"{tmp_path}/run/corpus", "xx", made.streams[0].train.shards, 32, 0)
    blocks = [source[i] for i in range(len(source))]
    assert max(block["segment_ids"].max() for block in blocks) > 1
    for block in blocks:
        assert (block["positions"][np.diff(block["segment_ids"], prepend=0) > 0] == 0).all()


def _die(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_dies_is_an_error_and_no_hang():
    with pytest.raises(UserError, match=r"a process died .testing., working on one of .*; often memory"):
        list(pool.run_all(_die, [(i,) for i in range(8)], 2, "testing", lambda job: f"job {job[0]}"))


def refused(config, message):
    with pytest.raises(UserError, match=message) as caught:
        prepare_corpus(config)
    assert "\n" not in str(caught.value)


def test_bad_sources_are_one_line(tmp_path):
    write_text(tmp_path / "text", {"de": 300})
    source = cfg.Source("de", f"{tmp_path}/text/de.txt")

    def config(*sources, **options):
        return make_config(tmp_path, sources=sources, **options)

    refused(
        config(cfg.Source("sw", f"{tmp_path}/text/sw*.txt")), "language sw: no file matches .*sw.*txt; check the path"
    )
    refused(config(cfg.Source("*", f"{tmp_path}/none/{{language}}.txt")), "no file matches")
    refused(config(cfg.Source("*", f"{tmp_path}/text/de.txt")), "put {language} into the path")
    refused(config(source, source), "language de is named twice")
    (tmp_path / "text" / "empty.txt").write_text("")
    refused(config(cfg.Source("xx", f"{tmp_path}/text/empty.txt")), "empty.txt: empty; remove it")
    (tmp_path / "text" / "blank.txt").write_text(" \n\t\n\u3000\n")
    refused(config(cfg.Source("xx", f"{tmp_path}/text/blank.txt")), "language xx: only white space")
    (tmp_path / "text" / "short.txt").write_text("river\nstone\n")
    refused(
        config(source, cfg.Source("xx", f"{tmp_path}/text/short.txt")),
        r"language xx: \d+ training documents hold \d+ tokens, fewer than one block of 32",
    )
    (tmp_path / "text" / "tiny.txt").write_text("river\nlight\ntree\n")
    others = [cfg.Source(name, f"{tmp_path}/text/{file}.txt") for name, file in (("xx", "short"), ("yy", "tiny"))]
    refused(  # all at once
        config(source, *others, validation_fraction=0.0),
        r"xx: 2 training .* tokens, language yy: 3 training .* tokens, fewer than one block of 32; give them more",
    )
    (tmp_path / "text" / "same.txt").write_text("river\n" * 300)
    refused(
        config(cfg.Source("xx", f"{tmp_path}/text/same.txt"), validation_fraction=0.9),
        r"0 tokens \(300 are held out\), fewer than one block",
    )
    (tmp_path / "text" / "x.pdf").write_text("x")
    refused(config(cfg.Source("xx", f"{tmp_path}/text/x.pdf")), "not a format that is read")
    refused(
        config(cfg.Source("xx", "seqio:nothing", module="no_such_module")), "module no_such_module cannot be imported"
    )
    refused(config(cfg.Source("xx", "seqio:nothing")), "no SeqIO task or mixture of this name")
    refused(config(cfg.Source("xx", "sample:nothing")), "no such sample")


def test_a_language_of_which_all_is_held_out_is_not_called_empty(tmp_path):
    write_text(tmp_path / "text", {"de": 300})
    (tmp_path / "text" / "sw.txt").write_text("river\n" * 300)
    refused(
        make_config(tmp_path, validation_fraction=0.9),
        "language sw: all of its 300 documents are held out, .* equal documents are held out together: give it other text",
    )
    assert not Path(tmp_path, "run/vocabulary/vocabulary.json").exists()


@pytest.mark.parametrize("spelt", ["moved", "./run", "run/../run"])
def test_finished_shards_are_kept_where_the_workdir_is_moved_or_spelt_otherwise(tmp_path, monkeypatch, spelt):
    write_text(tmp_path / "text", {"de": 300})
    config = make_config(tmp_path, shard_bytes=5_000)
    made = prepare_corpus(config)
    Path(tmp_path, "run/corpus/manifest.json").unlink()
    if spelt == "moved":
        Path(tmp_path, "run").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shard, "_write_split", None)
    again = prepare_corpus(dataclasses.replace(config, workdir=spelt))
    assert again.sha256() == made.sha256()
    # But one that is damaged is made again.
    next(Path(tmp_path, "run" if spelt != "moved" else spelt).glob("corpus/*/*.done")).write_text("")
    Path(spelt, "corpus/manifest.json").unlink()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert prepare_corpus(dataclasses.replace(config, workdir=spelt)).sha256() == made.sha256()


def test_pairs_that_are_not_aligned_are_refused(tmp_path):
    write_text(tmp_path / "text", {"de": 300, "sw": 300})
    (tmp_path / "a").write_text("one\ntwo\n")
    (tmp_path / "b").write_text("one\ntwo\nthree\n")
    parallel = (cfg.Parallel(("de", "sw"), (f"{tmp_path}/a", f"{tmp_path}/b")),)
    refused(make_config(tmp_path, parallel=parallel), "a and .*b: 2 lines against 3; aligned files need as many")
    (tmp_path / "a").write_text("one\n\nthree\n")
    part = Slice(parallel[0], "both", parallel[0].paths)
    assert [pair for batch in sources.read_pairs(part) for pair in batch] == [("one", "one"), ("three", "three")]
    (tmp_path / "t").write_text("one\tone\nno tab\n")
    (part,) = sources.pair_slices(cfg.Data(parallel=(cfg.Parallel(("de", "sw"), (f"{tmp_path}/t",)),)))["de", "sw"]
    with pytest.raises(UserError, match="t:2: no tab"):
        list(sources.read_pairs(part))


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("size", [100_000, 265])
def test_an_impossible_vocabulary_is_refused_with_a_size_that_works(tmp_path, model, size):
    write_text(tmp_path / "text", {"de": 300})
    config = make_config(tmp_path)
    config = dataclasses.replace(config, vocabulary=dataclasses.replace(config.vocabulary, size=size, model=model))
    with pytest.raises(UserError, match=r"the (largest|smallest) possible is ([\d,]+)") as caught:
        prepare_corpus(config)
    possible = int(str(caught.value).split("possible is ")[1].split(";")[0].replace(",", ""))
    works = dataclasses.replace(config, vocabulary=dataclasses.replace(config.vocabulary, size=possible))
    assert prepare_corpus(works).vocabulary_size == possible


def test_an_existing_model_is_used_as_it_is(prepared, tmp_path):
    config, made = prepared
    model = f"{config.workdir}/vocabulary/sentencepiece.model"
    taken = dataclasses.replace(config, workdir=str(tmp_path / "run"), vocabulary=cfg.Vocabulary(path=model))
    assert prepare_corpus(taken).vocabulary_sha256 == made.vocabulary_sha256
    for name, said in (
        ("a.model", "not a SentencePiece model"),
        ("a.json", "not a tokenizer"),
        ("a.py", "not a vocab"),
    ):
        (tmp_path / name).write_text("{}")
        options = cfg.Vocabulary(path=str(tmp_path / name))
        refused(dataclasses.replace(taken, workdir=str(tmp_path / "other"), vocabulary=options), said)


def test_the_sample_keeps_to_its_budget_and_its_rates(tmp_path):
    write_text(tmp_path / "text", {"de": 3000, "en": 3000, "sw": 40})
    config = make_config(tmp_path)
    slices, _ = streams_of(config.data, 1)
    budget = 60_000
    config = dataclasses.replace(
        config,
        vocabulary=dataclasses.replace(config.vocabulary, sample_bytes=budget),
        sampling=cfg.Sampling(exponent=0.5),
    )
    table, sentences = draw_sample(config, slices, HeldOut(), 1)
    assert sum(len(s.encode()) for s in sentences) <= budget
    for row in table:
        if row["language"] == "sw":  # has less than its share: all of it, once
            assert row["drawn_bytes"] == row["bytes"] < row["share_bytes"]
        else:
            assert 0.97 * row["share_bytes"] < row["drawn_bytes"] <= row["share_bytes"]
    assert draw_sample(config, slices, HeldOut(), 1)[1] == sentences
    cut = make_config(tmp_path, shard_bytes=9_000)
    again = draw_sample(dataclasses.replace(config, data=cut.data), streams_of(cut.data, 1)[0], HeldOut(), 1)[0]
    assert [row["bytes"] for row in again] == [row["bytes"] for row in table]


def test_the_sample_corpus_is_real_and_aligned():
    pytest.importorskip("django")
    languages = sample.sample_languages()
    assert len(languages) > 90 and {"en", "sw", "zh_Hans", "fy"} <= set(languages)
    sizes = {name: sum(len(d.encode()) for d in sample.sample_documents(name)) for name in languages}
    assert 300 < min(sizes.values()) < 2_000 < 40_000 < max(sizes.values())
    pairs = sample.sample_pairs("en", "de")
    assert ("Yes", "Ja") in [(a, b) for a, b in pairs] or any(b.startswith("Ja") for _, b in pairs)
    assert [(b, a) for a, b in pairs] == sample.sample_pairs("de", "en")
    program = "import sys; from mlm_jax.prepare import sample; sample.sample_documents('sw'); assert 'django' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_tfds_and_seqio_sources(tmp_path, monkeypatch):
    seqio = pytest.importorskip("seqio")
    tfds = pytest.importorskip("tensorflow_datasets")
    from mlm_jax.prepare import named

    monkeypatch.setattr("tensorflow_datasets.core.DatasetBuilder.download_and_prepare", lambda self: None)
    with tfds.testing.mock_data(num_examples=7):
        source = cfg.Source("sw", "tfds:wikipedia/20230601.sw")
        found = [d for batch in named.named_documents(source, "train", 0, 1) for d in batch]
        assert len(found) == 7 and all(isinstance(d, str) for d in found)
        with pytest.raises(UserError, match="no field 'body'; it has"):
            list(named.named_documents(dataclasses.replace(source, field="body"), "train", 0, 1))
    named.builder_of.cache_clear()

    (tmp_path / "x.txt").write_text("\n".join(f"line {i}" for i in range(20)))
    import tensorflow as tf

    seqio.TaskRegistry.add(
        "mlm_jax_test_lines",
        source=seqio.TextLineDataSource({"train": str(tmp_path / "x.txt")}),
        preprocessors=[lambda ds: ds.map(lambda line: {"text": line, "n": tf.constant(1)})],
        output_features={"n": seqio.Feature(seqio.PassThroughVocabulary(5), add_eos=False, rank=0)},
    )
    try:
        source = cfg.Source("xx", "seqio:mlm_jax_test_lines")
        assert named.shard_count(source, "train") == 1
        assert [d for b in named.named_documents(source, "train", 0, 1) for d in b] == [f"line {i}" for i in range(20)]
        with pytest.raises(UserError, match=r"holds .*int32.*, not text"):
            list(named.named_documents(dataclasses.replace(source, field="n"), "train", 0, 1))
    finally:
        seqio.TaskRegistry.remove("mlm_jax_test_lines")


@pytest.mark.parametrize(
    ("path", "languages"),
    [
        ("tfds:wmt16_translate/ro-en", ("ro", "en")),
        ("tfds:para_crawl/enbg", ("bg", "en")),
        ("tfds:opus", ("de", "en")),
        ("tfds:ted_multi_translate", ("en", "fr")),
    ],
)
def test_tfds_sentence_pairs(path, languages, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    from mlm_jax.prepare import named

    monkeypatch.setattr("tensorflow_datasets.core.DatasetBuilder.download_and_prepare", lambda self: None)
    named.builder_of.cache_clear()
    is_ted = "ted" in path
    with tfds.testing.mock_data(num_examples=5):
        slices = sources.pair_slices(cfg.Data(parallel=(cfg.Parallel(languages, (path,)),)))[languages]
        if is_ted:
            monkeypatch.setattr(named, "builder_of", lambda _: _Ted(tfds))
        pairs = [pair for part in slices for batch in sources.read_pairs(part) for pair in batch]
        assert len(pairs) == 5 and all(isinstance(side, str) and side for pair in pairs for side in pair)
        if is_ted:
            assert pairs[0] == ("a", "b c")
        with pytest.raises(UserError, match="no sentences in xx and en"):
            named.pair_shard_count(cfg.Parallel(("xx", "en"), (path,)))
    monkeypatch.undo()
    named.builder_of.cache_clear()


class _Ted:
    """A data set of `TranslationVariableLanguages`, whose mocked languages would be random strings."""

    def __init__(self, tfds):
        import tensorflow as tf

        self._tf = tf
        feature = tfds.features.TranslationVariableLanguages(languages=["en", "fr", "de"])
        features = tfds.features.FeaturesDict({"talk_name": tfds.features.Text(), "translations": feature})
        self.info = type("Info", (), {"features": features, "splits": {"train": type("S", (), {"num_shards": 1})}})

    def as_dataset(self, **_):
        found = {"language": [["en", "fr"]] * 5, "translation": [["a", "b c"]] * 5}
        return self._tf.data.Dataset.from_tensor_slices({"translations": found})


def test_the_samples_pairs_of_one_language_with_all():
    pytest.importorskip("django")
    found = sources.pair_slices(cfg.Data(parallel=(cfg.Parallel(("en", "*"), ("sample:django",)),)))
    assert len(found) == len(sample.sample_languages()) - 1 and all(pair[0] == "en" for pair in found)
    with pytest.raises(UserError, match="only sample:django takes"):
        sources.pair_slices(cfg.Data(parallel=(cfg.Parallel(("en", "*"), ("a.tsv",)),)))


def test_documents_of_one_sentence_stand_in_blocks_and_their_share_is_said(tmp_path, capsys):
    lines = [f"haus {d} ist " + "sehr " * (d % 5) + f"alt {d}" for d in range(300)]
    (tmp_path / "de.txt").write_text("\n".join(lines))
    config = cfg.Config(
        workdir=str(tmp_path / "run"),
        data=cfg.Data(
            sources=(cfg.Source("de", f"{tmp_path}/de.txt"),),
            sequence_length=32,
            packing="next_sentence",
            pairings=2,
            validation_fraction=0.1,
        ),
        vocabulary=cfg.Vocabulary(model="bpe", size=320, sample_bytes=100_000),
    )
    made = prepare_corpus(config)
    (stream,) = made.streams
    check.warn(made.streams)
    loaded = tokenizers.load_pieces(f"{config.workdir}/vocabulary/sentencepiece.model")
    source = Blocks(f"{config.workdir}/corpus", "de", stream.train.shards, 32, 0)
    segments = [
        block["tokens"][(block["segment_ids"] == n) & (block["token_types"] == 0)].tolist()
        for block in (source[i] for i in range(len(source)))
        for n in range(1, 33)
    ]
    text = Counter(loaded.decode(ids) for ids in segments if ids)
    assert stream.train.documents + stream.validation.documents == 300
    assert sum(text.values()) == 2 * stream.train.documents and set(text) <= set(lines) and set(text.values()) == {2}
    assert stream.train.unpaired > 0.5 * stream.train.tokens
    share = 100 * stream.train.unpaired / stream.train.tokens
    assert (
        f"in blocks without a pair, because their sentences have no neighbour: de {share:.1f} %"
        in capsys.readouterr().out
    )


def test_next_sentence_blocks_of_a_language_hold_that_language_only(tmp_path, monkeypatch):
    monkeypatch.chdir(
        tmp_path
    )  # the pairs' seed holds the text's path as it is written: here the same wherever tests run
    for language, word in (("de", "haus"), ("sw", "nyumba")):
        text = "\n\n".join("\n".join(f"{word} {d} {s} {word}" for s in range(6)) for d in range(60))
        (tmp_path / f"{language}.txt").write_text(text)
    config = cfg.Config(
        workdir=str(tmp_path / "run"),
        data=cfg.Data(
            sources=(cfg.Source("*", "{language}.txt", documents="paragraph"),),
            sequence_length=32,
            packing="next_sentence",
            pairings=3,
            validation_fraction=0.2,
        ),
        vocabulary=cfg.Vocabulary(model="wordpiece", size=60, sample_bytes=100_000),
    )
    made = prepare_corpus(config)
    pieces = tokenizers.load_tokenizer(f"{config.workdir}/vocabulary").pieces
    for stream, other in zip(made.streams, ("nyumba", "haus"), strict=True):
        source = Blocks(f"{config.workdir}/corpus", stream.name, stream.train.shards, 32, 0)
        labels = []
        for i in range(len(source)):
            block = source[i]
            text = "".join(pieces[t].removeprefix("##") for t in block["tokens"])
            assert other not in text
            assert set(block["token_types"][block["segment_ids"] > 0]) == {0, 1}
            labels.append(int(block["next_sentence"]))
        assert 0.35 < np.mean(labels) < 0.65 and set(labels) == {0, 1}
        assert stream.train.documents < 60  # counted once, whatever the pairings
        assert stream.train.unpaired == stream.train.in_no_block == 0
    once = dataclasses.replace(
        config, workdir=str(tmp_path / "once"), data=dataclasses.replace(config.data, pairings=1)
    )
    assert prepare_corpus(once).streams[0].train.blocks * 2 < made.streams[0].train.blocks


def corpus_bytes(config):
    folder = Path(config.workdir)
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A config and what it gives, for corpora that are made again."""
    folder = tmp_path_factory.mktemp("small")
    write_text(folder / "text", {"de": 120})
    config = make_config(folder, validation_fraction=0.2)
    prepare_corpus(config)
    whole = corpus_bytes(config)
    shutil.rmtree(config.workdir)
    return config, whole


def test_a_power_cut_while_preparing_leaves_nothing_that_looks_whole_and_is_not(small):
    config, whole = small
    run = Path(config.workdir)
    run.mkdir()
    with Disk(run) as disk:
        prepare_corpus(config)
    shutil.rmtree(run)
    assert len(disk.images) > 20
    for image in disk.images:
        named = [name for name in image if not is_aside(name)]
        assert all(image[name] == whole[name] for name in named)
        if "vocabulary/vocabulary.json" in image:
            assert "vocabulary/sentencepiece.model" in image
        if any(name.endswith(".done") for name in named):
            assert image.keys() >= {name for name in whole if ".tfrecord-" in name}
        if "corpus/manifest.json" in image:
            assert image.keys() >= whole.keys()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("call", [1, 4, 9, 16, 25])
def test_a_disk_that_fails_while_preparing_is_one_line_and_the_same_command_goes_on(small, monkeypatch, number, call):
    config, whole = small
    calls = itertools.count(1)
    sync = os.fsync

    def fail_once(handle):
        if next(calls) == call:
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(UserError) as raised:
        prepare_corpus(config)
    line = str(raised.value)
    assert (
        line.startswith(str(Path(config.workdir).parent))
        and f": {os.strerror(number)}; {PASSING[number]}, then run the same" in line
    )
    assert not any(map(is_aside, Path(config.workdir).rglob("*")))
    prepare_corpus(config)
    assert corpus_bytes(config) == whole
    shutil.rmtree(config.workdir)


def test_the_same_documents_give_the_same_corpus_in_every_format(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write_text(tmp_path / "text", {"sw": 300, "de": 200})
    made = {}
    for name in ("txt", "jsonl", "jsonl.gz", "jsonl.zst", "json", "csv", "csv.xz", "parquet", "arrow"):
        (folder := tmp_path / name / "text").mkdir(parents=True)
        for language in ("sw", "de"):
            texts = (tmp_path / "text" / f"{language}.txt").read_text().splitlines()
            lines = "".join(json.dumps({"n": i, "text": x}) + "\n" for i, x in enumerate(texts))
            table = "n,text\r\n" + "".join(f'{i},"{x}"\r\n' for i, x in enumerate(texts))
            content = {
                "txt": lambda texts=texts: "\n".join(texts).encode(),
                "jsonl": lines.encode,
                "jsonl.gz": lambda lines=lines: gzip.compress(lines.encode()),
                "jsonl.zst": lambda lines=lines: zstandard.compress(lines.encode()),
                "json": lambda texts=texts: json.dumps([{"text": x} for x in texts]).encode(),
                "csv": table.encode,
                "csv.xz": lambda table=table: lzma.compress(table.encode()),
            }
            path = folder / f"{language}.{name}"
            if name == "parquet":
                pq.write_table(pa.table({"text": texts}), path, row_group_size=70)
            elif name == "arrow":
                with pa.ipc.new_stream(path, pa.schema([("text", pa.string())])) as writer:
                    writer.write_table(pa.table({"text": texts}), max_chunksize=33)
            else:
                path.write_bytes(content[name]())
        config = make_config(tmp_path / name, sources=(cfg.Source("*", f"{folder}/{{language}}.{name}"),))
        prepared = prepare_corpus(config)
        corpus = Path(config.workdir) / "corpus"
        shards = [
            s.file for stream in prepared.streams for part in (stream.train, stream.validation) for s in part.shards
        ]
        made[name] = {
            "vocabulary": (corpus.parent / "vocabulary" / "sentencepiece.model").read_bytes(),
            "streams": [dataclasses.asdict(stream) for stream in prepared.streams],
            "blocks": [(corpus / file).read_bytes() for file in shards],
        }
        audit(config)
    for name, found in made.items():
        assert found == made["txt"], name
