# SPDX-License-Identifier: Apache-2.0
"""What a workdir tells of its run: the data that plots, page and table are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from etils import epath

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.fairness import gini, held_out
from mlm_jax.fields import AtLeast
from mlm_jax.starts import read_starts
from mlm_jax.stored import read_json
from mlm_jax.train.metrics import read_metrics

# By `objective.learn`: what losses are in, how the validation's are measured, and what there is one of per loss.
UNITS = {
    "language_model": ("nats per token", "at a fixed 15 % mask", "masked token"),
    "contrastive": ("nats per text", "among the other held-out texts of its pair of languages", "text"),
    "distillation": ("", "against the teacher", "token or text"),
}


# By the same, what is shown of a validation: how much it rests on, and scores.
SCORES = {
    "language_model": ("targets", "loss", "perplexity", "bits_per_byte", "unigram", "gain"),
    "contrastive": ("pairs", "loss", "accuracy"),
    "distillation": ("targets", "loss"),
}


class SamplingRow(TypedDict):
    """What a page takes of a row of `sampling.sampling_table`."""

    language: str
    is_pair: bool
    natural: float
    rates: list[float]
    tokens: Annotated[int, AtLeast(1)]
    blocks: Annotated[int, AtLeast(1)]
    unigram_loss: float | None


@dataclass(frozen=True)
class Run:
    """A run as its workdir holds it.

    Attributes:
      train, validation: the records of metrics.jsonl of that kind, by step.
      sampling: rows of `sampling.sampling_table`.
      config: the stored config.
      continued: steps at which it was stopped and went on.
      held_out: language → documents and tokens that are held out, as far as the corpus is there.
    """

    name: str
    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    sampling: list[dict[str, Any]]
    config: dict[str, Any]
    continued: tuple[int, ...] = ()
    held_out: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def learns(self) -> str:
        """What (`objective.learn`)."""
        return self.config.get("objective", {}).get("learn", "language_model")

    @property
    def unit(self) -> str:
        """What losses are in; empty where it is no unit."""
        return UNITS[self.learns][0]

    def say_loss(self, loss: float) -> str:
        """A loss in its unit, where it has one."""
        return f"{loss:.2f} {self.unit}" if self.unit else f"{loss:.3g}"

    @property
    def unigram(self) -> dict[str, float]:
        """Language → unigram baseline, of the languages that were validated (all, before a validation)."""
        there = averaged(self.validation[-1]) if self.validation else {r["language"] for r in self.sampling}
        return {r["language"]: r["unigram_loss"] for r in self.sampling if r["unigram_loss"] and r["language"] in there}

    @property
    def same_objective_since(self) -> int:
        """The step since which what is learned is what is learned in the end: 0, but where a phase changed `causal`."""
        causal, since = self.config.get("model", {}).get("causal", False), 0
        for phase in self.config["train"].get("phases", ()):
            if phase["start"] < self.train[-1]["step"] and phase.get("causal") not in (None, causal):
                causal, since = phase["causal"], phase["start"]
        return since

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation with the lowest macro loss, of those of the last objective."""
        since = self.same_objective_since
        scored = [v for v in self.validation if v["macro_loss"] is not None and (not since or v["step"] > since)]
        return min(scored, key=lambda v: v["macro_loss"], default=None)

    @property
    def steady(self) -> list[dict[str, Any]]:
        """The training records whose speed is that of the run: of earlier versions the first after it went on has too high a one."""
        steps = [r["step"] for r in self.train]
        first = {next((step for step in steps if step > start), None) for start in self.continued}
        return [r for r in self.train if r["step"] not in first] or self.train

    @property
    def gini(self) -> float | None:
        """The Gini coefficient of tokens per held-out document over languages; None of one language, and where languages hold out different
        numbers of documents, which are not the same text."""
        found = [self.held_out.get(r["language"], (0, 0)) for r in self.sampling if not r["is_pair"]]
        numbers = {documents for documents, _ in found}
        if len(found) < 2 or len(numbers) > 1 or 0 in numbers:
            return None
        return gini([tokens / documents for documents, tokens in found])

    def tokens_seen(self) -> dict[str, float]:
        """Language → tokens drawn so far: its blocks, at its mean tokens per block; of several lengths, as full as those of the first."""
        last, length = self.train[-1] if self.train else {}, self.config["data"]["sequence_length"]
        blocks = {name: places / length for name, places in last.get("places", {}).items()} or last.get("blocks", {})
        return {r["language"]: blocks.get(r["language"], 0) * r["tokens"] / r["blocks"] for r in self.sampling}

    @property
    def phases(self) -> list[int]:
        """Steps at which a phase began."""
        return [
            phase["start"]
            for phase in self.config["train"].get("phases", ())
            if phase["start"] < self.train[-1]["step"]
        ]


def averaged(validation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of a validation what its mean is of: the scores of every language or, where it has none, of every pair."""
    return validation["languages"] or validation.get("pairs", {})


@dataclass(frozen=True)
class LanguageRow:
    """A language's or a pair's part in a run.

    Attributes:
      natural, rate: its share of the text, and of what is drawn in the last stage.
      tokens, seen, epochs: of its text; drawn so far; the ratio of the two.
      unknown: share of the text that the vocabulary cannot write.
      bytes_per_token: UTF-8 bytes of its text per token; None in runs of earlier versions.
      tokens_per_document: of its held-out text, specials included; None of pairs, where nothing is held out, and where the corpus is gone.
      scores: of the last validation, those that there are: loss, perplexity, bits_per_byte, targets (how many tokens were scored),
        accuracy and pairs (of contrastive learning), unigram (the baseline's loss) and gain (by how much the model's loss is lower).
    """

    language: str
    is_pair: bool
    natural: float
    rate: float
    tokens: int
    seen: float
    epochs: float
    unknown: float
    bytes_per_token: float | None
    tokens_per_document: float | None
    scores: dict[str, float]


def read_run(workdir: epath.PathLike) -> Run:
    """Read a workdir.

    Raises:
      UserError: there is no run in it, or it has logged nothing yet.
    """
    folder = epath.Path(workdir)
    for name in ("config.json", "sampling.json", "metrics.jsonl"):
        path = folder / name
        if not path.exists():
            raise UserError(f"{path}: missing, so there is no run to report on; run: mlm-jax pretrain CONFIG")
    records = read_metrics(workdir)
    run = Run(
        name=folder.name,
        train=[r for r in records if r["kind"] == "train"],
        validation=[r for r in records if r["kind"] == "validation"],
        sampling=read_json(folder / "sampling.json", list[SamplingRow], "delete it, and train on"),
        config=read_json(folder / "config.json", dict[str, Any]),
        continued=tuple(sorted({start["step"] for start in read_starts(folder)} - {0})),
        held_out=held_out(folder / "corpus"),
    )
    if not run.train:
        raise UserError(f"{folder / 'metrics.jsonl'}: nothing logged yet; wait for the first line, or train on")
    if run.learns != "language_model":
        for row in run.sampling:
            row["unigram_loss"] = None  # no baseline of what is learned
    return run


def language_rows(run: Run) -> list[LanguageRow]:
    """A row per language, the largest first, and then a row per language pair."""
    last = run.validation[-1]["languages"] | run.validation[-1].get("pairs", {}) if run.validation else {}
    seen = run.tokens_seen()
    rows = []
    for r in sorted(run.sampling, key=lambda r: (r["is_pair"], -r["natural"])):
        name, found, unigram = r["language"], last.get(r["language"]), r["unigram_loss"]
        scores = {x: found[x] for x in SCORES[run.learns] if x in found} if found else {}
        if unigram:
            scores["unigram"] = unigram
        if unigram and found:
            scores["gain"] = unigram - found["loss"]
        rows.append(
            LanguageRow(
                name,
                r["is_pair"],
                r["natural"],
                r["rates"][-1],
                r["tokens"],
                seen[name],
                seen[name] / r["tokens"],
                r.get("unknown", 0.0),  # runs of earlier versions did not look
                r.get("bytes_per_token"),
                None if r["is_pair"] or name not in run.held_out else run.held_out[name][1] / run.held_out[name][0],
                scores,
            )
        )
    return rows


def averaged_scores(rows: list[LanguageRow]) -> list[dict[str, float]]:
    """The scores that means are of: those of every validated language or, where there is none, of every pair."""
    validated = [row for row in rows if "loss" in row.scores]
    return [row.scores for row in validated if not row.is_pair] or [row.scores for row in validated]


def mean(values: list[float | None]) -> float | None:
    """The mean of the values there are."""
    there = [v for v in values if v is not None]
    return sum(there) / len(there) if there else None


def fairness_note(run: Run) -> str:
    """How many tokens languages have for a document, in one number, and what it is worth; empty where it says nothing."""
    if run.gini is None:
        return ""
    languages = sum(not r["is_pair"] for r in run.sampling)
    return (
        f"The Gini coefficient of tokens per held-out document over {languages} languages is {run.gini:.3f} (0: all have as many). It tells how "
        "evenly the vocabulary cuts them only where the held-out documents are the same text in all of them, translated."
    )


def summary_table(workdir: epath.PathLike) -> str:
    """The table of languages that a run ends with, and `fairness_note`.

    Raises:
      UserError: there is no run in the workdir.
    """
    run = read_run(workdir)
    rows = language_rows(run)
    # A masked token's perplexity says little, a next token's is what causal LMs are compared by.
    scores = {"loss": "validation", "unigram": "unigram", "gain": "gained"}
    if run.config["model"]["causal"]:
        scores = {"loss": "validation", "perplexity": "perplexity"} | scores
    if run.learns == "contrastive":
        scores = {"loss": "validation", "accuracy": "found"}
    rests_on = SCORES[run.learns][0]
    cells = [
        [
            row.language,
            f"{row.natural:.4f}",
            f"{row.rate:.4f}",
            f"{row.epochs:.1f}",
            f"{100 * row.unknown:.1f} %",
            "–" if row.tokens_per_document is None else f"{row.tokens_per_document:,.1f}",
            f"{row.scores[rests_on]:,}" if rests_on in row.scores else "–",
            *(_number(row.scores.get(name)) for name in scores),
        ]
        for row in rows
    ]
    validated = averaged_scores(rows)
    cells.append(["mean", *[""] * 6, *(_number(mean([found.get(name) for found in validated])) for name in scores)])
    heads = ["language", "natural", "smoothed", "epochs", "unknown", "tokens/document", rests_on, *scores.values()]
    return "\n".join([console.format_table(heads, cells), *filter(None, [fairness_note(run)])])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def sampling_text(count: str, rows: list[dict[str, Any]]) -> str:
    """The sampling table as text: what each language has and how often it will be drawn.

    Args:
      count: what shares are shares of, `Sampling.count`.
      rows: of `sampling.sampling_table`.
    """
    stages = len(rows[0]["rates"])
    headings = ["language", "tokens", "blocks", "bytes/token", "<unk>", "unknown", f"natural ({count})"]
    headings += ["smoothed"] if stages == 1 else [f"stage {i + 1}" for i in range(stages)]
    cells = [
        [
            row["language"],
            f"{row['tokens']:,}",
            f"{row['blocks']:,}",
            f"{row['bytes_per_token']:.2f}",
            f"{100 * row['unk']:.1f} %",
            f"{100 * row['unknown']:.1f} %",
            f"{row['natural']:.4f}",
            *(f"{rate:.4f}" for rate in row["rates"]),
            f"{row['epochs']:.1f}",
        ]
        for row in sorted(rows, key=lambda r: (r["is_pair"], -r["natural"]))
    ]
    return console.format_table([*headings, "epochs"], cells)
