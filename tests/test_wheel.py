# SPDX-License-Identifier: Apache-2.0
"""The wheel alone is enough: built here, and run from an empty folder, without the checkout."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mlm_jax
from mlm_jax import shipped

CHECKOUT = Path(__file__).parents[1]
BUILT_OF = ("mlm_jax", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")
# Of the quickstart: as much as shows that it runs.
SHORT = (
    *("--train.steps", "4", "--train.log_every", "2", "--train.validate_every", "4", "--train.save_every", "4"),
    *("--train.validation_blocks", "1", "--train.batch_size", "4", "--optimizer.warmup_steps", "1"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy, because building leaves files behind."""
    if importlib.util.find_spec("pip") is None or int(importlib.metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("needs pip, and a setuptools that pyproject.toml asks for")
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_OF:
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
        copy(CHECKOUT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", "dist", "."], cwd=source, check=True)
    [made] = (source / "dist").iterdir()
    return made


@pytest.mark.slow
def test_the_wheel_runs_the_quickstart_from_an_empty_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        packed.extractall(tmp_path / "site")
        [metadata] = (packed.read(name).decode() for name in names if name.endswith("METADATA"))
    tracked = {f"mlm_jax/configs/{name}.py" for name in shipped.configs()} | {"mlm_jax/py.typed"}
    tracked |= {f"mlm_jax/report/templates/{path.name}" for path in (CHECKOUT / "mlm_jax/report/templates").iterdir()}
    tracked |= {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "mlm_jax").rglob("*.py")}
    assert tracked <= names and not any(name.startswith(("tests/", "configs/")) for name in names)
    for line in ("Author: The mlm_jax authors", "License: Apache-2.0", "Classifier: Typing :: Typed"):
        assert line in metadata.splitlines()

    empty = tmp_path / "empty"
    empty.mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "JAX_PLATFORMS": "cpu"}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=empty, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "import mlm_jax, mlm_jax.shipped; print(mlm_jax.__file__); print(mlm_jax.shipped.FOLDER)")
    assert where.splitlines() == [f"{tmp_path}/site/mlm_jax/__init__.py", f"{tmp_path}/site/mlm_jax/configs"]
    assert run("-m", "mlm_jax", "--version") == f"mlm-jax {mlm_jax.__version__}\n"
    run("-m", "mlm_jax", "configs", "copy", "xlmr_xl")
    run("-m", "mlm_jax", "pretrain", "xlmr_xl.py", "--help")  # builds on one that was not copied
    printed = run("-m", "mlm_jax", "pretrain", "quickstart", *SHORT)
    assert "report: runs/quickstart/report/index.html" in printed and sorted(os.listdir(empty)) == [
        "runs",
        "xlmr_xl.py",
    ]
    use = "import mlm_jax, json; print(json.dumps(mlm_jax.load('runs/quickstart').fill_mask('Sunday <mask> Monday')))"
    assert len(json.loads(run("-c", use).splitlines()[-1])) == 5
