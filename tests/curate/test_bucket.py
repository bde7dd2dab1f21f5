# SPDX-License-Identifier: Apache-2.0
"""An archive in a bucket is read as one on disk, of a Cloud Storage that is emulated on this machine."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys

import pytest

from tests.curate.test_run import documents, write_config
from tests.curate.web import record
from tests.train.test_bucket import AS_ON_A_POD, bucket

pytest.importorskip("resiliparse")
__all__ = ["bucket"]  # a fixture

READ = "from mlm_jax.curate.archives import read_archive; print([one.url for one in read_archive('gs://runs/crawl/x.warc.wet.gz')])"


def test_an_archive_in_a_bucket(bucket, tmp_path):
    with bucket.open("runs/crawl/x.warc.wet.gz", "wb") as file:
        file.write(gzip.compress(record(b"one", "http://a.org/")) + gzip.compress(record(b"two", "http://b.org/")))
    (tmp_path / "sitecustomize.py").write_text(AS_ON_A_POD)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    out = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['http://a.org/', 'http://b.org/']"


def test_a_sample_of_a_bucket_says_what_the_whole_takes(bucket, tmp_path):
    pytest.importorskip("py3langid")
    lines = "".join(json.dumps(one) + "\n" for one in documents(200))
    for number in range(2):
        with bucket.open(f"runs/texts/{number}.jsonl", "wb") as file:
            file.write(lines.encode())
    (tmp_path / "sitecustomize.py").write_text(AS_ON_A_POD)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    config = write_config(tmp_path, workdir="run", inputs=("gs://runs/texts/*.jsonl",))
    program = "from mlm_jax.curate import sample; sample.LEAST = 60_000; from mlm_jax.cli import main; main()"
    command = [sys.executable, "-c", program, "curate", config, "--dry-run", "--workers", "1"]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "from 2 of 2 files" in out.stdout and "(here)" in out.stdout, out.stderr
