# SPDX-License-Identifier: Apache-2.0
"""A student of half the layers of multilingual-e5-small: how much of its teacher's retrieval is left, at which share of its time.

    python benchmarks/distillation.py TEACHER --data ../shared/data --keep FOLDER [--layers 1,3,5,7,9,11] [--steps 600]

TEACHER is the folder that ../shared/tools/e5_small.py makes. The student begins with some of its layers and learns its hidden states and its
vectors of texts (`configs/distill.py`'s sibling: this file writes its config) on paragraphs of the GNOME and LibreOffice help (36 languages) and on sentences of NTREX and XNLI that are not retrieved, each by itself: up to 3,000
paragraphs of 20 to 200 characters each. Retrieval of NTREX's and Tatoeba's first sentences, of whose text nothing is trained on, is by the highest cosine, in
the mean of both directions between a language and English. Printed are the teacher, the kept layers before training, and the student; and the processor
time that each takes to encode the same sentences, in turns. `--keep` names a folder for text, run and vectors: called again, the benchmark continues there.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.encode.read import read_pretrained
from mlm_jax.encode.sentences import make_embedder
from mlm_jax.mesh import make_mesh
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.tokenizers import load_tokenizer

PARAGRAPHS, SHORTEST, LONGEST = 3_000, 20, 200  # of a language; characters of one
NTREX = ("deu", "hin", "jpn", "swa", "tam", "vie")
TATOEBA = ("afr", "cmn", "ell", "eus", "fra", "jpn", "rus", "swh", "tha", "urd")
UNSEEN = 500  # of NTREX's sentences, in no training text
TIMED = 256  # sentences


def main() -> None:
    """Train the student where that is not done, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--keep", required=True)
    parser.add_argument("--layers", default="1,3,5,7,9,11")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument(
        "--decay", type=float, default=0.7, help="of the rate from a layer to the one below (optimizer.layer_decay)"
    )
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--ntrex", nargs="+", default=NTREX)
    parser.add_argument("--tatoeba", nargs="+", default=TATOEBA)
    parser.add_argument("--dtype", default="float32", help="that vectors are computed in")
    options = parser.parse_args()
    folder, data = Path(options.keep).absolute(), Path(options.data)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "text").exists():
        write_text(data, folder / "text")
    workdirs = {"teacher": folder / "teacher", "kept layers": folder / "start", "student": folder / "student"}
    command("import", options.teacher, workdirs["teacher"])
    for name in ("kept layers", "student"):
        command("import", options.teacher, workdirs[name], "--layers", options.layers)
    config = folder / "distill.py"
    config.write_text(
        CONFIG.format(
            text=folder / "text", teacher=options.teacher, steps=options.steps, rate=options.rate, decay=options.decay
        )
    )
    run("pretrain", config, "--workdir", workdirs["student"])

    pairs = list(sentence_pairs(data, options.ntrex, options.tatoeba, options.sentences))
    scores = {name: retrieval(workdir, pairs, options.dtype, folder) for name, workdir in workdirs.items()}
    cells = []
    for kind in ("NTREX", "Tatoeba"):
        for i, (of, language, *_) in enumerate(pairs):
            if of == kind:
                cells.append([f"{kind} {language}", *(f"{100 * scores[name][i]:.1f}" for name in workdirs)])
        means = {
            name: np.mean([x for x, pair in zip(scores[name], pairs, strict=True) if pair[0] == kind])
            for name in workdirs
        }
        cells.append([f"{kind} mean", *(f"{100 * mean:.1f}" for mean in means.values())])
        cells.append([f"{kind} of the teacher's", *(f"{mean / means['teacher']:.1%}" for mean in means.values())])
    print(console.format_table(["accuracy", *workdirs], cells))
    seconds = encoding(workdirs["teacher"], workdirs["student"], pairs, options.dtype)
    print(
        f"processor seconds for {TIMED} sentences: teacher {seconds[0]:.2f}, student {seconds[1]:.2f}, a share of {seconds[1] / seconds[0]:.2f}"
    )


CONFIG = """\
from mlm_jax.config import Config, Data, Distillation, Model, Objective, Optimizer, Sampling, Source, Train


def get_config():
    return Config(
        data=Data(
            sources=(Source("*", "{text}/{{language}}.txt"),), sequence_length=64, packing="segments", validation_documents=16
        ),
        sampling=Sampling(exponent=0.0),
        model=Model(dropout=0.0, attention_dropout=0.0, dtype="bfloat16"),
        objective=Objective(learn="distillation"),
        distillation=Distillation(teacher="{teacher}", vectors=2.0, hidden=1.0),
        optimizer=Optimizer(learning_rate={rate}, layer_decay={decay}, warmup_steps=10, weight_decay=0.0),
        train=Train(
            steps={steps}, batch_size=32, log_every=5, validate_every=50, save_every=50, validation_blocks=1, keep_last=1
        ),
    )
"""


def run(*arguments: object) -> None:
    """A command of mlm-jax in a process of its own; what it says goes to standard error."""
    subprocess.run([sys.executable, "-m", "mlm_jax", *map(str, arguments)], check=True, stdout=sys.stderr)


def command(name: str, source: str, workdir: Path, *options: str) -> None:
    """Import an encoder into a workdir, where there is none yet."""
    if not (workdir / "initial.json").exists():
        run(name, source, workdir, *options)


def write_text(data: Path, folder: Path) -> None:
    """Write `{language}.txt` of different short paragraphs, drawn at random."""
    texts: dict[str, set[str]] = {}
    for path in [*sorted((data / "gnome_help").glob("*.tsv")), *sorted((data / "libreoffice_help").glob("*.tsv.gz"))]:
        language = path.name.split(".")[0]
        if not language.replace("_", "").isalpha():
            continue  # sr@latin
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            found = (line.split("\t", 1)[1].strip() for line in file if "\t" in line)
            texts.setdefault(language, set()).update(text for text in found if SHORTEST <= len(text) <= LONGEST)
    # Other sentences than those that are retrieved: in NTREX's languages, under its codes, and in XNLI's.
    for path in sorted((data / "ntrex").glob("*.txt")):
        texts[path.stem] = {x for x in path.read_text().splitlines()[UNSEEN:] if len(x) <= LONGEST}
    for path in sorted((data / "xnli").glob("*.test.tsv")):
        lines = path.read_text().splitlines()
        of = texts.setdefault(path.name.split(".")[0] + "-xnli", set())
        of.update(x for line in lines for x in line.split("\t")[1:] if SHORTEST <= len(x) <= LONGEST)
    folder.mkdir()
    for language, of in texts.items():
        drawn = sorted(of)
        random.Random(0).shuffle(drawn)
        (folder / f"{language}.txt").write_text("\n".join(drawn[:PARAGRAPHS]) + "\n")


Pair = tuple[str, str, list[str], list[str]]  # kind, language, its sentences, English


def sentence_pairs(data: Path, ntrex: list[str], tatoeba: list[str], sentences: int) -> Iterator[Pair]:
    """The first sentences of each language, and what they are in English."""
    english = (data / "ntrex" / "eng.txt").read_text().splitlines()[:sentences]
    for language in ntrex:
        yield "NTREX", language, (data / "ntrex" / f"{language}.txt").read_text().splitlines()[:sentences], english
    for language in tatoeba:
        sides = (data / "tatoeba" / f"tatoeba.{language}-eng.{side}" for side in (language, "eng"))
        of, its_english = (path.read_text().splitlines()[:sentences] for path in sides)
        yield "Tatoeba", language, of, its_english


def embedder(workdir: Path, dtype: str):
    """The encoder of a workdir as a function from sentences to vectors of length 1, float32 [sentences, width]."""
    import dataclasses

    pretrained = dataclasses.replace(read_pretrained(workdir, "last"), dtype=dtype)
    tokenizer = load_tokenizer(workdir / "vocabulary")
    embed = make_embedder(pretrained, tokenizer, make_mesh(cfg.ALL_DEVICES), SentenceVectors("mean"), 128)
    return lambda sentences: embed(sentences, "")


def retrieval(workdir: Path, pairs: list[Pair], dtype: str, folder: Path) -> list[float]:
    """The accuracy of each pair of languages, in the mean of both directions."""
    texts = sorted({text for _, _, *sides in pairs for side in sides for text in side})
    asked = hashlib.sha256("\n".join([dtype, *texts]).encode()).hexdigest()[:12]
    kept = folder / f"{workdir.name}_{asked}.npy"
    if not kept.exists():
        np.save(kept, embedder(workdir, dtype)(texts))
    vectors = dict(zip(texts, np.load(kept), strict=True))

    def accuracy(of: list[str], english: list[str]) -> float:
        scores = np.stack([vectors[text] for text in of]) @ np.stack([vectors[text] for text in english]).T
        right = np.arange(len(of))
        return float(np.mean([np.mean(scores.argmax(axis=1) == right), np.mean(scores.argmax(axis=0) == right)]))

    return [accuracy(of, english) for _, _, of, english in pairs]


def encoding(teacher: Path, student: Path, pairs: list[Pair], dtype: str) -> list[float]:
    """Processor seconds that each takes for the same sentences: the least of three, in turns, after one that compiles."""
    texts = [text for _, _, of, _ in pairs for text in of][:TIMED]
    sides = [embedder(workdir, dtype) for workdir in (teacher, student)]
    taken: list[list[float]] = [[], []]
    for _ in range(4):
        for embed, of in zip(sides, taken, strict=True):
            begin = time.process_time()
            embed(texts)
            of.append(time.process_time() - begin)
    return [min(of[1:]) for of in taken]


if __name__ == "__main__":
    main()
