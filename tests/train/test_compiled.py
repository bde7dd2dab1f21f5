# SPDX-License-Identifier: Apache-2.0
"""A second start compiles nothing: JAX's own counts of what it found among the compiled programs."""

import json
import os
import subprocess
import sys

import pytest

from tests.corpora import make_workdir, write_config

# One step, which is saved, and no validation.
ONE_STEP = ("--train.max-seconds", "1e-9", "--train.validate-every", "100")
COUNTING = """\
import collections, json, sys
import jax
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.rpartition("/")[2]]))
from mlm_jax.cli import main
status = main(["pretrain", *sys.argv[1:]])
print(json.dumps({name: counts[name] for name in ("cache_hits", "cache_misses")}))
sys.exit(status)
"""


def start(config_file, *options):
    """How many programs a start of `pretrain` found compiled, and how many it had to compile."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION", "JAX_PERSIST"))}
    command = [sys.executable, "-c", COUNTING, str(config_file), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=own)
    counts = json.loads(done.stdout.splitlines()[-1])
    return counts["cache_hits"], counts["cache_misses"]


@pytest.fixture
def config_file(tmp_path):
    return write_config(tmp_path / "tiny.py", make_workdir(tmp_path / "run", {"en": 40, "sw": 9}))


@pytest.mark.slow
def test_a_second_start_compiles_nothing(config_file, tmp_path):
    hits, misses = start(config_file, *ONE_STEP)
    assert hits == 0 and misses > 0
    assert any((tmp_path / "run" / "compiled").iterdir())
    hits, misses = start(config_file, *ONE_STEP)
    assert hits > 0 and misses == 0


@pytest.mark.slow
def test_compiled_programs_go_elsewhere_or_nowhere(config_file, tmp_path):
    assert start(config_file, *ONE_STEP, "--compiled", "none") == (0, 0)
    start(config_file, *ONE_STEP, "--compiled", str(tmp_path / "there"))
    assert any((tmp_path / "there").iterdir())
    assert not (tmp_path / "run" / "compiled").exists()
