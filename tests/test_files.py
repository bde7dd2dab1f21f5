# SPDX-License-Identifier: Apache-2.0
"""Files: whole or not at all, after kills and power cuts too; nothing of a user's is replaced; errors say which file, and what to do."""

import concurrent.futures
import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlm_jax import files
from mlm_jax.errors import UserError
from mlm_jax.files import aside_folder, copy_whole, is_aside, link, naming, said, write_whole, writing
from mlm_jax.interchange.workdir import new_folder, refuse_folder
from mlm_jax.tensor_files import read_tensors, write_tensors
from tests.power import Disk


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def write_array(path, value):
    write_tensors(path, {"a": (3,)}, lambda name: [np.full(3, value, np.float32)])


WRITERS = {
    "text": lambda path, value: write_whole(path, f"{value}\n" * 5_000),
    "bytes": lambda path, value: write_whole(path, bytes([value]) * 5_000),
    "tensors": write_array,
    "copy": lambda path, value: copy_whole(_source(path, value), path),
}


def _source(path, value):
    source = Path(f"{path}.source")
    if not source.exists() or source.read_text()[0] != f"{value}":
        source.write_text(f"{value}" * 5_000)
    return source


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_power_cut_leaves_the_old_file_or_the_new_one(tmp_path, write):
    path = tmp_path / "run" / "file"
    path.parent.mkdir()
    write(path, 1)
    old = path.read_bytes()
    with Disk(tmp_path) as disk:
        write(path, 2)
    new = path.read_bytes()
    assert old != new and len(disk.images) > 2
    for image in disk.images:
        assert image["run/file"] in (old, new)
    assert disk.images[-1]["run/file"] == new, "what a write has ended is on disk"


def test_of_two_files_a_power_cut_never_leaves_the_second_alone(tmp_path):
    folder = tmp_path / "a" / "b"
    with Disk(tmp_path) as disk:
        files.make_folder(folder)
        write_whole(folder / "first", "first")
        write_whole(folder / "done", "done")
    for image in disk.images:
        assert "a/b/done" not in image or image["a/b/first"] == b"first"
    assert disk.images[-1]["a/b/done"] == b"done"


def test_a_linked_file_is_on_disk_before_what_says_so(tmp_path):
    (tmp_path / "source").write_text("tensors")
    with Disk(tmp_path) as disk:
        link(tmp_path / "source", tmp_path / "linked")
        files.sync(tmp_path)
        write_whole(tmp_path / "said", "so")
    assert all("said" not in image or "linked" in image for image in disk.images)


@pytest.mark.parametrize("there", ["nothing", "empty folder"])
def test_a_power_cut_leaves_no_export_that_looks_whole_and_is_not(tmp_path, there):
    out = tmp_path / "out"
    if there == "empty folder":
        out.mkdir()
    with Disk(tmp_path) as disk, new_folder(out) as aside:
        for name in ("model.safetensors", "tokenizer.json", "config.json"):
            (aside / name).write_text(name)
    for image in disk.images:
        assert "out/config.json" not in image or all(image[f"out/{name}"] == name.encode() for name in names(out))
    assert disk.images[-1]["out/config.json"] == b"config.json"


def test_the_simulated_power_cut_finds_a_missing_sync(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_sync", lambda handle: None)
    write_whole(tmp_path / "file", "old")
    with Disk(tmp_path) as disk:
        write_whole(tmp_path / "file", "new")
    assert any(image.get("file") == b"" for image in disk.images)


def test_asides_are_new_names_beside_the_file_and_go_on_failure(tmp_path):
    for name in (
        "file.partial",
        ".file.partial",
        ".file.0123456789abcdef.partial.txt",
        ".other.0123456789abcdef.partial",
    ):
        (tmp_path / name).write_text("mine")
    before = names(tmp_path)

    def stop_half_way():
        with writing(tmp_path / "file") as file:
            file.write("half")
            assert [name for name in names(tmp_path) if name not in before and is_aside(name)]
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop_half_way()
    assert names(tmp_path) == before
    write_whole(tmp_path / "file", "whole")
    assert names(tmp_path) == sorted([*before, "file"])


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_a_plain_open(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "new", "x")
        (tmp_path / "plain").write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    for mode in (0o600, 0o640, 0o444):
        (tmp_path / "new").chmod(mode)
        write_whole(tmp_path / "new", "y")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_users_file_stays_theirs(tmp_path):
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 1234, 1234)
    write_whole(tmp_path / "file", "y")
    assert (tmp_path / "file").stat().st_uid == 1234


@pytest.mark.parametrize("length", [100, 229, 230, 255])
def test_names_as_long_as_a_file_system_takes(tmp_path, length):
    for name in ("x" * length, "字" * (length // 3)):
        write_whole(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    assert len(names(tmp_path)) == 2


def test_what_a_kill_left_goes_with_the_next_write_and_what_is_being_written_stays(tmp_path):
    program = (
        "import os, signal, sys; from mlm_jax.files import writing, aside_folder\n"
        "with writing(sys.argv[1]) as file, aside_folder(sys.argv[2]) as folder:\n"
        "    (folder / 'part').write_text('x'); file.write('half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    paths = (str(tmp_path / "file"), str(tmp_path / "folder"))
    assert subprocess.run([sys.executable, "-c", program, *paths], check=False).returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2 and all(map(is_aside, names(tmp_path)))
    with writing(tmp_path / "file") as held:
        held.write("held")
        write_whole(tmp_path / "file", "other")
        with aside_folder(tmp_path / "folder") as made:
            assert len(names(tmp_path)) == 3
            made.rename(tmp_path / "folder")
    assert (tmp_path / "file").read_text() == "held"
    assert names(tmp_path) == ["file", "folder"]


def test_ctrl_c_leaves_no_asides(tmp_path):
    program = (
        "import os, signal, sys; import mlm_jax.__main__ as program; from mlm_jax.files import writing, aside_folder\n"
        "signal.signal(signal.SIGINT, program.end)\n"
        "with writing(sys.argv[1]) as file, aside_folder(sys.argv[2]) as folder:\n"
        "    (folder / 'part').write_text('x'); os.kill(os.getpid(), signal.SIGINT)\n"
        "    signal.pause()\n"
    )
    paths = (str(tmp_path / "file"), str(tmp_path / "folder"))
    done = subprocess.run([sys.executable, "-c", program, *paths], check=False, stderr=subprocess.PIPE)
    assert done.returncode == 130 and names(tmp_path) == []


def test_many_writers_of_one_file_leave_one_of_theirs(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_whole(tmp_path / "file", f"{i % 10}" * 1_000), range(200)))
    content = (tmp_path / "file").read_text()
    assert content == content[0] * 1_000 and names(tmp_path) == ["file"]


def test_what_is_no_regular_file_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real").write_text("old")
    (tmp_path / "elsewhere").mkdir()
    for name, target in (("link", "real"), ("dangling", "elsewhere/new"), ("null", "/dev/null"), ("chain", "link")):
        (tmp_path / name).symlink_to(target)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        write_whole(tmp_path / "pipe", "through")
        assert read.result() == "through"
    for name in ("link", "dangling", "null", "chain"):
        write_whole(tmp_path / name, f"by {name}")
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "real").read_text() == "by chain"
    assert (tmp_path / "elsewhere" / "new").read_text() == "by dangling"
    write_whole("/dev/null", "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_file_that_is_a_mount_point_is_written_into(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    inode = (tmp_path / "file").stat().st_ino

    def busy(source, target):
        raise OSError(errno.EBUSY, "Device or resource busy", source, None, target)

    monkeypatch.setattr(os, "replace", busy)
    write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new" and (tmp_path / "file").stat().st_ino == inode
    assert names(tmp_path) == ["file"]


def test_a_file_in_a_folder_that_takes_no_new_ones_is_written_into(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr(files, "_new_aside", None)  # would fail
    write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


# Where an export may go: what is there, and whether it is taken.
PLACES = {
    "nothing": (lambda path: None, True),
    "below nothing": (lambda path: path / "a" / "b", True),
    "empty folder": (lambda path: path.mkdir(), True),
    "link to an empty folder": (lambda path: (path.with_name("real").mkdir(), path.symlink_to("real"))[0], True),
    "link to nothing": (lambda path: path.symlink_to("real"), True),
    "full folder": (lambda path: shutil.copytree("mlm_jax/report/templates", path) and None, False),
    "link to a full folder": (lambda path: path.symlink_to(Path(__file__).parent), False),
    "file": (lambda path: path.write_text("mine") and None, False),
    "pipe": (os.mkfifo, False),
    "device": (lambda path: path.symlink_to("/dev/null"), False),
    "link to itself": (lambda path: path.symlink_to(path), None),
}


@pytest.mark.parametrize(("make", "taken"), PLACES.values(), ids=PLACES)
def test_where_an_export_may_go(tmp_path, make, taken, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    out = make(tmp_path / "out") or tmp_path / "out"
    before = {path: path.lstat().st_mode for path in tmp_path.iterdir()}
    if taken:
        refuse_folder(out)
        with new_folder(out) as aside:
            (aside / "config.json").write_text("{}")
        assert names(out) == ["config.json"]
    elif taken is None:
        with pytest.raises(OSError, match=r"Too many levels"), new_folder(out):
            pass
    else:
        with pytest.raises(UserError, match=r"not empty|is a file"):
            refuse_folder(out)
    after = {path: path.lstat().st_mode for path in tmp_path.iterdir()}
    assert before.items() <= after.items() and not any(map(is_aside, after))


def test_an_export_into_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inode = tmp_path.stat().st_ino
    with pytest.raises(ValueError, match="stop"), new_folder(Path(".")):
        raise ValueError("stop")
    assert names(".") == []
    for left in (".whole.0123456789abcdef.partial", ".whole.fedcba9876543210.partial"):
        Path(left).mkdir()  # of a killed one
    refuse_folder(Path("."))
    with new_folder(Path(".")) as aside:
        (aside / "config.json").write_text("{}")
    assert names(".") == ["config.json"] and tmp_path.stat().st_ino == inode


def test_of_two_exports_into_one_place_the_second_is_refused(tmp_path):
    for out in (tmp_path / "new", tmp_path / "empty"):
        if out.name == "empty":
            out.mkdir()

        def export_twice(out=out):
            with new_folder(out) as one:
                (one / "config.json").write_text("1")
                with new_folder(out) as two:
                    (two / "config.json").write_text("2")

        with pytest.raises(UserError, match="not empty"):
            export_twice()
        assert (out / "config.json").read_text() == "2" and names(out) == ["config.json"]


ERRORS = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "quota",
    errno.EFBIG: "ulimit -f",
    errno.EIO: "disk or its connection",
    errno.EROFS: "writable",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "too many files open",
    errno.EACCES: "permissions",
    errno.EPERM: "permissions",
    errno.ENOTDIR: "a part of this path is a file",
    errno.EISDIR: "a folder where a file belongs",
    errno.ENOTEMPTY: "something else is there",
    errno.ENAMETOOLONG: "shorter name",
    errno.ELOOP: "circle",
    errno.ESTALE: "mount it again",
    errno.ENOMEM: "memory",
    errno.ENODEV: "another place",
}


@pytest.mark.parametrize(("number", "advice"), ERRORS.items(), ids=map(errno.errorcode.get, ERRORS))
def test_each_error_names_its_file_and_helps(tmp_path, number, advice, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="file") as raised:
        write_whole(tmp_path / "file", "x")
    line = said(raised.value)
    assert line.startswith(f"{tmp_path}/file: {os.strerror(number)}; ") and advice in line and "\n" not in line
    assert names(tmp_path) == []


def test_an_error_keeps_the_file_it_names_and_never_names_an_aside(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"), naming("here"):
        os.stat(tmp_path / "gone")
    with pytest.raises(OSError, match="full") as raised, aside_folder(tmp_path / "out") as aside:
        raise OSError(errno.ENOSPC, "full", str(aside / "model.safetensors"))
    assert raised.value.filename == f"{tmp_path}/out/model.safetensors"
    assert said(OSError("odd"), "run") == "run: odd; mend it, or choose another place"


@pytest.mark.parametrize(
    ("limit", "number"), [(resource.RLIMIT_FSIZE, errno.EFBIG), (resource.RLIMIT_NOFILE, errno.EMFILE)]
)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_real_limits(tmp_path, write, limit, number):
    path = tmp_path / "file"
    write(path, 1)
    old = path.read_bytes()
    _source(path, 2)
    soft, hard = resource.getrlimit(limit)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    held = [os.dup(0)]
    try:
        resource.setrlimit(limit, (1 if number == errno.EFBIG else held[0] + 1, hard))
        while number == errno.EMFILE and len(held) < 4_096:
            try:
                held.append(os.dup(0))
            except OSError:
                break
        with pytest.raises(OSError, match="file") as raised:
            write(path, 2)
    finally:
        resource.setrlimit(limit, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
        list(map(os.close, held))
    assert raised.value.errno == number and str(tmp_path) in raised.value.filename
    assert path.read_bytes() == old and not any(map(is_aside, names(tmp_path)))


def test_a_file_that_is_full_is_named(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space") as raised:
        write_whole(tmp_path / "full", "x" * 100_000)
    assert said(raised.value).startswith(f"{tmp_path}/full: No space left on device; free space there")


def test_half_a_character_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"file: cannot hold 'half \\ud83d', which is not Unicode"):
        write_whole(tmp_path / "file", "half \ud83d of it")
    assert names(tmp_path) == []


def test_tensors_are_read_back(tmp_path):
    write_array(tmp_path / "t", 2)
    assert [(name, array.tolist()) for name, array in read_tensors(tmp_path / "t")] == [("a", [2.0] * 3)]
