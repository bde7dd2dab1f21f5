# SPDX-License-Identifier: Apache-2.0
"""Words in any script, their hashes, and that a text's are those of its parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlm_jax.curate.words import (
    find_words,
    hash_words,
    n_gram_hashes,
    plain_words,
    strings,
    word_hashes,
    words,
)

TEXTS = st.text(st.sampled_from("ab é'’.,- \n09_#ภเาษ្ខមែកိ្名ひらカー字्हिं\u0301\u200b\ud800\U00020000"), max_size=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Hello, world... it's 3.5 (really)'",
            ["Hello", ",", "world", "...", "it's", "3", ".", "5", "(", "really", ")'"],
        ),
        ("l’eau n'est", ["l’eau", "n'est"]),
        ("हिन्दी में किताबें हैं।", ["हिन्दी", "में", "किताबें", "हैं", "।"]),
        ("我们喜欢。Python很好", ["我", "们", "喜", "欢", "。", "Python", "很", "好"]),
        ("日本語のテキストはカタカナー", ["日", "本", "語", "の", "テキスト", "は", "カタカナー"]),
        ("ភាសាខ្មែរ", ["ភា", "សា", "ខ្មែ", "រ"]),
        ("ភាសា\u200bខ្មែរ", ["ភា", "សា", "ខ្មែ", "រ"]),
        ("เป็นภาษา", ["เป็", "น", "ภา", "ษา"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("ພາສາ", ["ພາ", "ສາ"]),
        ("e\u0301te\u0301 a", ["e\u0301te\u0301", "a"]),
        ("\u0301", []),
        ("", []),
        ("a\x00b", ["a", "\x00", "b"]),
    ],
)
def test_words_by_hand(text, expected):
    assert words(text) == expected


@given(TEXTS)
def test_words_lie_in_order_apart_and_leave_out_only_spaces_and_stray_marks(text):
    found = find_words(text)
    assert (found.starts < found.ends).all() and (found.ends[:-1] <= found.starts[1:]).all()
    inside = np.zeros(len(text), bool)
    for a, b in zip(found.starts, found.ends, strict=True):
        inside[a:b] = True
    left = "".join(c for c, is_in in zip(text, inside, strict=True) if not is_in)
    assert not any(c.isalnum() and c not in "าー" for c in left)  # joining letters without anything to join
    assert not any(c in ".,-#" for c in left)


@given(TEXTS)
def test_equal_words_have_equal_hashes_wherever_they_stand(text):
    found = find_words(text)
    listed = strings(text, found)
    assert (word_hashes(found) == hash_words(listed)).all()
    assert len(set(hash_words(listed).tolist())) == len(set(listed))


def test_plain_words_forget_case_symbols_and_digits():
    a, b = plain_words("The 12 Houses, (of) Straße!"), plain_words("THE 99 houses of straße")
    assert (word_hashes(a) == word_hashes(b)).all()
    assert (word_hashes(plain_words("ten 12")) != word_hashes(plain_words("ten 123"))).any()
    assert len(word_hashes(plain_words("İstanbul"))) == 1  # lower case of two characters


def test_hashes_of_n_grams_tell_order_and_length():
    ab, ba = (n_gram_hashes(hash_words(x), 2) for x in (["a", "b"], ["b", "a"]))
    assert ab != ba
    assert len(n_gram_hashes(hash_words(["a"]), 2)) == 0
    assert hash_words(["a" * 2000]) != hash_words(["a" * 2001])
    hashes = hash_words(["x", "y", "z", "x", "y"])
    assert n_gram_hashes(hashes, 2)[0] == n_gram_hashes(hashes, 2)[3]


def test_hashes_stay_the_same():
    """They are in files that other runs read."""
    assert hash_words(["word"]).tolist() == [12120110345488221640]
