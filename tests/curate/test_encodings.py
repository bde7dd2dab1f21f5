# SPDX-License-Identifier: Apache-2.0
"""Encodings, as browsers tell them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.curate.encodings import codec, decode, encoding_of
from tests.curate.web import pages, truth

pytest.importorskip("resiliparse")

RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 4
JAPANESE = "色は匂へど散りぬるを、我が世誰ぞ常ならむ。有為の奥山今日越えて。" * 4


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("ISO-8859-1", "cp1252"), (" latin1 ", "cp1252"), ("us-ascii", "cp1252"), ("x-cp1252", "cp1252"), ("iso-8859-9", "cp1254"),
        ("gb2312", "gb18030"), ("GBK", "gb18030"), ("ks_c_5601-1987", "cp949"), ("shift-jis", "cp932"), ("windows-31j", "cp932"),
        ("tis-620", "cp874"), ("big5", "big5hkscs"), ("utf8", "utf-8"), ("unicode", "utf-16-le"), ("x-mac-cyrillic", "mac_cyrillic"),
        ("no-such", ""), ("", ""), ("utf-7", ""), ("é", ""), ("x" * 1000, ""),
    ],
)  # fmt: skip
def test_labels_mean_what_they_mean_on_the_web(label, name):
    assert codec(label) == name


def test_the_order_of_what_says_an_encoding():
    page = f'<meta charset="koi8-r"><p>{RUSSIAN}'
    assert decode(b"\xef\xbb\xbf" + page.encode(), "windows-1251") == page
    assert decode(page.encode("utf-16"), "windows-1251") == page
    assert decode(page.encode("cp1251"), "windows-1251") == page  # the header before the page's own word
    assert decode(page.encode("koi8-r")) == page
    assert decode(page.encode("koi8-r"), "no-such") == page
    http_equiv = f"<META HTTP-EQUIV='Content-Type' CONTENT='text/html; charset=iso-8859-5'>{RUSSIAN}"
    assert decode(http_equiv.encode("iso-8859-5")) == http_equiv
    commented = f'<!-- <meta charset="koi8-r"> --><meta charset=windows-1251>{RUSSIAN}'
    assert decode(commented.encode("cp1251")) == commented
    xml = f'<?xml version="1.0" encoding="windows-1251"?><p>{RUSSIAN}'
    assert decode(xml.encode("cp1251")) == xml
    assert encoding_of(b'<meta charset="utf-16"><p>\xc3\xa9\xc3\xa9\xc3\xa9') == "utf-8"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"), (RUSSIAN, "utf-8"), (JAPANESE, "shift_jis"), (JAPANESE, "euc_jp"), (JAPANESE, "utf-8"),
     ("Voilà l'été à Genève, où Noël tombe déjà. " * 5, "cp1252"), ("天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。寒来暑往，秋收冬藏。" * 5, "gb18030")],
)  # fmt: skip
def test_what_says_nothing_is_guessed(text, encoding):
    assert decode(text.encode(encoding), html=False) == text


def test_labels_that_cannot_be_true_are_not_believed():
    assert decode(RUSSIAN.encode(), "iso-8859-1") == RUSSIAN  # the commonest lie
    assert decode(RUSSIAN.encode(), "windows-1251") == RUSSIAN
    assert decode(RUSSIAN.encode("cp1251"), "utf-8") == RUSSIAN
    assert decode(JAPANESE.encode("euc_jp"), "shift_jis") == JAPANESE
    broken = RUSSIAN.encode() + b"\xff" + RUSSIAN.encode()[:-5]
    assert decode(broken, "utf-8").startswith(f"{RUSSIAN}\N{REPLACEMENT CHARACTER}")


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=500),
    st.sampled_from(["", "utf-8", "utf-16", "shift_jis", "hz-gb-2312", "iso-2022-kr", "big5", "x", "iso-2022-jp"]),
)
def test_any_bytes_are_some_text(data, charset):
    text = decode(data, charset)
    text.encode()  # it has no half of a surrogate pair


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_utf8_is_told(text):
    plain = text.removeprefix("\ufeff").removeprefix("\ufeff")
    assert decode(plain.encode(), html=False) == plain or plain.startswith(("\ufeff", "\x00"))


def test_shared_pages_in_old_encodings_are_the_pages_they_were_made_from():
    from mlm_jax.curate.main_text import main_text

    known = truth()
    found = {page.url: page for page in pages()}
    compared = 0
    for url, page in found.items():
        if known[url]["kind"] == "charset":
            compared += 1
            original = main_text(decode(found[known[url]["of"]].data, "utf-8"))
            for charset in (page.charset, "no-such"):
                text = main_text(decode(page.data, charset))
                assert unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", original)
    assert compared == 14
