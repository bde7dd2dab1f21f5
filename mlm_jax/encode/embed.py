# SPDX-License-Identifier: Apache-2.0
"""A file of text → a file of vectors, a part at a time: killed, the same command goes on with the part it was in.

Vectors are appended to OUT.unfinished/vectors, and after each part progress.json beside them says how many there are; what a kill left
behind those is cut off. At the end OUT is written whole, and the folder goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from mlm_jax import arrow, console
from mlm_jax import config as cfg
from mlm_jax.coverage import warn_share
from mlm_jax.encode.read import read_pretrained
from mlm_jax.encode.rows import SORTED
from mlm_jax.encode.run import frame, refuse_longer
from mlm_jax.encode.sentences import make_sentence_encoder, prompt_of
from mlm_jax.errors import UserError, did_you_mean
from mlm_jax.files import in_bucket, make_folder, naming, sync, write_json, writing
from mlm_jax.formats import has_fields, read_texts
from mlm_jax.lock import locked
from mlm_jax.mesh import make_mesh
from mlm_jax.model.task_head import Pooling
from mlm_jax.pretrained import Pretrained, SentenceVectors
from mlm_jax.stored import read_json
from mlm_jax.tokenizers import Tokenizer, load_tokenizer

TEXTS = SORTED  # of a part, at most: what is sorted by length together
BYTES = 1 << 24  # of a part's text, about
UNBOUNDED = 1 << 62  # bytes of a file, which is streamed
SAME = 1e-3  # that a vector may differ by between two kinds of devices

Part = list[tuple[str, str]]  # (FILE:LINE, text) of each


@dataclass(frozen=True)
class Wanted:
    """What is wanted of `embed`; None: as the encoder makes vectors, else `SentenceVectors`' defaults.

    Attributes:
      prompt: the name of one of the encoder's prompts, or a text to put before each.
      max_length: tokens of a text that are read, specials included; 0: as many as the encoder was trained on.
      language: of the texts, which encoders with language embeddings need.
      dtype: that the encoder computes in.
    """

    pooling: Pooling | None = None
    layer: int | None = None
    normalise: bool | None = None
    dimensions: int | None = None
    prompt: str = ""
    max_length: int = 0
    language: str = ""
    dtype: str = "auto"


class Progress(TypedDict):
    """What progress.json says.

    Attributes:
      of: what is embedded, and how: only the same goes on.
      probe: the vector of no text, by which an encoder is known.
      texts: whose vectors are there.
      truncated: of these, how many were cut.
      tokens, unknown: of these, and how many of them are <unk>.
    """

    of: dict[str, Any]
    probe: list[float]
    texts: int
    truncated: int
    tokens: int
    unknown: int


def embed_file(
    workdir: str,
    path: str,
    out: str,
    wanted: Wanted = Wanted(),
    which: str = "best",
    model: str = "",
    mesh: cfg.Mesh = cfg.ALL_DEVICES,
) -> str:
    """Embed a file of text.

    Args:
      workdir: of an encoder.
      path: a file of text, one on each line, or of rows with a field (`FILE#FIELD`; `text`, where none is named).
      out: .npy: float32 [texts, dimensions]; .jsonl or .parquet: rows of key (the text's line or row), text and vector.
      which, model: of `read_pretrained`.
      mesh: of the devices that texts are divided over.

    Returns:
      What was made, in words.

    Raises:
      UserError: a file cannot be read or written, a text is empty (the message names it), the encoder has no such vectors, or they
        are not finite.
    """
    write = writer(out)
    name, field = split_field(path)
    refuse_target(out, name)
    total = sum(len(part) for part in parts(name, field))
    # What is wrong with the text is said before hours of work.
    devices = make_mesh(mesh)
    pretrained = read_pretrained(workdir, which, devices, model)
    pretrained = dataclasses.replace(pretrained, dtype=wanted.dtype)
    of_model = (Path(workdir) / "model.json").exists()  # WORKDIR/models/NAME of `finetune`
    tokenizer = load_tokenizer((Path(workdir).parent.parent if of_model else Path(workdir)) / "vocabulary")
    vectors = chosen(pretrained.vectors or SentenceVectors(), wanted)
    prompt = prompt_of(vectors, wanted.prompt)
    max_length = wanted.max_length or min(pretrained.trained or UNBOUNDED, pretrained.model.positions)
    refuse_longer(max_length, pretrained)
    if max_length < 3:
        raise UserError(f"max_length: {max_length} leaves no place between the specials; use at least 3")
    there = os.stat(name)
    of = {
        "file": {"bytes": there.st_size, "modified": there.st_mtime_ns, "field": field},
        "vectors": dataclasses.asdict(vectors),
        "prompt": prompt,
        "max_length": max_length,
        "language": wanted.language,
        "dtype": wanted.dtype,
        "vocabulary": pretrained.vocabulary.sha256,
        "step": pretrained.step,
    }
    folder = Path(f"{out}.unfinished")
    with locked(folder, "embed", "name another OUT"):
        encoder = make_sentence_encoder(pretrained, devices, vectors)
        words = pretrained.vocabulary
        probe = encoder.vectors([frame([], words, max_length)], wanted.language, pretrained)[0]
        if not np.isfinite(probe).all():
            raise UserError(
                f"{workdir}: the encoder makes vectors with NaN or infinity; choose another --step or --dtype"
            )
        new = Progress(of=of, probe=probe.tolist(), texts=0, truncated=0, tokens=0, unknown=0)
        done = begin(folder, new, encoder.dimensions)
        with (
            naming(folder / "vectors"),
            open(folder / "vectors", "ab") as file,
            console.progress("embedding", total, start=done["texts"], unit="texts") as advance,
        ):
            cut = cutter(tokenizer, pretrained, prompt, max_length)
            for part, ids, counts in ahead(map(cut, undone(parts(name, field), done["texts"]))):
                unlike = list(dict.fromkeys(text for _, text in part))  # what stands there twice is embedded once
                first = {text: i for i, text in enumerate(unlike)}
                found = encoder.vectors(ids, wanted.language, pretrained, advance)
                found = found[[first[text] for _, text in part]]  # [texts, dimensions]
                refuse_infinite(found, part)
                file.write(found.astype("<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
                if len(part) > len(unlike):
                    advance(len(part) - len(unlike))
                done = add(done, len(part), counts)
                write_json(folder / "progress.json", done)
        now = os.stat(name)
        if done["texts"] != total or (now.st_size, now.st_mtime_ns) != (there.st_size, there.st_mtime_ns):
            raise UserError(f"{name}: was changed while it was read; run the same command again")
        make_folder(Path(out).parent)
        write(out, total, encoder.dimensions, with_vectors(parts(name, field), folder / "vectors", encoder.dimensions))
        for left in ("progress.json", "vectors"):
            (folder / left).unlink(missing_ok=True)
        shutil.rmtree(folder / "compiled", ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    warn_share(name, done["unknown"], done["tokens"])
    if done["truncated"]:
        console.warn(f"{name}: {done['truncated']:,} of {total:,} texts cut to {max_length:,} tokens (--max_length)")
    return f"{total:,} vectors of {encoder.dimensions} dimensions ({described(vectors, pretrained, prompt)}) in {out}"


def described(vectors: SentenceVectors, pretrained: Pretrained, prompt: str) -> str:
    """How vectors were made, in words."""
    layer = vectors.layer or pretrained.model.layers
    said = f"{vectors.pooling} of layer {layer}{', of length 1' if vectors.normalise else ''}"
    return said + (f", after {prompt!r}" if prompt else "")


def chosen(own: SentenceVectors, wanted: Wanted) -> SentenceVectors:
    """The encoder's own vectors, with what was asked for instead."""
    asked = {name: getattr(wanted, name) for name in ("pooling", "layer", "normalise", "dimensions")}
    return dataclasses.replace(own, **{name: value for name, value in asked.items() if value is not None})


def split_field(path: str) -> tuple[str, str]:
    """A file, and the field of its texts; empty where it has lines.

    Raises:
      UserError: there is no such file.
    """
    name, _, field = (path, "", "") if Path(path).is_file() else path.rpartition("#")
    name, field = (name, field) if name else (field, "")
    if not Path(name).is_file():
        raise UserError(f"{name}: no such file; give a file of text, or FILE#FIELD of one with fields")
    if field and not has_fields(name):
        raise UserError(f"{path}: {name} has lines and no fields; leave #{field} out")
    return name, field or ("text" if has_fields(name) else "")


def refuse_target(out: str, path: str) -> None:
    """Refuse a place that vectors cannot be written to.

    Raises:
      UserError: it is in a bucket, is a folder, or is the file to embed.
    """
    if in_bucket(out):
        raise UserError(f"{out}: vectors are written to a local file; name one, and copy it there")
    if Path(out).is_dir():
        raise UserError(f"{out}: is a folder; name a file for the vectors")
    if Path(out).exists() and Path(out).samefile(path):
        raise UserError(f"{out}: is the file to embed; name another one for the vectors")


def parts(name: str, field: str) -> Iterator[Part]:
    """The texts of a file, some at a time; which are together is a matter of the file alone.

    Raises:
      UserError: what the file's reader refuses; a text is empty.
    """
    part: Part = []
    size = 0
    for place, text in read_texts(name, field, UNBOUNDED, naming="it as FILE#FIELD"):
        if not text.strip():
            raise UserError(f"{place}: empty, so it has no vector; remove it (vector n is that of text n)")
        part.append((place, text))
        size += len(text)
        if len(part) == TEXTS or size >= BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def undone(every: Iterator[Part], texts: int) -> Iterator[Part]:
    """The parts after the first so many texts."""
    read = 0
    for part in every:
        read += len(part)
        if read > texts:
            yield part


@dataclass(frozen=True)
class Counts:
    """Of a part's texts: how many were cut, and of their tokens how many are <unk>."""

    truncated: int
    tokens: int
    unknown: int


Cut = Callable[[Part], tuple[Part, list[np.ndarray], Counts]]


def cutter(tokenizer: Tokenizer, pretrained: Pretrained, prompt: str, max_length: int) -> Cut:
    """Build what cuts a part into tokens: the part, ids of each of its unlike texts (int32 [length], with specials), and counts."""
    words = pretrained.vocabulary

    def cut(part: Part) -> tuple[Part, list[np.ndarray], Counts]:
        texts = [text for _, text in part]
        unlike = list(dict.fromkeys(texts))
        pieces = dict(zip(unlike, tokenizer.encode([prompt + text for text in unlike]), strict=True))
        every = [pieces[text] for text in texts]
        counts = Counts(
            truncated=sum(len(x) > max_length - 2 for x in every),
            tokens=sum(map(len, every)),
            unknown=sum(x.count(words.unk) for x in every),
        )
        return part, [frame(pieces[text], words, max_length) for text in unlike], counts

    return cut


def ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, the next of which is made by a thread while one is worked on: no device waits for the tokenizer."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def begin(folder: Path, new: Progress, dimensions: int) -> Progress:
    """How far an earlier run of the same came, whose vectors are cut to that; else nothing, and an empty file."""
    done, path = new, folder / "vectors"
    if (folder / "progress.json").exists():
        before: Progress = read_json(folder / "progress.json", Progress, f"remove {folder}, and run again")
        size = 4 * dimensions * before["texts"]
        different = [name for name in new["of"] if before["of"].get(name) != json.loads(json.dumps(new["of"][name]))]
        if not different and not np.allclose(before["probe"], new["probe"], atol=SAME, rtol=SAME):
            different = ["encoder"]
        if different:
            console.say(f"{folder}: of another {', '.join(different)}; beginning anew")
        elif path.exists() and path.stat().st_size >= size:
            done = before
            console.say(f"going on after {done['texts']:,} texts")
    write_json(folder / "progress.json", done)
    with naming(path), open(path, "ab") as file:
        file.truncate(4 * dimensions * done["texts"])
    sync(folder)
    return done


def add(done: Progress, texts: int, counts: Counts) -> Progress:
    """Progress with a part more."""
    more = {"texts": texts, **dataclasses.asdict(counts)}
    return Progress(**{**done, **{name: done[name] + count for name, count in more.items()}})  # type: ignore[literal-required, typeddict-item]


def refuse_infinite(found: np.ndarray, part: Part) -> None:
    """Refuse vectors, float32 [texts, dimensions], that no one can compare.

    Raises:
      UserError: one has NaN or infinity; names its text.
    """
    wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(wrong):
        raise UserError(
            f"{part[wrong[0]][0]}: its vector has NaN or infinity; take another --dtype or --step, or leave the text out"
        )


# vectors of a part of texts, with these
Rows = Iterator[tuple[Part, np.ndarray]]
Write = Callable[[str, int, int, Rows], None]


def with_vectors(every: Iterator[Part], path: Path, dimensions: int) -> Rows:
    """Parts with their vectors, float32 [texts, dimensions]."""
    with naming(path), open(path, "rb") as file:
        for part in every:
            data = file.read(4 * dimensions * len(part))
            yield part, np.frombuffer(data, "<f4").reshape(len(part), dimensions)


def writer(out: str) -> Write:
    """What writes vectors to a file of this name, whole or not at all.

    Raises:
      UserError: it has another ending, or what writes it is not installed.
    """
    ending = Path(out).suffix.lower()
    if ending not in WRITERS:
        near = did_you_mean(ending, WRITERS)
        raise UserError(f"{out}: not a file that vectors are written to{near}; name one of {', '.join(WRITERS)}")
    if ending == ".parquet":
        arrow.library()
    return WRITERS[ending]


def write_npy(out: str, texts: int, dimensions: int, rows: Rows) -> None:
    """NumPy's format: float32 [texts, dimensions]."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (texts, dimensions)}
    with writing(out, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, vectors in rows:
            file.write(vectors.tobytes())


def write_jsonl(out: str, texts: int, dimensions: int, rows: Rows) -> None:
    """A JSON object per text, on a line of its own; nine digits give float32 back."""
    with writing(out) as file:
        for part, vectors in rows:
            for (place, text), vector in zip(part, vectors.tolist(), strict=True):
                numbers = ", ".join(f"{x:.9g}" for x in vector)
                said = json.dumps({"key": key_of(place), "text": text}, ensure_ascii=False)
                file.write(f'{said[:-1]}, "vector": [{numbers}]}}\n')


def write_parquet(out: str, texts: int, dimensions: int, rows: Rows) -> None:
    """Columns key and text, and vector: a list of as many float32 in each row."""
    pyarrow = arrow.library()
    kind = pyarrow.list_(pyarrow.float32(), dimensions)
    schema = pyarrow.schema([("key", pyarrow.string()), ("text", pyarrow.string()), ("vector", kind)])
    with writing(out, "wb") as file, pyarrow.parquet.ParquetWriter(file, schema) as into:
        for part, vectors in rows:
            flat = pyarrow.array(vectors.reshape(-1), pyarrow.float32())
            lists = pyarrow.FixedSizeListArray.from_arrays(flat, type=kind)
            keys, found = [key_of(place) for place, _ in part], [text for _, text in part]
            into.write_table(pyarrow.table([pyarrow.array(keys), pyarrow.array(found), lists], schema=schema))


def key_of(place: str) -> str:
    """The line or row of FILE:LINE."""
    return place.rpartition(":")[2]


WRITERS: dict[str, Write] = {".npy": write_npy, ".parquet": write_parquet, ".jsonl": write_jsonl}
