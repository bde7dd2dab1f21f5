# SPDX-License-Identifier: Apache-2.0
"""What contrastive training on parallel paragraphs adds: retrieval of translations before and after, and of languages never seen in pairs.

    python benchmarks/contrastive.py encoder FOLDER_OF_E5 --data ../shared/data --keep FOLDER
    python benchmarks/contrastive.py small FOLDER_OF_E5 --data ../shared/data --keep FOLDER

encoder: an encoder that is there (multilingual-e5-small, a Hugging Face folder) goes on from pairs of English with `SEEN`. small: an encoder
of our own, of `SMALL`'s shape, learns masked and translation LM on DATA/libreoffice_help and then from 1,000 pairs of English with each of its
18 other languages. The pairs are paragraphs of DATA/libreoffice_help with one key, chosen by a hash of it. Retrieval is accuracy by
cosine, in both directions on average, among the first `--sentences` of Tatoeba's sentences (DATA/tatoeba, as LASER has it: the same
sentence twice is right either way) and of NTREX's (DATA/ntrex). Called again, it goes on where FOLDER stands. Processor seconds of each step are printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.config import Contrastive, Data, Model, Objective, Optimizer, Parallel, Sampling, Source, Train

ALL = ("de", "el", "es", "fi", "fr", "hi", "id", "it", "ja", "km", "ko", "nl", "pl", "pt_BR", "ru", "tr", "vi", "zh_CN")
SEEN = ("de", "es", "fi", "fr", "hi", "ja", "ru", "tr", "vi", "zh_CN")  # in pairs, by `encoder`
# As Tatoeba and NTREX name them; of the language's code in the help.
TATOEBA = {"de": "deu", "fi": "fin", "hi": "hin", "ja": "jpn", "tr": "tur", "el": "ell"}
TATOEBA |= {x: x for x in ("ara", "est", "kat", "swh", "tel")}
NTREX = {"de": "deu", "hi": "hin", "ja": "jpn", "el": "ell", "swh": "swa", "tel": "tel"}
PREFIX = "query: "  # e5's, for texts of one kind
CHARACTERS = (20, 120)  # of a paragraph, so that a pair fits a block
LENGTH = 64
SMALL = Model(layers=4, width=192, heads=6, mlp_width=768, positions=128)


def main() -> None:
    """Train, measure before and after, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("encoder", "small"))
    parser.add_argument("e5")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--keep", required=True)
    parser.add_argument("--sentences", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--first_steps", type=int, default=1_500)
    options = parser.parse_args()
    folder, e5 = Path(options.keep), str(Path(options.e5).resolve())
    data, most = Path(options.data).resolve(), options.sentences
    folder.mkdir(parents=True, exist_ok=True)
    seen = SEEN if options.what == "encoder" else ALL
    write_pairs(data, folder, ALL, 2_000 if options.what == "encoder" else 1_000)
    if not (folder / "e5" / "initial.json").exists():
        command = [sys.executable, "-m", "mlm_jax", "import", e5, str(folder / "e5")]
        subprocess.run(command, check=True, stdout=sys.stderr)
    found = {"e5-small": measured(str(folder / "e5"), PREFIX, data, most, folder / "e5.json")}
    if options.what == "encoder":
        trained = pretrain(folder, "contrastive", encoder_config(folder, e5, options.steps))
        found["and contrastive"] = measured(trained, PREFIX, data, most, folder / "contrastive.json")
    else:
        first = pretrain(folder, "masked", small_config(folder, options.first_steps))
        found["small, masked and translation LM"] = measured(first, "", data, most, folder / "masked.json")
        trained = pretrain(folder, "small", small_contrastive(folder, first, options.steps))
        found["small, and contrastive"] = measured(trained, "", data, most, folder / "small.json")
    print(table(found, seen))


def table(found: dict[str, dict[str, float]], seen: tuple[str, ...]) -> str:
    """Accuracies in %, a line per language and benchmark, and the means over languages that were seen in pairs and over others."""
    names = list(next(iter(found.values())))
    kinds = {name: "seen" if name.split()[1] in seen else "not seen" for name in names}
    rows = [[name, kinds[name], *(f"{100 * x[name]:.1f}" for x in found.values())] for name in names]
    for benchmark in ("tatoeba", "ntrex"):
        for kind in ("seen", "not seen"):
            mine = [name for name in names if name.split()[0] == benchmark and kinds[name] == kind]
            if mine:
                means = (np.mean([x[name] for name in mine]) for x in found.values())
                rows.append([f"{benchmark}, mean of {len(mine)}", kind, *(f"{100 * mean:.1f}" for mean in means)])
    return console.format_table(["retrieval", "in pairs", *found], rows)


def measured(encoder: str, prefix: str, data: Path, most: int, kept: Path) -> dict[str, float]:
    """Retrieval accuracy of each benchmark and language, of the encoder of a workdir, once."""
    if not kept.exists():
        # A process of its own, which gives its memory back.
        given = (str(Path(encoder).resolve()), prefix, str(data), most, str(kept.resolve()))
        code = f"from benchmarks.contrastive import measure; measure{given!r}"
        subprocess.run([sys.executable, "-c", code], check=True, stdout=sys.stderr, cwd=Path(__file__).parents[1])
        say_used(f"measured {encoder}")
    scores: dict[str, float] = json.loads(kept.read_text())
    return scores


def measure(encoder: str, prefix: str, data: str, most: int, kept: str) -> None:
    """Retrieval accuracy of each benchmark and language, into a file."""
    from mlm_jax.encode.read import read_pretrained
    from mlm_jax.encode.sentences import make_embedder
    from mlm_jax.evaluate.retrieval import accuracy
    from mlm_jax.mesh import make_mesh
    from mlm_jax.pretrained import SentenceVectors
    from mlm_jax.tokenizers import load_tokenizer

    pretrained, tokenizer = read_pretrained(encoder), load_tokenizer(Path(encoder) / "vocabulary")
    embed = make_embedder(pretrained, tokenizer, make_mesh(cfg.Mesh()), SentenceVectors(), LENGTH)

    scores = {}
    for language, name in TATOEBA.items():
        sides = [lines(Path(data) / "tatoeba" / f"tatoeba.{name}-eng.{x}")[:most] for x in (name, "eng")]
        vectors = [embed(side, "", prefix) for side in sides]
        scores[f"tatoeba {language}"] = accuracy(*vectors, both_ways=True, texts=(sides[0], sides[1]))
    english = embed(lines(Path(data) / "ntrex" / "eng.txt")[:most], "", prefix)
    for language, name in NTREX.items():
        other = embed(lines(Path(data) / "ntrex" / f"{name}.txt")[:most], "", prefix)
        scores[f"ntrex {language}"] = accuracy(other, english, both_ways=True)
    Path(kept).write_text(json.dumps(scores, indent=1) + "\n")


def lines(path: Path) -> list[str]:
    """The lines of a file."""
    return path.read_text().splitlines()


def encoder_config(folder: Path, init: str, steps: int) -> cfg.Config:
    """Contrastive training of the encoder `init` on pairs of English with `SEEN`."""
    return cfg.Config(
        init=init,
        data=Data(
            parallel=tuple(
                Parallel(("en", x), (f"{folder}/en-{x}.tsv",), (1, 2), prefixes=(PREFIX, PREFIX)) for x in SEEN
            ),
            sequence_length=LENGTH,
            packing="pairs",
            pairs_per_block=2,
        ),
        sampling=Sampling(count="documents"),
        objective=Objective(learn="contrastive"),
        contrastive=Contrastive(temperature=0.02),
        optimizer=Optimizer(learning_rate=2e-5, warmup_share=0.1),
        train=Train(steps=steps, batch_size=32, log_every=10, validate_every=20, save_every=20, validation_blocks=8),
    )


def small_config(folder: Path, steps: int) -> cfg.Config:
    """Masked LM on the text of all languages, and translation LM on the pairs."""
    return cfg.Config(
        data=Data(
            sources=tuple(Source(x, f"{folder}/text.{x}.txt") for x in ("en", *ALL)),
            parallel=tuple(Parallel(("en", x), (f"{folder}/en-{x}.tsv",), (1, 2)) for x in ALL),
            sequence_length=128,
        ),
        vocabulary=cfg.Vocabulary(size=16_000, sample_bytes=10_000_000),
        sampling=Sampling(exponent=0.5, parallel_share=0.3),
        model=SMALL,
        optimizer=Optimizer(learning_rate=1e-3, warmup_share=0.1),
        train=Train(steps=steps, batch_size=32, log_every=50, validate_every=500, save_every=250, validation_blocks=8),
    )


def small_contrastive(folder: Path, init: str, steps: int) -> cfg.Config:
    """Contrastive training of our small encoder on 1,000 pairs of English with each language."""
    config = encoder_config(folder, init, steps)
    parallel = tuple(Parallel(("en", x), (f"{folder}/en-{x}.tsv",), (1, 2)) for x in ALL)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, parallel=parallel),
        optimizer=Optimizer(learning_rate=5e-4, warmup_share=0.1),
        contrastive=Contrastive(temperature=0.05),
        train=dataclasses.replace(config.train, log_every=50, validate_every=250, save_every=250),
    )


def pretrain(folder: Path, name: str, config: cfg.Config) -> str:
    """Run `mlm-jax pretrain` with a config; returns the workdir."""
    path, workdir = folder / f"{name}.py", folder / name
    path.write_text(f"from mlm_jax.config import *\n\n\ndef get_config():\n    return {config!r}\n")
    command = [sys.executable, "-m", "mlm_jax", "pretrain", str(path), "--workdir", str(workdir)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    say_used(name)
    return str(workdir)


def say_used(what: str) -> None:
    """Print the processor seconds of all steps so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{what}: {used.ru_utime + used.ru_stime:,.0f} processor seconds by then", file=sys.stderr, flush=True)


def write_pairs(data: Path, folder: Path, languages: tuple[str, ...], most: int) -> None:
    """en-{language}.tsv, English paragraphs and their translations, and text.{language}.txt, all paragraphs."""
    english = dict(read_keyed(data, "en"))
    for language in ("en", *languages):
        text = dict(read_keyed(data, language))
        (folder / f"text.{language}.txt").write_text("".join(f"{x}\n" for x in text.values()))
        if language == "en":
            continue
        fits = [
            (hashlib.blake2b(key.encode()).digest(), f"{english[key]}\t{other}\n")
            for key, other in text.items()
            if key in english and all(CHARACTERS[0] <= len(x) <= CHARACTERS[1] for x in (english[key], other))
        ]
        chosen = list(dict.fromkeys(pair for _, pair in sorted(fits)))[:most]
        (folder / f"en-{language}.tsv").write_text("".join(chosen))


def read_keyed(data: Path, language: str) -> Iterator[tuple[str, str]]:
    """Keys and paragraphs of a language."""
    with gzip.open(data / "libreoffice_help" / f"{language}.tsv.gz", "rt") as file:
        for line in file:
            key, _, text = line.rstrip("\n").partition("\t")
            if text.strip():
                yield key, " ".join(text.split())


if __name__ == "__main__":
    main()
