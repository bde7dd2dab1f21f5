# SPDX-License-Identifier: Apache-2.0
"""What translation LM adds: the probes of `analyze` after masked LM alone, and after masked + translation LM.

    python benchmarks/translation_lm.py [--steps 3000] [--text FOLDER --languages en de cs] [--gold FOLDER] [--keep FOLDER]

Both runs are configs/tiny_xlm_tlm.py, one with no blocks of sentence pairs and one with half; the same corpus, vocabulary,
seed and number of updates. The text is the sample corpus, or `FOLDER/{language}.tsv`, lines of a key, a tab and a text, in which
the same key is the same text translated. What is probed are the held-out pairs of English and each other language, which no training
block holds, and those that all languages have (`all`): a third fits means and maps, two thirds are tested. `--gold` names a folder of
word_alignment/ and quality_estimation/ as configs/analyze/neutrality.py reads them: English-French words where French is trained on, and
Romanian-English translations where Romanian is. Printed for either run are retrieval in the last layer, as the mean of the tokens, plain and centred, both
ways, over the updates too; and every probe at its best layer. `--keep` names a folder for the runs and their pages: called again, the
benchmark continues there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.neutrality.config import TRANSFORMATIONS, Aligned, Analyze, Quality, WordAlignment
from mlm_jax.neutrality.headlines import headlines
from mlm_jax.prepare import sample
from mlm_jax.prepare.held_out import is_held_out

CONFIG = Path(__file__).parents[1] / "configs" / "tiny_xlm_tlm.py"
LENGTH = 64
RUNS = {"masked LM": 0.0, "masked + translation LM": 0.5}  # share of blocks of pairs


def main() -> None:
    """Train and probe both runs, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--text", default="")
    parser.add_argument("--languages", nargs="+", default=["en", "ar", "cs", "de", "es", "fr", "ja", "ru"])
    parser.add_argument("--gold", default="")
    parser.add_argument("--keep", default="")
    options = parser.parse_args()
    folder = Path(options.keep or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    config_file = write_config(folder, options.text, options.languages) if options.text else CONFIG
    analysis = write_analysis(folder, options.text, [x for x in options.languages if x != "en"], options.gold)
    rows = {}
    for name, share in RUNS.items():
        workdir = folder / named(name)
        command = [sys.executable, "-m", "mlm_jax", "pretrain", str(config_file), "--workdir", str(workdir)]
        command += ["--sampling.parallel_share", str(share), "--train.steps", str(options.steps)]
        # Enough to learn more than frequencies, which the twin's inverse square root from 20 steps on is not.
        command += ["--optimizer.schedule", "linear", "--optimizer.learning_rate", "1e-3"]
        command += ["--optimizer.warmup_steps", "300", "--train.batch_size", "32"]
        command += ["--train.log_every", "500", "--train.validate_every", "1000", "--train.save_every", "1000"]
        command += ["--train.keep_last", "6"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        probed = workdir.with_name(f"{workdir.name}_probed")
        if not probed.exists():  # the last checkpoint, not the best: as many updates on both sides
            command = [sys.executable, "-m", "mlm_jax", "import", str(workdir), str(probed), "--step", "last"]
            subprocess.run(command, check=True, stdout=sys.stderr)
        command = [sys.executable, "-m", "mlm_jax", "analyze", str(analysis), "--workdir", str(probed)]
        command += ["--init", str(workdir)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        rows[name] = json.loads((probed / "results.json").read_text())
    print(f"{options.steps:,} updates\n\n{last_layer(rows)}\n\n{by_step(rows)}\n\n{best_layers(rows)}")


def named(run: str) -> str:
    """The folder of a run."""
    return run.replace(" + ", "_and_").replace(" ", "_")


def retrieved(rows: list[dict], kind: str, step: int | None = None) -> dict[str, float]:
    """Retrieval in the last layer, mean of the tokens, in %, of each set of pairs; at a step, or of the last checkpoint."""
    last = max(r["layer"] for r in rows)
    at = {"probe": "retrieval", "metric": "accuracy", "layer": last, "pooling": "mean", "transformation": kind}
    mine = [r for r in rows if all(r[k] == v for k, v in at.items()) and r.get("step") == step and r["set"] != "all"]
    sets = dict.fromkeys(r["set"] for r in mine)
    return {name: 100 * float(np.mean([r["value"] for r in mine if r["set"] == name])) for name in sets}


def last_layer(rows: dict[str, list[dict]]) -> str:
    """Retrieval, a line per run and transformation."""
    cells, sets = [], list(retrieved(rows["masked LM"], "plain"))
    for name, found in rows.items():
        for kind in ("plain", "centred"):
            values = retrieved(found, kind)
            cells.append(
                [f"{name}, {kind}", *(f"{values[s]:.1f}" for s in sets), f"{np.mean(list(values.values())):.1f}"]
            )
    return console.format_table(["retrieval, last layer", *sets, "mean"], cells)


def by_step(rows: dict[str, list[dict]]) -> str:
    """The mean of retrieval at each kept checkpoint, a line per run and transformation."""
    # A run that was stopped has a checkpoint there that the other has not.
    steps = sorted(set.intersection(*({r["step"] for r in found if "step" in r} for found in rows.values())))
    cells = []
    for name, found in rows.items():
        for kind in ("plain", "centred"):
            means = [np.mean(list(retrieved(found, kind, step).values())) for step in steps]
            cells.append([f"{name}, {kind}", *(f"{mean:.1f}" for mean in means)])
    return console.format_table(["retrieval, after updates", *(f"{step:,}" for step in steps)], cells)


def best_layers(rows: dict[str, list[dict]]) -> str:
    """Every probe at the layer and pooling that is best plain; of the sets of pairs, the mean."""
    cells = []
    for name, found in rows.items():
        heads = [dataclasses.replace(h, set="pairs") if h.set.startswith("en-") else h for h in headlines(found)]
        for probe, part in dict.fromkeys((h.probe, h.set) for h in heads):
            mine = [h for h in heads if (h.probe, h.set) == (probe, part)]
            values = [
                100 * float(np.mean([h.values[k] for h in mine])) if k in mine[0].values else None
                for k in TRANSFORMATIONS
            ]
            cells.append([f"{probe}, {part}", name, *("" if v is None else f"{v:.1f}" for v in values)])
        words = {(r["layer"], r["metric"]): r["value"] for r in found if r["probe"] == "aligned words, before"}
        if words:
            gaps = [words[layer, "aligned"] - words[layer, "random"] for layer, metric in words if metric == "random"]
            cells.append(
                ["cosine of aligned words less that of random ones", name, f"{100 * max(gaps):.1f}", "", "", ""]
            )
    return console.format_table(["probe", "run", *TRANSFORMATIONS], sorted(cells, key=lambda c: c[0]))


def write_analysis(folder: Path, text: str, languages: list[str], gold: str) -> Path:
    """A config of `analyze` on the held-out pairs of English and each language, and on what all languages have; and their files."""
    pairs = {language: held_out(language, text) for language in languages}
    sets = {f"en-{language}": {"en": [a for a, _ in x], language: [b for _, b in x]} for language, x in pairs.items()}
    translated = {language: dict(x) for language, x in pairs.items()}
    shared = [a for a in translated[languages[0]] if all(a in x for x in translated.values())]
    sets["all"] = {"en": shared} | {language: [x[a] for a in shared] for language, x in translated.items()}
    aligned = []
    for name, part in sets.items():
        files = tuple((language, f"{folder}/held_out.{name}.{language}") for language in part)
        for (_, path), lines in zip(files, part.values(), strict=True):
            Path(path).write_text("".join(f"{line}\n" for line in lines))
        fit = len(part["en"]) // 3
        aligned.append(Aligned(name, files, fit=fit, test=len(part["en"]) - fit))
    config = Analyze(pivot="en", aligned=tuple(aligned), checkpoints=True, max_length=LENGTH)
    if gold:
        words = f"{gold}/word_alignment/enfr"
        if "ro" in languages:
            judged = [f"{gold}/quality_estimation/ro-en.{split}.tsv" for split in ("test", "train")]
            config = dataclasses.replace(config, quality=(Quality("ro-en", ("ro", "en"), *judged),))
        if "fr" in languages:
            french = WordAlignment("words.en-fr", ("en", "fr"), f"{words}.src-tgt", f"{words}.gold")
            # Its own words are what is asked for; the first run is there when either is analysed.
            first = f"{folder}/{named('masked LM')}_probed"
            config = dataclasses.replace(config, word_alignment=(french,), compare=(first,))
    path = folder / "analysis.py"
    path.write_text(
        f"from mlm_jax.config import *\nfrom mlm_jax.neutrality.config import *\n\n\ndef get_config():\n    return {config!r}\n"
    )
    return path


def write_config(folder: Path, text: str, languages: list[str]) -> Path:
    """A config like tiny_xlm_tlm.py on the text of keyed files."""
    for language in languages:
        (folder / f"{language}.txt").write_text("\n".join(read_keyed(text, language).values()) + "\n")
        if language != "en":
            lines = [f"{a}\t{b}" for a, b in pairs_of(language, text)]
            (folder / f"en-{language}.tsv").write_text("\n".join(lines) + "\n")
    config = cfg.load_config(str(CONFIG))
    data = dataclasses.replace(
        config.data,
        sources=tuple(cfg.Source(language, f"{folder}/{language}.txt") for language in languages),
        parallel=tuple(cfg.Parallel(("en", x), (f"{folder}/en-{x}.tsv",)) for x in languages if x != "en"),
    )
    vocabulary = dataclasses.replace(config.vocabulary, size=6_000)
    model = dataclasses.replace(config.model, width=128, mlp_width=512)
    config = dataclasses.replace(config, data=data, vocabulary=vocabulary, model=model)
    path = folder / "config.py"
    path.write_text(f"from mlm_jax.config import *\n\n\ndef get_config():\n    return {config!r}\n")
    return path


def read_keyed(text: str, language: str) -> dict[str, str]:
    """Key → text of `FOLDER/{language}.tsv`."""
    lines = (Path(text) / f"{language}.tsv").read_text().splitlines()
    return dict(line.split("\t")[:2] for line in lines if line.count("\t"))  # type: ignore[misc]


def pairs_of(language: str, text: str) -> list[tuple[str, str]]:
    """Texts in English and a language."""
    if not text:
        return sample.sample_pairs("en", language)
    english, other = read_keyed(text, "en"), read_keyed(text, language)
    return [(english[key], other[key]) for key in english if key in other]


def held_out(language: str, text: str) -> list[tuple[str, str]]:
    """The pairs of English and a language that no training block holds."""
    fraction = cfg.load_config(str(CONFIG)).data.validation_fraction
    return list(dict.fromkeys((a, b) for a, b in pairs_of(language, text) if is_held_out(a, fraction)))


if __name__ == "__main__":
    main()
