# SPDX-License-Identifier: Apache-2.0
"""Entities that tags mark: in which scheme they are, and precision, recall and F1 of whole entities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlm_jax.errors import UserError

Tags = Sequence[Sequence[str]]
Entity = tuple[str, int, int]  # kind, first word, last word

# A tag's letter → what it says of the word: it begins an entity, is inside, ends it, or is one by itself.
ROLES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
# Each scheme's letters, apart from O. The first that has all letters of the labels is theirs.
SCHEMES = {
    "io": "I",
    "iob2": "BI",
    "iob1": "BI",
    "ioe2": "IE",
    "ioe1": "IE",
    "iobes": "BIES",
    "bilou": "BILU",
    "bmes": "BMES",
    "bmewo": "BMEW",
}
NAMES = ("auto", "none", *SCHEMES)
# Labels of words outside entities, where the others have prefixes; "O" and "o" are so everywhere.
OUTSIDE = ("o", "out", "outside", "other", "none", "0", "_")
BEFORE, AFTER = re.compile(r"([A-Za-z])[-_:/.|](.+)", re.DOTALL), re.compile(r"(.+)[-_:/.|]([A-Za-z])", re.DOTALL)
NO_KIND = "_"


@dataclass(frozen=True)
class Scheme:
    """How tags mark entities.

    Attributes:
      name: of `SCHEMES`; iob and ioe where labels alone do not tell which.
      parts: tag → (role, kind): B, I, E or S of `ROLES`, or O with no kind.
      outside: the label of words outside entities; None where every word is in one.
    """

    name: str
    parts: Mapping[str, tuple[str, str]]
    outside: str | None

    def __str__(self) -> str:
        kinds = sorted({kind for role, kind in self.parts.values() if role != "O"})
        tags = sorted((tag for tag in self.parts if tag != self.outside), key=lambda tag: (self.parts[tag][1], tag))
        shown = ", ".join(kinds[:12]) + (", …" if len(kinds) > 12 else "")
        example = f" ({', '.join(tags[:4])}{', …' if len(tags) > 4 else ''})" if tags else ""
        return f"{self.name.upper()}{example}, entities of {shown or 'no kind'}"


def outside_label(labels: Sequence[str]) -> str | None:
    """The label of words outside entities: O in either case, or another of `OUTSIDE`; None: there is none, or several."""
    found = [label for label in ("O", "o") if label in labels] or [x for x in labels if x.lower() in OUTSIDE]
    return found[0] if found and (len(found) == 1 or found[0] == "O") else None


def recognise(labels: Sequence[str], asked: str = "auto") -> Scheme | None:
    """The scheme of a set of tags, from all of them.

    The letter may stand before the kind or after it, in either case, with any of `-_:/.|` between, or alone. Tags without
    letters are kinds (`io`) where one of them is O, and mark no entities where none is.

    Args:
      asked: a name of `NAMES`; auto: what the tags show.

    Returns:
      None: they mark no entities.

    Raises:
      UserError: they are of no scheme, or not of the one asked for; names the tags.
    """
    if asked == "none":
        return None
    outside = outside_label(labels)
    inner = [label for label in labels if label not in (outside, "o")]
    marked = max((_read(inner, side) for side in (BEFORE, AFTER)), key=_known)
    if outside not in ("O", "o", None) and (len(marked) < len(inner) or not marked):
        outside, inner = None, list(labels)  # a class like the others
    odd = [label for label in inner if label not in marked]
    letters = {letter for letter, _ in marked.values()}
    known = letters & set(ROLES)
    advice = (
        "mend the tags, or set task.scheme (io: each label is a kind of entity; none: each is a class, for accuracy)"
    )
    if not odd and letters == known and (marked or outside) and not (asked == "io" and letters - {"I"}):
        name = _name(marked, asked, advice)
        parts = {label: (ROLES[letter], kind) for label, (letter, kind) in marked.items()}
    elif asked == "io" or (asked == "auto" and outside is not None and not known):
        if asked == "auto" and all(len(label) == 1 for label in inner):
            raise UserError(f"labels {_shown(inner)} beside {outside}: kinds of entities, or classes? {advice}")
        name, parts = "io", {label: ("I", label) for label in inner}
    elif asked == "auto" and outside is None and not known & {"B", "I"}:
        return None  # parts of speech, some of which may look like a letter and a kind
    else:
        unknown = [label for label, (letter, _) in marked.items() if letter not in ROLES]
        why = (
            f"no scheme has such a prefix ({', '.join(ROLES)} and O are known)"
            if unknown
            else "no prefix, others have one"
        )
        raise UserError(f"labels {_shown(unknown or odd or inner)}: {why}; {advice}")
    parts |= {label: ("O", NO_KIND) for label in labels if label in (outside, "O", "o")}
    return Scheme(name, parts, outside)


def _read(labels: Sequence[str], side: re.Pattern[str]) -> dict[str, tuple[str, str]]:
    """Label → (letter in upper case, kind), of those that have one on that side of the kind, or nothing else."""
    found = {}
    for label in labels:
        if len(label) == 1 and label.upper() in ROLES:
            found[label] = (label.upper(), NO_KIND)
        elif match := side.fullmatch(label):
            letter, kind = match.groups() if side is BEFORE else match.groups()[::-1]
            found[label] = (letter.upper(), kind)
    return found


def _known(read: dict[str, tuple[str, str]]) -> int:
    """How many labels have a letter of `ROLES`."""
    return sum(letter in ROLES for letter, _ in read.values())


def _name(marked: Mapping[str, tuple[str, str]], asked: str, advice: str) -> str:
    """The scheme whose letters those of the labels are."""
    letters = {letter for letter, _ in marked.values()}
    if asked != "auto":
        wrong = [label for label, (letter, _) in marked.items() if letter not in SCHEMES[asked]]
        if wrong:
            raise UserError(f"task.scheme: {asked} has no such prefix as {_shown(wrong)}; {advice}")
        return asked
    for name, has in SCHEMES.items():
        if letters <= set(has):
            return name.rstrip("12")
    roles = [ROLES[letter] for letter in letters]
    if len(set(roles)) < len(roles):  # two letters for one thing
        raise UserError(
            f"labels {_shown(list(marked))}: prefixes {', '.join(sorted(letters))} of no one scheme; {advice}"
        )
    return "iobes"


def _shown(labels: Sequence[str]) -> str:
    return ", ".join(sorted(labels)[:6]) + (", …" if len(labels) > 6 else "")


def refined(scheme: Scheme, gold: Tags) -> str:
    """The scheme's name, where labels alone do not tell: IOB1 and IOB2 have the same letters, and so have IOE1 and IOE2."""
    if scheme.name not in ("iob", "ioe"):
        return scheme.name
    role = "B" if scheme.name == "iob" else "E"
    edges = [(tags, begin if role == "B" else end) for tags in gold for _, begin, end in entities(tags, scheme)]
    marked = sum(scheme.parts[tags[i]][0] == role for tags, i in edges)
    return scheme.name + ("2" if 2 * marked >= len(edges) else "1")  # most: real data has slips


def entities(tags: Sequence[str], scheme: Scheme) -> set[Entity]:
    """The entities of a sentence's tags.

    As conlleval, and seqeval by default, have them: an entity ends where another kind, O, or the begin of one follows, and I
    without an entity of its kind before it begins one. What ends an entity or is one by itself does so in every scheme.
    """
    found = set()
    open_kind, begin = None, 0
    for i, (role, kind) in enumerate([*(scheme.parts[tag] for tag in tags), ("O", NO_KIND)]):
        inside = role in "IE" and kind == open_kind
        if open_kind is not None and not inside:
            found.add((open_kind, begin, i - 1))
            open_kind = None
        if open_kind is None and role != "O":
            open_kind, begin = kind, i
        if role in "ES" and open_kind is not None:
            found.add((open_kind, begin, i))
            open_kind = None
    return found


# Of each scheme: what may begin an entity, go on with it, and stand at its end, as (role before, role), each followed by =
# where both must be of one kind, by ! where they must not, and by ? where it does not matter.
_STRICT = {
    "iob2": ("?B?", "BI= II=", "IO? IB? II! BO? BB? BI!"),
    "iob1": ("OI? II! BI? IB= BB=", "BI= II=", "IO? IB? II! BO? BI! BB="),
    "ioe2": ("OI? OE? EI? EE? II! IE!", "II= IE=", "E??"),
    "ioe1": ("OI? II! EI? EE=", "II= IE=", "IO? II! IE! EI= EE="),
    "iobes": ("?B? ?S?", "BI= BE= II= IE=", "E?? S??"),
}  # fmt: skip


def strict_entities(tags: Sequence[str], scheme: Scheme, name: str) -> set[Entity]:
    """The entities whose tags are as their scheme has them, and no others: seqeval's strict mode.

    Args:
      name: the scheme, refined.
    """
    if name == "io":
        return entities(tags, scheme)
    begins, goes_on, ends = (rules.split() for rules in _STRICT.get(name, _STRICT["iobes"]))
    outside = ("O", NO_KIND)
    parts = [*(scheme.parts[tag] for tag in tags), outside]

    def holds(rules: Iterable[str], before: tuple[str, str], here: tuple[str, str]) -> bool:
        same = before[1] == here[1]
        return any(
            rule[0] in ("?", before[0]) and rule[1] in ("?", here[0]) and rule[2] in ("?", "=" if same else "!")
            for rule in rules
        )

    found, i, before = set(), 0, outside
    while i < len(tags):
        end = i + 1
        if holds(begins, before, parts[i]):
            while holds(goes_on, parts[end - 1], parts[end]):
                end += 1
            if holds(ends, parts[end - 1], parts[end]):
                found.add((parts[i][1], i, end - 1))
        i, before = end, parts[end - 1]
    return found


def entity_scores(gold: Tags, found: Tags, scheme: Scheme) -> dict[str, float]:
    """Precision, recall and F1 of whole entities over all sentences (CoNLL-2003's measure).

    Returns:
      precision, recall, entity_f1: as conlleval, and seqeval by default; strict_f1: of entities whose tags are as their scheme has
      them (seqeval's strict mode). 0 where there is nothing to divide by.
    """
    for a, b in zip(gold, found, strict=True):
        if len(a) != len(b):
            raise ValueError(f"{len(b)} tags for a sentence of {len(a)}")
    name = refined(scheme, gold)
    precision, recall, f1 = _scores([entities(a, scheme) for a in gold], [entities(b, scheme) for b in found])
    expected, marked = ([strict_entities(tags, scheme, name) for tags in side] for side in (gold, found))
    return {"precision": precision, "recall": recall, "entity_f1": f1, "strict_f1": _scores(expected, marked)[2]}


def _scores(gold: Sequence[set[Entity]], found: Sequence[set[Entity]]) -> tuple[float, float, float]:
    """Precision, recall and F1 of sets, summed over sentences."""
    correct = sum(len(a & b) for a, b in zip(gold, found, strict=True))
    marked, expected = sum(map(len, found)), sum(map(len, gold))
    precision = correct / marked if marked else 0.0
    recall = correct / expected if expected else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if correct else 0.0
