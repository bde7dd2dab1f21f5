# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders that somebody made to do harm, or by mistake: one line each, and nothing from outside gets in."""

import json
import os
import shutil
import signal
import socket
import struct
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, models, processors
from tokenizers import Tokenizer as Library

from mlm_jax.errors import UserError
from mlm_jax.interchange.folder import write_folder
from mlm_jax.interchange.workdir import export_encoder, import_encoder
from mlm_jax.start import finetuned_workdir
from mlm_jax.tensor_files import read_tensors
from mlm_jax.train.initial import has_initial
from tests.interchange.test_folder import ENCODERS, pretrained, random_params, small

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIAL, *"abcdefghij", *(f"##{c}" for c in "abcdefghij")]
CHARACTERS = {"\u2581", *"abcdefghij"}


def encoder(folder, family):
    model = small(ENCODERS[family])
    write_folder(folder, pretrained(model, random_params(model)))


def json_tokenizer(folder):
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    made = Library(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))
    named = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))


def vocab_txt(folder):
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')


def sentencepiece_model(folder):
    made = sentencepiece_model_pb2.ModelProto()
    kinds = made.SentencePiece
    for name, kind in (("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)):
        made.pieces.add(piece=name, score=0.0, type=kind)
    for name in sorted(CHARACTERS):
        made.pieces.add(piece=name, score=-1.0, type=kinds.NORMAL)
    made.trainer_spec.model_type = made.trainer_spec.UNIGRAM
    (folder / "sentencepiece.bpe.model").write_bytes(made.SerializeToString())


def xlm_tokenizer(folder):
    pieces = ["<s>", "</s>", "<pad>", "<unk>", "<special1>", *(f"{c}</w>" for c in "abcdef"), *"abcdef", "ab</w>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("a b</w> 5\n")
    named = {
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<special1>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(named))


GOOD = {
    "json": ("bert", json_tokenizer),
    "txt": ("bert", vocab_txt),
    "model": ("xlm-roberta", sentencepiece_model),
    "xlm": ("xlm", xlm_tokenizer),
    "modernbert": ("modernbert", json_tokenizer),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A whole folder of each kind."""
    root = tmp_path_factory.mktemp("good")
    for name, (family, tokenizer) in GOOD.items():
        encoder(root / name, family)
        tokenizer(root / name)
    return root


@pytest.fixture
def folder(good, tmp_path):
    return lambda kind="json": Path(shutil.copytree(good / kind, tmp_path / "there"))


@contextmanager
def never_hangs(seconds=100):
    def stop(*_):
        raise AssertionError(f"still reading after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(source, said=""):
    """Import it, which has to end in one line that names the folder and says this."""
    workdir = source.parent / "run"
    with never_hangs(), pytest.raises(UserError, match=said or None) as caught:
        import_encoder(str(source), str(workdir))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1_000
    assert not has_initial(workdir)
    return line


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_folder_is_imported(folder, tmp_path, kind):
    import_encoder(str(folder(kind)), str(tmp_path / "run"))
    assert has_initial(tmp_path / "run")


# --- Links ---

FILES = {
    "json": ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    "txt": ("vocab.txt", "added_tokens.json"),
    "model": ("sentencepiece.bpe.model",),
    "xlm": ("vocab.json", "merges.txt"),
}
EVERY = [(kind, name) for kind, names in FILES.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_link_to_elsewhere_is_refused_by_name(folder, tmp_path, kind, name):
    source = folder(kind)
    secret = tmp_path / "secret"
    if (source / name).exists():
        (source / name).rename(secret)
    else:
        secret.write_text("{}")
    (source / name).symlink_to(secret)
    assert refused(source, "a link out of the folder").startswith(f"{source / name}: ")
    # What it advises works.
    (source / name).unlink()
    shutil.copy(secret, source / name)
    import_encoder(str(source), str(tmp_path / "after"))


@pytest.mark.parametrize("kind", ["folder", "loop", "nothing", "folder of the cache", "outside by a folder"])
def test_other_ways_out_are_refused(folder, tmp_path, kind):
    source = folder("txt")
    secret = tmp_path / "elsewhere" / "vocab.txt"
    secret.parent.mkdir()
    (source / "vocab.txt").rename(secret)
    if kind == "folder":
        (source / "vocab.txt").symlink_to(secret.parent)
    elif kind == "loop":
        (source / "vocab.txt").symlink_to("vocab.txt")
    elif kind == "nothing":
        (source / "vocab.txt").symlink_to("gone")
    elif kind == "outside by a folder":
        (source / "inside").symlink_to(secret.parent)
        (source / "vocab.txt").symlink_to("inside/vocab.txt")
    else:
        # Its blobs are a link themselves.
        (tmp_path / "hub" / "snapshots").mkdir(parents=True)
        source = source.rename(tmp_path / "hub" / "snapshots" / "rev")
        (tmp_path / "hub" / "blobs").symlink_to(secret.parent)
        (source / "vocab.txt").symlink_to("../../blobs/vocab.txt")
    assert str(source / "vocab.txt") in refused(source)


def test_the_hubs_cache_and_links_within_the_folder_are_read(folder, tmp_path):
    source = folder()
    hub = tmp_path / "models--a--b"
    (hub / "snapshots").mkdir(parents=True)
    (hub / "blobs").mkdir()
    snapshot = source.rename(hub / "snapshots" / "rev")
    for i, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(hub / "blobs" / f"{i:040x}")
        path.symlink_to(f"../../blobs/{i:040x}")
    import_encoder(str(snapshot), str(tmp_path / "run"))
    plain = tmp_path / "plain"
    shutil.copytree(snapshot, plain)
    (plain / "tokenizer.json").rename(plain / "other.json")
    (plain / "tokenizer.json").symlink_to("other.json")
    (tmp_path / "link").symlink_to(plain)
    import_encoder(str(tmp_path / "link"), str(tmp_path / "second"))


def test_nothing_that_is_not_used_gets_into_an_export(folder, tmp_path):
    source = folder()
    (tmp_path / "secret").write_text("root:x:0:0")
    for name in ("vocab.txt", "merges.txt"):
        (source / name).symlink_to(tmp_path / "secret")
    import_encoder(str(source), str(tmp_path / "run"))
    # Nor what somebody put into a workdir that is handed on.
    kept = tmp_path / "run" / "vocabulary" / "hugging_face"
    assert sorted(path.name for path in kept.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    (kept / "secret").symlink_to(tmp_path / "secret")
    export_encoder(str(tmp_path / "run"), str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    (kept / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"vocab.txt: a link out of the folder"):
        export_encoder(str(tmp_path / "run"), str(tmp_path / "second"))


def test_a_run_that_is_handed_on_brings_no_links(folder, tmp_path):
    import_encoder(str(folder()), str(tmp_path / "run"))
    (tmp_path / "secret").write_text("root:x:0:0")
    (tmp_path / "run" / "vocabulary" / "notes").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="notes: a link out of the folder"):
        import_encoder(str(tmp_path / "run"), str(tmp_path / "second"))


NAMES = ["/etc/passwd", "../secret.safetensors", "a/b", "..", ".", "", "a\0b", "..\\b", 5, None, ["a"], {"a": 1}]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_weight_map_names_files_beside_it_only(folder, name):
    source = folder()
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").rename(source.parent / "secret.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, name)}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(source, "no name of a file beside it|a NUL")


@pytest.mark.parametrize(
    "index", ["{}", "[]", '{"weight_map": null}', '{"weight_map": []}', '{"weight_map": {}}', "[" * 9_999]
)
def test_a_senseless_index_is_refused(folder, index):
    source = folder()
    (source / "model.safetensors").unlink()
    (source / "model.safetensors.index.json").write_text(index)
    refused(source, "model.safetensors")


# --- What is no file ---


@pytest.mark.parametrize("what", ["pipe", "folder", "device", "socket"])
@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_what_is_no_regular_file_is_refused_by_name(folder, monkeypatch, kind, name, what):
    source = folder(kind)
    (source / name).unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(source / name)
    elif what == "folder":
        (source / name).mkdir()
    elif what == "socket":
        monkeypatch.chdir(source)  # a socket's path has to be short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(name)
    else:
        # Only root makes devices; a link within the folder to one is none that anybody can make.
        try:
            os.mknod(source / name, 0o20666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("may not make devices")
    assert refused(source, f"a {what}").startswith(f"{source / name}: ")


def test_a_pipe_as_a_config_is_one_line_wherever_it_is_read(folder):
    source = folder()
    (source / "config.json").unlink()
    os.mkfifo(source / "config.json")
    with never_hangs(), pytest.raises(UserError, match="a pipe"), finetuned_workdir(str(source)):
        pass


# --- Settings ---


def change(path, changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


CONFIGS = [
    ("json", {"model_type": None}, "model_type"),
    ("json", {"model_type": ["bert"]}, "model_type"),
    ("json", {"hidden_size": ...}, "no hidden_size"),
    ("json", {"hidden_size": None}, "no hidden_size"),
    ("json", {"hidden_size": 10**12}, "hidden_size"),
    ("json", {"hidden_size": -32}, "hidden_size"),
    ("json", {"hidden_size": 32.0}, "hidden_size"),
    ("json", {"hidden_size": "32"}, "hidden_size"),
    ("json", {"hidden_size": [32]}, "hidden_size"),
    ("json", {"hidden_size": True}, "hidden_size"),
    ("json", {"num_hidden_layers": 10**6}, "num_hidden_layers"),
    ("json", {"num_hidden_layers": 0}, "num_hidden_layers"),
    ("json", {"num_attention_heads": 0}, "num_attention_heads"),
    ("json", {"num_attention_heads": 3}, "do not divide"),
    ("json", {"intermediate_size": 10**9}, "intermediate_size"),
    ("json", {"intermediate_size": 10**13}, "intermediate_size"),
    ("json", {"vocab_size": 80_000_000}, "vocab_size"),
    ("json", {"vocab_size": 10**13}, "vocab_size"),
    ("json", {"vocab_size": 0}, "vocab_size"),
    ("json", {"vocab_size": ...}, "vocab_size"),
    ("json", {"max_position_embeddings": 25}, "max_position_embeddings"),
    ("json", {"max_position_embeddings": 10**9}, "max_position_embeddings"),
    ("json", {"type_vocab_size": 10**9}, "type_vocab_size"),
    ("json", {"type_vocab_size": 3}, "type_vocab_size"),
    ("json", {"layer_norm_eps": float("nan")}, "layer_norm_eps"),
    ("json", {"layer_norm_eps": -1}, "layer_norm_eps"),
    ("json", {"layer_norm_eps": 10**400}, "layer_norm_eps"),
    ("json", {"layer_norm_eps": 2}, "layer_norm_eps"),
    ("json", {"hidden_dropout_prob": float("inf")}, "hidden_dropout_prob"),
    ("json", {"hidden_dropout_prob": 1}, "hidden_dropout_prob"),
    ("json", {"attention_probs_dropout_prob": -0.1}, "attention_probs_dropout_prob"),
    ("json", {"attention_probs_dropout_prob": {}}, "attention_probs_dropout_prob"),
    ("json", {"initializer_range": float("-inf")}, "initializer_range"),
    ("json", {"pad_token_id": -100}, "pad_token_id"),
    ("json", {"mask_token_id": 10**9}, "mask_token_id"),
    ("json", {"cls_token_id": "2"}, "cls_token_id"),
    ("json", {"sep_token_id": [3]}, "sep_token_id"),
    ("json", {"hidden_act": {"a": [1]}}, "hidden_act"),
    ("json", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    ("json", {"architectures": [5]}, "architectures"),
    ("json", {"architectures": "BertModel"}, "architectures"),
    ("json", {"architectures": ["BertForSequenceClassification"], "id2label": [1]}, "id2label"),
    ("json", {"architectures": ["BertForSequenceClassification"], "id2label": {"x": "a", "y": "b"}}, "id2label"),
    ("json", {"architectures": ["BertForSequenceClassification"], "id2label": {"0": 1, "1": 2}}, "id2label"),
    ("json", {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "a"}}, "id2label"),
    ("model", {"pad_token_id": 10**9}, "pad_token_id"),
    ("model", {"pad_token_id": 100}, "none are left"),
    ("xlm", {"lang2id": [1, 2]}, "lang2id"),
    ("xlm", {"lang2id": {"en": "x"}}, "lang2id"),
    ("xlm", {"lang2id": {"en": 0, "de": 0}}, "lang2id"),
    ("xlm", {"n_langs": 10**9}, "n_langs"),
    ("xlm", {"use_lang_emb": "no"}, "use_lang_emb"),
    ("xlm", {"causal": 1}, "causal"),
    ("xlm", {"n_words": 10**9}, "n_words"),
    ("xlm", {"emb_dim": 10**9}, "n_words|emb_dim"),
    ("modernbert", {"max_position_embeddings": 10**9}, "max_position_embeddings"),
    ("modernbert", {"num_attention_heads": 32}, "even number"),
    ("modernbert", {"layer_types": 5}, "layer_types"),
    ("modernbert", {"layer_types": ["full_attention"]}, "layer_types"),
    ("modernbert", {"layer_types": [[]] * 5}, "layer_types"),
    ("modernbert", {"rope_parameters": {"full_attention": 5}}, "rope_parameters"),
    ("modernbert", {"rope_parameters": [1]}, "rope_parameters"),
    ("modernbert", {"rope_parameters": {"full_attention": {"rope_theta": float("nan")}}}, "rope_theta"),
    ("modernbert", {"rope_parameters": {"full_attention": {"rope_theta": "1"}}}, "rope_theta"),
    ("modernbert", {"local_attention": 0}, "local_attention"),
    ("modernbert", {"global_attn_every_n_layers": -3, "layer_types": None}, "global_attn_every_n_layers"),
    ("modernbert", {"norm_bias": "yes"}, "norm_bias"),
]


@pytest.mark.parametrize(("kind", "changes", "said"), CONFIGS, ids=lambda x: str(x)[:60])
def test_senseless_settings_are_refused_by_name(folder, kind, changes, said):
    source = folder(kind)
    change(source / "config.json", changes)
    refused(source, said)


CONTENTS = [
    "",
    "{",
    "[]",
    "5",
    "null",
    '"x"',
    "[" * 100_000,
    '{"a": ' * 100_000,
    "\ufeff{}",
    b"\xff\xfe{}",
    b"\0" * 100,
]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda x: repr(x)[:20])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "added_tokens.json"])
def test_what_is_no_json_object_is_refused_by_name(folder, name, content):
    source = folder()
    (source / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(source) in refused(source)


TOKENS = [
    ("json", {"mask_token": "a"}, "mask_token"),
    ("json", {"mask_token": "[PAD]"}, "mask_token"),
    ("json", {"pad_token": "[SEP]"}, "pad_token"),
    ("json", {"pad_token": "[UNK]"}, "pad_token"),
    ("json", {"mask_token": 5}, "mask_token"),
    ("json", {"mask_token": ["[MASK]"]}, "mask_token"),
    ("json", {"mask_token": {"content": 5}}, "mask_token"),
    ("json", {"cls_token": {"content": ["a"]}}, "cls_token"),
    ("json", {"added_tokens_decoder": [1]}, "added_tokens_decoder"),
    ("json", {"added_tokens_decoder": {"x": {"content": "a"}}}, "added_tokens_decoder"),
    ("json", {"added_tokens_decoder": {"9" * 5_000: {"content": "a"}}}, "added_tokens_decoder"),
    ("json", {"added_tokens_decoder": {"25": 5}}, "added_tokens_decoder"),
    ("json", {"added_tokens_decoder": {"25": {"content": None}}}, "added_tokens_decoder"),
    ("json", {"added_tokens_decoder": {"25": {"content": "x", "special": "no"}}}, "added_tokens_decoder"),
    ("json", {"added_tokens_decoder": {"999": {"content": "x"}}}, "do not belong together"),
    ("json", {"additional_special_tokens": 5}, "additional_special_tokens"),
    ("json", {"additional_special_tokens": [5]}, "additional_special_tokens"),
    ("json", {"extra_special_tokens": [None]}, "extra_special_tokens"),
    ("txt", {"do_lower_case": "yes"}, "do_lower_case"),
    ("txt", {"tokenizer_class": ["x"]}, "tokenizer_config.json"),
    ("txt", {"never_split": 5}, "never_split"),
    ("xlm", {"mask_token": "a</w>"}, "mask_token"),
]


@pytest.mark.parametrize(("kind", "changes", "said"), TOKENS, ids=lambda x: str(x)[:60])
def test_senseless_tokens_are_refused_by_name(folder, kind, changes, said):
    source = folder(kind)
    change(source / "tokenizer_config.json", changes)
    refused(source, said)


# --- Sizes, and files that are damaged ---


def header(source, described, data=b""):
    text = json.dumps(described).encode()
    (source / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
WEIGHTS = {
    "100,000 empty tensors": partial(header, described={f"t{i}": EMPTY for i in range(100_000)}),
    "a shape that overflows": partial(header, described={"t": EMPTY | {"shape": [2**40, 2**40]}}),
    "a negative offset": partial(header, described={"t": EMPTY | {"data_offsets": [-4, 0]}}),
    "an unknown type": partial(header, described={"t": EMPTY | {"dtype": "F3"}}),
    "no shape": partial(header, described={"t": {}}),
    "a list": partial(header, described=[1]),
    "a length of 2**62": lambda source: (source / "model.safetensors").write_bytes(struct.pack("<Q", 2**62)),
    "nothing": lambda source: (source / "model.safetensors").write_bytes(b""),
    "garbage": lambda source: (source / "model.safetensors").write_bytes(bytes(range(256)) * 9),
}


@pytest.mark.parametrize("spoil", WEIGHTS.values(), ids=WEIGHTS)
def test_damaged_weights_are_refused(folder, spoil):
    source = folder()
    spoil(source)
    assert str(source / "model.safetensors") in refused(source)


def test_float64_that_float32_has_no_room_for_is_refused(folder):
    source = folder()
    tensors = load_file(source / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.bias"
    tensors[name] = np.full(tensors[name].shape, 1e300)
    save_file(tensors, source / "model.safetensors")
    refused(source, "NaN or infinity")


def described(source):
    return json.loads((source / "tokenizer.json").read_text())


def many_pieces(source, count=10_000_000):
    # As a file is that has them, though no text of it is made here.
    with (source / "tokenizer.json").open("w") as file:
        file.write('{"model": {"type": "WordPiece", "vocab": {')
        file.truncate(30 * count)


def far_id(source):
    made = described(source)
    made["model"]["vocab"]["far"] = 4_000_000_000
    (source / "tokenizer.json").write_text(json.dumps(made))


def many_added(source):
    made = described(source)
    token = made["added_tokens"][0]
    made["added_tokens"] += [token | {"id": 100 + i, "content": f"<{i}>", "special": i % 2 > 0} for i in range(11_000)]
    (source / "tokenizer.json").write_text(json.dumps(made))


def too_many(source):
    made = described(source)
    made["model"]["vocab"] |= {f"x{i}": 25 + i for i in range(200)}
    (source / "tokenizer.json").write_text(json.dumps(made))


def commas(source):
    made = described(source)
    made["model"]["vocab"] |= {f"{i}": 25 + i for i in range(150_000)}
    (source / "tokenizer.json").write_text(json.dumps(made, separators=(",", ":")))


TOKENIZERS = {
    "json, 10 million pieces": ("json", many_pieces),
    "json, an id of 4,000 million": ("json", far_id),
    "json, 11,000 added tokens": ("json", many_added),
    "json, more pieces than rows": ("json", too_many),
    "json, 150,000 pieces": ("json", commas),
    "json, no model": ("json", lambda source: change(source / "tokenizer.json", {"model": None})),
    "json, a list": ("json", lambda source: change(source / "tokenizer.json", {"added_tokens": 5})),
    "json, a damaged map": (
        "json",
        lambda source: change(
            source / "tokenizer.json", {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"}}
        ),
    ),
    "vocab.txt, garbage": ("txt", lambda source: (source / "vocab.txt").write_bytes(b"\xff\xfe\0")),
    "vocab.txt, empty": ("txt", lambda source: (source / "vocab.txt").write_bytes(b"")),
    "vocab.txt, 20 MB": ("txt", lambda source: (source / "vocab.txt").write_bytes(b"a\n" * 10_000_000)),
    "vocab.txt, no [CLS]": ("txt", lambda source: (source / "vocab.txt").write_text("[UNK]\na\n")),
    "model, garbage": ("model", lambda source: (source / "sentencepiece.bpe.model").write_bytes(b"\xff" * 99)),
    "model, empty": ("model", lambda source: (source / "sentencepiece.bpe.model").write_bytes(b"")),
    "model, 20 MB": ("model", lambda source: (source / "sentencepiece.bpe.model").write_bytes(b"\n\2\n\0" * 5_000_000)),
    "vocab.json, ids": ("xlm", lambda source: (source / "vocab.json").write_text('{"<s>": "x"}')),
    "vocab.json, far": ("xlm", lambda source: change(source / "vocab.json", {"x": 4_000_000_000})),
    "vocab.json, negative": ("xlm", lambda source: change(source / "vocab.json", {"x": -1})),
    "vocab.json, a list": ("xlm", lambda source: (source / "vocab.json").write_text("[1]")),
    "vocab.json, empty": ("xlm", lambda source: (source / "vocab.json").write_text("{}")),
    "merges.txt, garbage": ("xlm", lambda source: (source / "merges.txt").write_bytes(b"\xff\xfe")),
}


@pytest.mark.parametrize(("kind", "spoil"), TOKENIZERS.values(), ids=TOKENIZERS)
def test_damaged_and_huge_tokenizers_are_refused(folder, kind, spoil):
    source = folder(kind)
    spoil(source)
    assert str(source) in refused(source)


def proto(source, change):
    path = source / "sentencepiece.bpe.model"
    made = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    change(made)
    path.write_bytes(made.SerializeToString())


def charsmap(content):
    return lambda made: setattr(made.normalizer_spec, "precompiled_charsmap", content)


def cycle():
    """A trie whose nodes lead back to the first."""
    units = [256 << 10, *((i & 0xFF) << 10 | (i & 0xFF) for i in range(1, 1024))]
    return struct.pack("<1025I", 4096, *units) + b"\0"


MODELS = {
    "a piece of a million characters": lambda made: made.pieces.add(piece="a" * 1_000_000, score=0.0, type=1),
    "a map of three bytes": charsmap(b"abc"),
    "a map that is cut off": charsmap(struct.pack("<I", 4_000_000_000) + b"abcd"),
    "a map without end": charsmap(cycle()),
    "no special": lambda made: made.pieces.__delitem__(slice(0, 3)),
    "pieces twice": lambda made: made.pieces.extend(list(made.pieces)),
}


@pytest.mark.parametrize("spoil", MODELS.values(), ids=MODELS)
def test_damaged_sentencepiece_models_are_refused(folder, spoil):
    source = folder("model")
    proto(source, spoil)
    assert str(source) in refused(source)


@pytest.mark.parametrize(
    "described",
    [
        {"t": EMPTY | {"shape": [10**12], "data_offsets": [0, 4]}},
        {"t": EMPTY | {"shape": [2], "data_offsets": [4, 12]}},
        {"t": EMPTY | {"data_offsets": [-4, 0]}},
        {"t": EMPTY | {"shape": "x"}},
        {"t": 5},
        [5],
        {"t": EMPTY | {"data_offsets": None}},
    ],
    ids=str,
)
def test_an_initial_encoder_that_is_damaged_is_one_line(tmp_path, described):
    header(tmp_path, described, b"\0" * 8)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        list(read_tensors(tmp_path / "model.safetensors"))


# --- Any JSON at any key ---

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**9, 2**63, 10**30, -1, 0])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*SPECIAL, "a", "\u2581", "\ud800", "x\ny"])
)
TREES = st.recursive(
    LEAVES, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=5), t, max_size=3), max_leaves=6
)
JSON_FILES = [
    (kind, name)
    for kind, names in {
        "json": ("config.json", "tokenizer_config.json", "tokenizer.json", "added_tokens.json"),
        "txt": ("tokenizer_config.json", "special_tokens_map.json"),
        "model": ("config.json", "tokenizer_config.json"),
        "xlm": ("config.json", "vocab.json"),
        "modernbert": ("config.json",),
    }.items()
    for name in names
]
# Keys that a file may have and ours has not.
MORE = {
    "config.json": [
        "id2label",
        "problem_type",
        "classifier_dropout",
        "unk_token_id",
        "rope_theta",
        "is_decoder",
        "n_langs",
    ],
    "tokenizer_config.json": [
        "added_tokens_decoder",
        "additional_special_tokens",
        "do_lower_case",
        "model_input_names",
        "tokenizer_class",
    ],
    "special_tokens_map.json": ["mask_token", "cls_token", "additional_special_tokens"],
    "added_tokens.json": ["x", "[MASK]"],
}


def paths_of(tree, path=()):
    """Every place in a tree of JSON."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from paths_of(value, (*path, key))


def put(tree, path, value):
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize(("kind", "name"), JSON_FILES)
def test_any_json_at_any_key_is_read_or_refused(good, tmp_path_factory, kind, name):
    """MLM_JAX_FUZZ: examples of each file, for a longer search by hand."""
    source = tmp_path_factory.mktemp("fuzz") / "there"
    shutil.copytree(good / kind, source)
    path = source / name
    tree = json.loads(path.read_text()) if path.exists() else {}
    tree = dict.fromkeys(MORE.get(name, ())) | tree
    places = list(paths_of(tree))
    if name == "config.json":
        places += [("architectures", 0)] * 5

    @settings(
        max_examples=int(os.environ.get("MLM_JAX_FUZZ", "12")),
        deadline=None,
        derandomize="MLM_JAX_FUZZ" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(places), TREES)
    def check(place, value):
        path.write_text(json.dumps(put(tree, place, value)))
        workdir = source.parent / "run"
        shutil.rmtree(workdir, ignore_errors=True)
        with never_hangs(), suppress(UserError):
            import_encoder(str(source), str(workdir))

    check()
