# SPDX-License-Identifier: Apache-2.0
"""Counts → rates → order: how often each language is drawn, and which draw is whose.

The vocabulary's training sample, the SeqIO mixture and the training mixture all take their rates
from here. Shares are shares of what `config.Sampling.count` names; rates are shares of the blocks
drawn (of the bytes drawn, for the vocabulary).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.manifest import Stream
from mlm_jax.phases import Part, parts_of

PERIOD = 10_000  # draws after which the order of languages repeats, unless some language is very rare


def exponent_rates(counts: ArrayLike, exponent: float) -> np.ndarray:
    """Smoothed shares, p ** exponent over their sum (Conneau and Lample 2019, section 3.1).

    Args:
      counts: positive, [languages].
      exponent: 0 (uniform) to 1 (natural); a temperature is its inverse.

    Returns:
      Rates, float64 [languages], that sum to 1.
    """
    sizes = np.asarray(counts, np.float64)
    smoothed = (sizes / sizes.sum()) ** exponent
    return smoothed / smoothed.sum()


def unimax_rates(counts: ArrayLike, budget: float, max_epochs: float) -> np.ndarray:
    """UniMax (Chung et al. 2023, algorithm 1): even shares, no language beyond `max_epochs` times itself.

    Args:
      counts: what each language has, [languages], in the budget's unit.
      budget: what the run will draw.
      max_epochs: the repeat cap N.

    Returns:
      Rates, float64 [languages], that sum to 1.
    """
    sizes = np.asarray(counts, np.float64)
    drawn = np.zeros_like(sizes)
    left = float(budget)
    # From the smallest on: what it cannot take at its cap is shared out among the larger ones.
    for done, i in enumerate(np.argsort(sizes, kind="stable")):
        drawn[i] = min(left / (len(sizes) - done), max_epochs * sizes[i])
        left -= drawn[i]
    return drawn / drawn.sum()


def language_rates(sampling: cfg.Sampling, counts: ArrayLike, budget: float) -> np.ndarray:
    """Rates by the configured strategy.

    Args:
      sampling: strategy and its parameter (its stages are not looked at).
      counts: what a share is a share of, [languages]; for UniMax, in the unit of `budget`.
      budget: what will be drawn (UniMax only).

    Returns:
      float64 [languages], that sum to 1.
    """
    if sampling.strategy == "unimax":
        return unimax_rates(counts, budget, sampling.max_epochs)
    exponent = sampling.exponent if sampling.strategy == "exponent" else 1 / sampling.temperature
    return exponent_rates(counts, exponent)


@dataclass(frozen=True)
class Period:
    """An order of draws that repeats for ever.

    Attributes:
      languages: whose each draw is, int32 [period].
      ranks: how many of the period's earlier draws were the same language's, int64 [period].
      counts: draws per language in one period, int64 [languages].
    """

    languages: np.ndarray
    ranks: np.ndarray
    counts: np.ndarray

    def before(self, draw: int) -> np.ndarray:
        """Draws per language among the first `draw`, int64 [languages]."""
        periods, rest = divmod(draw, len(self.languages))
        return periods * self.counts + np.bincount(self.languages[:rest], minlength=len(self.counts))


def arrange(rates: ArrayLike, seed: int) -> Period:
    """Spread draws so evenly that no language is ever a whole draw ahead of its rate or behind it.

    Rates become whole counts of a period; each language's k-th draw must then lie between k and k + 1
    times its spacing, and serving the nearest deadline first meets every such window (the chairman
    assignment problem, Tijdeman 1980). So among the first t draws a language has its count within one
    of `rate * t`, any run of consecutive draws has it within two, and any run as long as the period
    has it exactly.

    Args:
      rates: float64 [languages], sum 1; a rate of 0 is never drawn.
      seed: breaks ties.
    """
    shares = np.asarray(rates, np.float64)
    period = PERIOD
    # A language drawn fewer than five times per period would have its rate rounded by over 10 %.
    while float(np.min(shares[shares > 0])) * period < 5 and period < 100 * PERIOD:
        period *= 10
    counts = _round_to_sum(shares, period)
    priority = np.random.default_rng(seed).permutation(len(shares)).tolist()

    # Python's numbers and heaps: the loop below is one of 10,000 to 1,000,000 small steps.
    n = counts.tolist()
    waiting = [(0, priority[i], i, 0) for i in range(len(n)) if n[i]]  # (release, priority, language, k)
    heapq.heapify(waiting)
    ready: list[tuple[int, int, int, int]] = []  # (deadline, priority, language, k)
    languages = np.empty(period, np.int32)
    ranks = np.empty(period, np.int64)
    for t in range(period):
        # Draw k of n may come from k * period / n on, and has to come before (k + 1) * period / n.
        while waiting and waiting[0][0] <= t:
            _, p, i, k = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(k + 1) * period // n[i]), p, i, k))
        _, p, i, k = heapq.heappop(ready)
        languages[t], ranks[t] = i, k
        if k + 1 < n[i]:
            heapq.heappush(waiting, ((k + 1) * period // n[i], p, i, k + 1))
    return Period(languages, ranks, counts)


def _round_to_sum(rates: np.ndarray, total: int) -> np.ndarray:
    """Whole counts within one of `rates * total`, that sum to it; at least 1 where the rate is not 0."""
    exact = rates * total  # [languages]
    counts = np.floor(exact).astype(np.int64)
    counts[(rates > 0) & (counts == 0)] = 1
    # What is missing goes to those that were rounded down most; what is too much is taken from those rounded up most.
    order = np.argsort(counts - exact, kind="stable")
    missing = total - int(counts.sum())
    if missing >= 0:
        counts[order[:missing]] += 1
    else:
        counts[[i for i in order[::-1] if counts[i] > 1][:-missing]] -= 1
    return counts


@dataclass(frozen=True)
class StageRates:
    """The rates that hold from a step on, float64 [streams], 0 for languages not yet added."""

    start: int
    rates: np.ndarray


def parallel_share(config: cfg.Config) -> float:
    """The share of the blocks that hold pairs."""
    return 1.0 if config.data.packing == "pairs" else config.sampling.parallel_share


def stage_rates(config: cfg.Config, streams: Sequence[Stream]) -> list[StageRates]:
    """The rates of every stage of a run over the given streams.

    Raises:
      UserError: a stage names an unknown language, or a language would be repeated more often than
        `sampling.max_epochs` allows.
    """
    sampling, parts = config.sampling, parts_of(config)
    blocks = np.array([s.train.blocks for s in streams], np.float64)
    count = "blocks" if sampling.strategy == "unimax" else sampling.count
    counts = np.array([getattr(s.train, count) for s in streams], np.float64)
    is_pair = np.array([len(s.languages) == 2 for s in streams])
    # Languages and pairs share out the blocks by `parallel_share`, and among themselves by the strategy.
    kinds = ((~is_pair, 1 - parallel_share(config)), (is_pair, parallel_share(config)))

    names = [s.name for s in streams]
    known = {language for s in streams for language in s.languages}

    def rates_of(rule: cfg.Sampling, languages: Sequence[str], option: str) -> np.ndarray:
        """Rates of all streams, float64 [streams], over some languages (all, where none is named) by a rule."""
        unknown = sorted(set(languages) - known)
        if unknown:
            raise UserError(f"{option}: {', '.join(unknown)} not in the corpus; it has {', '.join(sorted(known))}")
        # A pair takes part when both of its languages do.
        included = np.array([not languages or set(s.languages) <= set(languages) for s in streams])
        rates = np.zeros(len(streams))
        for members, share in kinds:
            of = members & included
            if not share:
                continue
            if not of.any():
                raise UserError(f"{option}: no language pair among them, but a sampling.parallel_share {share:g}")
            # Of the whole run also in a stage, so that UniMax's cap holds for the sum of the stages.
            budget = sum(blocks_of(part, parts[0]) for part in parts) * share
            rates[of] = share * language_rates(rule, counts[of], budget)
        return rates

    stages = [StageRates(0, rates_of(sampling, sampling.languages, "sampling.languages"))]
    for i, stage in enumerate(sampling.stages):
        # The strategy is the run's; where it has no exponent, `validate_pretraining` refuses a stage that names one.
        rule = sampling if stage.exponent is None else replace(sampling, exponent=stage.exponent)
        rates = rates_of(rule, stage.languages, f"sampling.stages[{i}].languages")
        stages.append(StageRates(stage.start, rates))
    if sampling.max_epochs:
        epochs = draws(stages, parts) / blocks
        worst = int(np.argmax(epochs))
        # A block's worth of slack: rates are rounded to whole draws.
        if epochs[worst] > sampling.max_epochs + 1 / blocks[worst]:
            raise UserError(
                f"language {names[worst]}: would be repeated {epochs[worst]:.1f} times, more than "
                f"sampling.max_epochs {sampling.max_epochs:g}; train fewer steps, raise the limit or add text"
            )
    return stages


def blocks_of(part: Part, first: Part) -> float:
    """Blocks that a part draws; those of another length than the run's first count by their length."""
    length, of_first = part.config.data.sequence_length, first.config.data.sequence_length
    return (part.end - part.start) * part.config.train.batch_size * (length / of_first)


def draws(stages: Sequence[StageRates], parts: Sequence[Part]) -> np.ndarray:
    """Blocks a run is expected to draw of each stream, float64 [streams]; see `blocks_of`."""
    # A stage holds from its start to the next one's, or to the end of the run.
    starts = [s.start for s in stages] + [parts[-1].end]
    total = np.zeros_like(stages[0].rates)
    for stage, end in zip(stages, starts[1:], strict=True):
        for part in parts:
            start = max(stage.start, part.start)
            within = replace(part, start=start, end=max(start, min(end, part.end)))
            total += stage.rates * blocks_of(within, parts[0])
    return total


def trained_streams(config: cfg.Config, streams: Sequence[Stream]) -> tuple[Stream, ...]:
    """Of a corpus' streams those that a run trains on and validates: pairs only where they have a share."""
    return tuple(s for s in streams if len(s.languages) == 1 or parallel_share(config))


def sampling_table(config: cfg.Config, streams: Sequence[Stream]) -> list[dict[str, object]]:
    """The sampling table, a row per language (or language pair), that every run prints and stores.

    Returns:
      Rows with language, is_pair, documents, bytes, tokens, blocks, natural (share of what
      `sampling.count` names, among languages or among pairs), rates (share of draws, one per stage), draws, epochs, unigram_loss, unknown
      (share of the text that the vocabulary cannot write), unk (share of its tokens that are <unk>), bytes_per_token (UTF-8 bytes of
      text per token, specials included), validation_tokens.
    """
    stages = stage_rates(config, streams)
    counts = np.array([getattr(s.train, config.sampling.count) for s in streams], np.float64)
    is_pair = np.array([len(s.languages) == 2 for s in streams])
    drawn = draws(stages, parts_of(config))
    # Of the blocks of sentence pairs, which hold the text as often.
    again = config.data.packing == "next_sentence"
    rounds = [config.data.pairings if again and len(s.languages) == 1 else 1 for s in streams]
    return [
        {
            "language": s.name,
            "is_pair": bool(is_pair[i]),
            "documents": s.train.documents,
            "bytes": s.train.bytes,
            "tokens": s.train.tokens,
            "blocks": s.train.blocks,
            "natural": float(counts[i] / counts[is_pair == is_pair[i]].sum()),
            "rates": [float(stage.rates[i]) for stage in stages],
            "draws": float(drawn[i]),
            "epochs": float(drawn[i] / s.train.blocks),
            "unigram_loss": s.unigram_loss,
            "unknown": s.train.unknown,
            "unk": s.train.unk,
            "bytes_per_token": s.train.bytes * rounds[i] / s.train.tokens,
            "validation_tokens": s.validation.tokens,
        }
        for i, s in enumerate(streams)
    ]
