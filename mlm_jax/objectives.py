# SPDX-License-Identifier: Apache-2.0
"""Which tokens are masked, what stands in their place, and what is predicted.

Masked LM (Devlin et al. 2019, section 3.1), which on blocks of sentence pairs is translation LM and where blocks
have a label goes with next-sentence prediction; and causal LM.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlm_jax.config import Objective
from mlm_jax.model.batch import Batch, MaskedBatch
from mlm_jax.model.encoder import Encoder, Features
from mlm_jax.model.head import cross_entropy
from mlm_jax.vocabulary import Vocabulary
from mlm_jax.words import JOIN, OPEN, PIECE, START

MASKED_LM = Objective()  # 15 %, 80/10/10


class Stream(enum.IntEnum):
    """The random decisions of `mask_tokens`, each of which has bits of its own (`random_bits`).

    A new masking rule takes a new name with the next number, and leaves the bits of the others as they are.
    """

    ORDER = 0  # which tokens are masked before others
    ROUNDING = 1  # whether a block's number of masked tokens is rounded up
    FATE = 2  # <mask>, another token, or the token itself
    REPLACEMENT = 3  # which other token
    SPAN = 4  # where spans begin
    CUT = 5  # which words or spans the number of masked tokens ends in, and what of them is masked


@dataclass(frozen=True)
class Tables:
    """What `mask_tokens` has to know of a vocabulary, as NumPy arrays.

    Attributes:
      ordinary: the ids that may stand in another's place, int32 [n].
      maskable: whether an id may be masked, bool [vocabulary]: if it is ordinary, or `objective.mask_specials` has it.
      mask: id of <mask>.
      word_classes: by which words are found (`begins_word`), uint8 [2, vocabulary]; None: ids are masked one by one.
      inverse_weight: frequency ** exponent of an id, scaled to whole numbers from 1 on, uint32 [vocabulary]; None: ids are
        masked alike.
    """

    ordinary: np.ndarray
    maskable: np.ndarray
    mask: int
    word_classes: np.ndarray | None = None
    inverse_weight: np.ndarray | None = None


def make_tables(
    vocabulary: Vocabulary,
    objective: Objective = MASKED_LM,
    word_classes: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> Tables:
    """The tables of a vocabulary for an objective.

    Args:
      word_classes: uint8 [2, vocabulary] (`vocabulary.word_classes`) to mask whole words; None to mask pieces.
      counts: how often each id occurs in the corpus, [vocabulary], for `objective.frequency_exponent`.
    """
    ordinary = vocabulary.ordinary_ids
    maskable = np.zeros(vocabulary.size, bool)
    maskable[ordinary] = True
    specials = {"none": (), "eos": (vocabulary.eos,), "all": vocabulary.special_ids}[objective.mask_specials]
    maskable[list(specials)] = True
    maskable[[vocabulary.pad, vocabulary.mask]] = False
    inverse_weight = None
    if objective.frequency_exponent and counts is not None:
        powers = np.maximum(counts, 1) ** objective.frequency_exponent
        powers = powers / powers[maskable].min()
        # Finely enough for the rarest, and together with `_negative_log`, of 18 bits, within 32 bits.
        scale = min(32.0, (2**14 - 1) / powers[maskable].max())
        inverse_weight = np.clip(np.round(powers * scale), 1, 2**14 - 1).astype(np.uint32)
    return Tables(ordinary, maskable, vocabulary.mask, word_classes, inverse_weight)


def max_predictions(length: int, objective: Objective, causal: bool = False) -> int:
    """The most positions predicted in a block of `length` tokens (BERT's max_predictions_per_seq).

    It is a static shape, so it comes from the highest rate of the schedule.
    """
    if causal:
        return length - 1
    highest = max([objective.mask_rate, *(rate for _, rate in objective.mask_rate_schedule)])
    return min(length, math.ceil(highest * length))


def mask_rate(objective: Objective, step: jax.Array) -> jax.Array:
    """The share of tokens that is masked at a step, int32 [] → float32 []."""
    rate = jnp.float32(objective.mask_rate)
    for start, later in objective.mask_rate_schedule:
        rate = jnp.where(step >= start, jnp.float32(later), rate)
    return rate


def row_keys(seed: int, step: jax.Array | int, rows: jax.Array) -> jax.Array:
    """A key for each row of a step: masks then do not depend on how a batch is cut over devices.

    The generator is threefry whatever JAX's default, so that every backend draws the same.

    Args:
      rows: numbers of the rows, uint32 [batch].

    Returns:
      Typed keys, [batch].
    """
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def training_keys(seed: int, step: jax.Array, batch: Batch, objective: Objective) -> jax.Array:
    """The keys that a training batch is masked with: new ones every step, or with static masks a block's own.

    Args:
      step: int32 [].
      batch: tokens, int32 [batch, length]; for static masks block_key, uint32 [batch], and repeat, int32 [batch].

    Returns:
      Typed keys, [batch].
    """
    if not objective.static_masks:
        return row_keys(seed, step, jnp.arange(len(batch["tokens"]), dtype=jnp.uint32))
    # Wherever and whenever the block comes: its name and how often it came decide.
    keys = row_keys(seed, 0, batch["block_key"])
    return jax.vmap(jax.random.fold_in)(keys, batch["repeat"] % objective.static_masks)


def random_bits(keys: jax.Array, streams: Iterable[Stream], length: int) -> dict[Stream, jax.Array]:
    """Bits for every position of every row, in each of the streams.

    Args:
      keys: typed keys, [batch].

    Returns:
      Stream → uint32 [batch, length]. The bits of one do not depend on which others are asked for.
    """
    streams = list(streams)
    # The first five are rows of one draw, as they were before they had names, so that runs keep their masks: an
    # element's bits depend on its number in the draw, not on how many there are.
    together = max((stream for stream in streams if stream <= Stream.SPAN), default=-1) + 1
    first = jax.vmap(lambda key: jax.random.bits(key, (together, length), jnp.uint32))(
        keys
    )  # [batch, together, length]

    def later(stream: Stream) -> jax.Array:
        return jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, stream), (length,), jnp.uint32))(keys)

    return {stream: first[:, stream] if stream <= Stream.SPAN else later(stream) for stream in streams}


def mask_tokens(
    keys: jax.Array, batch: Batch, rate: jax.Array | float, objective: Objective, tables: Tables, most: int
) -> MaskedBatch:
    """Choose the tokens to predict, and put something else in most of their places.

    In each block a share `rate` of the tokens (`objective.mask_count`) is masked: their number is rounded down or up at random, so that the share is kept on average in short blocks too. Every one of them is
    masked with that chance, wherever it stands and however long its word or span (but for `frequency_exponent`).

    Args:
      keys: typed keys, one per row, [batch] (`row_keys`).
      batch: tokens and segment_ids, int32 [batch, length], and any other features.
      rate: float32 [].
      most: masked positions per block at most (`max_predictions`).

    Returns:
      The batch with other tokens, int32 [batch, length], and: masked_positions, and targets, the tokens that stood there,
      int32 [batch, most]; weights, 1 where a position is predicted and 0 where the block has fewer, float32 [batch, most].
    """
    tokens, segments = batch["tokens"], batch["segment_ids"]  # [batch, length]
    length = tokens.shape[1]
    by_unit = tables.word_classes is not None or objective.span_length > 1
    bits = random_bits(keys, [s for s in Stream if by_unit or s < Stream.SPAN], length)
    maskable = (segments > 0) & jnp.take(jnp.asarray(tables.maskable), tokens)  # [batch, length]

    # 1. An order in which tokens would be masked, uint32 [batch, length]: those with the lowest numbers first.
    order = bits[Stream.ORDER] >> 1  # below the number of what may not be masked
    if tables.inverse_weight is not None:
        order = _negative_log(bits[Stream.ORDER]) * jnp.take(jnp.asarray(tables.inverse_weight), tokens)
    units: list[jax.Array] = []  # where the span, or the word, of each token begins, int32 [batch, length]
    if by_unit:
        units = _units(tokens, segments, bits[Stream.SPAN], objective, tables)
        order = jnp.take_along_axis(order, units[0], axis=1)  # that of the unit's first token
    order = jnp.where(maskable, order, jnp.uint32(2**32 - 1))

    # 2. How many of them are masked, int32 [batch].
    available = jnp.sum(maskable, axis=1)  # [batch]
    wanted = rate * (jnp.sum(segments > 0, axis=1) if objective.mask_count == "all" else available)  # float32 [batch]
    fraction = _to_unit(bits[Stream.ROUNDING][:, 0])
    number = jnp.minimum(jnp.floor(wanted + fraction).astype(jnp.int32), jnp.minimum(most, available))

    # 3. Their positions, tokens and weights, [batch, most]. A block with fewer has others there, of weight 0.
    # The sort is stable, so that the pieces of a word, which share a number, come out together and in order.
    ranked = jnp.argsort(order, axis=1, stable=True).astype(jnp.int32)  # [batch, length]
    if by_unit:
        in_order = [jnp.take_along_axis(begins, ranked, axis=1) for begins in units]
        taken = jax.vmap(_take_units)(in_order, available, number, bits[Stream.CUT])
        ranked = jnp.take_along_axis(ranked, jnp.argsort(~taken, axis=1, stable=True), axis=1)
    positions = ranked[:, :most]
    chosen = jnp.take_along_axis(maskable, positions, axis=1)
    weights = (chosen & (jnp.arange(most)[None] < number[:, None])).astype(jnp.float32)
    targets = jnp.take_along_axis(tokens, positions, axis=1)

    # 4. What stands in their places, int32 [batch, most]: BERT's 80 % <mask>, 10 % another token, 10 % the token itself.
    decides = jnp.take_along_axis(units[0], positions, axis=1) if objective.fates == "unit" else positions
    fate = _to_unit(jnp.take_along_axis(bits[Stream.FATE], decides, axis=1))
    # A modulo favours low ids by at most vocabulary / 2**32 of their chance, below 1e-4.
    drawn = jnp.take_along_axis(bits[Stream.REPLACEMENT], positions, axis=1) % np.uint32(len(tables.ordinary))
    other = jnp.take(jnp.asarray(tables.ordinary), drawn.astype(jnp.int32))
    replaced = jnp.where(fate < objective.replace_mask + objective.replace_random, other, targets)
    replaced = jnp.where(fate < objective.replace_mask, jnp.int32(tables.mask), replaced)
    replaced = jnp.where(weights > 0, replaced, targets)
    tokens = jax.vmap(lambda row, at, values: row.at[at].set(values))(tokens, positions, replaced)
    return {**batch, "tokens": tokens, "masked_positions": positions, "targets": targets, "weights": weights}


def _to_unit(bits: jax.Array) -> jax.Array:
    """Uniform numbers from 0 to below 1, uint32 [...] → float32 [...]: 24 bits, which float32 holds exactly."""
    return (bits >> 8).astype(jnp.float32) / 2**24


def begins_word(before: jax.Array, this: jax.Array) -> jax.Array:
    """Whether words begin at tokens, bool [...]: see `mlm_jax.words`.

    Args:
      before, this: classes of the last character of the token before, and of the token's own first, uint8 [...].
    """
    changes = (before != JOIN) & (this != before)
    return (this == START) | ((before != OPEN) & (this != JOIN) & ((this == PIECE) | changes))


def _units(
    tokens: jax.Array, segments: jax.Array, bits: jax.Array, objective: Objective, tables: Tables
) -> list[jax.Array]:
    """Where the span, if spans are masked, and the word, if words are, of each token begin, int32 [batch, length] each.

    Args:
      tokens, segments: int32 [batch, length].
      bits: of spans, uint32 [batch, length].
    """
    is_first = jnp.diff(segments, axis=1, prepend=-1) != 0  # no word or span crosses segments
    begins, found = jnp.ones(tokens.shape, bool), []
    if tables.word_classes is not None:
        first, last = jnp.asarray(tables.word_classes)
        begins = is_first | begins_word(jnp.roll(last[tokens], 1, axis=1), first[tokens])
        found.append(begins)
    if objective.span_length > 1:
        # A span ends with chance 1 / span_length at each token: its length is geometric.
        ends = bits < np.uint32(min(2**32 / objective.span_length, 2**32 - 1))
        found.insert(0, is_first | (begins & ends))
    places = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    return [jax.lax.cummax(jnp.where(begins, places[None], 0), axis=1) for begins in found]


def _take_units(units: list[jax.Array], maskable: jax.Array, number: jax.Array, bits: jax.Array) -> jax.Array:
    """Which of a row's maskable tokens are masked: whole units, but for one at most, and each token with the same chance.

    The units stand on a circle in their random order, and `number` tokens are taken from a random place on: each is
    taken with chance number / maskable. (From the first unit on, short units would be taken too often, and the first
    pieces of long ones.) So two units can be taken in part, the first and the last. One of them hands tokens to the other,
    until it has none or the other is whole; which way, is drawn so that the number expected of either stays. What is
    taken of the one that is left is chosen in the same way from the circle of its words, and of a word from its pieces.

    Args:
      units: numbers by which the tokens of a span, or a word, are told from those of the next, the maskable ones first,
        int32 [length]; of spans, of words, or of both.
      maskable, number: how many there are, and how many are masked, int32 [].
      bits: uint32 [length], of which five are used at most.

    Returns:
      bool [length], true `number` times.
    """
    places = jnp.arange(len(bits), dtype=jnp.int32)
    offset, size = jnp.int32(0), maskable  # of the circle

    def window(random: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        begin = _draw(random, size)
        circle = (places >= offset) & (places < offset + size)
        return circle, circle & ((places - offset - begin) % jnp.maximum(size, 1) < number), begin

    taken = jnp.zeros(len(bits), bool)
    for level, unit in enumerate(units):
        circle, here, begin = window(bits[2 * level])
        start = jax.lax.cummax(jnp.where((jnp.diff(unit, prepend=-1) != 0) | (places == maskable), places, 0))
        ends = [start[offset + place % jnp.maximum(size, 1)] for place in (begin, begin + number)]
        members = [circle & (start == end) for end in ends]
        sizes = [jnp.sum(mine) for mine in members]
        numbers = [jnp.sum(mine & here) for mine in members]
        up = jnp.minimum(sizes[0] - numbers[0], numbers[1])  # that the last unit can give
        down = jnp.minimum(numbers[0], sizes[1] - numbers[1])  # that the first can
        moved = jnp.where(_draw(bits[2 * level + 1], up + down) < down, up, -down)
        moved = jnp.where(ends[0] == ends[1], 0, moved)
        numbers = [numbers[0] + moved, numbers[1] - moved]
        for mine, whole, some in zip(members, sizes, numbers, strict=True):
            here = jnp.where(mine, some == whole, here)
        taken = jnp.where(circle, here, taken)
        first_in_part = (numbers[0] > 0) & (numbers[0] < sizes[0])  # or else the last, if any
        offset, size, number = (jnp.where(first_in_part, a, b) for a, b in (ends, sizes, numbers))
    circle, here, _ = window(bits[2 * len(units)])
    return jnp.where(circle, here, taken)


def _draw(bits: jax.Array, below: jax.Array) -> jax.Array:
    """A number from 0 to below `below`, or 0, int32 []: the modulo's bias is at most below / 2**32."""
    return (bits % jnp.maximum(below, 1).astype(jnp.uint32)).astype(jnp.int32)


_LOG = np.round(-np.log2((np.arange(1024) + 1024.5) / 2048) * 2**12).astype(np.uint32)  # of numbers from 1/2 to 1


def _negative_log(bits: jax.Array) -> jax.Array:
    """-log2 of uniform bits / 2**32 in 2**-12ths, in whole numbers so that every backend agrees: uint32 [...] → the same.

    The k places with the lowest -log(u) / weight are k draws without replacement in proportion to the
    weights (Efraimidis and Spirakis 2006).
    """
    # bits = 2**(31 - zeros) * (1 + mantissa / 1024 + ...): the logarithm of the power, plus the mantissa's from a table.
    zeros = jax.lax.clz(bits | np.uint32(1))
    mantissa = ((bits << zeros) >> np.uint32(21)) & np.uint32(1023)
    return jnp.take(jnp.asarray(_LOG), mantissa.astype(jnp.int32)) + (zeros << np.uint32(12)) + np.uint32(1)


def predict_next(batch: Batch) -> MaskedBatch:
    """Predict every token but the first of its segment, each from those before it (XLM's CLM).

    Args:
      batch: tokens and segment_ids, int32 [batch, length], and any other features.

    Returns:
      The batch and, as from `mask_tokens`, masked_positions and targets, int32 [batch, length - 1], and weights, float32 of
      the same shape; no token is masked, and a target is the token after its position.
    """
    tokens, segments = batch["tokens"], batch["segment_ids"]
    places = jnp.arange(tokens.shape[1] - 1, dtype=jnp.int32)
    follows = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)  # [batch, length - 1]
    return {
        **batch,
        "masked_positions": jnp.broadcast_to(places[None], (tokens.shape[0], tokens.shape[1] - 1)),
        "targets": tokens[:, 1:],
        "weights": follows.astype(jnp.float32),
    }


SUMS = ("loss", "correct", "targets", "pair_loss", "pair_correct", "pairs")  # of `loss_sums`


def loss_sums(
    model: Encoder, params: Any, batch: MaskedBatch, dropout_keys: jax.Array | None, size: int, chunk: int
) -> dict[str, jax.Array]:
    """The losses of what `mask_tokens` or `predict_next` chose, and of sentence pairs where the model tells them apart.

    Sums and numbers, because losses are divided by numbers of the global batch: a mean of means would weigh the tokens of
    blocks with few masked positions more.

    Args:
      batch: as `mask_tokens` returns it, [batch, ...].
      dropout_keys: uint32 [batch], or None.
      size: ids in use; the embedding's rows beyond are padding.
      chunk: vocabulary rows scored at a time.

    Returns:
      `SUMS` of each block, float32 [batch]: loss of the predicted tokens in nats, how many of them scored highest, how
      many there are; and loss, correct answers and number of its sentence pairs (0 or 1).
    """
    features: Features = model.apply(  # type: ignore[assignment]  # flax types `__call__` only, not other methods
        {"params": params}, batch, batch["masked_positions"], dropout_keys, method="features"
    )
    return score_features(model, features, batch, size, chunk)


def score_features(
    model: Encoder, features: Features, batch: MaskedBatch, size: int, chunk: int
) -> dict[str, jax.Array]:
    """`loss_sums` of what the output layers read, float32 [batch] each; arguments as there."""
    shape, weights = batch["targets"].shape, batch["weights"]  # [batch, predictions]
    # One list of positions over all rows: the head knows no blocks.
    vectors = features.vectors.reshape(-1, features.vectors.shape[-1])  # [batch * predictions, embed]
    assert features.bias is not None  # `config.validate`: what is pretrained has an output layer
    loss, correct = cross_entropy(
        vectors, features.matrix, features.bias, batch["targets"].reshape(-1), size, chunk, model.dtype
    )
    sums = {
        "loss": jnp.sum(loss.reshape(shape) * weights, axis=1),
        "correct": jnp.sum(correct.reshape(shape) * weights, axis=1),
        "targets": jnp.sum(weights, axis=1),
    }
    if not model.config.next_sentence:
        zero = jnp.zeros(shape[0], jnp.float32)
        return sums | {"pair_loss": zero, "pair_correct": zero, "pairs": zero}
    # next_sentence is -1 in blocks that are no pair.
    label, is_pair = jnp.maximum(batch["next_sentence"], 0), (batch["next_sentence"] >= 0).astype(jnp.float32)
    pooled = features.pooled  # [batch, 2]
    assert pooled is not None
    log_probability = jnp.take_along_axis(jax.nn.log_softmax(pooled), label[:, None], axis=1)[:, 0]  # [batch]
    return sums | {
        "pair_loss": -log_probability * is_pair,
        "pair_correct": (jnp.argmax(pooled, axis=1) == label) * is_pair,
        "pairs": is_pair,
    }
