# SPDX-License-Identifier: Apache-2.0
"""Rows of Parquet and Arrow files, some at a time, and the files of data sets that Hugging Face's `datasets` saved to disk."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from mlm_jax import storage
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket
from mlm_jax.lines import CHUNK, at_line, check_text, parse_json, read_lines
from mlm_jax.patterns import SAVED
from mlm_jax.rows import Reading, Rows, counted_from, refuse_missing

ROWS = 64  # read at a time: of 10 MB each they take less than a gigabyte
PIECE = 8 * CHUNK  # bytes of text that are turned into Python's at a time
ADVICE = "fetch or write it again"


@cache
def library() -> Any:
    """pyarrow, with its `parquet`, `compute` and `ipc`.

    Raises:
      UserError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as e:
        raise UserError("reading Parquet and Arrow files needs pyarrow; run: pip install 'mlm_jax[parquet]'") from e
    return pyarrow


def parquet_rows(path: str, reading: Reading) -> Iterator[Rows]:
    """Rows of a Parquet file, or of a range of its row groups; a few at a time are in memory, and of a column as much as it is read in.

    Raises:
      UserError: it is damaged, lacks a field or has something else than text in it, or a text is too long; the message names the row.
    """
    with _parquet(path) as file, _refusing(path):
        found = file.metadata
        end = found.num_row_groups if reading.end is None else reading.end
        number = 1 + sum(found.row_group(i).num_rows for i in range(reading.start))
        schema = file.schema_arrow
        names = _wanted(path, schema, reading)
        groups, left = list(range(reading.start, end)), reading.most
        for i in groups:
            _refuse_long_rows(path, found.row_group(i), i, reading)
        for batch in file.iter_batches(ROWS, row_groups=groups, columns=names, use_threads=False):
            left = _less(path, left, batch.nbytes, reading)
            yield from _pieces(path, batch.select(names), number, reading, schema)
            number += batch.num_rows


def _refuse_long_rows(path: str, group: Any, number: int, reading: Reading) -> None:
    """Refuse rows that cannot all be as short as they have to be, before they are in memory.

    Raises:
      UserError: they are too long on average.
    """
    # What a group says of its columns is not asked for: where that is damaged, Arrow ends the process.
    if reading.longest is None or group.total_byte_size <= reading.longest * group.num_rows * group.num_columns + CHUNK:
        return
    raise UserError(
        f"{path}: row group {number}: {group.total_byte_size:,} bytes in {group.num_rows:,} rows, {reading.longest:,} are the most in a "
        "text; cut them up"
    )


def cut_row_groups(path: str, size: int) -> list[tuple[int, int | None]]:
    """Ranges of row groups of a Parquet file, of about `size` bytes as they are in memory; none where there are no rows.

    Raises:
      UserError: it is damaged.
    """
    with _parquet(path) as file, _refusing(path):
        sizes = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
        if not file.metadata.num_rows:
            return []
    starts, room = [0], size
    for i, length in enumerate(sizes):
        if room <= 0:
            starts.append(i)
            room = size
        room -= length
    return list(zip(starts, [*starts[1:], len(sizes)], strict=True))


def arrow_rows(path: str, reading: Reading) -> Iterator[Rows]:
    """Rows of an Arrow file, of either form (a stream, as `datasets` writes it, or Feather): errors as of `parquet_rows`."""
    pa = library()
    with contextlib.ExitStack() as stack, _refusing(path):
        file = stack.enter_context(storage.opened(path) if in_bucket(path) else pa.memory_map(path))
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        reader = stack.enter_context((pa.ipc.open_file if is_file else pa.ipc.open_stream)(file))
        names = _wanted(path, reader.schema, reading)
        number, left = 1, reading.most
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        for whole in batches:
            table = whole.select(names)
            left = _less(path, left, table.nbytes, reading)
            table.validate(full=True)  # lengths and offsets are the file's own, and the memory behind them is not
            for begin in range(0, whole.num_rows, ROWS):
                yield from _pieces(path, table.slice(begin, ROWS), number + begin, reading, reader.schema)
            number += whole.num_rows


def table_rows(path: str, table: Any, number: int, reading: Reading) -> Iterator[Rows]:
    """Rows of a table in memory, whose first row has a number in what `path` names; errors as of `parquet_rows`."""
    names = _wanted(path, table.schema, reading)
    for batch in table.select(names).combine_chunks().to_batches(ROWS):
        yield from _pieces(path, batch, number, reading, table.schema)
        number += batch.num_rows


def saved_files(folder: str) -> list[str] | None:
    """The files of a data set that `save_to_disk` wrote, in order; None where the folder holds none.

    Raises:
      UserError: it holds several splits; or what it says of its files is damaged.
    """
    state, splits = (f"{folder.rstrip('/')}/{name}" for name in SAVED)
    if storage.exists(splits):
        found = _settings(splits).get("splits")
        each = ", ".join(f"{folder.rstrip('/')}/{name}" for name in found) if isinstance(found, list) else "its folders"
        raise UserError(f"{folder}: a data set of several splits; name one of them: {each}")
    if not storage.exists(state):
        return None
    listed = _settings(state).get("_data_files")
    names = [entry.get("filename") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    if not names or not all(isinstance(name, str) and name and "/" not in name for name in names):
        raise UserError(f"{state}: names no files of the folder in _data_files; save the data set again")
    return [f"{folder.rstrip('/')}/{name}" for name in names]


def _settings(path: str) -> dict[str, Any]:
    found = parse_json("\n".join(line for _, line in read_lines(path, CHUNK)), partial(at_line, path))
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[Any]:
    """A Parquet file, opened so that a column is read piece by piece."""
    pa = library()
    with storage.opened(path) as stream, _refusing(path):
        file = pa.parquet.ParquetFile(stream, buffer_size=CHUNK, pre_buffer=False)
        with contextlib.closing(file):
            yield file


@contextlib.contextmanager
def _refusing(path: str) -> Iterator[None]:
    """What Arrow says of a damaged file, in a line; the system's errors stay."""
    try:
        yield
    except UserError:
        raise
    except (library().ArrowException, OSError, ValueError, KeyError, OverflowError) as e:
        if isinstance(e, OSError) and e.errno:
            raise
        said = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        raise UserError(f"{path}: cannot be read: damaged or truncated, or another format ({said}); {ADVICE}") from e


def _wanted(path: str, schema: Any, reading: Reading) -> list[str]:
    """The columns to read.

    Raises:
      UserError: one is not there, or twice.
    """
    refuse_missing(path, reading.fields, schema.names, reading.naming)
    names = [*reading.fields, *(name for name in reading.also if name in schema.names)] or list(schema.names)
    twice = [name for name in names if schema.names.count(name) > 1]
    if twice:
        raise UserError(f"{path}: two columns {twice[0]!r}; rename one of them")
    return names


def _less(path: str, left: int | None, size: int, reading: Reading) -> int | None:
    """What is left of the bytes that may be read.

    Raises:
      UserError: nothing is.
    """
    if left is None:
        return None
    if size > left:
        raising = f", or raise {reading.option}" if reading.option else ""
        raise UserError(f"{path}: over {reading.most:,} bytes unpacked; cut it up{raising}")
    return left - size


def _pieces(path: str, batch: Any, number: int, reading: Reading, schema: Any) -> Iterator[Rows]:
    """Rows of a batch whose first row has a number in the file, no more at once than `PIECE` bytes of text.

    Raises:
      UserError: a text is too long or none.
    """
    pa = library()
    sizes = np.zeros(batch.num_rows, np.int64)
    if reading.mend and reading.longest is not None:
        batch = _cut_down(batch, reading.longest + 1)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if _is_text(column.type) and not pa.types.is_dictionary(column.type):
            lengths = pa.compute.fill_null(pa.compute.binary_length(column), 0).to_numpy(zero_copy_only=False)
            if reading.longest is not None and not reading.mend and lengths.max(initial=0) > reading.longest:
                row = int(lengths.argmax())
                raising = f", or raise {reading.option}" if reading.option else ""
                raise UserError(
                    f"{at_line(path, number + row)}: {lengths[row]:,} bytes in {name!r}, {reading.longest:,} are the most; cut it up{raising}"
                )
            sizes += lengths
    part = np.cumsum(sizes) // PIECE
    cuts = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), batch.num_rows]
    labels = _class_names(schema)
    for begin, end in itertools.pairwise(cuts):
        place = partial(counted_from, path, number + begin)
        columns = {
            name: _values(column.slice(begin, end - begin), labels.get(name), name, place, reading.mend)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        yield Rows([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], place)


def _cut_down(batch: Any, longest: int) -> Any:
    """A batch whose texts have no more bytes than that, so that what is too long is known, and is not copied."""
    pa = library()
    for i, column in enumerate(batch.columns):
        if _is_text(column.type) and not pa.types.is_dictionary(column.type):
            lengths = pa.compute.binary_length(column)
            if (pa.compute.max(lengths).as_py() or 0) > longest:
                large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
                plain = column.cast(pa.large_binary() if large else pa.binary())
                batch = batch.set_column(i, batch.schema.names[i], pa.compute.binary_slice(plain, 0, longest))
    return batch


def _values(column: Any, labels: Sequence[str] | None, name: str, place: Callable[[int], str], mend: bool) -> list[Any]:
    """A column's values as Python has them: bytes are taken for UTF-8, numbers of classes for their names.

    Raises:
      UserError: what should be text is none, and is not to be mended.
    """
    try:
        found = column.to_pylist()
    except UnicodeDecodeError:
        found = [_one(column, i, name, place, mend) for i in range(len(column))]
    for i, value in enumerate(found):
        if isinstance(value, bytes):
            found[i] = value = _decoded(value, name, place(i), mend)
        # What is UTF-8 may hold a NUL, and nothing else that is no text.
        if isinstance(value, str) and "\0" in value and not mend:
            check_text(value, f"{place(i)}: {name}")
        if isinstance(value, list):
            for item in value:
                if isinstance(item, str) and "\0" in item and not mend:
                    check_text(item, f"{place(i)}: {name}")
        if labels is not None:
            found[i] = [_label(x, labels) for x in value] if isinstance(value, list) else _label(value, labels)
    return found


def _one(column: Any, i: int, name: str, place: Callable[[int], str], mend: bool) -> Any:
    scalar = column[i]
    try:
        return scalar.as_py()
    except UnicodeDecodeError as e:
        if mend and _is_text(column.type):
            return getattr(scalar, "value", scalar).as_buffer().to_pybytes()
        raise UserError(f"{place(i)}: {name}: not UTF-8 at byte {e.start}; mend what wrote it") from e


def _decoded(value: bytes, name: str, where: str, mend: bool) -> str:
    try:
        return value.decode(errors="replace" if mend else "strict")
    except UnicodeDecodeError as e:
        raise UserError(f"{where}: {name}: not UTF-8 at byte {e.start}; mend what wrote it") from e


def _label(value: Any, labels: Sequence[str]) -> Any:
    """The name of a class; None: -1, which says that it is kept secret (GLUE's test sets)."""
    if not isinstance(value, int):
        return value
    return labels[value] if 0 <= value < len(labels) else None


def _is_text(kind: Any) -> bool:
    types = library().types
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary))


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column → names of its classes, where Hugging Face's `datasets` wrote the file and numbers them."""
    about = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(about)["info"]["features"] if about else {}
        found = {
            name: feature.get("feature", feature) for name, feature in features.items() if isinstance(feature, dict)
        }
        return {
            name: feature["names"]
            for name, feature in found.items()
            if isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and isinstance(feature.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError):  # somebody else's
        return {}
