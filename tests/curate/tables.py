# SPDX-License-Identifier: Apache-2.0
"""Rows as bytes of files of every format that has columns."""

from __future__ import annotations

import csv
import io


def comma(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def tab(rows):
    lines = [list(rows[0]), *([str(value).replace("\n", " ") for value in row.values()] for row in rows)]
    return "\n".join("\t".join(line) for line in lines).encode()


def arrow(rows):
    import pyarrow as pa

    out = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def parquet(rows, **options):
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


WRITERS = {".csv": comma, ".tsv": tab, ".arrow": arrow, ".parquet": parquet}
