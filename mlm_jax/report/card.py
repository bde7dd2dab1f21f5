# SPDX-License-Identifier: Apache-2.0
"""The model card that `export` writes, README.md: what an encoder is, what it learned from, how well it does, and how it is loaded."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath

from mlm_jax.errors import UserError
from mlm_jax.evaluate.run import from_experiment
from mlm_jax.files import listed
from mlm_jax.language_names import language_name
from mlm_jax.model.encoder import padded_rows
from mlm_jax.neutrality.headlines import fairness_of, headlines
from mlm_jax.pretrained import Pretrained
from mlm_jax.report.provenance import provenance
from mlm_jax.report.results import shown
from mlm_jax.report.run import fairness_note, language_rows, read_run
from mlm_jax.results import read_results
from mlm_jax.stored import read_json

# The end of the name of a class in config.json → the hub's name of what it does.
TASKS = {
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}
CELL = str.maketrans({"|": "\\|", "\n": " ", "<": "&lt;"})  # what would end a table's cell, or begin markup


def model_card(
    workdir: str, name: str, pretrained: Pretrained, untrained: Sequence[str], architecture: str, kind: str
) -> str:
    """The card of an exported encoder, Markdown with the hub's metadata at its head.

    Args:
      workdir: that it is exported from.
      name: of the encoder: the folder's that it is exported into.
      untrained: what of it little or no training made, a sentence each.
      architecture: its class in transformers.
      kind: of folder, "hugging-face" or "sentence-transformers".
    """
    folder, makes_vectors = epath.Path(workdir), kind == "sentence-transformers"
    results = list(of_encoder(folder, pretrained))
    languages = pretrained.languages or tuple(r["language"] for r in sampled(folder))
    sections = {
        "": about(pretrained, architecture),
        "How to load it": loading_vectors(pretrained) if makes_vectors else loading(architecture),
        "Languages": language_table(folder, languages),
        "Training": training(folder, pretrained),
        "Results": evaluations(results),
        "What it knows of language": probes(results),
        "What is untrained": [f"- {cell(line)}" for line in untrained],
    }
    parts = [metadata(languages, architecture, makes_vectors), f"# {cell(name)}"]
    for heading, lines in sections.items():
        if lines:
            parts.append("\n".join([*([f"## {heading}", ""] if heading else []), *lines]))
    return "\n\n".join(parts) + "\n"


def cell(text: object) -> str:
    """Text that ends no cell of a table, and is no markup."""
    return str(text).translate(CELL)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table; none of no rows."""
    every = [heads, ["---"] * len(heads), *rows] if rows else []
    return [f"| {' | '.join(cell(x) for x in row)} |" for row in every]


def metadata(languages: Sequence[str], architecture: str, makes_vectors: bool = False) -> str:
    """What the hub reads of a card, YAML between two lines of ---: languages by the codes that it knows, and what the encoder does."""
    codes = sorted({code for x in languages if re.fullmatch("[a-z]{2,3}", code := re.split("[-_]", x)[0])})
    task = [x for end, x in TASKS.items() if architecture.endswith(end)]
    # JSON is YAML, so that no code (Norwegian's `no`) is read as something else.
    found = {
        "language": codes,
        "library_name": "sentence-transformers" if makes_vectors else "transformers",
        "pipeline_tag": "sentence-similarity" if makes_vectors else task[0] if task else "feature-extraction",
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in found.items() if value]
    return "\n".join(["---", *lines, 'tags: ["mlm_jax", "multilingual"]', "---"])


def about(pretrained: Pretrained, architecture: str) -> list[str]:
    """What the encoder is, and its sizes."""
    model, words = pretrained.model, pretrained.vocabulary
    # Rows beyond the vocabulary are padding: exported weights lack them.
    padded = padded_rows(words.size)
    every = sum(
        leaf.size * words.size // padded if leaf.shape[0] == padded else leaf.size
        for leaf in jax.tree.leaves(pretrained.params)
    )
    rows = [
        ("class", architecture),
        ("layers, width, heads", f"{model.layers}, {model.width:,}, {model.heads}"),
        ("feed-forward width", f"{model.mlp_width:,}{' (gated)' if model.gated else ''}"),
        ("parameters", f"{every:,}, of which {words.size * model.width:,} embed pieces"),
        ("pieces of the tokenizer", f"{words.size:,}"),
        ("longest text it was trained on", f"{pretrained.trained or model.positions:,} tokens"),
    ]
    if pretrained.head is not None:
        rows.append(("labels", ", ".join(pretrained.head.labels)))
    said = f"{'A fine-tuned text' if pretrained.head else 'A text'} encoder, made by mlm_jax: {pretrained.source}."
    return [cell(said), "", *table(["what", "value"], rows)]


def loading(architecture: str) -> list[str]:
    """The lines of Python that load it."""
    end = next((end for end in TASKS if architecture.endswith(end)), "")
    auto = {"ForPreTraining": "AutoModelForPreTraining"}.get(end, f"AutoModel{end}")
    return [
        "```python",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER_OR_REPOSITORY")',
        f'model = {auto}.from_pretrained("FOLDER_OR_REPOSITORY")',
        "```",
    ]


def loading_vectors(pretrained: Pretrained) -> list[str]:
    """The lines of Python that make vectors with sentence-transformers, and its prompts."""
    prompts = pretrained.vectors.prompts if pretrained.vectors is not None else {}
    given = f", prompt_name={json.dumps(next(iter(prompts)))}" if prompts else ""
    lines = [
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        'model = SentenceTransformer("FOLDER_OR_REPOSITORY")',
        f'vectors = model.encode(["Habari", "Hello"]{given})',
        "```",
    ]
    shown = ", ".join(f"{name} (`{json.dumps(prompt, ensure_ascii=False)}`)" for name, prompt in prompts.items())
    return [*lines, *(["", f"Prompts, which are put before texts: {cell(shown)}."] if prompts else [])]


def sampled(folder: epath.Path) -> list[dict[str, Any]]:
    """The sampling table of a run, as far as it has one."""
    path = folder / "sampling.json"
    return read_json(path, list[dict[str, Any]]) if path.exists() else []


def language_table(folder: epath.Path, languages: Sequence[str]) -> list[str]:
    """What the encoder learned from, a row per language; or their names alone, where no more is known."""
    try:
        run = read_run(folder)
    except UserError:  # no run, or one that has logged nothing
        return [cell(", ".join(f"{language_name(x)} (`{x}`)" for x in languages))] if languages else []
    by_name = {r["language"]: r for r in run.sampling}
    rows = []
    for r in language_rows(run):
        size = by_name[r.language].get("bytes")
        rows.append(
            [
                r.language if r.is_pair else f"{language_name(r.language)} (`{r.language}`)",
                f"{size:,}" if size else "",
                f"{r.tokens:,}",
                f"{r.natural:.4f}",
                f"{r.rate:.4f}",
                f"{r.epochs:.1f}",
                f"{r.bytes_per_token:.2f}" if r.bytes_per_token else "",
                "" if r.tokens_per_document is None else f"{r.tokens_per_document:,.1f}",
                f"{100 * r.unknown:.1f} %",
                f"{r.scores['loss']:.3f}" if "loss" in r.scores else "",
                f"{r.scores['bits_per_byte']:.3f}" if "bits_per_byte" in r.scores else "",
            ]
        )
    heads = [
        "language",
        "bytes",
        "tokens",
        "natural share",
        "drawn",
        "epochs",
        "bytes per token",
        "tokens per document",
        "not written",
        "loss",
        "bits per byte",
    ]
    count = run.config["sampling"]["count"]
    note = (
        f"Shares are of {count}. Not written is the share of the text that the vocabulary cannot write; tokens per document are of held-out text, "
        "and so are loss (nats per predicted token) and bits per byte, as the run's last validation measured them."
    )
    return [*table(heads, rows), "", " ".join(filter(None, [note, fairness_note(run)]))]


def training(folder: epath.Path, pretrained: Pretrained) -> list[str]:
    """How it was trained: the options that matter most, and when, by which command and with which versions."""
    path = folder / "config.json"
    config = read_json(path, dict[str, Any]) if path.exists() else {}
    rows: list[tuple[str, str]] = []
    if pretrained.step:
        rows.append(("updates", f"{pretrained.step:,}"))
    optimizer, train = config.get("optimizer", {}), config.get("train", {})
    if "batch_size" in train and "sequence_length" in config.get("data", {}):
        rows.append(("batch", f"{train['batch_size']:,} blocks of {config['data']['sequence_length']:,} tokens"))
    if optimizer:
        rows.append(
            (
                "optimizer",
                f"{optimizer.get('name')}, peak learning rate {optimizer.get('learning_rate')}, {optimizer.get('schedule')}",
            )
        )
    if not pretrained.head and config.get("objective"):
        rows.append(("objective", objective(config)))
    if sampling := config.get("sampling"):
        rows.append(("sampling", f"{sampling['strategy']} {sampling.get(sampling['strategy'], '')}".strip()))
    return table(["what", "value"], rows + provenance(folder, config, pretrained.step))


def objective(config: Mapping[str, Any]) -> str:
    """What was learned, in words."""
    if config.get("model", {}).get("causal"):
        return "causal language model"
    kind = config["objective"].get("learn", "language_model")
    if kind != "language_model":
        return str(kind)
    pairs = " and translation" if config.get("sampling", {}).get("parallel_share") else ""
    return f"masked{pairs} language model, {100 * config['objective']['mask_rate']:g} % of the tokens"


def of_encoder(folder: epath.Path, pretrained: Pretrained) -> Iterator[tuple[str, Any]]:
    """(name, rows) of the results that were found of this very encoder: its workdir's own, and those of `finetune`, `evaluate` and
    `analyze` in the folders beside it, whose initial.json names it and its step."""
    source = f"{folder} at step {pretrained.step:,}"
    for other in [folder, *(x for x in listed(folder.parent) if x != folder)]:
        with contextlib.suppress(UserError):
            starts = other / "initial.json"
            is_own = other == folder and pretrained.head is not None
            if is_own or (starts.exists() and read_json(starts, dict[str, Any]).get("source") == source):
                yield other.name, read_results(other)


def evaluations(results: Sequence[tuple[str, Any]]) -> list[str]:
    """Benchmarks and what was fine-tuned from it, a row per task and language; `results` of `of_encoder`."""
    rows = []
    for name, found in results:
        if found and "probe" not in found[0]:
            for r in from_experiment(name, found) if "regime" in found[0] else found:
                value = shown(r["value"], r["metric"])
                rows.append([r["task"], language_name(r["language"]), r["metric"], value, f"{r['examples']:,}"])
    return table(["task", "language", "metric", "value", "examples"], rows)


def probes(results: Sequence[tuple[str, Any]]) -> list[str]:
    """The headlines of `analyze`: each probe at its best layer; `results` of `of_encoder`."""
    rows = []
    for _, found in results:
        if found and "probe" in found[0]:
            for h in headlines(found):
                values = ", ".join(f"{kind} {100 * value:.1f}" for kind, value in h.values.items())
                rows.append([h.set, h.probe, f"{h.layer}, {h.pooling}", values])
            for name, (_, value) in fairness_of(found).items():
                rows.append([name, "Gini coefficient of tokens per sentence", "", f"{value:.3f}"])
    return table(["text", "probe", "layer, pooling", "value"], rows)
