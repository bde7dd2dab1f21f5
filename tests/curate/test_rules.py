# SPDX-License-Identifier: Apache-2.0
"""Why a document goes: the reason that is its own."""

from mlm_jax.curate.document import Document, Dropped
from mlm_jax.curate.filters import Bounds, fineweb2
from mlm_jax.curate.rules import UNSURE, Rules, measured

BOUNDS = Bounds(fineweb2().rules)
TEXT = """Im Winter fiel der erste Schnee schon Anfang November, und die Kinder liefen nach der Schule den Hang hinunter zum Fluss.
Niemand hatte damit gerechnet, dass das Eis so bald tragen würde; der alte Fischer warnte sie trotzdem jeden Abend.
Am Markt verkaufte eine Frau gebrannte Mandeln, deren Duft bis in die Seitenstraßen zog, wo Handwerker ihre Fenster schlossen."""


def test_of_few_words_no_language_is_sure_and_that_is_not_why_they_go():
    rules = Rules({"de": 0.5}, {"de": BOUNDS}, c4=False, contamination=())

    def reason(text: str) -> str:
        made = rules(measured(Document(text, language="de", confidence=0.4), BOUNDS, {}))
        assert isinstance(made, Dropped)
        return made.reason

    assert reason("Start Impressum Kontakt") == "few_words"
    again = "Immer derselbe Satz von denen, die nichts zu sagen haben, kommt hier wieder. "
    assert reason(again * 10).startswith(("top_", "repeated_"))
    assert reason(TEXT) == UNSURE
