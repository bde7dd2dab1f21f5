# SPDX-License-Identifier: Apache-2.0
"""Records of archives made on the spot, and the real pages of shared data where they are there."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from mlm_jax.curate.archives import Raw, read_archive
from mlm_jax.curate.document import Dropped

DATA = Path(__file__).parents[3] / "shared" / "data"


def record(
    body: bytes, url: str = "http://a.org/", length: object = None, kind: str = "conversion", media: str = "text/plain"
) -> bytes:
    """A record of an archive; its header says the length of its body unless told another."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
        f"Content-Type: {media}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def response(
    body: bytes,
    head: bytes = b"Content-Type: text/html; charset=utf-8",
    status: bytes = b"200 OK",
    url: str = "http://a.org/",
) -> bytes:
    """A record of a page as a server sent it."""
    message = b"HTTP/1.1 " + status + b"\r\n" + head + b"\r\n\r\n" + body
    return record(message, url, kind="response", media="application/http; msgtype=response")


def read(path: Path, data: bytes | Iterable[bytes], **options: object) -> list[Raw | Dropped]:
    """What is read of a file with these bytes."""
    with open(path, "wb") as file:
        file.writelines([data] if isinstance(data, bytes) else data)
    return list(read_archive(str(path), **options))  # type: ignore[arg-type]


def shown(found: list[Raw | Dropped]) -> list[str]:
    """The address of each record that is given, and the reason of each that is not."""
    return [one.url if isinstance(one, Raw) else one.reason for one in found]


def truth() -> dict[str, dict[str, str]]:
    """What the shared pages are, by their address; skips the test where they are not there."""
    path = DATA / "web" / "truth.tsv"
    if not path.exists():
        pytest.skip("no shared data")
    return {row["url"]: row for row in csv.DictReader(path.open(), delimiter="\t")}


def pages(packed: str = "[0-9].warc.gz") -> list[Raw]:
    """The shared pages that can be read; "wet.gz": their text."""
    found = [one for path in sorted((DATA / "web").glob(f"*{packed}")) for one in read_archive(str(path))]
    return [one for one in found if isinstance(one, Raw)]


def reasons(found: list[Raw | Dropped]) -> Counter[str]:
    return Counter(one.reason for one in found if isinstance(one, Dropped))
