# SPDX-License-Identifier: Apache-2.0
"""Which language a document is in, and each of its paragraphs: a page that is half left in English is two documents, or none.

An identifier gives probabilities of languages for texts. py3langid's is the default (139 languages, its model in the wheel); it is run over many
texts at once here, which is four times as fast as one after another, to the same answers. Any fastText model (lid.176, GlotLID, OpenLID) is
read by its path. Of each paragraph the first `PARAGRAPH_BYTES` are looked at, and a document's language is that of most of its paragraphs, by bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from mlm_jax.curate.document import Document, Dropped
from mlm_jax.errors import UserError
from mlm_jax.language_names import SAME, folded
from mlm_jax.names import check_names, shown

PARAGRAPH_BYTES = 200
SCRIPT_SAMPLE = 300  # characters that scripts are counted in
SHORTEST_PARAGRAPH = 40  # bytes; shorter ones go with those before them: a heading does not tell its language
LONGEST_GROUP = 1000  # bytes, from which on short paragraphs begin another
MOST_GROUPS = 5000  # of paragraphs that are told at once; longer documents are told by longer groups
# A paragraph is in another language than its page where that is as probable, and the page's no more than this.
OTHER, OWN = 0.6, 0.05
FLOOR = 1e-6  # of a probability: no paragraph alone rules a language out
SHORTEST_PART = 200  # bytes of a language's part of a page; less is not a document
OWN_SCRIPT = (
    0.1  # the least part of a text's letters in the scripts of its language: names and programs may have another
)
MIXED = 0.2  # the part of a page's bytes in other languages, from which on it is mixed

# Why a document goes, in identification.
NO_LANGUAGE = "no_language"  # by the identifier
UNWANTED = "unwanted_language"
SCRIPT = "script"  # not one that its language is written in
MIXED_PAGE = "mixed"

# Codes that identifiers give a language's main variety, or once gave it → the code of corpora.
USUAL = {
    "iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro", "sh": "hbs", "nb": "no", "cmn": "zh", "arb": "ar", "pes": "fa", "swh": "sw",
    "zsm": "ms", "ekk": "et", "lvs": "lv", "npi": "ne", "ory": "or", "uzn": "uz", "azj": "az", "khk": "mn", "plt": "mg", "als": "sq", "gaz": "om",
    "kmr": "ku", "pbt": "ps", "ydd": "yi", "fil": "tl", "gug": "gn", "kik": "ki",
}  # fmt: skip
# What is no language: und, mul, zxx of ISO 639-2 and labels of noise.
NONE = {"und", "mul", "zxx", "mis", "xx", "xxx", "un", "unk", "noise"}
NO_LINE = re.compile("[\n\r\0\ud800-\udfff]")  # what a text of one line does not have
CODE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")

# Scripts (ISO 15924) that languages are written in, the usual first. Others with a code of two letters use Latin; the rest are not checked.
_SCRIPTS = """
Cyrl ru uk be bg mk sr kk ky mn tg tt ba cv ce os sah udm kv koi mhr mrj myv mdf bxr tyv xal ab av lez krc kbd rue cu uz az tk crh bs hbs ku
Arab ar fa ur ps ug sd ks ckb arz ary acm apc ars aeb azb pnb sdh uzs glk mzn lrc skr dv ku pa az kk ha ms tk ky prs bal yi
Deva hi mr ne sa gom kok mai bho awa mag hne brx doi new sd ks bh
Beng bn as bpy mni
Grek el grc
Hebr he yi hbo arc
Ethi am ti gez
Hani zh yue wuu lzh gan hak nan ja
Jpan ja
Hang ko
Hani ko
Thai th
Laoo lo
Khmr km
Mymr my shn
Tibt bo dz
Sinh si
Taml ta
Telu te
Knda kn tcy
Mlym ml
Gujr gu
Guru pa
Orya or
Armn hy
Geor ka xmf
Thaa dv
Mong mn
Olck sat
Tfng kab tzm
Syrc arc syr
Cher chr
Cans iu cr
Cyrl ro
"""
LATIN_TOO = "sr uz az tk tt kk crh bs hbs ku ha ms ks kok gom ug mn ky kab tzm ro nan hak"
LANGUAGE_SCRIPTS: dict[str, set[str]] = {}
for _line in _SCRIPTS.split("\n"):
    for _language in _line.split()[1:]:
        LANGUAGE_SCRIPTS.setdefault(_language, set()).add(_line.split()[0])
for _language in LATIN_TOO.split():
    LANGUAGE_SCRIPTS.setdefault(_language, set()).add("Latn")
# Languages whose two scripts are both much written: their codes say which.
TWO_SCRIPTS = {"sr", "uz", "az", "ku", "pa", "kk", "tk", "crh", "mn", "sd", "ks", "hbs", "bs", "tt"}

# The first word of a character's name in Unicode → its script.
WORDS = {
    "LATIN": "Latn", "CYRILLIC": "Cyrl", "ARABIC": "Arab", "DEVANAGARI": "Deva", "BENGALI": "Beng", "GREEK": "Grek", "HEBREW": "Hebr",
    "ETHIOPIC": "Ethi", "CJK": "Hani", "HIRAGANA": "Jpan", "KATAKANA": "Jpan", "HANGUL": "Hang", "THAI": "Thai", "LAO": "Laoo",
    "KHMER": "Khmr", "MYANMAR": "Mymr", "TIBETAN": "Tibt", "SINHALA": "Sinh", "TAMIL": "Taml", "TELUGU": "Telu", "KANNADA": "Knda",
    "MALAYALAM": "Mlym", "GUJARATI": "Gujr", "GURMUKHI": "Guru", "ORIYA": "Orya", "ARMENIAN": "Armn", "GEORGIAN": "Geor",
    "THAANA": "Thaa", "MONGOLIAN": "Mong", "OL": "Olck", "TIFINAGH": "Tfng", "SYRIAC": "Syrc", "CHEROKEE": "Cher", "CANADIAN": "Cans",
    "MEETEI": "Mtei", "FULLWIDTH": "Latn",
}  # fmt: skip


class Identifier(Protocol):
    """What tells languages: `labels`, as they are in its model, and their probabilities."""

    labels: list[str]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities of the labels, which sum to 1: float32 [texts, labels]."""


@dataclasses.dataclass(frozen=True)
class Languages:
    """Which languages are kept. How sure they must be `rules` say, once all documents have been told.

    Attributes:
      wanted: codes, with a script or without; empty: every language.
      mixed: what becomes of a page in several languages. "split": each language's part is a document, if it has 200 bytes. "drop": it
        goes, where a fifth is in others. "keep": it stays as it is, in the language that most of it is in.
    """

    wanted: tuple[str, ...] = ()
    mixed: Literal["split", "drop", "keep"] = "split"

    def __post_init__(self) -> None:
        check_names("languages", self.wanted, as_files=True)
        object.__setattr__(self, "wanted", tuple(code_of(code) for code in self.wanted))


@functools.lru_cache(1 << 14)
def code_of(label: str) -> str:
    """A language's code as our corpora name it: two letters where ISO 639 has them, else three, and a script that is said if two are usual.

    Empty for labels of what is no language.

    Raises:
      UserError: it cannot be a code: a slash in it, say, which would be a path.
    """
    plain = label.removeprefix("__label__").strip()
    if not CODE.fullmatch(plain):
        raise UserError(
            f"{shown(label)}: not a language's code; write it as in ISO 639, sw or swa, with a script after it where two are written, sr_Latn"
        )
    base, *more = folded(plain).split("-")
    base = USUAL.get(base, base)
    base = SAME[base] if len(base) == 3 and base in SAME else base
    base = USUAL.get(base, base)
    if base in NONE:
        return ""
    script = next((part.title() for part in more if len(part) == 4 and part.isalpha()), "")
    return f"{base}_{script}" if script and base in TWO_SCRIPTS else base


class Py3langid:
    """py3langid's naive Bayes over byte sequences, for many texts at a time.

    Barbaresi's py3langid 0.4, after langid.py (Lui and Baldwin, 2012). A step takes one more byte of all texts.
    """

    def __init__(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self.encode = model._encode
        self.labels: list[str] = list(model.nb_classes)
        self.moves = np.asarray(model.tk_nextmove)  # uint32 [rows * 256]: a state's row and a byte → the next state
        self.rows = np.asarray(model._rowbase, np.intp)  # [states]: where a state's row begins
        self.features = np.asarray(model.tk_output, np.int32)  # [states]: the feature that ends there, or -1
        self.weights = np.asarray(model.nb_ptc, np.float32)  # [features, labels]
        self.priors = np.asarray(model.nb_pc, np.float32)  # [labels]
        self.aliases = list(model._alias_pairs)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities of the labels: float32 [texts, labels]; of texts without a feature, all alike."""
        from scipy import sparse

        encoded = [self.encode(text) for text in texts]
        sizes = np.array([len(data) for data in encoded], np.int64)
        order = np.argsort(-sizes, kind="stable")  # so that those which still have bytes come first
        sizes = sizes[order]
        steps = int(sizes[0]) if len(sizes) else 0
        grid = np.zeros((len(sizes), steps), np.uint8)
        for row, i in enumerate(order):
            grid[row, : sizes[row]] = np.frombuffer(encoded[i], np.uint8)
        grid = np.ascontiguousarray(grid.T)  # [steps, texts]
        alive = np.searchsorted(-sizes, -np.arange(steps), side="left")
        # How often each text has each feature, by one number for both; 32 bits sort faster.
        width = len(self.weights)
        small = (len(sizes) + 1) * width < 2**31
        first = (np.arange(len(sizes) + 1) * width).astype(np.int32 if small else np.int64)  # [texts + 1]
        states = np.zeros(len(sizes), np.intp)
        visited = [first[:0]]
        for step in range(steps):
            here = alive[step]
            states = self.moves[self.rows[states[:here]] + grid[step, :here]]
            features = self.features[states]
            visited.append((first[:here] + features)[features >= 0])
        keys, counts = np.unique(np.concatenate(visited), return_counts=True)
        starts = np.searchsorted(keys, first)
        visits = sparse.csr_matrix(
            (np.log1p(counts.astype(np.float32)), keys % width, starts), shape=(len(sizes), width)
        )
        scores = np.asarray(visits @ self.weights + self.priors, np.float32)
        scores[np.diff(starts) == 0] = 0
        scores /= np.sqrt(np.maximum(sizes, 1), dtype=np.float32)[:, None]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf)) if len(sizes) else scores
        scores /= scores.sum(axis=1, keepdims=True)
        for one, other in self.aliases:  # two columns of one label
            scores[:, one] += scores[:, other]
            scores[:, other] = 0
        back = np.empty_like(scores)
        back[order] = scores
        return back


class FastText:
    """A fastText model by its path: lid.176.ftz, GlotLID, OpenLID.

    Raises:
      UserError: there is no such file, it is no model, or a label of it is no language's code.
    """

    MOST = 5  # labels that are given a probability; the others' is 0

    def __init__(self, path: str) -> None:
        import fasttext

        if not Path(path).is_file():
            raise UserError(f"{path}: no such file; give the path of a fastText model, .bin or .ftz")
        try:
            self.model: Any = fasttext.load_model(path)
            labels, _ = self.model.predict("a", k=-1, threshold=-1.0)  # of all, the only way to their names
        except (ValueError, RuntimeError, MemoryError) as e:
            raise UserError(f"{path}: cannot be read as a fastText model ({e}); fetch it again") from e
        self.labels = sorted(labels)
        for label in self.labels:
            code_of(label)
        self.columns = {label: column for column, label in enumerate(self.labels)}

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities of the labels: float32 [texts, labels]."""
        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        for row, text in enumerate(texts):
            line = NO_LINE.sub(" ", text)
            labels, found = self.model.predict(line, k=self.MOST)
            for label, score in zip(labels, found, strict=True):
                scores[row, self.columns[label]] = min(score, 1.0)
        return scores


@functools.lru_cache(4)
def identifier_of(path: str = "") -> Identifier:
    """The identifier of a fastText model's path; py3langid's where it is empty. Loaded once per process."""
    return FastText(path) if path else Py3langid()


def identify(
    documents: Sequence[Document], identifier: Identifier, languages: Languages | None = None
) -> list[list[Document | Dropped]]:
    """What becomes of each document: itself, with its language and confidence, its parts, or why it went.

    The answers do not depend on which documents come together; some hundreds at a time are fastest. The confidence is the probability of
    the language, of all paragraphs together (`pooled`).
    """
    languages = languages or Languages()
    codes = [code_of(label) for label in identifier.labels]
    names = sorted(set(codes))
    results: list[list[Document | Dropped]] = []
    parts = [_groups(document.text) for document in documents]
    begin = 0
    while begin < len(parts):
        end, count = begin, 0
        while end < len(parts) and (end == begin or count + len(parts[end][0]) <= MOST_GROUPS):
            count += len(parts[end][0])
            end += 1
        heads = [head for _, _, found in parts[begin:end] for head in found]
        scores = _merged(identifier.probabilities(heads), codes)
        start = 0
        for document, (groups, sizes, _) in zip(documents[begin:end], parts[begin:end], strict=True):
            own = scores[start : start + len(groups)]
            results.append(_judged(document, groups, np.array(sizes, np.float64), own, names, languages))
            start += len(groups)
        begin = end
    return results


def _merged(scores: np.ndarray, codes: list[str]) -> np.ndarray:
    """Probabilities by code, float32 [texts, codes in order], of those by label: several labels may be one language."""
    places = {code: place for place, code in enumerate(sorted(set(codes)))}
    merged = np.zeros((len(scores), len(places)), np.float32)
    for column, code in enumerate(codes):
        merged[:, places[code]] += scores[:, column]
    return merged


def _judged(
    document: Document, groups: list[str], sizes: np.ndarray, scores: np.ndarray, names: list[str], languages: Languages
) -> list[Document | Dropped]:
    """One document's fate.

    Args:
      sizes: bytes of its groups of paragraphs: float64 [groups].
      scores: probabilities of the languages in `names`, of each group: float32 [groups, languages].
    """
    shares = sizes / max(sizes.sum(), 1)
    main = int((shares @ scores).argmax())
    tops = scores.argmax(axis=1)
    foreign = (
        (scores[:, main] < OWN) & (scores.max(axis=1) >= OTHER) & np.array([names[top] != "" for top in tops], bool)
    )
    if languages.mixed == "drop" and shares[foreign].sum() >= MIXED:
        return [Dropped(MIXED_PAGE, document.url, document.text, names[main])]
    if languages.mixed != "split" or not foreign.any():
        return [_kept(document, document.text, names[main], pooled(shares, scores, main), languages)]
    results: list[Document | Dropped] = []
    owners = np.where(foreign, tops, main)
    for language in [main, *sorted(set(owners[foreign].tolist()))]:
        chosen = np.flatnonzero(owners == language)
        if not len(chosen):
            continue
        text = "\n".join(groups[i] for i in chosen)
        weight = sizes[chosen]
        if weight.sum() < SHORTEST_PART:
            results.append(Dropped(MIXED_PAGE, document.url, text, names[language]))
        else:
            own = pooled(weight / weight.sum(), scores[chosen], language)
            results.append(_kept(document, text, names[language], own, languages))
    return results


def pooled(shares: np.ndarray, scores: np.ndarray, language: int) -> float:
    """The probability of a language, of all groups together: the normalised geometric mean of theirs. Groups that agree make a document surer than
    each of them is, as reading it whole would; a plain mean stays as unsure as its headings and programs.

    Args:
      shares: weights that sum to 1: float64 [groups].
      scores: float32 [groups, languages].
    """
    logs = shares @ np.log(np.maximum(scores, FLOOR).astype(np.float64))
    weights = np.exp(logs - logs.max())
    return float(weights[language] / weights.sum())


def _kept(document: Document, text: str, code: str, confidence: float, languages: Languages) -> Document | Dropped:
    """A document in a language, unless that is unwanted or not written so."""
    confidence = round(confidence, 4)
    base, _, said = code.partition("_")
    counts = scripts_of(text)
    allowed = _allowed(base, said)
    written = max(allowed & counts.keys(), key=lambda script: (counts[script], script), default="")
    named = f"{base}_{written}" if base in TWO_SCRIPTS and written else code
    reason = ""
    if not base:
        reason = NO_LANGUAGE
    elif counts and sum(counts[script] for script in allowed) < OWN_SCRIPT * counts.total():
        reason = SCRIPT
    elif languages.wanted and named not in languages.wanted and base not in languages.wanted:
        reason = UNWANTED
    if reason:
        return Dropped(reason, document.url, text, named)
    return dataclasses.replace(document, text=text, language=named, confidence=confidence)


def _allowed(base: str, said: str) -> set[str]:
    """The scripts that a language is written in; of several, the one that its code says. All of one of which we know nothing."""
    usual = LANGUAGE_SCRIPTS.get(base) or ({"Latn"} if len(base) == 2 else {*WORDS.values()})
    scripts = {said} if said else usual
    return scripts | {"Jpan", "Hani"} if scripts & {"Jpan", "Hani", "Hans", "Hant"} else scripts


def scripts_of(text: str) -> Counter[str]:
    """How many letters of a text's sample are in each script (ISO 15924); kana are "Jpan", whose kanji are "Hani"."""
    counts: Counter[str] = Counter()
    for character, count in Counter(_sample(text)).items():
        counts[_script(character)] += count
    counts.pop("", None)
    return counts


@functools.lru_cache(1 << 16)
def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    return WORDS.get(unicodedata.name(character, "").split(" ")[0].split("-")[0], "")


def _groups(text: str) -> tuple[list[str], list[int], list[str]]:
    """A text's paragraphs, short ones with those before them, their bytes, and what is looked at of each."""
    groups: list[str] = []
    sizes: list[int] = []
    heads: list[bytes] = []
    data = text.encode(errors="replace")  # half a surrogate pair has no UTF-8
    shortest = max(SHORTEST_PARAGRAPH, len(data) // MOST_GROUPS)
    longest = max(LONGEST_GROUP, shortest)
    for paragraph, coded in zip(text.split("\n"), data.split(b"\n"), strict=True):
        size = len(coded)
        if groups and (size < shortest or sizes[-1] < shortest) and sizes[-1] < longest:
            groups[-1] += f"\n{paragraph}"
            heads[-1] += b"\n" + coded
            sizes[-1] += size + 1
        else:
            groups.append(paragraph)
            heads.append(coded)
            sizes.append(size)
    return groups, sizes, [head[:PARAGRAPH_BYTES].decode(errors="ignore") for head in heads]


def _sample(text: str) -> str:
    """A text's begin, middle and end; all of it where it is short."""
    part = SCRIPT_SAMPLE // 3
    if len(text) <= SCRIPT_SAMPLE:
        return text
    middle = (len(text) - part) // 2
    return text[:part] + text[middle : middle + part] + text[-part:]
