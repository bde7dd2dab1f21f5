# SPDX-License-Identifier: Apache-2.0
"""Tasks that a tiny encoder learns in seconds, and the encoder."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import sentencepiece
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax import vocabulary
from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Data, Finetune, Labelled, Task, Train
from mlm_jax.finetune.models import save_model
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.model.encoder import example_batch, make_encoder
from mlm_jax.pretrained import FinetunedHead, Pretrained
from mlm_jax.train.initial import read_initial, write_initial

MODEL = cfg.Model(
    layers=2, width=32, heads=2, mlp_width=64, positions=64, head="none", dropout=0.0, attention_dropout=0.0,
    initializer_std=0.1,
)  # fmt: skip
WORDS = {
    "en": {"good": ["fine", "great", "lovely"], "bad": ["awful", "poor", "sad"], "other": ["the", "film", "was", "so"]},
    "de": {"good": ["toll", "schön", "prima"], "bad": ["mies", "übel", "arg"], "other": ["der", "Film", "war", "so"]},
}
NAMES = ("Anna", "Otto", "Mia")


def make_start(folder, model=MODEL, languages=("de", "en")):
    """A workdir that holds a random encoder and a vocabulary to start from."""
    text = [w for words in WORDS.values() for kind in words.values() for w in kind] + list(NAMES) + list("0123456789")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 20), model_writer=written, vocab_size=120, hard_vocab_limit=False, pad_id=0,
        eos_id=1, unk_id=2, bos_id=3, control_symbols=["<mask>"], minloglevel=2,
        user_defined_symbols=[f"▁{word}" for word in dict.fromkeys(text) if len(word) > 1],  # a piece a word
    )  # fmt: skip
    (folder / "vocabulary").mkdir(parents=True)
    path = folder / "vocabulary" / "sentencepiece.model"
    path.write_bytes(written.getvalue())
    words = vocabulary.vocabulary_of_file(path)
    vocabulary.write_vocabulary(words, folder / "vocabulary")
    encoder = make_encoder(model, words.size, len(languages))
    scored = () if model.head == "none" else (np.zeros((1, 2), np.int32),)
    method = "features" if scored else "__call__"
    params = nn.meta.unbox(encoder.init(jax.random.key(0), example_batch(8), *scored, method=method))["params"]
    write_initial(folder, Pretrained(model, jax.tree.map(np.asarray, params), words, languages, str(folder)))
    return folder


def write_data(folder, kind, seed=0, counts=(120, 40)):
    """{language}.{train,test}.{tsv,conll,json} of a task."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for language, words in WORDS.items():
        for split, count in zip(("train", "test"), counts, strict=True):
            lines = [make_example(rng, kind, words) for _ in range(count)]
            if kind == "span":
                content = {"data": [{"paragraphs": lines}]}
                (folder / f"{language}.{split}.json").write_text(json.dumps(content))
            elif kind == "tag":
                (folder / f"{language}.{split}.conll").write_text("\n\n".join(lines) + "\n")
            else:
                (folder / f"{language}.{split}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return folder


def make_example(rng, kind, words):
    other = [str(w) for w in rng.choice(words["other"], rng.integers(2, 7))]
    if kind in ("classify", "regress"):
        label = str(rng.choice(["good", "bad"]))
        other.insert(int(rng.integers(0, len(other))), str(rng.choice(words[label])))
        return f"{' '.join(other)}\t{label if kind == 'classify' else float(label == 'good') * 2 - 1}"
    name = str(rng.choice(NAMES))
    at = int(rng.integers(0, len(other)))
    other.insert(at, name)
    if kind == "tag":
        return "\n".join(f"{w}\t{'B-PER' if i == at else 'O'}" for i, w in enumerate(other))
    context = " ".join(other)
    answer = {"text": name, "answer_start": context.index(name)}
    return {"context": context, "qas": [{"id": str(rng.integers(10**9)), "question": "so", "answers": [answer]}]}


def make_config(tmp_path, kind, **changes):
    """A config of a toy task, its data and its workdir, which has the encoder already."""
    suffix = {"tag": "conll", "span": "json"}.get(kind, "tsv")
    data = tmp_path / "data"
    if not data.exists():
        write_data(data, kind)
    workdir = changes.pop("workdir", "run")
    if not (tmp_path / workdir).exists():
        make_start(tmp_path / workdir)

    def files(split):
        return tuple(Labelled(x, str(data / f"{x}.{split}.{suffix}")) for x in ("en", "de"))

    task = changes.pop("task", Task(kind=kind, dropout=0.0))
    config = Finetune(
        workdir=str(tmp_path / workdir),
        regime="joint",
        devices=1,
        data=Data(
            train=files("train"),
            dev=files("train"),
            test=files("test"),
            max_length=32,
            max_question=4,
            padding=0.3,
            overlap=1.0,
        ),
        task=task,
        optimizer=dataclasses.replace(FINETUNE_OPTIMIZER, learning_rate=3e-3),
        train=Train(epochs=6, batch_size=16, log_every=4, save_every=5),
    )
    return dataclasses.replace(config, **changes)


def write_config(path, config):
    """A config file that returns the config."""
    imports = "from mlm_jax.config import Hosts, Mesh, Optimizer\nfrom mlm_jax.finetune.config import *\n\n\n"
    Path(path).write_text(f"{imports}def get_config():\n    return {config!r}\n")
    return str(path)


def make_finetuned(workdir, folder, kind, data=Data(max_length=32, max_question=4), labels=("O", "a", "b"), **options):  # noqa: B008
    """A workdir of `finetune` with one model on the encoder of another, whose head is random."""
    # The mesh that it was trained on is not here.
    task = Task(kind=kind, **options)
    data = dataclasses.replace(data, train=(Labelled("en", "gone.tsv"),))
    config = Finetune(task=task, data=data, mesh=cfg.Mesh(data=64), workdir=str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(cfg.config_to_json(config))
    shutil.copytree(workdir / "vocabulary", folder / "vocabulary")
    rng = np.random.default_rng(0)
    outputs = TASKS[kind].outputs(labels)
    params = {"output_kernel": rng.normal(size=(32, outputs)), "output_bias": rng.normal(size=outputs)}
    if not TASKS[kind].of_tokens:
        params |= {"dense_kernel": rng.normal(size=(32, 32)), "dense_bias": rng.normal(size=32)}
    params = {name: value.astype(np.float32) for name, value in params.items()}
    head = FinetunedHead(dataclasses.asdict(task), labels, params)
    save_model(folder / "models" / "toy", dataclasses.replace(read_initial(workdir), head=head, step=3))
    return folder
