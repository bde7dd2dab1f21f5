# SPDX-License-Identifier: Apache-2.0
"""Every config file: it is valid, and the tiny ones train, go on, go out and come back."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.encode.read import read_pretrained
from mlm_jax.interchange.workdir import export_encoder
from mlm_jax.model.encoder import parameter_shapes
from mlm_jax.options import parse
from mlm_jax.phases import in_steps, parts_of
from mlm_jax.starts import last_saved
from mlm_jax.train import fit, pretraining
from tests.corpora import logged

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
# One that has a teacher, a run of its own, is tested in tests/train/test_distillation.py.
TINY = [path for path in CONFIGS if path.stem.startswith("tiny_") and path.stem != "tiny_distill"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_opens_with_what_it_is_and_how_to_run_it(path):
    config = cfg.load_config(str(path))
    cfg.validate_pretraining(config)
    assert config.workdir == f"runs/{path.stem}"
    said = path.read_text().split('"""')[1]
    assert f"configs/{path.name}" in said
    shapes = jax.tree.leaves(parameter_shapes(config.model, config.vocabulary.size, 100))
    assert sum(math.prod(leaf.shape) for leaf in shapes) > 0


def run(*arguments):
    """The command line in a process of its own, on one CPU device."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "mlm_jax", *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A function (config's path, workdir) that gives the workdir the vocabulary and the corpus, made once per config."""
    pytest.importorskip("django")
    made = {}

    def link(path, workdir):
        if path not in made:
            made[path] = tmp_path_factory.mktemp(path.stem)
            run("prepare", path, "--workdir", made[path])
        Path(workdir).mkdir()
        for part in ("vocabulary", *(corpus.name for corpus in made[path].glob("corpus*"))):
            Path(workdir, part).symlink_to(made[path] / part)

    return link


@pytest.mark.slow
@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_a_tiny_family_trains_resumes_bit_for_bit_exports_and_comes_back(path, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared(path, "whole")
    prepared(path, "broken")
    config = in_steps(parse("pretrain", [str(path)]))
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, steps=20, log_every=5, validate_every=10, save_every=10),
        optimizer=dataclasses.replace(config.optimizer, decay_steps=min(config.optimizer.decay_steps, 5)),
    )
    one = jax.devices()[:1]
    for name in ("whole", "broken"):
        (Path(name) / "config.json").write_text(cfg.config_to_json(dataclasses.replace(config, workdir=name)))
    pretraining.train(dataclasses.replace(config, workdir="whole"), one)
    with monkeypatch.context() as stopping:
        stopping.setattr(fit, "catch_stop", terminated_at(10))
        assert pretraining.train(dataclasses.replace(config, workdir="broken"), one).step == 10
    assert pretraining.train(dataclasses.replace(config, workdir="broken"), one).step == 20

    losses = [r["loss"] for r in logged("whole") if r["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.02
    assert logged("whole") == logged("broken")
    whole, broken = read_pretrained("whole", "last"), read_pretrained("broken", "last")
    for name, tensor in flatten_dict(whole.params).items():
        np.testing.assert_array_equal(tensor, flatten_dict(broken.params)[name], err_msg=name)

    assert cli.main(["export", "whole", "out", "--step", "last"]) == 0
    assert cli.main(["import", "out", "again"]) == 0
    again = read_pretrained("again")
    assert again.step == 0 and whole.step == 20
    for name, tensor in flatten_dict(whole.params).items():
        np.testing.assert_array_equal(tensor, flatten_dict(again.params)[name], err_msg=name)
    # And the imported encoder goes on, with its own shape and vocabulary.
    said = run("pretrain", path, "--workdir", "more", "--init", "out", *few(path, 5))
    assert "starting from out" in said
    assert json.loads(Path("more/config.json").read_text())["model"]["width"] == 64


def few(path, steps):
    """Options for a run of a few steps, the last of which decays, in the config's unit."""
    config = parse("pretrain", [str(path)])
    each = config.train.batch_size * config.data.sequence_length if config.train.unit == "tokens" else 1
    return "--train.steps", str(steps * each), "--optimizer.decay_steps", str(each)


def terminated_at(step):
    """A stand-in for `fit.catch_stop` that finds a SIGTERM during this step."""

    @contextlib.contextmanager
    def catch(max_seconds, start):
        yield lambda now: signal.SIGTERM if now >= step else None

    return catch


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_transformers_loads_a_tiny_run_with_its_tokenizer(path, prepared, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    prepared(path, "run")
    assert cli.main(["pretrain", str(path), "--workdir", "run", *few(path, 2)]) == 0
    export_encoder("run", "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained("out")
    trained = read_pretrained("run")
    with_head = trained.model.head != "none"  # of a contrastive run there is none
    kind = transformers.AutoModelForMaskedLM if with_head else transformers.AutoModel
    theirs, said = kind.from_pretrained("out", output_loading_info=True)
    # AutoModelForMaskedLM has no use for the pooler and the next-sentence classifier.
    assert not [key for key in said["missing_keys"] if with_head or "pooler" not in key] and not said["mismatched_keys"]
    assert all("pooler" in key or "seq_relationship" in key for key in said["unexpected_keys"])
    texts = ["Please correct the errors below.", "Veuillez corriger l’erreur ci-dessous.", "日本語"]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    languages = {"langs": torch.zeros_like(encoded["input_ids"])} if trained.model.language_embedding else {}
    with torch.no_grad():
        inputs = {n: encoded[n] for n in ("input_ids", "attention_mask")} | languages
        expected = theirs.eval()(**inputs)[0].numpy()  # logits, or hidden states
    tokens = encoded["input_ids"].numpy().astype(np.int32)
    zeros = np.zeros_like(tokens)
    batch = {
        "tokens": tokens,
        "segment_ids": encoded["attention_mask"].numpy().astype(np.int32),
        "positions": np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape),
        "token_types": zeros,
        "language_ids": zeros,
    }
    size = trained.vocabulary.size
    encoder = trained.encoder("float32")
    features, matrix, bias, _ = encoder.apply({"params": trained.params}, batch, batch["positions"], method="features")
    ours = np.asarray(features)
    if with_head:
        ours = (ours @ np.asarray(matrix[0]).T + np.asarray(bias))[..., :size]
    real = batch["segment_ids"] > 0
    assert np.abs(ours - expected)[real].max() <= 1e-4


def test_an_import_into_a_used_workdir_and_an_export_into_a_used_folder_are_refused(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    assert cli.main(["export", str(tmp_path / "none"), str(tmp_path / "new")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "not empty; export into a new folder" in capsys.readouterr().err
    assert cli.main(["import", str(tmp_path), str(tmp_path / "run")]) == 2
    assert "no config.json there" in capsys.readouterr().err
    assert cli.main(["import", "a"]) == 2
    assert "mlm-jax import FOLDER WORKDIR" in capsys.readouterr().err
    assert cli.main(["exprot", "a", "b"]) == 2
    assert "did you mean export?" in capsys.readouterr().err


@pytest.mark.slow
def test_tiny_mmbert_goes_through_all_of_its_stages_killed_and_continued_in_each(prepared, tmp_path, monkeypatch):
    """One config and one command; killed in each phase, it learns and logs bit for bit what an unbroken run does."""
    monkeypatch.chdir(tmp_path)
    path = Path(__file__).parents[1] / "configs" / "tiny_mmbert.py"
    prepared(path, "whole")
    often = ["--train.save-every", "4", "--train.keep-last", "100", "--compiled", str(tmp_path / "compiled")]
    said = run("pretrain", path, "--workdir", "whole", *often)
    parts = parts_of(in_steps(parse("pretrain", [str(path)])))
    assert len(parts) == 4 and {part.config.data.sequence_length for part in parts} == {64, 128}
    for number, part in enumerate(parts, 1):
        assert f"phase {number} of 4: steps {part.start:,} to {part.end:,}, " in said

    command = [sys.executable, "-m", "mlm_jax", "pretrain", str(path), "--workdir", "broken", *often]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(path.parents[1])}
    prepared(path, "broken")
    for part in parts:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        # A checkpoint beyond the phase's start: the kill is within it, or soon after.
        while process.poll() is None and last_saved(Path("broken")) <= part.start + 3:
            time.sleep(0.01)
        process.kill()
        process.wait()
    run(*command[3:])
    assert logged("broken") == logged("whole")
    whole, broken = (flatten_dict(read_pretrained(name, "last").params) for name in ("whole", "broken"))
    for name, tensor in whole.items():
        np.testing.assert_array_equal(tensor, broken[name], err_msg=name)
