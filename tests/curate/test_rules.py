# SPDX-License-Identifier: Apache-2.0
"""Which documents stay: by their language's confidence and their bucket; and why one goes: the reason that is its own."""

from mlm_jax.curate.config import Curate, Filters, Identify
from mlm_jax.curate.document import Document, Dropped
from mlm_jax.curate.filters import Bounds, View, fineweb2
from mlm_jax.curate.perplexity import SCORE
from mlm_jax.curate.rules import UNSURE, Rules, make_rules, measured
from mlm_jax.curate.thresholds import Sketch

NONE = Filters(quality=False, repetition=False, fineweb=False)
BOUNDS = Bounds(fineweb2().rules)
TEXT = """Im Winter fiel der erste Schnee schon Anfang November, und die Kinder liefen nach der Schule den Hang hinunter zum Fluss.
Niemand hatte damit gerechnet, dass das Eis so bald tragen würde; der alte Fischer warnte sie trotzdem jeden Abend.
Am Markt verkaufte eine Frau gebrannte Mandeln, deren Duft bis in die Seitenstraßen zog, wo Handwerker ihre Fenster schlossen."""


def test_of_few_words_no_language_is_sure_and_that_is_not_why_they_go():
    rules = Rules({"de": 0.5}, {"de": BOUNDS}, c4=False, contamination=())

    def reason(text: str) -> str:
        made = rules(measured(Document(text, language="de", confidence=0.4), View(text), BOUNDS, {}))
        assert isinstance(made, Dropped)
        return made.reason

    assert reason("Start Impressum Kontakt") == "few_words"
    again = "Immer derselbe Satz von denen, die nichts zu sagen haben, kommt hier wieder. "
    assert reason(again * 10).startswith(("top_", "repeated_"))
    assert reason(TEXT) == UNSURE


def sketch(confidences):
    made = Sketch()
    for i, confidence in enumerate(confidences):
        made.add(f"text {i}", {}, confidence)
    return made


def became(rules, confidence=1.0, language="fi", **scores):
    made = rules(Document("a text", language=language, confidence=confidence, scores=scores))
    return made.reason if isinstance(made, Dropped) else made.bucket


def test_how_sure_a_language_must_be_is_its_own_or_as_said():
    sketches = {"fi": sketch([0.99] * 150), "sv": sketch([0.99, 0.2] * 5)}
    derived = make_rules(Curate(filters=NONE), sketches)
    assert became(derived, 0.89) == UNSURE and became(derived, 0.9) == ""
    assert became(derived, 0.31, "sv") == "" and became(derived, 0.29, "sv") == UNSURE
    said = make_rules(Curate(filters=NONE, identify=Identify(least=0.5)), sketches)
    assert became(said, 0.51) == "" == became(said, 0.51, "sv") and became(said, 0.49, "sv") == UNSURE


def test_buckets_that_are_not_to_stay_go():
    bounds = {"fi": Bounds({}, ()), "sv": Bounds({}, ())}
    rules = Rules({"fi": 0.3, "sv": 0.3}, bounds, False, (), {"fi": (4.0, 5.0)}, ("head", "middle"))
    found = [became(rules, **{SCORE: score}) for score in (3.9, 4.0, 4.99, 5.0, 9.0)]
    assert found == ["head", "middle", "middle", "tail by perplexity", "tail by perplexity"]
    assert became(rules, language="sv") == ""
    assert became(rules, 0.2, **{SCORE: 9.0}) == UNSURE
