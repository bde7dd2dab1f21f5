# SPDX-License-Identifier: Apache-2.0
"""Which columns of a parallel TSV are the sentences, and which files are a language's."""

import random

import pytest

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.prepare import check, sources

EN = ["The river is wide.", "A house of stone", "Light", "We saw 3 trees", "Yes"]
DE = ["Der Fluss ist breit.", "Ein Haus aus Stein", "Licht", "Wir sahen 3 Bäume", "Ja"]
PAIRS = [(f"{a} ({i})", f"{b} ({i})") for i in range(8) for a, b in zip(EN, DE, strict=True)]
rng = random.Random(1)
LAYOUTS = {
    "two columns": lambda i, a, b: (a, b),
    "score first (CCMatrix)": lambda i, a, b: (f"{1 + rng.random():.4f}", a, b),
    "score last (Moses)": lambda i, a, b: (a, b, f"{rng.random():.3e}"),
    "ids (Tatoeba)": lambda i, a, b: (str(10_000 + i), a, str(20_000 + i), b),
    "ids and codes (Tatoeba)": lambda i, a, b: (str(i), "eng", a, str(i + 9), "deu", b),
    "other order, by the codes": lambda i, a, b: (str(i), "de", b, str(i + 9), "en", a),
    "addresses (ParaCrawl)": lambda i, a, b: (f"https://x.org/{i}", f"https://y.org/{i}", a, b, "0.7"),
    "corpus name": lambda i, a, b: ("opensubtitles", a, b),
    "other order, by other codes (Tatoeba)": lambda i, a, b: (str(i), "deu", b, str(i + 9), "eng", a),
    "codes together (FLORES)": lambda i, a, b: ("deu_Latn", "eng_Latn", b, a),
    "codes after": lambda i, a, b: (b, "de", a, "en"),
    "in quotation marks": lambda i, a, b: (f'"{a}"', f'"{b}"', "0.5"),
    "empty column": lambda i, a, b: (a, "", b),
}


def read(path, languages=("en", "de"), columns=()):
    data = cfg.Data(parallel=(cfg.Parallel(languages, (str(path),), columns),))
    (part,) = sources.pair_slices(data)[languages]
    return [pair for batch in sources.read_pairs(part) for pair in batch]


def write(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognised(tmp_path, layout, capsys):
    path = write(tmp_path / "x.tsv", [LAYOUTS[layout](i, a, b) for i, (a, b) in enumerate(PAIRS)])
    assert read(path) == PAIRS
    assert ("en in column" in capsys.readouterr().out) == (layout != "two columns")


def test_a_heading_names_the_columns_and_is_no_pair(tmp_path):
    rows = [("DE", "note", "en"), *((b, "see above", a) for a, b in PAIRS)]
    assert read(write(tmp_path / "x.tsv", rows)) == PAIRS


@pytest.mark.parametrize(
    "first", [("German", "English"), ("deu", "eng"), ("deu_Latn", "eng_Latn"), ("text_de", "text_en")]
)
def test_headings_are_languages_by_any_code_or_name(tmp_path, first):
    assert read(write(tmp_path / "x.tsv", [first, *((b, a) for a, b in PAIRS)])) == PAIRS


@pytest.mark.parametrize("first", [("source", "target"), ("src", "tgt"), ("sentence1", "sentence2")])
def test_headings_without_languages_are_no_pair(tmp_path, first):
    assert read(write(tmp_path / "x.tsv", [first, *PAIRS])) == PAIRS


def test_one_language_in_two_scripts_goes_by_the_whole_code(tmp_path):
    for codes in (("zho_Hans", "zho_Hant"), ("zho_Hant", "zho_Hans")):
        rows = [(codes[0], a, codes[1], b) for a, b in PAIRS]
        assert read(write(tmp_path / "x.tsv", rows), languages=codes) == PAIRS
        assert read(write(tmp_path / "x.tsv", rows), languages=codes[::-1]) == [(b, a) for a, b in PAIRS]


def test_codes_of_other_languages_are_refused_and_the_advice_works(tmp_path):
    path = write(tmp_path / "x.tsv", [("deu", b, "fra", a) for a, b in PAIRS])
    with pytest.raises(UserError, match=r"say deu and fra, not de and en; .*columns=\(2, 4\)"):
        read(path, languages=("de", "en"))
    assert read(path, languages=("de", "en"), columns=(2, 4)) == [(b, a) for a, b in PAIRS]


def test_quotation_marks_of_the_text_stay_and_those_of_csv_go(tmp_path):
    rows = [('"Yes," he said, "yes"', "ja"), ('"He said ""yes"""', '"ja"'), ('"Fine."', "gut"), ('"', "x y")]
    assert read(write(tmp_path / "x.tsv", rows)) == [
        ('"Yes," he said, "yes"', "ja"),
        ('He said "yes"', '"ja"'),
        ('"Fine."', "gut"),
        ('"', "x y"),
    ]


def test_sides_that_read_like_the_others_language_are_refused_and_the_advice_works(tmp_path):
    (tmp_path / "en.txt").write_text("\n".join(a for a, _ in PAIRS))
    (tmp_path / "zh.txt").write_text("\n".join(f"今天天气很好我喜欢喝茶 {i}" for i in range(40)))
    rows = [(a * 2, f"今天天气很好我喜欢喝茶听音乐看书睡觉 {i}" * 2) for i, (a, _) in enumerate(PAIRS)]
    path = write(tmp_path / "x.tsv", rows)

    def look(*languages):
        text = tuple(cfg.Source(x, f"{tmp_path}/{x}.txt") for x in ("en", "zh"))
        data = cfg.Data(sources=text, parallel=(cfg.Parallel(languages, (str(path),)),))
        check.refuse_swapped(sources.language_slices(data), sources.pair_slices(data))

    with pytest.raises(UserError, match=r'turn them round: Parallel\(\("en", "zh"\)'):
        look("zh", "en")
    look("en", "zh")


def test_what_cannot_be_told_is_refused_and_can_be_said(tmp_path):
    path = write(tmp_path / "x.tsv", [(a, b, b.upper()) for a, b in PAIRS])
    with pytest.raises(UserError, match=r"3 of its 3 columns look like sentences .*columns=\(1, 2\)"):
        read(path)
    assert read(path, columns=(1, 2)) == PAIRS
    assert read(path, columns=(2, 1)) == [(b, a) for a, b in PAIRS]
    with pytest.raises(UserError, match="name two, counted from 1"):
        read(path, columns=(0, 1))
    with pytest.raises(UserError, match="1 of its 2 columns look like sentences"):
        read(write(tmp_path / "y.tsv", [(a, "0.5") for a, _ in PAIRS]))
    with pytest.raises(UserError, match=r"y\.tsv:2: 3 columns, not 2; mend the line"):
        read(write(tmp_path / "y.tsv", [("a b", "c d"), ("a", "b", "c")]))


def test_files_that_are_no_language_are_refused_and_the_others_listed(tmp_path, capsys):
    for name in ("en", "de", "zh-Hant", "sr_Latn", "zho-CN"):
        (tmp_path / f"{name}.txt").write_text("text\n")
    source = cfg.Source("*", f"{tmp_path}/{{language}}.txt")
    assert set(sources.language_slices(cfg.Data(sources=(source,)))) == {"en", "de", "zh-Hant", "sr_Latn", "zho-CN"}
    assert "5 languages: de, en, sr_Latn, zh-Hant, zho-CN" in capsys.readouterr().out
    (tmp_path / "._en.txt").write_text("what macOS leaves on other disks\n")
    assert len(sources.language_slices(cfg.Data(sources=(source,)))) == 5  # hidden files are none of a pattern's
    for odd in ("README", "de (1)", "en.old", "notes", "x", "en~", "en_old", "en-backup", "de-2", "dev", "en_train"):
        stray = tmp_path / f"{odd}.txt"
        stray.write_text("text\n")
        with pytest.raises(UserError, match=r'name each language: Source\("de", "') as refused:
            sources.language_slices(cfg.Data(sources=(source,)))
        assert repr(odd) in str(refused.value)
        stray.unlink()
    # What the message advises.
    (tmp_path / "README.txt").write_text("text\n")
    named = tuple(cfg.Source(x, f"{tmp_path}/{x}.txt") for x in ("de", "en"))
    assert set(sources.language_slices(cfg.Data(sources=named))) == {"de", "en"}
    assert set(sources.language_slices(cfg.Data(sources=(cfg.Source("README", f"{tmp_path}/README.txt"),)))) == {
        "README"
    }


@pytest.mark.parametrize(
    "code", ["simple", "be-tarask", "be-x-old", "zh-min-nan", "zh_classical", "es-419", "de-1996", "eng_Latn", "new"]
)
def test_codes_of_corpora_are_taken(code):
    assert sources.is_code(code)


@pytest.mark.parametrize(
    "stray", ["README.txt", "en (1).txt", "Copy of en.txt", "en-copy.txt", "en.txt.bak", "en.txt.gz"]
)
def test_stray_files_are_none_of_a_patterns_and_what_is_named_is_taken(tmp_path, stray):
    (tmp_path / "en.txt").write_text("text\n")
    (tmp_path / stray).write_text("text\n")
    with pytest.raises(UserError, match="move it away, or give a path that leaves it out") as refused:
        sources.language_slices(cfg.Data(sources=(cfg.Source("en", f"{tmp_path}/*"),)))
    assert str(tmp_path / stray) in str(refused.value)
    if stray.endswith(".txt"):
        sources.language_slices(cfg.Data(sources=(cfg.Source("en", f"{tmp_path}/{stray}"),)))


def test_two_spellings_of_a_code_are_refused(tmp_path):
    for name in ("zh-CN", "zh_cn"):
        (tmp_path / f"{name}.txt").write_text("text\n")
    with pytest.raises(UserError, match="zh-CN and zh_cn for two languages"):
        sources.language_slices(cfg.Data(sources=(cfg.Source("*", f"{tmp_path}/{{language}}.txt"),)))


def test_a_folder_that_is_there_is_no_pattern(tmp_path):
    folder = tmp_path / "[old] text"
    folder.mkdir()
    (folder / "en.txt").write_text("text\n")
    (folder / "de[1].txt").write_text("text\n")
    found = sources.language_slices(cfg.Data(sources=(cfg.Source("en", f"{folder}/e*.txt"),)))
    assert found["en"][0].paths == (f"{folder}/en.txt",)
    found = sources.language_slices(cfg.Data(sources=(cfg.Source("de", f"{folder}/de[1].txt"),)))
    assert found["de"][0].paths == (f"{folder}/de[1].txt",)


@pytest.mark.parametrize("line", ['{"text": "half \\ud83d of it"}', '{"text": "a NUL \\u0000 here"}'])
def test_json_that_is_no_text_is_refused_with_its_line(tmp_path, line):
    (tmp_path / "en.jsonl").write_text('{"text": "fine"}\n' * 3 + line + "\n")
    (part,) = sources.language_slices(cfg.Data(sources=(cfg.Source("en", f"{tmp_path}/en.jsonl"),)))["en"]
    with pytest.raises(UserError, match=r"en\.jsonl:4: .*(surrogate|NUL)"):
        list(sources.read_documents(part))
