# SPDX-License-Identifier: Apache-2.0
"""C4's rules: by hand, and datatrove's where its splitting into sentences does not matter."""

import random

import pytest

from mlm_jax.curate.c4 import apply_c4

GOOD = "\n".join(f"This is a good line number {x}." for x in "abcde")


def test_good_lines_stay_and_others_go():
    text = f"Home\n{GOOD}\nPlease enable JavaScript to go on.\nWe use cookies on this site.\nno end\nIt trails off...\nToo few.\n"
    text += "x" * 1001 + " is a long word.\nA line with a citation[12] and one more [edit]."
    assert apply_c4(text) == (GOOD + "\nA line with a citation and one more .", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD + "\nLorem ipsum dolor sit amet.", "lorem_ipsum"),
        (GOOD + "\nif (x) { return it; }.", "curly_bracket"),
        (GOOD.rsplit("\n", 1)[0], "few_sentences"),
        ("", "few_sentences"),
    ],
)
def test_documents_that_go(text, reason):
    assert apply_c4(text) == ("", reason)


def test_sentences_within_a_line_count():
    assert apply_c4("It is one. It is two! Is it three? Yes, it is. It is five.")[1] == ""


def test_as_datatrove(monkeypatch):
    pytest.importorskip("datatrove")
    from datatrove.data import Document
    from datatrove.pipeline.filters import c4_filters

    monkeypatch.setattr(c4_filters, "split_into_sentences", lambda line, language: [line])
    peer = c4_filters.C4QualityFilter()
    pool = [
        "A good line of words here.",
        "no end of it",
        "Two words.",
        "It trails off...",
        "Read the privacy policy here.",
    ]
    pool += [
        "JavaScript is needed for it.",
        'He said so: "yes"',
        "It is so [3]?",
        "A { bracket } is here.",
        "Lorem ipsum is here.",
    ]
    for seed in range(200):
        draw = random.Random(seed)
        text = "\n".join(draw.choices(pool[: draw.choice([8, 8, 10])], k=draw.randint(1, 20)))
        document = Document(text=text, id="")
        kept = peer.filter(document)
        ours, reason = apply_c4(text)
        assert (kept is True) == (reason == ""), (seed, kept, reason)
        if kept is True:
            assert ours == document.text
