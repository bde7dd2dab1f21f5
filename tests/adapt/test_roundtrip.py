# SPDX-License-Identifier: Apache-2.0
"""Adapted encoders in transformers, and through pretrain and export."""

import dataclasses
import json

import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.adapt.run import adapt
from mlm_jax.encode.read import read_pretrained
from mlm_jax.interchange.workdir import export_encoder
from mlm_jax.tokenizers import load_tokenizer
from tests.adapt import starts
from tests.adapt.test_extend import KNOWN, TIBETAN

XLMR = dataclasses.replace(starts.MODEL, position_offset=1)
BERT = dataclasses.replace(starts.MODEL, position_offset=0, token_types=2, pooler=True)


def exported(tmp_path, kind, model):
    """A Hugging Face folder with a tokenizer of a kind, as another than us could have made it."""
    start = starts.make_start(tmp_path / "start", *starts.trained(kind, starts.TEXT, 800), model)
    export_encoder(str(start), str(tmp_path / "theirs"))
    path = tmp_path / "theirs" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    decoder = {
        str(token["id"]): {k: v for k, v in token.items() if k != "id"}
        for token in json.loads((tmp_path / "theirs" / "tokenizer.json").read_text())["added_tokens"]
    }
    path.write_text(json.dumps(settings | {"added_tokens_decoder": decoder}))
    return tmp_path / "theirs"


@pytest.mark.parity
@pytest.mark.parametrize(
    ("kind", "model", "change"),
    [
        ("unigram", XLMR, "trim"),
        ("byte-level", BERT, "trim"),
        ("wordpiece", BERT, "extend"),
        ("bpe with bytes", XLMR, "extend"),
    ],
)
@pytest.mark.slow
def test_transformers_reads_what_was_adapted(tmp_path, kind, model, change):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = exported(tmp_path, kind, model)
    texts = [text[:30] for text in (starts.LATIN if change == "trim" else TIBETAN + KNOWN) if not set("<[") & set(text)]
    data = dataclasses.replace(starts.sources(tmp_path / "text", en=texts), validation_fraction=0.0)
    size = 125 if kind == "wordpiece" else 75
    words = cfg.Vocabulary(size=size, character_coverage=1.0)
    adapt(starts.adaptation(tmp_path, theirs, data, change=change, rows="script", vocabulary=words))
    export_encoder(str(tmp_path / "adapted"), str(tmp_path / "out"))
    before, after = (transformers.AutoTokenizer.from_pretrained(tmp_path / f) for f in ("theirs", "out"))
    ours = load_tokenizer(starts.epath.Path(tmp_path / "adapted" / "vocabulary"))
    encoder = read_pretrained(tmp_path / "adapted")
    words = encoder.vocabulary
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    whole = transformers.AutoModelForMaskedLM.from_pretrained(theirs).eval()
    for text, row in zip(texts[-2:], ours.encode(texts[-2:]), strict=True):
        inputs = after(text, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == [words.bos, *row, words.eos]
        with torch.no_grad():
            logits = model(**inputs).logits[0].numpy()
        _, expected = starts.computed(encoder, [words.bos, *row, words.eos])
        np.testing.assert_allclose(logits, expected[:, : words.size], atol=1e-4)
        if change == "trim":
            was = before(text, return_tensors="pt")
            names = before.convert_ids_to_tokens(was["input_ids"][0])
            assert names == after.convert_ids_to_tokens(inputs["input_ids"][0])
            ids = before.convert_tokens_to_ids(list(ours.pieces))
            with torch.no_grad():
                np.testing.assert_allclose(whole(**was).logits[0].numpy()[:, ids], logits, atol=1e-5)
    for role in ("pad", "cls", "sep", "mask", "unk"):
        assert getattr(after, f"{role}_token") == getattr(before, f"{role}_token")


@pytest.mark.slow
def test_pretrain_goes_on_and_export_writes(tmp_path, capsys):
    start = starts.make_start(tmp_path / "start", *starts.trained("unigram", starts.LATIN, 400))
    data = dataclasses.replace(starts.sources(tmp_path / "text", bo=(TIBETAN + KNOWN) * 6), sequence_length=16)
    words = cfg.Vocabulary(size=70, character_coverage=1.0)
    config = starts.adaptation(tmp_path, start, data, change="extend", vocabulary=words)
    assert cli.main(["adapt", str(starts.write_config(tmp_path / "adapt.py", config))]) == 0
    run = cfg.Config(
        workdir=config.workdir,
        data=data,
        model=cfg.Model(positions=64),
        optimizer=cfg.Optimizer(learning_rate=1e-3, warmup_steps=1),
        train=cfg.Train(steps=3, batch_size=8, log_every=1),
    )
    assert cli.main(["pretrain", str(starts.write_config(tmp_path / "train.py", run))]) == 0, capsys.readouterr().err
    assert cli.main(["export", config.workdir, str(tmp_path / "out")]) == 0, capsys.readouterr().err
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"]
        == read_pretrained(config.workdir).vocabulary.size
    )
