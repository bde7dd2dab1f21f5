# SPDX-License-Identifier: Apache-2.0
"""Sources: a kind of source is one entry, whose slices and documents the rest takes as they come."""

import csv
import gzip
import importlib
import io
import json
import lzma
import re
from pathlib import Path

import pytest
import zstandard

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.prepare import labelled, sources
from mlm_jax.prepare.held_out import streams_of
from mlm_jax.prepare.slices import Slice, SourceKind

CONFIGS = Path(__file__).parents[2] / "configs"


def test_a_kind_of_source_is_one_entry(monkeypatch):
    toy = SourceKind(
        slices=lambda source, data: [Slice(source, "both", (source.path,), index=i, count=2) for i in range(2)],
        documents=lambda part: iter([[f"{part.source.language} {part.index}"]]),
        languages=lambda: ["sw", "de"],
    )
    monkeypatch.setitem(sources.KINDS, "toy", toy)
    slices = sources.language_slices(cfg.Data(sources=(cfg.Source("*", "toy:text"),)))
    assert list(slices) == ["de", "sw"] and str(slices["de"][1]) == "toy:text shard 1 of 2"
    assert [batch for part in slices["sw"] for batch in sources.read_documents(part)] == [["sw 0"], ["sw 1"]]
    assert slices["de"][0].fingerprint() != slices["de"][1].fingerprint()
    with pytest.raises(UserError, match="toy:text: sentence pairs are not read from this kind of source"):
        sources.pair_slices(cfg.Data(parallel=(cfg.Parallel(("de", "sw"), ("toy:text",)),)))
    assert cfg.text_files(cfg.Data(sources=(cfg.Source("de", "toy:text"), cfg.Source("sw", "gs://text/sw.txt")))) == [
        "gs://text/sw.txt"
    ]


def documents(*sources_, **options):
    """Language → its documents, in order."""
    data = cfg.Data(sources=sources_, **options)
    return {
        language: [d for part in slices for batch in sources.read_documents(part) for d in batch]
        for language, slices in sources.language_slices(data).items()
    }


def pairs(parallel, **options):
    slices = sources.pair_slices(cfg.Data(parallel=(parallel,), **options))
    return [pair for part in slices[parallel.languages] for batch in sources.read_pairs(part) for pair in batch]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tfsd:wikipedia", r"tfsd:wikipedia: no file, and no kind of source is called tfsd:; did you mean tfds:\?; there are tfds:, seqio:, hf:, sample: and files"),
        ("HF:squad", r"called HF:; there are tfds:"),
        ("s33://text/sw.txt", r"s33://text/sw.txt: nothing opens s33://; did you mean s3\?; there are gs://, s3://"),
        ("text.parqet", r"text.parqet: not a format that is read; did you mean .parquet\?; there are .txt, .jsonl"),
        ("none.parquet", "no file matches none.parquet"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_one_line_that_says_what_is(tmp_path, monkeypatch, path, message, capsys):
    from mlm_jax import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.parqet").touch()
    with pytest.raises(UserError, match=message):
        documents(cfg.Source("sw", path))
    (tmp_path / "c.py").write_text(
        "from mlm_jax.config import Config, Data, Source\n\n\n"
        f"def get_config():\n    return Config(data=Data(sources=(Source('sw', {path!r}),)))\n"
    )
    assert cli.main(["prepare", "c.py"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(said) == 1 and re.search(message, said[0])


def test_a_file_with_a_colon_in_its_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tfds:sw.txt").write_text("river\n")
    assert documents(cfg.Source("sw", "tfds:sw.txt")) == {"sw": ["river"]}


def test_every_language_of_a_folder_in_any_format(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for language, text in (("sw", "maji"), ("de", "Wasser")):
        (tmp_path / language).mkdir()
        for i in range(2):
            pq.write_table(
                pa.table({"text": [f"{text} {i} {j}" for j in range(3)]}), tmp_path / language / f"{i}.parquet"
            )
    found = documents(cfg.Source("*", f"{tmp_path}/{{language}}/*.parquet"), shard_bytes=1)
    assert found == {
        x: [f"{t} {i} {j}" for i in range(2) for j in range(3)] for x, t in (("sw", "maji"), ("de", "Wasser"))
    }
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "sw" / "2.parquet")
    with pytest.raises(UserError, match=r"2.parquet: empty; remove it"):
        documents(cfg.Source("*", f"{tmp_path}/{{language}}/*.parquet"))


def test_slices_of_parquet_are_ranges_of_row_groups_and_change_with_the_file(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"number {i}" for i in range(100)]}), path, row_group_size=10)
    slices = sources.language_slices(cfg.Data(sources=(cfg.Source("sw", str(path)),), shard_bytes=400))["sw"]
    assert 1 < len(slices) < 10 and str(slices[1]) == f"{path} row groups {slices[1].start} to {slices[1].end}"
    before = slices[0].fingerprint()
    pq.write_table(pa.table({"text": [f"number {i} more" for i in range(100)]}), path, row_group_size=10)
    assert slices[0].fingerprint() != before


FIELDS = [{"en": "The river", "sw": "Mto"}, {"en": "", "sw": "Nyumba"}, {"en": "Two\nlines", "sw": "Mistari miwili, ama \"mbili\""}]  # fmt: skip
WANTED = [("The river", "Mto"), ("Two lines", 'Mistari miwili, ama "mbili"')]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.json", "a.csv", "a.csv.gz", "a.parquet", "nested.parquet", "nested.jsonl", "*.parquet"])  # fmt: skip
def test_sentence_pairs_in_every_format(tmp_path, name):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"id": i, "translation": row} for i, row in enumerate(FIELDS)] if "nested" in name else FIELDS
    out = io.StringIO()
    table = csv.DictWriter(out, ["en", "sw"])
    table.writeheader()
    table.writerows(FIELDS)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = tmp_path / name.replace("*", "b")
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(
            {".jsonl": lines, ".zst": zstandard.compress(lines), ".json": json.dumps(rows).encode(), ".csv": out.getvalue().encode(),
             ".gz": gzip.compress(out.getvalue().encode())}[path.suffix]
        )  # fmt: skip
    assert pairs(cfg.Parallel(("en", "sw"), (str(tmp_path / name),))) == WANTED
    assert pairs(cfg.Parallel(("sw", "en"), (str(tmp_path / name),))) == [(b, a) for a, b in WANTED]
    if "nested" not in name:
        swapped = cfg.Parallel(("de", "fr"), (str(tmp_path / name),), fields=("sw", "en"))
        assert pairs(swapped) == [(b, a) for a, b in WANTED]


def test_pairs_whose_fields_are_not_named_by_the_languages(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"mine": "a", "yours": "b"}\n')
    with pytest.raises(
        UserError, match=r"a.jsonl:1: no fields of en and sw \(there are mine, yours\); set Parallel.fields"
    ):
        pairs(cfg.Parallel(("en", "sw"), (str(path),)))
    assert pairs(cfg.Parallel(("en", "sw"), (str(path),), fields=("mine", "yours"))) == [("a", "b")]
    with pytest.raises(
        UserError, match=r"a.jsonl:1: no text in field 'your' .*did you mean yours\?; set Parallel.fields"
    ):
        pairs(cfg.Parallel(("en", "sw"), (str(path),), fields=("mine", "your")))
    with pytest.raises(UserError, match="aligned files have a sentence a line; give a file with both sides alone"):
        pairs(cfg.Parallel(("en", "sw"), (str(path), str(path))))


@pytest.mark.parametrize("start", ["memory://text", "memory:///text", "file://{folder}"])
def test_files_that_fsspec_opens(tmp_path, start):
    fsspec = pytest.importorskip("fsspec")
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    start = start.format(folder=tmp_path)
    files, folder = fsspec.core.url_to_fs(start)
    files.makedirs(folder, exist_ok=True)
    with files.open(f"{folder}/sw.txt", "wb") as file:
        file.write(b"maji\n\nmto\n" * 50)
    with files.open(f"{folder}/de.parquet", "wb") as file:
        pq.write_table(pa.table({"text": ["Wasser", "Fluss"]}), file)
    found = documents(
        cfg.Source("*", f"{start}/{{language}}.txt"), cfg.Source("de", f"{start}/de.parquet"), shard_bytes=99
    )
    assert found == {"sw": ["maji", "mto"] * 50, "de": ["Wasser", "Fluss"]}
    (slices, _) = streams_of(cfg.Data(sources=(cfg.Source("sw", f"{start}/sw.txt"),)), 1)
    before = slices["sw"][0].fingerprint()
    with files.open(f"{folder}/sw.txt", "wb") as file:
        file.write(b"other\n")
    assert slices["sw"][0].fingerprint() != before
    with pytest.raises(UserError, match="no file matches"):
        documents(cfg.Source("sw", f"{start}/none.txt"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder of data that `datasets` loads, without a network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub"
    folder.mkdir()
    names = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names, "title": datasets.Value("string")})
    for split, count in (("train", 700), ("validation", 3)):
        rows = {
            "text": [f"{split} {i}" for i in range(count)],
            "label": [i % 2 for i in range(count)],
            "title": [None] * count,
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{split}.parquet"))
    pairs_ = tmp_path / "pairs"
    pairs_.mkdir()
    datasets.Dataset.from_dict({"translation": FIELDS}).to_parquet(str(pairs_ / "train.parquet"))
    module = importlib.import_module("mlm_jax.prepare.hub")
    module.loaded.cache_clear()
    yield tmp_path
    module.loaded.cache_clear()


def test_data_sets_of_the_hugging_face_library(hub, capsys):
    path = f"hf:{hub}/hub"
    found = documents(cfg.Source("sw", path, field=("title", "text"), validation="validation"), shard_bytes=2_000)
    assert found == {"sw": [f"train {i}" for i in range(700)] + [f"validation {i}" for i in range(3)]}
    assert len(documents(cfg.Source("hub", f"hf:{hub}/{{language}}:validation"))["hub"]) == 3
    assert pairs(cfg.Parallel(("en", "sw"), (f"hf:{hub}/pairs",))) == WANTED
    for source, message in (
        (cfg.Source("sw", f"{path}:dev"), r"cannot be had \(Unknown split \"dev\""),
        (
            cfg.Source("sw", path, field="body"),
            r"hub: no text in field 'body' \(there are text, label, title\); set Source.field",
        ),
        (cfg.Source("sw", "hf:no_one/nothing"), "hf:no_one/nothing: cannot be had"),
        (cfg.Source("*", path), "name each language"),
    ):
        with pytest.raises(UserError, match=message) as e:
            documents(source)
        assert "\n" not in str(e.value)
    labelled.write_examples(f"{path}:validation", "sw", str(hub / "out"))
    rows = [json.loads(line) for line in (hub / "out.jsonl").read_text().splitlines()]
    assert [(row["text"], row["label"]) for row in rows] == [
        (f"validation {i}", ["no", "yes"][i % 2]) for i in range(3)
    ]
    labelled.write_examples(f"hf:{hub}/pairs:train", "sw", str(hub / "sw"))
    assert json.loads((hub / "sw.jsonl").read_text().splitlines()[0]) == {"translation": "Mto"}
    with pytest.raises(UserError, match=r"no split; write hf:NAME/CONFIG:SPLIT"):
        labelled.write_examples(path, "sw", str(hub / "out"))
    with pytest.raises(
        UserError, match="no labelled examples are read from this kind of source; there are tfds:, hf: and files"
    ):
        labelled.write_examples("sample:django", "sw", str(hub / "out"))


def test_names_of_the_hub():
    parts_of = importlib.import_module("mlm_jax.prepare.hub").parts_of
    assert parts_of("hf:squad:train") == ("squad", None, "train")
    assert parts_of("hf:nyu-mll/glue/mrpc:train[:10%]") == ("nyu-mll/glue", "mrpc", "train[:10%]")
    assert parts_of("hf:wikimedia/wikipedia/20231101.sw") == ("wikimedia/wikipedia", "20231101.sw", "")


def test_fineweb2_is_read_as_it_is_downloaded(tmp_path, monkeypatch, capsys):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    config = cfg.load_config(str(CONFIGS / "fineweb2.py"))
    for name in ("swh_Latn", "khm_Khmr", "srp_Cyrl", "srp_Latn", "swh_Latn_removed"):
        for split, files in (("train", 2), ("test", 1)):
            (folder := tmp_path / "fineweb-2" / "data" / name / split).mkdir(parents=True)
            for i in range(files):
                rows = {"text": [f"{name} {split} {i}\n\nmore"], "id": ["<urn:uuid:1>"], "dump": ["CC-MAIN-2014-10"], "url": ["http://x.org"],
                        "language_score": [0.9], "top_langs": ["{}"], "minhash_cluster_size": [3]}  # fmt: skip
                pq.write_table(pa.table(rows), folder / f"000_0000{i}.parquet")
    found = documents(*config.data.sources)
    assert list(found) == ["khm_Khmr", "srp_Cyrl", "srp_Latn", "swh_Latn"]
    assert found["swh_Latn"] == [f"swh_Latn train {i}\nmore" for i in range(2)]
    assert "left out, as text that was removed: swh_Latn_removed" in capsys.readouterr().out


def test_cc100_is_read_as_it_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = cfg.load_config(str(CONFIGS / "cc100.py"))
    (tmp_path / "cc100").mkdir()
    for name in ("sw", "zh-Hans", "bn_rom", "my_zaw", "ss", "sr"):
        (tmp_path / "cc100" / f"{name}.txt.xz").write_bytes(
            lzma.compress(f"{name} one.\ntwo.\n\n{name} three.\n".encode())
        )
    found = documents(*config.data.sources)
    assert found == {
        x: [f"{x} one.\ntwo.", f"{x} three."] for x in sorted(["sw", "zh-Hans", "bn_rom", "my_zaw", "ss", "sr"])
    }
