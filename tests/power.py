# SPDX-License-Identifier: Apache-2.0
"""What a power cut leaves: a test double of a disk that keeps only what was brought to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from unittest import mock

CALLS = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir")
Image = dict[str, bytes]  # path below the root → content


class Disk:
    """Watch a folder: after each call that changes what is on disk, take the images that a power cut could leave.

    Two of the many that POSIX allows, the ends of the range: names and contents as they were last brought to disk (fsync), and
    names as they are now, with contents as they were last brought to disk, empty where they never were. What is there at first
    counts as brought to disk.

    Attributes:
      images: in the order they were taken.
    """

    def __init__(self, root: Path) -> None:
        self.images: list[Image] = []
        self._root = root
        self._contents: dict[int, bytes] = {}  # inode → content on disk
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}  # inode of a folder → what it lists on disk
        self._kept: list[int] = []  # handles, so that no inode is used again
        self._real = {name: getattr(os, name) for name in CALLS}

    def __enter__(self) -> Disk:
        for where, folders, files in os.walk(self._root):
            for name in (".", *folders, *files):
                path = os.path.join(where, name)
                if stat.S_ISREG(os.lstat(path).st_mode) or os.path.isdir(path):
                    self._bring(path)
        self._patches = [mock.patch.object(os, name, self._watched(name)) for name in CALLS]
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.stop()
        self._take()
        for handle in self._kept:
            os.close(handle)

    def _watched(self, name: str):
        def call(*args, **kwargs):
            done = self._real[name](*args, **kwargs)
            if name == "fsync":
                self._bring(f"/proc/self/fd/{args[0]}")
            self._take()
            return done

        return call

    def _bring(self, path: str) -> None:
        self._kept.append(os.open(path, os.O_RDONLY))
        there = os.fstat(self._kept[-1])
        if stat.S_ISDIR(there.st_mode):
            self._names[there.st_ino] = {e.name: (e.inode(), e.is_dir()) for e in os.scandir(self._kept[-1])}
        else:
            with open(path, "rb") as file:
                self._contents[there.st_ino] = file.read()

    def _take(self) -> None:
        listed, current = {}, {}
        self._list(os.stat(self._root).st_ino, "", listed)
        for where, _, files in os.walk(self._root):
            for name in files:
                path = Path(where, name)
                if stat.S_ISREG(path.lstat().st_mode):
                    current[str(path.relative_to(self._root))] = self._contents.get(path.stat().st_ino, b"")
        self.images += [image for image in (current, listed) if image not in self.images[-2:]]

    def _list(self, folder: int, prefix: str, found: Image) -> None:
        for name, (inode, is_folder) in self._names.get(folder, {}).items():
            if is_folder:
                self._list(inode, f"{prefix}{name}/", found)
            else:
                found[prefix + name] = self._contents.get(inode, b"")
