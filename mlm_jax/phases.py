# SPDX-License-Identifier: Apache-2.0
"""A run's phases: from which step on its blocks and batches have which size, and the config that holds in each.

A run without phases is one part, whose config is its own. Everything that looks at a step (the training, `plan`, an export of a
checkpoint) takes the config of that step's part, in which the options that a phase replaces have its values and no phase is left.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from mlm_jax.config import Config, Phase, with_sections
from mlm_jax.errors import UserError

SECTIONS = {
    "sequence_length": "data",
    "batch_size": "train",
    "learning_rate": "optimizer",
    "weight_decay": "optimizer",
    "rope_theta": "model",
    "rope_local_theta": "model",
    "causal": "model",
}  # of the options that a phase replaces


@dataclass(frozen=True)
class Part:
    """A part of a run in which its options stay as they are.

    Attributes:
      start, end: its first step, and the first that is no longer of it.
      config: that holds in it, without phases; `train.steps` is still the whole run's.
      corpus: folder of its blocks in the workdir.
    """

    start: int
    end: int
    config: Config
    corpus: str

    @property
    def tokens(self) -> int:
        """Places for tokens in a batch, padding included."""
        return tokens_of(self.config)


def tokens_of(config: Config) -> int:
    """Places for tokens in a batch of a config without phases, padding included."""
    return config.train.batch_size * config.data.sequence_length


def parts_of(config: Config) -> tuple[Part, ...]:
    """The parts of a run whose starts are steps (`in_steps`), in their order; those after its last step are left out."""
    if not config.train.phases:
        return (Part(0, config.train.steps, config, "corpus"),)
    configs = _configs(config)
    # A smaller batch is computed in as few pieces as are no larger than those of the largest.
    sizes = [tokens_of(c) for c in configs]
    most = max(sizes) // config.train.accumulate
    positions = config.model.positions or longest(config)
    starts = [0, *(phase.start for phase in config.train.phases), config.train.steps]
    found = []
    for mine, size, (start, end) in zip(configs, sizes, itertools.pairwise(starts), strict=True):
        batch = mine.train.batch_size
        pieces = next(n for n in range(1, batch + 1) if batch % n == 0 and (size // n <= most or n == batch))
        mine = with_sections(mine, train={"phases": (), "accumulate": pieces}, model={"positions": positions})
        if start < config.train.steps:
            found.append(
                Part(start, min(end, config.train.steps), mine, corpus_name(config, mine.data.sequence_length))
            )
    return tuple(found)


def _configs(config: Config) -> list[Config]:
    """The config before the first phase and from each on, with the options that they replace."""
    found = [config]
    for phase in config.train.phases:
        for option, section in SECTIONS.items():
            if (value := getattr(phase, option)) is not None:
                config = with_sections(config, **{section: {option: value}})
        found.append(config)
    return found


def part_at(config: Config, step: int) -> Part:
    """The part that a step is of; a step beyond the run is of its last."""
    return [part for part in parts_of(config) if part.start <= step][-1]


def largest(config: Config) -> Part:
    """The part with most tokens per batch, of those the last: it needs most memory."""
    return max(reversed(parts_of(config)), key=lambda part: part.tokens)


def lengths(config: Config) -> tuple[int, ...]:
    """The lengths of a run's blocks, `data.sequence_length` first."""
    return tuple(dict.fromkeys(mine.data.sequence_length for mine in _configs(config)))


def longest(config: Config) -> int:
    """The length of its longest blocks."""
    return max(lengths(config))


def corpus_name(config: Config, length: int) -> str:
    """The folder in the workdir that has a run's blocks of a length."""
    return "corpus" if length == config.data.sequence_length else f"corpus_{length}"


def with_length(config: Config, length: int) -> Config:
    """The config with blocks of another length."""
    return with_sections(config, data={"sequence_length": length})


def in_steps(config: Config) -> Config:
    """The config with every number that `train.unit` has in tokens in steps: the first step at which so many have been trained on.

    Each step has as many tokens as its batch has places, so that the numbers are exact.

    Raises:
      UserError: two phases or stages would begin at the same step.
    """
    if config.train.unit == "steps":
        return config
    phases = config.train.phases
    sizes = [tokens_of(c) for c in _configs(config)]
    # (step, tokens trained on before it) at which each part begins.
    begins = [(0, 0)]
    for phase, size in zip(phases, sizes, strict=False):
        step, tokens = begins[-1]
        steps = -(-(phase.start - tokens) // size)
        begins.append((step + steps, tokens + steps * size))

    def step_of(tokens: int) -> int:
        """The first step before which so many tokens have been trained on."""
        place = max(i for i, (_, before) in enumerate(begins) if before <= tokens)
        step, before = begins[place]
        step += -(-(tokens - before) // sizes[place])
        return min([step, *(start for start, _ in begins[place + 1 :])])

    total, decay = config.train.steps, config.optimizer.decay_steps
    steps = step_of(total)
    begun = tuple(dataclasses.replace(phase, start=step) for phase, (step, _) in zip(phases, begins[1:], strict=True))
    stages = tuple(dataclasses.replace(stage, start=step_of(stage.start)) for stage in config.sampling.stages)
    rates = tuple((step_of(start), rate) for start, rate in config.objective.mask_rate_schedule)
    made = with_sections(
        config,
        train={"unit": "steps", "steps": steps, "phases": begun},
        sampling={"stages": stages},
        objective={"mask_rate_schedule": rates},
        optimizer={
            "warmup_steps": step_of(config.optimizer.warmup_steps),
            "decay_steps": steps - step_of(total - decay) if decay else 0,
        },
    )
    for name, starts in (
        ("train.phases", [phase.start for phase in begun]),
        ("sampling.stages", [stage.start for stage in stages]),
    ):
        for earlier, later in itertools.pairwise([0, *starts]):
            if later <= earlier:
                raise UserError(
                    f"{name}: two begin at step {later:,}; their starts, in tokens, have to be a batch apart at least"
                )
    return made


def growing_batches(first: int, last: int, count: int, tokens: int, length: int) -> tuple[Phase, ...]:
    """Phases, for a config in tokens, in which batches grow evenly from `first` blocks (`train.batch_size`) to `last`.

    Each of the `count` sizes below the last has as many updates as any other, so that the size grows evenly over updates
    (ModernBERT's batch-size warm-up, there by single blocks).

    Args:
      count: sizes below the last; it divides `last - first`. Each is a program of its own, to be compiled.
      tokens: that are trained on before the batches have their last size.
      length: of the blocks.
    """
    sizes = range(first, last, (last - first) // count)
    updates = tokens // (length * sum(sizes))
    ends = itertools.accumulate(size * length * updates for size in sizes)
    return tuple(Phase(end, batch_size=size) for end, size in zip(ends, [*sizes[1:], last], strict=True))
