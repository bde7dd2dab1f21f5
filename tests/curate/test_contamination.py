# SPDX-License-Identifier: Apache-2.0
"""Documents that hold a part of an evaluation set are found, in scripts with and without spaces, and told apart by set."""

import numpy as np

from mlm_jax.curate import contamination
from mlm_jax.curate.contamination import contaminating, read_evaluation
from mlm_jax.curate.words import words

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
NINE = "a premise that is of only nine words altogether"
CHINESE = "我们昨天在学校里看到了很多学生他们都在认真地学习中文和数学因为下个星期有考试"


def test_thirteen_words_are_enough_and_twelve_are_not():
    found = read_evaluation({"dev": [LONG], "test": ["x " + LONG.replace("two", "2two")]})
    listed = LONG.split()
    assert contaminating("before, " + "; ".join(listed[2:15]).upper() + " after", found) == ["dev", "test"]
    assert contaminating(" ".join(listed[:13]), found) == ["dev"]
    assert contaminating(" ".join(listed[3:15]) + " end", found) == []
    assert contaminating("", found) == []


def test_short_texts_count_as_a_whole_and_very_short_ones_do_not():
    found = read_evaluation({"xnli": [NINE, "yes", "of seven words is this short text"]})
    assert found.unseen == {"xnli": 2}
    assert contaminating(f"It said: {NINE}!", found) == ["xnli"]
    assert contaminating(NINE.removeprefix("a "), found) == []
    assert contaminating("of seven words is this short text", found) == []


def test_without_spaces_runs_are_twice_as_long():
    found = read_evaluation({"zh": [CHINESE]})
    assert set(found.runs) == {26}
    assert len(words(CHINESE)) > 30
    assert contaminating("前" + CHINESE[4:30] + "后", found) == ["zh"]
    assert contaminating("前" + CHINESE[4:29] + "后", found) == []


def test_many_sets_and_none():
    texts = {f"set{i}": [LONG.replace("one", f"number{chr(97 + i)}")] for i in range(26)}
    found = read_evaluation(texts)
    assert contaminating(LONG, found) == list(texts)
    assert contaminating(LONG.replace("one", "numberc").removesuffix(" fourteen fifteen"), found) == ["set2"]
    assert contaminating(LONG, read_evaluation({})) == []
    assert all((np.diff(keys.astype(object)) > 0).all() for keys in found.runs.values())


def test_long_documents_are_looked_at_in_parts(monkeypatch):
    found = read_evaluation({"dev": [LONG]})
    monkeypatch.setattr(contamination, "LONGEST", 300)
    monkeypatch.setattr(contamination, "_OVERLAP", 150)
    for before in range(250, 330, 7):
        assert contaminating("x " * (before // 2) + LONG + " y" * 200, found) == ["dev"]
