# SPDX-License-Identifier: Apache-2.0
"""Languages have names where their codes are known."""

import re

import pytest

from mlm_jax.language_names import NAMES, SAME, label, language_name
from mlm_jax.prepare.sample import sample_languages
from mlm_jax.report.page import write_report
from tests.report.test_page import make_run


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("de", "German"),
        ("deu", "German"),
        ("zho_Hant", "Chinese (traditional)"),
        ("zh-tw", "Chinese (TW)"),
        ("en-gb", "English (GB)"),
        ("zh-Hant-TW", "Chinese (traditional, TW)"),
        ("pt_BR", "Portuguese (BR)"),
        ("es-419", "Spanish (419)"),
        ("en_XX", "English"),
        ("eng-zho-TW", "English – Chinese (TW)"),
        ("zho-TW-eng", "Chinese (TW) – English"),
        ("zh-yue", "Cantonese"),
        ("zh_min_nan", "Min Nan Chinese"),
        ("de-fr-it", ""),
        ("l1", ""),
        ("", ""),
        ("en-$x$", ""),
    ],
)
def test_codes_are_read(code, name):
    assert language_name(code) == name


def test_every_language_of_the_sample_has_a_name():
    assert not [code for code in sample_languages() if not language_name(code)]


def test_two_letters_and_three_are_the_same_language():
    assert SAME["en"] == "eng" and SAME["eng"] == "en"
    assert all(NAMES[a] == NAMES[b] and SAME[b] == a for a, b in SAME.items())
    assert all(re.fullmatch("[a-z]{2,3}", code) for code in NAMES)


def test_figures_fall_back_to_codes_where_names_are_long():
    assert label("de") == "German, de" and label("l1") == "l1" and label("zho_Hant") == "zho_Hant"
    assert "\0" not in label("a\0")


def test_a_page_has_names_beside_codes(tmp_path):
    make_run(tmp_path, 3)
    for file in ("sampling.json", "metrics.jsonl"):
        path = tmp_path / file
        path.write_text(path.read_text().replace('"l1"', '"de"'))
    page = write_report(tmp_path).read_text()
    assert 'data-value="German">German <small>de</small></td>' in page and ">l2</td>" in page
    assert ">German, de</text>" in page
