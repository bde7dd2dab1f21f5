# SPDX-License-Identifier: Apache-2.0
"""What the rows of new pieces begin with, in the token embedding and in the output layer's bias."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mlm_jax.adapt.focus import focus_rows
from mlm_jax.adapt.pieces import SPACE, Pieces

FEWEST = 20  # old pieces of a script whose distribution is taken for that of the script


def new_rows(
    how: str,
    old: Pieces,
    new: Pieces,
    matched: np.ndarray,
    table: np.ndarray,
    texts: Sequence[list[int]],
    std: float,
    seed: int,
) -> np.ndarray:
    """Rows of the new vocabulary: of pieces that both have the old rows, of others new ones.

    Args:
      how: mean, focus, script or random, as `Adapt.rows` has them.
      matched: of each new piece the old one that it is, or -1, int64 [new].
      table: old rows, the last column being the output layer's bias, float32 [old, columns].
      texts: of the new languages, as ids of the new vocabulary.
      std: of random rows.
      seed: of what is drawn.

    Returns:
      float32 [new, columns].

    Raises:
      UserError: focus finds no old piece in the text.
    """
    rng = np.random.default_rng(seed)
    made = np.zeros((len(matched), table.shape[1]), np.float32)
    made[matched >= 0] = table[matched[matched >= 0]]
    fresh = np.flatnonzero(matched < 0)
    if how == "random":
        made[fresh, :-1] = rng.normal(0, std, (len(fresh), table.shape[1] - 1))
        return made
    # What no other way is left for, and the whole of `script`.
    made[fresh] = _script_rows(old, new, fresh, table, rng)
    if how in ("mean", "focus"):
        for i in fresh:
            parts = old.cut(old.form(new.surface(new.names[i])))
            if parts and not set(parts) & set(old.roles):
                made[i] = table[parts].mean(axis=0)
    if how == "focus":
        mixed, rows = focus_rows(list(texts), matched, new.fixed, table)
        made[mixed] = rows
    return made


def script_of(surface: str) -> str:
    """A piece's script, as Unicode names its first letter (LATIN, TIBETAN, CJK); else that of its first sign, or ""."""
    characters = surface.replace(SPACE, "")
    first = next((c for c in characters if c.isalpha()), characters[:1])
    return unicodedata.name(first, "").split(" ")[0] if first else ""


def _script_rows(
    old: Pieces, new: Pieces, fresh: np.ndarray, table: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws from the normal distribution of the old rows of each piece's script (Downey et al. 2023), or of all, float32 [fresh, columns]."""
    of_script: dict[str, list[int]] = defaultdict(list)
    ordinary = [i for i, name in enumerate(old.names) if name and not old.fixed[i]]
    for i in ordinary:
        of_script[script_of(old.surface(old.names[i]))].append(i)
    groups: dict[str, list[int]] = defaultdict(list)
    for place, i in enumerate(fresh):
        script = script_of(new.surface(new.names[i]))
        groups[script if len(of_script.get(script, ())) >= FEWEST else "all"].append(place)
    found = np.zeros((len(fresh), table.shape[1]), np.float32)
    for script, places in sorted(groups.items()):
        rows = table[ordinary if script == "all" else of_script[script]]
        found[places] = rng.normal(rows.mean(axis=0), rows.std(axis=0), (len(places), table.shape[1]))
    return found
