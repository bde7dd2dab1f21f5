# SPDX-License-Identifier: Apache-2.0
"""Text mended: what is repaired, what lines go, what is private, and that text stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.curate.clean import clean, without_noise, without_private
from mlm_jax.curate.encodings import decode
from mlm_jax.curate.main_text import main_text
from tests.curate.web import pages, truth

pytest.importorskip("ftfy")


def mistaken(text: str, encoding: str) -> str:
    """Text whose UTF-8 was read in another encoding."""
    return text.encode().decode(encoding)


GERMAN, FRENCH = "Größe und Übermut tun selten gut, möchte man sagen.", "Le dîner – déjà réservé… « à l’été »"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(GERMAN, "latin-1"), (GERMAN, "cp1252"), (GERMAN, "mac_roman"), (FRENCH, "latin-1"), (FRENCH, "cp1252"), (FRENCH, "cp1251"), ("Чёрный кот и белый кот", "latin-1"), ("Зелёный чай", "cp1251")],
)  # fmt: skip
def test_mojibake_is_repaired_and_counted(text, encoding):
    wrong = mistaken(text, encoding)
    mended, counts = clean(f"Plain.\n{wrong}")
    assert mended == f"Plain.\n{text}" and counts["mojibake"] > 0
    assert clean(wrong, mojibake=False)[0] != text


def test_utf8_read_as_latin1_whose_characters_were_cut_by_lines():
    text = "为构成公式元素的变量、函数、数字以及插入文字定义字体。\nВ некоторых диалоговых окнах можно ввести.\nVoilà une idée."
    wrong = text.encode().decode("latin-1")
    cut = "\n".join(line.replace("\xa0", " ") for line in wrong.replace("\x85", "\n").split("\n"))
    assert cut != wrong
    mended, counts = clean(cut)
    assert counts["mojibake"] > 0
    assert mended.replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    "text",
    ["Il dit : « À l’été ! »", "Ça coûte 5 € à Besançon, n'est-ce pas ?", "ÄÖÜ äöü ß", "Đặt các tùy chọn về định dạng giấy.", "Съешь «ещё» булок — №1",
     "ÎLE-À-VACHE", "naïve façade", "Älä jää yöksi tänne"],
)  # fmt: skip
def test_text_that_is_right_stays(text):
    assert clean(text) == (text, {})


def test_characters_that_are_no_text():
    assert clean("a\0b\x07c\ud800d\ufeffe soft\xadhyphen") == ("abcde softhyphen", {"controls": 5})
    assert clean("e\u0301te\u0301") == ("été", {"nfc": 1})
    assert (
        clean("one\r\ntwo\u2028three\x85four\rfive   six\t seven\n\n\n eight ", lines=False)[0]
        == "one\ntwo\nthree\nfour\nfive six seven\neight"
    )


@pytest.mark.parametrize(
    "line",
    ["Read more", "Read more »", "Weiterlesen…", "続きを読む", "Подробнее →", "1,234", "12 | 34", "• • •", "15 comments", "Views: 1.234", "1,2K views",
     "Home > News > Sport", "Startseite » Hilfe » Konto", "Home | About us | Contact", "© 2026 Example Ltd.", "Copyright © 1999-2026 by us", "« Previous",
     "Show the next chapter ›", "اقرأ المزيد", "और पढ़ें"],
)  # fmt: skip
def test_lines_that_are_no_text_go(line):
    text = ["The first sentence of a page that says something.", "And a second sentence, in a paragraph of its own."]
    assert without_noise([text[0], line, text[1]]) == text
    assert clean("\n".join([text[0], line, text[1]]))[1] == {"lines": 1}


@pytest.mark.parametrize(
    "line",
    ["He said: read more books.", "In 2026 there were 15 comments on the paper.", "More than a third of them left.", "A > B holds for all of them.",
     "1 Introduction", "Chapter 12", "The copyright of 1999 was contested.", "x = y | z", "更多的人来到这里。", "Menu of the day: soup and bread.", "Меню «Правка»", "« Oui »"],
)  # fmt: skip
def test_lines_that_are_text_stay(line):
    text = [
        "The first sentence of a page that says something.",
        line,
        "And a second sentence, in a paragraph of its own.",
    ]
    assert without_noise(text) == text


def test_notices_and_menus_by_their_place():
    body = [f"Sentence number {i} of a page, which is long enough to be one." for i in range(12)]
    notice = "We use cookies to improve your experience. By continuing you accept our policy."
    assert without_noise([notice, *body]) == body
    assert without_noise([*body, "Diese Website verwendet Cookies."]) == body
    about = [f"{line} Cookies are baked." for line in body]
    assert without_noise(about) == about
    menu = ["Products", "Solutions", "Pricing", "Our team", "Careers", "Press", "Legal"]
    assert without_noise([*menu, "The title", *body, *menu]) == ["The title", *body]
    assert without_noise(menu) == []


def test_private_numbers():
    text = "Mail jo.doe+x@mail.example.co.uk, call +49 (0)30 123456-78 or (212) 555-1234 or 030/1234567, from 8.8.8.8 or 2001:4860:4860::8888 now."
    mended, counts = clean(text, private=True)
    assert counts == {"email": 1, "phone": 3, "ip": 2}
    assert mended == "Mail email@example.com, call 555-0100 or 555-0100 or 555-0100, from 192.0.2.1 or 192.0.2.1 now."
    assert without_private(mended) == (mended, {})


@pytest.mark.parametrize(
    "text",
    ["On 2026-11-27, or 27.11.2026, at 10:30.", "It cost 1 000 000 000 euros, or 1,234,567.89.", "Version 1.2.3 and 10.0.0.1 and 192.168.1.1.",
     "ISBN 978-3-16-148410-0", "std::vector<int> a::b", "Pages 123-456 of 1999-2001.", "@someone wrote a@b", "12:34:56:78 passed"],
)  # fmt: skip
def test_numbers_that_are_not_private_stay(text):
    assert without_private(text) == (text, {})


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400) | st.text("aÃé\n>|@.0123456789+-: ж漢", max_size=300))
def test_cleaned_text_is_clean(text):
    once, counts = clean(text, private=True)
    once.encode()
    assert unicodedata.is_normalized("NFC", once) and "\0" not in once
    assert all(line and line == line.strip() for line in once.split("\n")) or not once
    assert all(count > 0 for count in counts.values())
    plain, changed = clean(text, lines=False, mojibake=False)
    if not changed:
        assert "".join(plain.split()) == "".join(text.split())


def test_shared_pages_lose_little_to_it():
    known = truth()
    before = after = 0
    for page in pages():
        if known[page.url]["kind"] == "page":
            text = main_text(decode(page.data, page.charset))
            before, after = before + len(text), after + len(clean(text)[0])
    assert before > 500_000 and after / before >= 0.99


def test_links_that_stand_without_space_are_no_text():
    """Menus, as some write the text of pages; not a long line of a script that has no spaces."""
    assert without_noise(
        ["main0107vbasupportcalculate0407000003170000040900doc_save01050000240900", "A line of text."]
    ) == ["A line of text."]
    for unspaced in ("长文本没有空格" * 30, "ข้อความยาวที่ไม่มีช่องว่าง" * 10, "བོད་ཡིག་གི་ཚིག་" * 20, "အက္ခရာ" * 30):
        assert without_noise([unspaced]) == [unspaced]
