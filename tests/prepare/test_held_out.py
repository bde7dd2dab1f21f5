# SPDX-License-Identifier: Apache-2.0
"""What is validated is never trained on, by whatever stream it comes."""

import dataclasses
import random

import pytest

from mlm_jax import config as cfg
from mlm_jax import tokenizers, vocabulary
from mlm_jax.input.blocks import Blocks
from mlm_jax.prepare.held_out import HeldOut, gather, is_held_out, parts_of, short_hash, streams_of
from mlm_jax.prepare.run import prepare_corpus
from mlm_jax.prepare.sources import read_documents, read_pairs

FRACTION = 0.1


def sentence(rng, language):
    return f"{language} " + " ".join(str(rng.randrange(10**6)) for _ in range(rng.randint(4, 9))) + "."


def write_corpus(folder, documents="line"):
    """Three languages whose text is also that of their pairs, and a named validation file of one of them."""
    rng = random.Random(5)
    sides = {name: [sentence(rng, name) for _ in range(300)] for name in ("en", "de", "sw")}
    for name, lines in sides.items():
        if documents == "line":
            text = "\n".join(lines)
        elif documents == "paragraph":
            text = "\n\n".join("\n".join(lines[i : i + 3]) for i in range(0, len(lines), 3))
        else:  # several sentences on a line
            text = "\n".join(" ".join(lines[i : i + 3]) for i in range(0, len(lines), 3))
        (folder / f"{name}.txt").write_text(text + "\n")
    (folder / "sw.dev.txt").write_text("\n".join(sides["sw"][:40]) + "\n")
    (folder / "en-de.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(sides["en"], sides["de"], strict=True)))
    (folder / "sw-de.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(sides["sw"], sides["de"], strict=True)))
    how = "line" if documents == "line" else "paragraph"
    return cfg.Data(
        sources=(
            cfg.Source("en", f"{folder}/en.txt", documents=how),
            cfg.Source("de", f"{folder}/de.txt", documents=how),
            cfg.Source("sw", f"{folder}/sw.txt", documents=how, validation=f"{folder}/sw.dev.txt"),
        ),
        parallel=(
            cfg.Parallel(("en", "de"), (f"{folder}/en-de.tsv",)),
            cfg.Parallel(("sw", "de"), (f"{folder}/sw-de.tsv",)),
        ),
        validation_fraction=FRACTION,
        sequence_length=64,
        workers=1,
    )


@pytest.mark.parametrize("documents", ["line", "paragraph", "sentences"])
def test_no_held_out_sentence_is_in_any_training_text(tmp_path, documents):
    data = write_corpus(tmp_path, documents)
    languages, pairs = streams_of(data, 1)
    held_out = gather(languages, pairs, tmp_path, 1)
    train, validation = set(), set()
    for text in [x for found in (*languages.values(), *pairs.values()) for x in found]:
        for batch in read_pairs(text) if isinstance(text.source, cfg.Parallel) else read_documents(text):
            for split, found in held_out.divide(text, batch).items():
                sides = [side for x in found for side in ([x] if isinstance(x, str) else x)]
                (train if split == "train" else validation).update(s for side in sides for s in [side, *parts_of(side)])
    assert len(validation) > 90 and len(train) > 500
    assert not train & validation
    # Everything else is still there: only held-out sentences are gone.
    there = {s for name in ("en", "de", "sw") for s in (tmp_path / f"{name}.txt").read_text().split(".")}
    assert len(there) > 3 * 250


def test_blocks_hold_no_held_out_text_and_validation_is_what_it_was(tmp_path):
    data = write_corpus(tmp_path)
    config = cfg.Config(workdir=f"{tmp_path}/run", data=data, vocabulary=cfg.Vocabulary(size=320, model="bpe"))
    made = prepare_corpus(config)
    words = vocabulary.read_vocabulary(f"{tmp_path}/run/vocabulary")
    tokenizer = tokenizers.load_tokenizer(f"{tmp_path}/run/vocabulary")
    texts = {}
    for stream in made.streams:
        for split in ("train", "validation"):
            blocks = Blocks(f"{tmp_path}/run/corpus", "xx", getattr(stream, split).shards, 64, words.pad)
            tokens = [t for i in range(len(blocks)) for t in blocks[i]["tokens"][blocks[i]["segment_ids"] > 0].tolist()]
            spelt = [[]]
            for token in tokens:
                if token == words.eos:
                    spelt.append([])
                elif token != words.bos:
                    spelt[-1].append(token)
            texts[stream.name, split] = [tokenizer.decode(ids) for ids in spelt if ids]
    train = {text for (_, split), found in texts.items() if split == "train" for text in found}
    for name in ("en", "de"):
        lines = (tmp_path / f"{name}.txt").read_text().splitlines()
        assert texts[name, "validation"] == [line for line in lines if is_held_out(line, FRACTION)]
    for (_, split), found in texts.items():
        if split == "validation":
            assert found and not train & set(found)
    en_de = next(s for s in made.streams if s.name == "en-de")
    assert en_de.train.left_out and en_de.train.left_out + en_de.train.documents + en_de.validation.documents == 300


def test_case_white_space_and_unicode_form_do_not_count():
    assert short_hash("Ein  Café\n") == short_hash("ein cafe\u0301")
    assert short_hash("Ein Café") != short_hash("Ein Cafe")


def test_a_training_document_keeps_its_other_sentences(tmp_path):
    data = write_corpus(tmp_path)
    languages, pairs = streams_of(data, 1)
    held_out = gather(languages, pairs, tmp_path, 1)
    lines = (tmp_path / "sw.txt").read_text().splitlines()
    document = f"Something of its own here. {lines[0]} And more of its own here.\nA second line of its own."
    train = held_out.divide(languages["sw"][0], [document, lines[0], "short"])["train"]
    assert train == [
        "Something of its own here.  And more of its own here.\nA second line of its own.",
        "short",
    ]


def test_without_pairs_and_validation_files_nothing_is_gathered(tmp_path):
    data = write_corpus(tmp_path)
    languages = {name: found for name, found in streams_of(data, 1)[0].items() if name != "sw"}
    assert gather(languages, {}, tmp_path, 1) == HeldOut()
    assert not (tmp_path / "held_out.npz").exists()


@pytest.mark.parametrize("count", [1_000, 20_000])
def test_a_document_of_two_languages_that_the_smaller_holds_out_is_in_no_training_text(tmp_path, count):
    small = [f"text number {i} of both" for i in range(1_000)]
    large = [*small, *(f"other text {i}" for i in range(count))]
    (tmp_path / "xx.txt").write_text("\n".join(small) + "\n")
    (tmp_path / "yy.txt").write_text("\n".join(large) + "\n")
    data = cfg.Data(sources=(cfg.Source("*", f"{tmp_path}/{{language}}.txt"),))
    languages, _ = streams_of(data, 1)
    held_out = gather(languages, {}, tmp_path, 1)
    parts = {x: held_out.divide(languages[x][0], lines) for x, lines in (("xx", small), ("yy", large))}
    validation = {text for part in parts.values() for text in part["validation"]}
    assert not validation & {text for part in parts.values() for text in part["train"]}
    assert len(parts["xx"]["validation"]) > 70
    # Nothing else is left out of the larger's training.
    kept = len(parts["yy"]["train"]) + len(parts["yy"]["validation"])
    assert kept == len(large) - len(set(parts["xx"]["validation"]) - set(parts["yy"]["validation"]))


@pytest.mark.parametrize(("number", "held"), [(20_000, 0.01), (5_000, 0.02), (1_000, 0.1), (300, 0.1)])
def test_a_small_language_holds_out_more(tmp_path, number, held):
    (tmp_path / "xx.txt").write_text("".join(f"line number {i}\n" for i in range(number)))
    (tmp_path / "p.tsv").write_text("".join(f"line number {i}\tнomep {i}\n" for i in range(number)))
    source = cfg.Source("xx", f"{tmp_path}/xx.txt")
    parallel = (cfg.Parallel(("xx", "yy"), (f"{tmp_path}/p.tsv",)),)
    languages, pairs = streams_of(cfg.Data(sources=(source,), parallel=parallel), 1)
    for text in (languages["xx"][0], pairs["xx", "yy"][0]):
        assert text.fraction == pytest.approx(held)
    # The larger the share, the more of the same documents: those of the smaller stay held out.
    for fraction in (0.01, held):
        assert all(
            is_held_out(x, held) for x in (f"line number {i}" for i in range(number)) if is_held_out(x, fraction)
        )
    for asked in ({"validation_fraction": 0.0}, {"validation_documents": 0}):
        languages, _ = streams_of(cfg.Data(sources=(source,), **asked), 1)
        assert languages["xx"][0].fraction == asked.get("validation_fraction", 0.01)
    validated = dataclasses.replace(source, validation=f"{tmp_path}/xx.txt")
    languages, _ = streams_of(cfg.Data(sources=(validated,)), 1)
    assert {text.part for text in languages["xx"]} == {"train", "validation"}
