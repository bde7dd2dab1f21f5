# SPDX-License-Identifier: Apache-2.0
"""The model card of an exported run, and the folder's way to the hub, against a stand-in for it."""

import base64
import contextlib
import http.server
import json
import random
import threading
from pathlib import Path

import pytest

from mlm_jax import cli, manifest, sampling
from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate, Pairs, Retrieval
from mlm_jax.interchange.push import push_folder, refuse_repository
from mlm_jax.prepare.run import prepare_corpus
from mlm_jax.report.card import metadata, table
from mlm_jax.train.pretraining import train
from tests.corpora import tiny_config

WORDS = {
    "nb": ["jeg", "du", "han", "hun", "vi", "dere", "de", "er", "har", "kan", "vil", "skal"],
    "sw": ["mimi", "wewe", "yeye", "sisi", "ninyi", "wao", "ni", "ana"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir of a run of four updates on two languages, and beside it results of `evaluate`."""
    folder = tmp_path_factory.mktemp("card")
    draw = random.Random(0)
    for language, words in WORDS.items():
        lines = [" ".join(draw.choices(words, k=12)) for _ in range(300)]
        (folder / f"{language}.txt").write_text("\n".join(lines) + "\n")
        (folder / f"{language}.test").write_text("\n".join(f"{line} {i}" for i, line in enumerate(lines[:20])) + "\n")
    config = tiny_config(
        str(folder / "mine"),
        data={"sources": (cfg.Source("*", f"{folder}/{{language}}.txt"),), "sequence_length": 32, "workers": 1},
        vocabulary={"size": 300},
        model={"positions": 32},
        train={"steps": 4, "batch_size": 8, "validate_every": 4},
    )
    prepare_corpus(config)
    (folder / "mine" / "config.json").write_text(cfg.config_to_json(config))
    rows = sampling.sampling_table(config, manifest.read_manifest(f"{config.workdir}/corpus").streams)
    (folder / "mine" / "sampling.json").write_text(json.dumps(rows))
    train(config)
    with contextlib.chdir(folder):
        pairs = (Pairs(("sw", "nb"), ("sw.test", "nb.test")),)
        suite = Evaluate(workdir="suite", init="mine", max_length=32, retrieval=(Retrieval("lines", pairs),))
        Path("suite.py").write_text(
            "from mlm_jax.config import Mesh\nfrom mlm_jax.evaluate.config import *\n\n\n"
            f"def get_config():\n    return {suite!r}\n"
        )
        assert cli.main(["evaluate", "suite.py", "--init", "mine"]) == 0
    return folder


def test_a_card_says_what_the_run_says(run, monkeypatch):
    monkeypatch.chdir(run)
    assert cli.main(["export", "mine", "out"]) == 0
    card = Path("out/README.md").read_text()
    head, rest = card.removeprefix("---\n").split("---\n", 1)
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(head)
    assert found["language"] == ["nb", "sw"] and found["pipeline_tag"] == "fill-mask"  # not Norwegian's false
    sampled = json.loads(Path("mine/sampling.json").read_text())
    lines = rest.splitlines()
    for row in sampled:
        [line] = [x for x in lines if x.startswith("| ") and f"(`{row['language']}`)" in x]
        assert f"| {row['bytes']:,} | {row['tokens']:,} | {row['natural']:.4f} |" in line
    validation = [json.loads(x) for x in Path("mine/metrics.jsonl").read_text().splitlines()]
    last = [x for x in validation if x["kind"] == "validation"][-1]
    assert all(f"| {last['languages'][x]['loss']:.3f} |" in rest for x in WORDS)
    result = json.loads(Path("suite/results.json").read_text())[0]
    assert f"| lines | Swahili | accuracy | {100 * result['value']:.1f} | 20 |" in lines
    assert "| updates | 4 |" in lines and "AutoModelForMaskedLM.from_pretrained" in rest
    # Of a folder that has a card the encoder is read as of any.
    assert cli.main(["import", "out", "again"]) == 0
    assert cli.main(["export", "again", "bare"]) == 0
    bare = Path("bare/README.md").read_text()
    assert "## Results" not in bare and "| updates |" not in bare


def test_what_is_in_a_card_ends_no_cell():
    assert table(["a"], [["x|y\n<b>"]])[-1] == "| x\\|y &lt;b> |"
    assert table(["a"], []) == []
    assert 'language: ["no", "zh"]' in metadata(["zh-Hant", "no", "zh", "x_klingon", "A"], "XLMRobertaModel")


class Hub(http.server.BaseHTTPRequestHandler):
    """Of the hub's protocol what an upload of small files takes."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub, path = self.server, self.path
        hub.asked.append(path)
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer(401, {"error": "who are you"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            hub.repositories.append(json.loads(body))
            return self.answer(200, {"url": f"{hub.url}/me/mine"})
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            return self.answer(
                200, {"files": [{"path": x["path"], "uploadMode": "regular", "shouldIgnore": False} for x in files]}
            )
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer(
                200, {"commitUrl": f"{hub.url}/me/mine/commit/1", "commitOid": "1", "pullRequestUrl": None}
            )
        return self.answer(404, {"error": path})

    def do_GET(self):
        self.server.asked.append(self.path)
        self.answer(200, {"id": "me/mine", "sha": "0", "siblings": []})

    def answer(self, status, value):
        said = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub on this machine."""
    pytest.importorskip("huggingface_hub")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.repositories, server.files = [], [], {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield server
    server.shutdown()


def test_a_folder_is_pushed_whole_to_a_private_repository(tmp_path, hub):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("config.json", "README.md", "model.safetensors", ".left.partial"):
        (folder / name).write_text(f"of {name}")
    assert push_folder(str(folder), "me/mine") == f"pushed to {hub.url}/me/mine/commit/1"
    assert hub.files == {name: f"of {name}".encode() for name in ("config.json", "README.md", "model.safetensors")}
    [made] = hub.repositories
    assert made.get("visibility") == "private" or made.get("private") is True  # as the library's version says it


def test_what_the_hub_refuses_is_one_line(tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"--push me/mine: .*401.*is exported: log in") as refused:
        push_folder(str(tmp_path), "me/mine")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["mine", "me/", "me/mine/more", "me/mi ne", "/mine"])
def test_a_name_of_no_repository_is_refused_before_anything_is_exported(name):
    with pytest.raises(UserError, match="is not OWNER/NAME"):
        refuse_repository(name)
