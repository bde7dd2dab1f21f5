# SPDX-License-Identifier: Apache-2.0
"""Fuzzing: every reader is given files that were changed at random, and reads them or refuses them in one line.

    python -m tests.fuzz --seconds 60                    # all readers, in turn
    python -m tests.fuzz --seconds 600 --target squad --seed 7

A file that a reader neither reads nor refuses is a finding: it is kept in --findings, and its traceback is printed. The cases
depend on --seed and on how many there are, not on time.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import formats, manifest, records, results, vocabulary
from mlm_jax import lock as locks
from mlm_jax.encode.read import is_finetuned
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.finetune.config import Data, Finetune, read_finetuning
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.finetune.words import SPACES, read_splitter, write_splitter
from mlm_jax.input.blocks import Blocks
from mlm_jax.lock import locked
from mlm_jax.neutrality.config import Analyze
from mlm_jax.options import parse
from mlm_jax.prepare import columns, text
from mlm_jax.prepare.held_out import _load
from mlm_jax.prepare.shard import Done
from mlm_jax.report.neutrality import write_analysis_page
from mlm_jax.report.page import write_report
from mlm_jax.report.results import write_results_page
from mlm_jax.starts import note_start
from mlm_jax.stored import read_arrays, read_json
from mlm_jax.tensor_files import read_tensors, write_tensors
from mlm_jax.tokenizers import load_tokenizer, read_vocab_txt
from mlm_jax.train import initial
from mlm_jax.train.metrics import read_metrics
from mlm_jax.workdir import own_workdir
from tests.corpora import make_workdir
from tests.report.test_page import make_run

LONGEST = 30  # seconds of processor time for a case
DEEP = 100_000  # brackets
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf"), "", "x", "../x", "/", "\0", "a\nb", "é" * 300,
    "\ud800", "<script>", "$\\frac{$", [], {}, [[]], [None], {"": None}, [1, 2, 3], ["a"], {"a": {"b": []}},
)  # fmt: skip
TOKENS = (
    b"\0", b"\n", b"\r", b"\t", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u0000", b"\\ud800", b"null", b"-1", b"1e999", b"\xff", b"\xc3",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xa8", b"9" * 5_000, b"[" * DEEP, b'{"a":' * 2_000, b"NaN", b" ", b"\x1f\x8b", b"(\xb5/\xfd", b"BZh9",
)  # fmt: skip

BINARY = ("l.parquet", "m.parquet", "n.arrow", "o.arrow")


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader, and a file that it reads.

    Attributes:
      file: what is changed.
      read: the reader, of whatever folder it takes.
      strict: its refusals name the file, or its folder.
      every: it is tried in one of so many rounds.
    """

    file: Path
    read: Callable[[], Any]
    strict: bool = True
    every: int = 1


def mutate_json(rng: random.Random, content: bytes) -> bytes:
    """JSON, or lines of it, with a part of it in another place's, or another value."""
    lines = content.decode().split("\n") if content.count(b"}\n{") else [content.decode()]
    at = rng.randrange(len(lines))
    try:
        tree = json.loads(lines[at])
    except ValueError:
        return mutate_bytes(rng, content)
    places: list[tuple[Any, Any]] = []  # a container and a key of it

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, item in items:
            places.append((node, key))
            walk(item)

    walk(tree)
    value = rng.choice(VALUES)
    if not places or rng.random() < 0.05:
        tree = value
    else:
        node, key = rng.choice(places)
        other, there = rng.choice(places)
        how = rng.randrange(5)
        if how == 0:
            del node[key]
        elif how == 1:
            node[key] = json.loads(json.dumps(other[there]))
        elif how == 2 and isinstance(node, dict):
            node[f"{key}x"] = node.pop(key)
        elif how == 3 and isinstance(node[key], int | float):
            node[key] = rng.choice([-1, 2, 10, 1.5]) * node[key]
        else:
            node[key] = value
    lines[at] = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    return "\n".join(lines).encode(errors="surrogatepass")


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes with some of them changed, left out, doubled, or others put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + rng.choice((1, 4, 64, 1 << 30)))
        match rng.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = rng.choice(TOKENS)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end][:4096]
            case 4:
                data[at:end] = rng.randbytes(end - at)[:4096]
            case _:
                data[at : at + 8] = rng.choice((0, 1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little")
    return bytes(data)


def make_targets(folder: Path) -> dict[str, Target]:
    """Name → reader, with the files that it reads below the folder."""
    run, page, tuned, analysis, given = (folder / name for name in ("run", "page", "tuned", "analysis", "given"))
    config = make_workdir(run, {"en": 8, "de": 4})
    (run / "config.json").write_text(cfg.config_to_json(config))
    note_start(epath.Path(run), "mlm-jax pretrain x.py")
    made = manifest.read_manifest(run / "corpus")
    manifest.write_token_counts(np.arange(made.vocabulary_size), run / "corpus")
    np.savez(run / "corpus/held_out.npz", hashes=np.arange(9, dtype=np.uint64), most=0.1)
    np.savez(run / "corpus/histogram.npz", ids=np.arange(3), counts=np.arange(3))
    split = dict.fromkeys(
        ("documents", "bytes", "left_out", "sentences_left_out", "in_no_block", "unpaired", "characters"), 1
    )
    split |= {"tokens": 1, "blocks": 1, "file_bytes": 9, "lost": {"x": 1}}  # type: ignore[dict-item]
    (run / "corpus/a.done").write_text(json.dumps({"fingerprint": "a" * 64, "splits": {"train": split}}))
    described = {"source": "x", "model": dataclasses.asdict(config.model), "languages": ["de", "en"], "trained": 16}
    (run / "initial.json").write_text(json.dumps(described))
    write_tensors(
        run / "initial.safetensors",
        {"a": (3, 2), "b": (5,)},
        lambda name: iter([np.zeros((3, 2) if name == "a" else 5, "f4")]),
    )
    page.mkdir()
    make_run(page, 3)
    metrics = (page / "metrics.jsonl").read_text()
    (page / "metrics.jsonl").write_text(metrics[: metrics.rindex("\n") + 1])
    tuned.mkdir()
    (tuned / "config.json").write_text(cfg.config_to_json(Finetune()))
    (tuned / "models/all-seed0").mkdir(parents=True)
    row: Any = {
        "regime": "zero_shot",
        "model": "all",
        "seed": 0,
        "trained_on": ["en"],
        "language": "en",
        "examples": 9,
        "truncated": 0,
    }
    row |= {
        "dev_examples": 0,
        "select": "last",
        "step": 3,
        "dev": None,
        "metric": "accuracy",
        "test": {"accuracy": 0.5},
    }
    (tuned / "results.json").write_text(json.dumps([row, row | {"language": "de"}]))
    lines = [{"kind": "train", "step": 1, "seconds": 1.0, "loss": 2.0}]
    lines.append(
        {"kind": "dev", "step": 1, "seconds": 1.0, "metric": "accuracy", "languages": {"en": {"accuracy": 0.5}}}
    )
    (tuned / "models/all-seed0/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_splitter(tuned, SPACES)
    analysis.mkdir()
    rows = [
        r
        for layer, kind in itertools.product((0, 1), ("plain", "centred"))
        for r in results.probe_rows("retrieval", "set", layer, "mean", kind, "", {"accuracy": 0.5})
    ]
    (analysis / "results.json").write_text(json.dumps(rows))
    pair = {
        "source": ["a", "b"],
        "target": ["a"],
        "links": [[0, 0]],
        "sure": [[0, 0]],
        "possible": [[0, 0]],
        "cosines": [[0.5], [0.1]],
    }
    square = np.eye(3).tolist()
    aligned = {
        "layer": 1,
        "pooling": "mean",
        "languages": ["a", "b", "c"],
        "leaves": ["a", "b", "c"],
        "families": ["x", "y", "z"],
    }
    aligned |= {"tree": [[0.0, 1.0, 0.1, 2.0], [2.0, 3.0, 0.2, 3.0]]}
    for kind in ("plain", "centred"):
        places = {language: [[0.1, 0.2], [0.3, 0.1]] for language in "abc"}
        aligned |= {f"retrieval_{kind}": square, f"confusion_{kind}": square, f"plane_{kind}": places}
    drawn = {"words": {"layer": 1, "decoder": "argmax", "worked": [pair]}, "set": aligned}
    (analysis / "figures.json").write_text(json.dumps(drawn))
    (analysis / "config.json").write_text(cfg.config_to_json(Analyze()))
    given.mkdir()
    texts = {
        "a.txt": "one two\n\nthree\n",
        "b.jsonl": '{"text": "one", "label": "x"}\n{"text": "two", "label": "y"}\n',
        "c.tsv": "text\tlabel\none\tx\ntwo\ty\n",
        "d.conll": "one B-PER\ntwo O\n\nthree O\n",
        "e.json": json.dumps(
            {
                "data": [
                    {
                        "paragraphs": [
                            {
                                "context": "a b c",
                                "qas": [
                                    {"id": "1", "question": "what?", "answers": [{"text": "b", "answer_start": 2}]}
                                ],
                            }
                        ]
                    }
                ]
            }
        ),
        "f.tsv": "1\tone two three\teins zwei drei\n2\tfour\tvier\n",
        "g.conllu": "# text = one two\n1\tone\t_\tNUM\n2\ttwo\t_\tNUM\n\n",
        "h.jsonl": '{"tokens": ["one", "two"], "tags": ["O", "B-X"]}\n',
        "i.csv": 'text,label\n"one, ""two""",x\n"three\nfour",y\n',
        "j.json": '[{"text": "one", "label": "x"},\n {"text": "two", "label": "y"}]',
        "k.csv": 'id,en,de\n1,one two three,"eins, zwei drei"\n2,four,vier\n',
        "saved/state.json": '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}',
        "vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\none\n##two\n",
    }
    (given / "saved").mkdir()
    for name, content in texts.items():
        (given / name).write_text(content)
    rows = pyarrow.table({"text": ["one", "two three"] * 40, "label": ["x", "y"] * 40})
    pyarrow.parquet.write_table(rows, given / "l.parquet", row_group_size=30)
    pyarrow.parquet.write_table(rows, given / "m.parquet", use_dictionary=False, compression="zstd")
    for name, new in (("n.arrow", pyarrow.ipc.new_stream), ("o.arrow", pyarrow.ipc.new_file)):
        with new(given / name, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=30)
    (given / "config.py").write_text(
        "from mlm_jax.config import *\ndef get_config():\n    return Config(data=Data(sources=(Source('en', 'a.txt'),)))\n"
    )
    (given / "options.txt").write_text(
        "--train.steps\n10\n--model.gated\nTrue\n--sampling.strategy\nunimax\n--mesh.data=2\n--optimizer.b1\n0.5\n"
    )
    with locked(str(given)):
        held = (given / "running.json").read_bytes()
    (given / "running.json").write_bytes(held)
    tokenizer = given / "tokenizer.json"
    tokenizer.write_bytes(_word_piece())
    shard = made.streams[0].train.shards[0]
    blocks = run / "corpus" / shard.file

    def read_blocks() -> None:
        source = Blocks(run / "corpus", "de", [dataclasses.replace(shard, bytes=blocks.stat().st_size)], 16, 0)
        for i in range(len(source)):
            source[i]

    def documents(name: str, how: str) -> Callable[[], Any]:
        return lambda: list(text.read_file_documents(str(given / name), how, "text"))

    def examples(kind: str, name: str, **options: Any) -> Callable[[], Any]:
        return lambda: list(TASKS[kind].read_file(str(given / name), Data(**options)))

    def own() -> None:
        content = (run / "config.json").read_bytes()
        own_workdir(config, "mlm-jax pretrain x.py")
        (run / "config.json").write_bytes(content)

    def command_line() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            # An argument has no NUL, and what is no UTF-8 in it are surrogates.
            given_options = (given / "options.txt").read_bytes().replace(b"\0", b"").decode(errors="surrogateescape")
            parse("pretrain", [str(given / "config.py"), *given_options.split("\n")])

    def lock() -> None:
        with locked(str(given)):
            pass

    def finetuned() -> None:
        is_finetuned(tuned)
        read_finetuning(str(tuned))

    commands = (cfg.Config, Finetune, Evaluate, Analyze)
    return {
        "manifest": Target(run / "corpus/manifest.json", lambda: manifest.read_manifest(run / "corpus")),
        "token_counts": Target(run / "corpus/token_counts.npy", lambda: manifest.read_token_counts(run / "corpus")),
        "held_out": Target(run / "corpus/held_out.npz", lambda: _load.__wrapped__(str(run / "corpus/held_out.npz"), "")),
        "histogram": Target(
            run / "corpus/histogram.npz",
            lambda: read_arrays(run / "corpus/histogram.npz", ids=("int64", 1), counts=("int64", 1)),
        ),
        "done": Target(run / "corpus/a.done", lambda: read_json(run / "corpus/a.done", Done)),
        "shard": Target(blocks, read_blocks),
        "index": Target(Path(records.index_path(str(blocks))), read_blocks),
        "vocabulary": Target(run / "vocabulary/vocabulary.json", lambda: vocabulary.read_vocabulary(run / "vocabulary")),
        "config": Target(run / "config.json", own),
        "stored_config": Target(run / "config.json", lambda: cfg.stored_config(str(run), commands)),
        "checkpoints_config": Target(run / "config.json", lambda: cfg.pretraining_config(read_json(run / "config.json", dict[str, Any]), str(run))),
        "starts": Target(run / "started.jsonl", lambda: note_start(epath.Path(run), "again")),
        "initial": Target(run / "initial.json", lambda: (initial.read_trained(run), initial.adopt(config))),
        "tensors": Target(run / "initial.safetensors", lambda: [np.array(x) for _, x in read_tensors(run / "initial.safetensors")]),
        "metrics": Target(page / "metrics.jsonl", lambda: read_metrics(page)),
        "page_metrics": Target(page / "metrics.jsonl", lambda: write_report(page), every=25),
        "page_sampling": Target(page / "sampling.json", lambda: write_report(page), every=25),
        "page_config": Target(page / "config.json", lambda: write_report(page), every=25),
        "finetune_config": Target(tuned / "config.json", finetuned),
        "results": Target(tuned / "results.json", lambda: results.read_results(tuned)),
        "page_results": Target(tuned / "results.json", lambda: write_results_page(tuned), every=25),
        "page_dev": Target(tuned / "models/all-seed0/metrics.jsonl", lambda: write_results_page(tuned), every=25),
        "splitter": Target(tuned / "words.json", lambda: read_splitter(tuned)),
        "analysis_rows": Target(analysis / "results.json", lambda: write_analysis_page(analysis), every=25),
        "analysis_figures": Target(analysis / "figures.json", lambda: write_analysis_page(analysis), every=25),
        "lock": Target(given / "running.json", lock),
        "command_line": Target(given / "options.txt", command_line, strict=False),
        "config_file": Target(given / "config.py", lambda: cfg.load_config(str(given / "config.py"))),
        "text": Target(given / "a.txt", documents("a.txt", "line")),
        "paragraphs": Target(given / "a.txt", documents("a.txt", "paragraph")),
        "jsonl_text": Target(given / "b.jsonl", documents("b.jsonl", "line")),
        "jsonl": Target(given / "b.jsonl", examples("classify", "b.jsonl")),
        "tsv": Target(given / "c.tsv", examples("classify", "c.tsv")),
        "conll": Target(given / "d.conll", examples("tag", "d.conll")),
        "conllu": Target(given / "g.conllu", examples("tag", "g.conllu")),
        "tagged_jsonl": Target(given / "h.jsonl", examples("tag", "h.jsonl", text="tokens", label="tags")),
        "squad": Target(given / "e.json", examples("span", "e.json")),
        "csv_text": Target(given / "i.csv", documents("i.csv", "line")),
        "csv": Target(given / "i.csv", examples("classify", "i.csv")),
        "json": Target(given / "j.json", examples("classify", "j.json")),
        "csv_pairs": Target(given / "k.csv", lambda: columns.find_columns(str(given / "k.csv"), ["en", "de"])),
        "saved": Target(given / "saved/state.json", lambda: formats.data_files(str(given / "saved"))),
        **{f"{name[2:]}_{name[0]}_text": Target(given / name, documents(name, "line")) for name in BINARY},
        **{f"{name[2:]}_{name[0]}": Target(given / name, examples("classify", name)) for name in BINARY},
        **{f"{name[2:]}_{name[0]}_cut": Target(given / name, lambda name=name: text.cut_file(str(given / name), "line", 10)) for name in BINARY[:2]},
        "pairs": Target(given / "f.tsv", lambda: columns.find_columns(str(given / "f.tsv"), ["en", "de"])),
        "vocab_txt": Target(given / "vocab.txt", lambda: read_vocab_txt(given / "vocab.txt")),
        "sentencepiece": Target(
            run / "vocabulary/sentencepiece.model",
            lambda: (load_tokenizer(run / "vocabulary/sentencepiece.model"), vocabulary.vocabulary_of_file(run / "vocabulary/sentencepiece.model")),
        ),
        "tokenizer_json": Target(tokenizer, lambda: (load_tokenizer(tokenizer), vocabulary.vocabulary_of_file(tokenizer))),
    }  # fmt: skip


def _word_piece() -> bytes:
    from mlm_jax.prepare.vocabulary import word_piece_json

    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "##two")
    return word_piece_json({piece: i for i, piece in enumerate(pieces)}, False)


def cases(name: str, content: bytes, seed: int) -> Iterator[bytes]:
    """Contents of a file, without an end."""
    rng = random.Random(f"{seed} {name}")
    yield from (
        b"",
        b"{}",
        b"[]",
        b"null",
        b"0",
        b'""',
        b"[" * DEEP,
        content[: len(content) // 2],
        b"\xff\xfe",
        b"\0" * 64,
        b"[{}]",
        b"NaN",
    )
    is_json = content[:1] in (b"{", b"[")
    while True:
        yield mutate_json(rng, content) if is_json and rng.random() < 0.7 else mutate_bytes(rng, content)


class Slow(Exception):
    """A case that took longer than `LONGEST`."""


def _too_slow(*_: Any) -> None:
    raise Slow(f"longer than {LONGEST} s")


def judge(target: Target, content: bytes) -> str:
    """Empty where the reader reads the content, or refuses it in a line; otherwise what happened."""
    target.file.write_bytes(content)
    # Not SIGPROF: libtpu, where a test loaded it, sends that to the process for its own profiles.
    before = signal.signal(signal.SIGVTALRM, _too_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            target.read()
    except UserError as e:
        if "\n" in str(e):
            return f"a refusal of several lines: {e}"
        if target.strict and str(target.file.parent) not in str(e):
            return f"a refusal that does not name {target.file}: {e}"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return ""


def fuzz(
    names: list[str], seconds: float, most: int, seed: int, findings: Path | None
) -> tuple[Counter[str], dict[str, str]]:
    """Try readers in turn, until the time is over or each had its cases.

    Returns:
      How many cases each had, and what was found: kind → where the first of it is kept, or what happened.
    """
    tried: Counter[str] = Counter()
    found: dict[str, str] = {}
    locks.PATIENCE = 0.05
    with tempfile.TemporaryDirectory() as folder:
        targets = make_targets(Path(folder))
        names = names or list(targets)
        originals = {name: targets[name].file.read_bytes() for name in names}
        waiting = {name: cases(name, originals[name], seed) for name in names}
        for name in names:
            if problem := judge(targets[name], originals[name]):
                raise SystemExit(f"{name}: what is whole is not read: {problem}")
        end = time.monotonic() + seconds
        for rounds in range(most):
            for name in names:
                if rounds % targets[name].every:
                    continue
                content = next(waiting[name])
                tried[name] += 1
                if problem := judge(targets[name], content):
                    # One of a kind: by the last line of ours, and the exception's type.
                    ours = [line.strip() for line in problem.splitlines() if "mlm_jax/" in line]
                    kind = f"{name}: {(ours or [''])[-1]} {problem.strip().splitlines()[-1].partition(':')[0][:60]}"
                    if kind not in found:
                        found[kind] = problem
                        if findings:
                            findings.mkdir(parents=True, exist_ok=True)
                            (findings / f"{name}-{len(found)}{targets[name].file.suffix}").write_bytes(content)
                targets[name].file.write_bytes(originals[name])
            if time.monotonic() >= end:
                break
    return tried, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=10**9, help="of each reader, at most")
    parser.add_argument("--target", action="append", default=[], help="a reader; may be given again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    given = parser.parse_args()
    tried, found = fuzz(given.target, given.seconds, given.cases, given.seed, given.findings)
    for name, count in tried.items():
        print(f"{name:20} {count:8,} cases")
    for kind, problem in found.items():
        print(f"\nFOUND {kind}\n{problem}")
    print(f"{tried.total():,} cases of {len(tried)} readers, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
