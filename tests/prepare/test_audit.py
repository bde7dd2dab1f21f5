# SPDX-License-Identifier: Apache-2.0
"""A corpus is read back: what is not what the text gives is refused."""

import dataclasses
import random

import pytest

from mlm_jax import config as cfg
from mlm_jax.cli import main
from mlm_jax.errors import UserError
from mlm_jax.prepare.audit import audit
from mlm_jax.prepare.run import prepare_corpus

WORDS = ["river", "stone", "light", "maji", "nyumba", "barua", "ведро", "окно", "सूरज", "नदी", "house", "tree"]


def make(folder, **data):
    rng = random.Random(3)
    lines = {
        x: [" ".join([*rng.choices(WORDS, k=9), f"{x}{i}."]) for i in range(400)] for x in ("de", "sw")
    }  # no two alike
    for name, found in lines.items():
        (folder / f"{name}.txt").write_text("\n\n".join("\n".join(found[i : i + 4]) for i in range(0, 400, 4)) + "\n")
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(*lines.values(), strict=True)))
    return cfg.Config(
        workdir=f"{folder}/run",
        data=cfg.Data(
            **{
                "sources": (cfg.Source("*", f"{folder}/{{language}}.txt", documents="paragraph"),),
                "parallel": (cfg.Parallel(("de", "sw"), (f"{folder}/pairs.tsv",)),),
                "sequence_length": 64,
                "validation_fraction": 0.1,
                "workers": 1,
            }
            | data
        ),
        vocabulary=cfg.Vocabulary(size=400, model="bpe"),
    )


@pytest.mark.parametrize("packing", ["concatenate", "segments", "next_sentence"])
def test_a_corpus_is_what_its_text_gives_and_a_changed_one_is_refused(tmp_path, packing):
    config = make(tmp_path, packing=packing)
    made = prepare_corpus(config)
    table = audit(config).splitlines()
    assert table[0].split()[:3] == ["language", "documents", "validation"]
    assert [line.split()[0] for line in table[2:]] == [s.name for s in made.streams]
    assert {line.split()[-1] for line in table[2:]} == {"0"}  # in both splits
    # Another option, a changed byte of a block, changed text.
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, sequence_length=72))
    with pytest.raises(UserError, match=r"block \d+ is not what .* gives"):
        audit(other)
    shard = tmp_path / "run" / "corpus" / made.streams[0].train.shards[0].file
    content = bytearray(shard.read_bytes())
    content[60] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"train\.tfrecord.*: block 0 is not what .*de\.txt gives"):
        audit(config)
    content[60] ^= 1
    shard.write_bytes(content)
    audit(config)
    (tmp_path / "pairs.tsv").write_text((tmp_path / "pairs.tsv").read_text().replace("river", "brook"))
    with pytest.raises(UserError, match=r"pairs\.tsv gives"):
        audit(config)


def test_the_command_reads_back_at_its_end_and_when_asked(tmp_path, capsys):
    config = make(tmp_path)
    (tmp_path / "c.py").write_text(f"from mlm_jax.config import *\n\n\ndef get_config():\n    return {config!r}\n")
    assert main(["prepare", f"{tmp_path}/c.py"]) == 0
    assert "tokens/byte" in capsys.readouterr().out
    assert main(["prepare", f"{tmp_path}/c.py"]) == 0
    assert "tokens/byte" not in capsys.readouterr().out
    assert main(["prepare", f"{tmp_path}/c.py", "--check"]) == 0
    said = capsys.readouterr().out
    assert "tokens/byte" in said and "left out of training, because held out elsewhere: " in said
    (tmp_path / "de.txt").write_text("another text\n")
    assert main(["prepare", f"{tmp_path}/c.py", "--check"]) == 2
