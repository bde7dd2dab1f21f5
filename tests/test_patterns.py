# SPDX-License-Identifier: Apache-2.0
"""What is there under a name is a file, whatever is in its name."""

import os

import pytest
from etils import epath

from mlm_jax import workdir
from mlm_jax.finetune.config import Data, Labelled
from mlm_jax.finetune.run import finished
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.patterns import matching_files


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("x[1].txt", ["x[1].txt"]),
        ("x[12].txt", ["x1.txt"]),
        ("x*.txt", ["x1.txt", "x[1].txt"]),
        ("a*.txt", ["ab.txt"]),
        ("x?.txt", ["x1.txt"]),
        ("x[1]*", ["x1.txt"]),
        ("[old] t/*.txt", ["[old] t/a.txt", "[old] t/b[2].txt"]),
        ("[old] t/b[2].txt", ["[old] t/b[2].txt"]),
        ("[old] t/[b]*", ["[old] t/b[2].txt"]),
        ("[old] t/b[2]*", ["[old] t/b[2].txt"]),  # as a pattern it matches nothing
        ("*/a.txt", ["[old] t/a.txt"]),
        ("**/a.txt", ["[old] t/a.txt"]),
        ("none*", []),
        ("none[1].txt", []),
    ],
)
@pytest.mark.parametrize("parent", ["plain", "[2026] *?"])
def test_a_name_that_is_there_is_no_pattern(tmp_path, monkeypatch, parent, pattern, found):
    folder = tmp_path / parent
    (folder / "[old] t").mkdir(parents=True)
    for name in ("x1.txt", "x[1].txt", "[old] t/a.txt", "[old] t/b[2].txt", "ab.txt"):
        (folder / name).touch()
    assert matching_files(f"{folder}/{pattern}") == [f"{folder}/{name}" for name in found]
    monkeypatch.chdir(folder)
    assert matching_files(pattern) == found


def test_everything_that_takes_a_pattern_takes_such_a_name(tmp_path, capsys):
    folder = tmp_path / "[a] b"
    (folder / "models" / "all-seed0").mkdir(parents=True)
    (folder / "models" / "all-seed0" / "results.json").write_text("[]")
    assert len(finished(epath.Path(folder))) == 1
    labelled = folder / "x[1].tsv"
    labelled.write_text("text\tlabel\nriver\ta\n")
    part, data = Labelled("en", str(labelled)), Data(text="text", label="label")
    assert len(TASKS["classify"].read_examples(part, data)) == 1
    made = folder / "made"
    made.touch()
    os.utime(made, (1, 1))
    workdir.warn_of_newer(epath.Path(made), [str(labelled)])
    assert "x[1].tsv: newer than" in capsys.readouterr().err
