# SPDX-License-Identifier: Apache-2.0
"""Files that are never seen half-written."""

from __future__ import annotations

from etils import epath


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
    """Write a file aside (`PATH.partial`) and then put it in place, over an older one if there is one."""
    path = epath.Path(path)
    aside = path.parent / f"{path.name}.partial"
    if isinstance(content, bytes):
        aside.write_bytes(content)
    else:
        aside.write_text(content)
    aside.replace(path)
