# SPDX-License-Identifier: Apache-2.0
"""Eight virtual CPU devices for every test, and compiled programs shared between tests."""

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter

# Many tests train the same tiny model: what one compiled, the next (and any process it starts) loads. The processes of
# pytest -n have it of the first, which removes it at its end.
COMPILED = tempfile.mkdtemp(prefix="mlm_jax_compiled_")
atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", COMPILED)
# And likewise of Python's own: where no bytecode may be kept (as in many containers), each of the hundreds of processes
# that tests start would compile some 3,000 modules, which takes longer than what it is started for.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(COMPILED, "bytecode")
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
# What tests compile is small and runs a few times: half of LLVM's optimizations take half the time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
# As in an activated environment: messages name the program as it is typed there.
os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ.get('PATH', '')}"
# A shell starts what runs in its background with SIGINT ignored, and so the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# And `nohup` with SIGHUP.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import hypothesis
import jax
import pytest

# Machines that are busy with other work take their time; what an example finds does not depend on it.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """Files with slow tests begin first, so that of two processes neither is left with minutes of them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled():
    """Give back what a file's tests compiled, to be loaded from the folder above where it is wanted again.

    XLA's CPU backend maps every program it holds into memory many times over. One process that ran all tests came to
    the 65,530 mappings that Linux allows by default (vm.max_map_count), and died of a segmentation fault.
    """
    # What commands and functions set for their process, which here is other files' too.
    from mlm_jax import lock
    from mlm_jax.train.compiled import restored

    ends_process = lock.ends_process
    with restored():
        yield
    lock.ends_process = ends_process
    jax.clear_caches()
    gc.collect()
