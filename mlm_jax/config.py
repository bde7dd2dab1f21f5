# SPDX-License-Identifier: Apache-2.0
"""Every option of every command: typed, with its unit, default and source.

A config file is Python and defines `get_config() -> Config`. The command line is made from these
dataclasses (`--dotted.option value`), and the text under a field is its help. Bounds of a value, and whether it may differ
from the one a workdir was made with, stand at its field. What may differ does not change what is learned, but for
train.steps, which moves the end of the run (and, with it, a schedule that decays towards the end), and the options marked
`MAY_CHANGE_ONWARDS`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mlm_jax.errors import UserError
from mlm_jax.fields import (
    BELOW_ONE,
    MAY_CHANGE,
    MAY_CHANGE_ONWARDS,
    OF_CORPUS,
    OF_VOCABULARY,
    Above,
    AtLeast,
    MayChange,
    Within,
    check_bounds,
)
from mlm_jax.names import check_names
from mlm_jax.patterns import matching_files
from mlm_jax.stored import read_json
from mlm_jax.typed import as_type

EXPONENT = Within(0, 1, note=" (0 draws languages evenly, 1 as often as they occur)")


@dataclass(frozen=True)
class Source:
    """The text of one language, or of many when the path holds `{language}`.

    Attributes:
      language: language code; "*" when `path` holds `{language}`, or for every language of the sample.
      path: a glob of files: .txt, .jsonl, .json, .csv or .tsv (which may be compressed: .gz, .bz2, .xz, .zst), .parquet, .arrow; a
        folder that Hugging Face's `datasets` saved; here, in gs://, or wherever fsspec reads (s3://, hf://, …).
        `tfds:NAME/CONFIG` for a TFDS data set; `hf:NAME/CONFIG:SPLIT` for one that Hugging Face's `datasets` loads (its train split, unless
        named); `sample:django` for the built-in sample;
        `seqio:NAME` for a SeqIO task or mixture that `module` registers.
      documents: how a .txt file is divided: one document per line, or at blank lines.
      field: that holds the text, of all but .txt; several, as ("title", "text"), are joined by line ends.
      validation: a glob of held-out files of the same format, or the name of a data set's split. Empty: a
        fraction of the documents, chosen by their hash (`Data.validation_fraction`).
      module: a module to import first, which registers the SeqIO task.
    """

    language: str
    path: str
    documents: Literal["line", "paragraph"] = "line"
    field: str | tuple[str, ...] = "text"
    validation: str = ""
    module: str = ""


@dataclass(frozen=True)
class Parallel:
    """Sentence pairs of two languages or, for contrastive learning, of texts that belong together, which may be of one language.

    Attributes:
      languages: their codes; with the sample, "*" for one of them is every other language.
      paths: two aligned files of a sentence a line; or a glob of .tsv, .csv, .jsonl, .json, .parquet or .arrow files that have both sides, or
        a folder that `datasets` saved; `tfds:NAME/CONFIG` or `hf:NAME/CONFIG:SPLIT` of a translation data set; `sample:django`.
      columns: of a .tsv or .csv, that hold the sentences, counted from 1; (): the two that are text, beside ids, scores, addresses
        and language codes, or that a first line names by the codes or names of the languages. Cells that a CSV writer
        put into quotation marks lose them. With `Data.packing` pairs a third and further ones are hard negatives: texts in the second
        language that do not belong to the first, such as contradictions; an empty cell is none.
      fields: that hold the sentences, where they have names; (): those named by the codes or names of the languages, as in
        {"en": ..., "sw": ...}, alone or within one field. A third and further ones as with `columns`.
      prefixes: what is put before each first and each second text (and its hard negatives) with `Data.packing` pairs, such as
        ("query: ", "passage: ").
    """

    languages: tuple[str, str]
    paths: tuple[str, ...]
    columns: tuple[int, ...] = ()
    fields: tuple[str, ...] = ()
    prefixes: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Data:
    """Text and its blocks."""

    sources: tyro.conf.Suppress[tuple[Source, ...]] = ()
    parallel: tyro.conf.Suppress[tuple[Parallel, ...]] = ()
    validation_fraction: Annotated[float, BELOW_ONE] = 0.01
    """Share of a language's documents (and of a pair's) held out by the hash of their text, where no file is named."""
    validation_documents: Annotated[int, AtLeast(0)] = 100
    """Documents that are held out of a small language or pair at least, as far as they are no more than a tenth of it: so that its
    validation loss says something. Where this decides, other text of the language holds out other documents."""
    sequence_length: Annotated[int, AtLeast(8)] = 512
    """Tokens per block (sequence), specials included (XLM-R: 512)."""
    packing: Literal["concatenate", "segments", "next_sentence", "pairs"] = "concatenate"
    """concatenate: documents run on from block to block, as XLM-R; segments: whole documents packed
    best-fit, each attending within itself; next_sentence: two parts per block, the second of which
    follows the first or is a random one (BERT). Language pairs are packed best-fit whatever this says. pairs, for contrastive
    learning: `parallel` alone, each side of a pair attending within itself; of `sources` the vocabulary is made."""
    pairs_per_block: Annotated[int, AtLeast(0)] = 0
    """pairs: how many a block has at most. 0: one for every 32 tokens of it, and at least one."""
    pairings: Annotated[int, AtLeast(1)] = 1
    """next_sentence: times the text is cut into pairs anew (BERT's duplication factor: 10)."""
    shard_bytes: Annotated[int, AtLeast(1)] = 64 * 2**20
    """Uncompressed text files are prepared in slices of this many bytes, in parallel."""
    longest_document: Annotated[int, AtLeast(1_000)] = 10_000_000
    """Bytes of a document. A longer paragraph is cut at the end of a line into several documents; a longer line is refused, with its
    place. Bounds the memory: a document takes 60 to 100 times as much."""
    workers: Annotated[int, AtLeast(0), MAY_CHANGE] = 0
    """Preparation processes; 0: one per core."""
    runner: Annotated[Literal["pool", "beam"], MAY_CHANGE] = "pool"
    """Where shards are prepared: a process pool here, or Apache Beam (extra `beam`)."""
    beam_options: Annotated[str, MAY_CHANGE] = ""
    """Beam pipeline options, as one string, e.g. "--runner=DataflowRunner --project=p"."""


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary."""

    path: str = ""
    """An existing SentencePiece .model, tokenizer.json (Hugging Face tokenizers) or vocab.txt (BERT's WordPiece)
    to use as it is; empty: train one."""
    size: Annotated[int, AtLeast(1)] = 32_000
    """Pieces, specials and bytes included (XLM-R: 250,002)."""
    model: Literal["unigram", "bpe", "wordpiece", "parity_bpe"] = "unigram"
    """unigram (XLM-R) or bpe by SentencePiece; wordpiece (BERT) by Hugging Face tokenizers; parity_bpe: SentencePiece's bpe, each merge for the
    language whose sentences of `parallel` have most pieces (Foroutan et al. 2026)."""
    parallel: str = ""
    """parity_bpe: text that is the same in all languages, a file per language, a sentence per line: dev/{language}.txt."""
    lowercase: bool = False
    """wordpiece: lower-case and without accents (BERT's "uncased"). Vowel signs of Hindi or Thai and the voicing marks of
    Japanese count as accents and are lost; `normalization` nfkc_cf lower-cases and keeps them."""
    normalization: Literal["", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"] = ""
    """What text is made equal before it is cut, by SentencePiece's names: nfkc: Unicode's compatibility form; _cf: and lower case, with
    all marks; nmt_: and white space of all kinds, to which SentencePiece counts the joiner of Persian and Malayalam; identity: nothing.
    Empty: nmt_nfkc for unigram and bpe (XLM-R), BERT's own for wordpiece."""
    character_coverage: Annotated[float, Within(0, 1, excluded=(0,))] = 0.9995
    """Share of the sample's characters that get a piece of their own."""
    byte_fallback: bool = True
    """Spell characters without a piece in UTF-8 bytes instead of <unk> (SentencePiece only)."""
    most_unknown: Annotated[float, Within(0, 1), MAY_CHANGE] = 0.5
    """Share of a language's text that may be <unk> or dropped by the vocabulary's normalisation; more is refused. 1: any."""
    sample_bytes: Annotated[int, AtLeast(1)] = 100_000_000
    """UTF-8 bytes of text to train on, shared out by the smoothed rates. Bounds the memory: the
    trainer takes roughly 70 times as much."""


@dataclass(frozen=True)
class Stage:
    """Other rates from a step on (annealed language learning, mmBERT).

    Attributes:
      start: the step, or the tokens trained on before it (`Train.unit`).
      exponent: in place of `Sampling.exponent`, where that is the strategy; None: rates by the same rule as before.
      languages: those drawn from here on; empty: all.
    """

    start: int
    exponent: Annotated[float | None, EXPONENT] = None
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How often each language is drawn."""

    strategy: Annotated[Literal["exponent", "temperature", "unimax"], OF_VOCABULARY] = "exponent"
    """exponent: share ** exponent (mBERT, XLM, XLM-R); temperature: share ** (1 / temperature) (mT5);
    unimax: as even as the repeat cap lets it be (Chung et al. 2023)."""
    exponent: Annotated[float, EXPONENT, OF_VOCABULARY] = 0.3
    """0: uniform; 1: natural shares (mBERT 0.7, XLM-R 0.3)."""
    temperature: Annotated[float, AtLeast(1), OF_VOCABULARY] = 1 / 0.3
    """1: natural shares (mT5: 1/0.3)."""
    max_epochs: Annotated[float, AtLeast(0), OF_VOCABULARY, MayChange(unless=("strategy", "unimax"))] = 0.0
    """The most times a language's text may be repeated; UniMax's cap N. With the other strategies the
    run is refused when a language would pass it. 0: no limit (UniMax needs one)."""
    count: Annotated[Literal["tokens", "bytes", "documents", "blocks"], OF_VOCABULARY] = "tokens"
    """What a language's share is a share of (XLM-R: sentences). The vocabulary's sample counts bytes
    unless this is documents, because there are no tokens yet."""
    languages: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Languages drawn before the first of `stages`; empty: all."""
    stages: tyro.conf.Suppress[tuple[Stage, ...]] = ()
    parallel_share: Annotated[float, Within(0, 1)] = 0.0
    """Share of the blocks that hold language pairs (translation LM; XLM's MLM + TLM: 0.5). Among themselves
    pairs are drawn by the same strategy as languages."""


FORMER_ATTENTION = ("triton", "splash")  # of `Model.attention`, in runs of before


@dataclass(frozen=True)
class Model:
    """The encoder; the default is XLM-R base (Conneau et al. 2020, table 7). `mlm_jax.model.families` names others."""

    layers: Annotated[int, AtLeast(1)] = 12
    """Transformer layers."""
    width: Annotated[int, AtLeast(1)] = 768
    """Width of the residual stream."""
    heads: Annotated[int, AtLeast(1)] = 12
    """Attention heads; divides width."""
    mlp_width: Annotated[int, AtLeast(1)] = 3072
    """Width of the feed-forward layer."""
    norm: Literal["post", "pre"] = "post"
    """post: each sum is normalised (BERT, XLM, XLM-R); pre: what each sublayer reads is, and the sum is not
    (XLM-R XL, ModernBERT)."""
    embedding_norm: bool = True
    """The residual stream begins with the normalised embedding; with pre-norm the first layer then has no
    norm of its own (ModernBERT), without it it has (XLM-R XL)."""
    norm_epsilon: float = 1e-5
    """Layer norm epsilon (XLM-R 1e-5, BERT 1e-12)."""
    bias: bool = True
    """Biases in layers, norms and the head's transformation; the output layer always has one (ModernBERT: no)."""
    gated: bool = False
    """GeGLU instead of GELU (Shazeer 2020; ModernBERT): `mlp_width` is then of each of the two halves."""
    position_embedding: Literal["learned", "rotary"] = "learned"
    """learned: a row per position is added to the input; rotary: queries and keys are rotated (Su et al. 2021)."""
    positions: Annotated[int, AtLeast(0)] = 0
    """The longest block the model can read; 0: as long as `data.sequence_length`, or the longest of `train.phases`."""
    position_offset: int = 2
    """Rows of the learned positions before position 0 (XLM-R 2, others 0); never read, kept for other software."""
    rope_theta: float = 160_000.0
    """Base of the rotary wavelengths in layers that attend globally (ModernBERT)."""
    rope_local_theta: float = 10_000.0
    """The same in layers that attend locally."""
    global_every: Annotated[int, AtLeast(1)] = 1
    """Every n-th layer, from the first on, attends globally, the others within `window` (ModernBERT 3)."""
    window: Annotated[int, AtLeast(1)] = 128
    """Tokens a local layer sees around each: half of them on either side."""
    token_types: int = 1
    """Rows of the token type (segment A/B) embedding (BERT 2; XLM-R 1, the same for every token; XLM 0)."""
    language_embedding: bool = False
    """Add an embedding of each token's language (XLM with 15 languages)."""
    causal: bool = False
    """Attend to earlier tokens only, and predict the next one (XLM's CLM) instead of the masked ones."""
    head: Literal["transform", "plain", "none"] = "transform"
    """Before the tied output layer: dense, GELU and norm (BERT), or nothing (XLM); none: no output layer, as in
    imported encoders that came without; they cannot be pretrained."""
    pooler: bool = False
    """Dense and tanh of each block's first token (BERT)."""
    next_sentence: bool = False
    """Learn to tell, from the pooler, whether a block's second part follows its first (BERT); the data must be
    packed as next_sentence."""
    dropout: Annotated[float, BELOW_ONE] = 0.1
    """Share of residual units dropped."""
    attention_dropout: Annotated[float, BELOW_ONE] = 0.1
    """Share of attention probabilities dropped."""
    attention_out_dropout: float = -1.0
    """Share of attention's output dropped; -1: as `dropout`."""
    initializer_std: float = 0.02
    """Standard deviation of new weights."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type; auto: bfloat16 on GPU and TPU, float32 on CPU, where bfloat16 is that of the products' operands, for processors with AVX-512 BF16 or AMX. Parameters are float32."""
    attention: Annotated[Literal["auto", "xla", "flash", "cudnn", "triton", "splash"], MAY_CHANGE] = "auto"
    """What computes attention. xla: plain products, everywhere, with all scores in memory; flash: flash attention of our
    own (TPUs, NVIDIA GPUs), which drops the same units; cudnn: that of cuDNN (NVIDIA GPUs), which has no dropout and is
    refused with attention_dropout above 0. auto: cudnn where it can, else flash; xla on CPUs and for blocks under 128
    tokens. triton and splash, JAX's, are no more, and refused."""
    remat: Annotated[Literal["none", "dots", "full"], MAY_CHANGE] = "none"
    """What the backward pass computes again instead of keeping. none: what costs no product with a weight matrix (norms, GELU,
    dropout, the scores of plain attention); dots: attention's kernels too; full: everything but each layer's input."""
    loss_chunk: Annotated[int, AtLeast(1)] = 32_768
    """Vocabulary rows that the head computes logits of at a time; a smaller vocabulary is one chunk."""


@dataclass(frozen=True)
class Objective:
    """What is learned. All but `learn` is of masked language modelling (Devlin et al. 2019, section 3.1), and of no effect where
    `model.causal`."""

    learn: Literal["language_model", "contrastive", "distillation"] = "language_model"
    """language_model: to predict masked tokens or, where `model.causal`, the next one; contrastive: vectors that tell which texts
    belong together (`contrastive`); distillation: what a teacher makes of the same text (`distillation`)."""
    mask_rate: Annotated[float, Within(0, 1, excluded=(0, 1))] = 0.15
    """Share of the tokens (`mask_count`) that are predicted."""
    mask_rate_schedule: tyro.conf.Suppress[tuple[tuple[int, float], ...]] = ()
    """(step, or tokens: train.unit; rate): from there on, that rate (mmBERT: 0.30, 0.15, 0.05)."""
    mask_count: Literal["maskable", "all"] = "maskable"
    """What mask_rate is a share of: the tokens that may be masked, or all but padding (BERT, which counts specials and masks none)."""
    mask_specials: Literal["none", "eos", "all"] = "none"
    """Specials that may be masked, as pieces may: none; </s> (XLM); or all, <s> and <unk> too (XLM-R's fairseq)."""
    fates: Literal["piece", "unit"] = "piece"
    """Whether each predicted piece is replaced or kept by itself (BERT), or a word or span as a whole (fairseq, SpanBERT)."""
    replace_mask: Annotated[float, Within(0, 1)] = 0.8
    """Of the predicted tokens, the share replaced by <mask>."""
    replace_random: Annotated[float, Within(0, 1)] = 0.1
    """Of the predicted tokens, the share replaced by another piece; the rest stay as they are."""
    whole_words: bool = False
    """Mask all pieces of a word together (docs/families.md says what a word is in scripts without spaces)."""
    span_length: Annotated[float, AtLeast(1)] = 1.0
    """Mask spans of pieces (of words, with whole_words), as many on average: lengths are geometric (SpanBERT,
    Joshi et al. 2020: 3.8)."""
    frequency_exponent: Annotated[float, Within(0, 1)] = 0.0
    """Mask a piece in proportion to its frequency to the power of minus this (XLM's paper: 0.5). Not with
    whole words or spans."""
    static_masks: Annotated[int, AtLeast(0)] = 0
    """0: new masks every time; n: each block has n masks, seen in turn (BERT's duplication factor: 10)."""


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE (van den Oord et al. 2018): the cross-entropy of finding each text's partner among all of the batch. Of effect where
    `objective.learn` is contrastive; `train.accumulate` then bounds the memory without a change of what is learned (GradCache, Gao et al. 2021)."""

    pooling: Literal["mean", "first", "max"] = "mean"
    """A text's vector: the mean over its tokens, specials included; the first token's; or the greatest value of each unit."""
    temperature: Annotated[float, Above(0)] = 0.05
    """What cosines are divided by (SimCSE 0.05, e5 0.01)."""
    margin: Annotated[float, AtLeast(0)] = 0.0
    """Taken from the cosine of the two that belong together (LaBSE 0.3)."""
    symmetric: bool = True
    """Look for the first text among the second ones, too, and take the mean of both losses."""
    matryoshka: tuple[int, ...] = ()
    """Dimensions whose first so many have to serve by themselves, beside all of them (Kusupati et al. 2022); the loss is the mean."""
    batches: Literal["mixed", "by_stream"] = "mixed"
    """mixed: each block is drawn by the rates; by_stream: each batch is, so that all its texts are of one pair of languages."""


@dataclass(frozen=True)
class Distillation:
    """What a student learns of a teacher, where `objective.learn` is distillation. The losses of what has a weight above 0 are added up."""

    teacher: Annotated[str, MAY_CHANGE] = ""
    """A run or a Hugging Face folder, which shares the student's vocabulary. It is copied into WORKDIR/teacher when the run begins; a
    student without `init` takes its vocabulary."""
    relations: Annotated[float, AtLeast(0)] = 0.0
    """Weight of attention's relations: of one layer of the teacher and the last of the student (MiniLM v2, Wang et al. 2021). Widths and
    heads may differ."""
    hidden: Annotated[float, AtLeast(0)] = 0.0
    """Weight of hidden states, token by token (Sanh et al. 2019, Jiao et al. 2020)."""
    vectors: Annotated[float, AtLeast(0)] = 0.0
    """Weight of vectors of texts (Reimers and Gurevych 2020); with data.packing pairs a text and its translation both learn the text's."""
    masked: Annotated[float, AtLeast(0)] = 0.0
    """Weight of masked LM besides; student and teacher then both read the masked rows."""
    relation_layer: Annotated[int, AtLeast(0)] = 0
    """relations: the teacher's layer, counted from 1; 0: the last (MiniLM v2: of large teachers one of the upper middle)."""
    relation_heads: Annotated[int, AtLeast(0)] = 0
    """relations: heads that queries, keys and values are cut into, of both; 0: as many as the teacher has."""
    hidden_layers: tyro.conf.Suppress[tuple[tuple[int, int], ...]] = ()
    """hidden: (teacher's, student's) layers, counted from 1; empty: all of the student's, spread evenly, the last on the last."""
    projection: bool = False
    """hidden: learn a matrix from the student's width to the teacher's for each pair of layers; it is no part of the student."""
    distance: Literal["mse", "cosine"] = "mse"
    """hidden, vectors: the mean squared difference of the units, or one minus the cosine."""
    pooling: Literal["", "mean", "first", "max"] = ""
    """vectors: how a text's tokens make its vector; empty: as the teacher's do, or their mean."""


@dataclass(frozen=True)
class Optimizer:
    """AdamW (Loshchilov and Hutter 2019) or its relatives, of pretraining and fine-tuning; biases and norms are not
    decayed. The defaults are those of pretraining, `mlm_jax.finetune.config.FINETUNE_OPTIMIZER` has fine-tuning's."""

    name: Literal["adamw", "stable_adamw", "muon"] = "adamw"
    """stable_adamw: each matrix's step is divided by how much its gradient outgrew its average (Wortsman et al.
    2023), which replaces clipping (ModernBERT, mmBERT); muon: the layers' kernels step by orthogonal matrices (Jordan et
    al. 2024), all else by AdamW."""
    learning_rate: Annotated[float, Above(0), MAY_CHANGE_ONWARDS] = 7e-4
    """Peak (RoBERTa's table for batch 8,192; XLM-R's own is not published)."""
    schedule: Literal["linear", "inverse_sqrt", "cosine", "wsd", "constant"] = "linear"
    """After warm-up: linear to the final share, inverse square root, cosine, stable then decay, or the peak."""
    warmup_steps: Annotated[int, AtLeast(0)] = 10_000
    """Updates (or tokens: train.unit) of linear warm-up, where warmup_share is 0."""
    warmup_share: Annotated[float, BELOW_ONE] = 0.0
    """Share of all updates that warm up; 0: warmup_steps says how many."""
    decay_steps: int = 0
    """wsd: the steps (or tokens: train.unit) of decay at the end."""
    final_share: float = 0.0
    """Share of the peak at the end (linear, cosine, wsd)."""
    weight_decay: float = 0.01
    """A step's shrinkage of the weights over the learning rate."""
    b1: Annotated[float, BELOW_ONE] = 0.9
    b2: Annotated[float, BELOW_ONE] = 0.98
    epsilon: float = 1e-6
    clip_norm: Annotated[float, AtLeast(0), MAY_CHANGE_ONWARDS] = 1.0
    """Largest global gradient norm; 0: not clipped."""
    layer_decay: Annotated[float, Within(0, 1, excluded=(0,))] = 1.0
    """Factor of the learning rate from a layer to the one below it (Howard and Ruder 2018)."""
    freeze: Annotated[int, AtLeast(-1, ", which freezes nothing")] = -1
    """finetune: left as they are: the embeddings and this many lower layers (Wu and Dredze 2019, section 4); -1: nothing."""


@dataclass(frozen=True)
class Phase:
    """Blocks and batches of other sizes from a step on, and what goes with them. None: as before.

    Attributes:
      start: the step, or the tokens trained on before it (`Train.unit`).
      sequence_length: in place of `Data.sequence_length`: the text is prepared at this length too.
      batch_size: in place of `Train.batch_size`.
      learning_rate, weight_decay: in place of those of `Optimizer`; the schedule goes on.
      rope_theta, rope_local_theta: in place of those of `Model`.
      causal: in place of `Model.causal`: causal LM first and masked LM then, in one run (Gisserot-Boukhlef et al. 2025), or the other way. What is learned and
        the optimizer's moments go on; the best checkpoint is chosen among those whose objective is the last phase's.
    """

    start: int
    sequence_length: Annotated[int | None, AtLeast(8)] = None
    batch_size: Annotated[int | None, AtLeast(1)] = None
    learning_rate: Annotated[float | None, Above(0)] = None
    weight_decay: float | None = None
    rope_theta: Annotated[float | None, Above(0)] = None
    rope_local_theta: Annotated[float | None, Above(0)] = None
    causal: bool | None = None


@dataclass(frozen=True)
class Train:
    """The loop."""

    steps: Annotated[int, AtLeast(1), MAY_CHANGE] = 100_000
    """Updates; tokens, where `unit` says so."""
    unit: Literal["steps", "tokens"] = "steps"
    """What steps, optimizer.warmup_steps and decay_steps and the starts of phases, stages and mask rates are given in. tokens: places for
    tokens in the batches, padding included; a run begins by turning them into the first step before which so many were trained on."""
    batch_size: Annotated[int, AtLeast(1)] = 256
    """Blocks per update, over all devices."""
    phases: tyro.conf.Suppress[tuple[Phase, ...]] = ()
    """What is other from a step on: sizes of blocks and batches, and what goes with them (ModernBERT, mmBERT)."""
    accumulate: Annotated[int, AtLeast(1), MAY_CHANGE] = 1
    """Pieces a batch is computed in, one after another, to save memory. With phases: the batch with most tokens; another is computed
    in as few pieces as are no larger than those."""
    gradient_sum: Annotated[Literal["auto", "float32", "bfloat16"], MAY_CHANGE_ONWARDS] = "auto"
    """Type in which gradients are summed over mesh.data, once per update: half the bytes over the links in bfloat16. auto: model.dtype's."""
    log_every: Annotated[int, AtLeast(1), MAY_CHANGE] = 100
    """Steps between lines of metrics."""
    validate_every: Annotated[int, AtLeast(1), MAY_CHANGE] = 1_000
    """Steps between validations; there is always one at the end."""
    save_every: Annotated[int, AtLeast(1), MAY_CHANGE] = 1_000
    """Steps between checkpoints; there is always one at the end."""
    keep_last: Annotated[int, AtLeast(1), MAY_CHANGE] = 2
    """Newest checkpoints kept, besides the best by macro validation loss."""
    validation_blocks: int = 64
    """Validation blocks per language, at most."""
    max_seconds: Annotated[float, AtLeast(0), MAY_CHANGE] = 0.0
    """Stop (saved, to be continued) after this many seconds of training; 0: no limit."""
    readers: Annotated[int, AtLeast(0), MAY_CHANGE] = 0
    """Processes that read batches for this one, for hosts whose devices outrun its threads (`input_wait` in the metrics);
    0: threads read."""


@dataclass(frozen=True)
class Mesh:
    """Devices per axis; one may be -1, which takes what is left."""

    data: int = -1
    """Batch is split, parameters are copied."""
    fsdp: int = 1
    """Batch and parameters are split."""
    tensor: int = 1
    """Heads, feed-forward width and vocabulary are split."""
    slices: Annotated[int, AtLeast(1)] = 1
    """TPU slices that the data centre's network joins: `data` is split over them first, all else stays within one."""


ALL_DEVICES = Mesh()  # each with a copy of the parameters


@dataclass(frozen=True)
class Hosts:
    """Processes that train together, each with devices of its own."""

    start: Literal["alone", "cluster", "given"] = "alone"
    """alone: this process; cluster: those that TPU VMs, SLURM or Open MPI name in the environment; given: those
    named below."""
    coordinator: str = ""
    """given: host:port of process 0, any free port there."""
    processes: int = 1
    """given: how many there are."""
    process: int = 0
    """given: the number of this one, from 0."""
    timeout: Annotated[int, AtLeast(1, " second")] = 100
    """Seconds in which all have to be there, and after which one that gives no sign of life counts as gone."""


ALONE = Hosts()  # this process, with all its devices


@dataclass(frozen=True)
class Config:
    """One experiment."""

    workdir: Annotated[str, MAY_CHANGE] = ""
    """Folder of the run, local or gs://; empty: runs/NAME-OF-CONFIG."""
    init: Annotated[str, MAY_CHANGE] = ""
    """A run or a Hugging Face folder to start from: its encoder and vocabulary take the place of `model` and
    `vocabulary`."""
    corpus: Annotated[str, MAY_CHANGE] = ""
    """A run whose vocabulary and blocks this one uses, instead of preparing the same text again: its files are linked, and its `data`
    and `vocabulary` options have to be the same."""
    compiled: Annotated[str, MAY_CHANGE] = ""
    """Folder of compiled programs, local or gs://, which a second start loads instead of compiling; none: they are not
    kept. Empty: WORKDIR/compiled, or what the environment's JAX_COMPILATION_CACHE_DIR says."""
    seed: Annotated[int, AtLeast(0), OF_VOCABULARY] = 0
    """Seeds initialisation, data order, masks and dropout."""
    data: Annotated[Data, OF_CORPUS] = Data()
    vocabulary: Annotated[Vocabulary, OF_VOCABULARY] = Vocabulary()
    sampling: Sampling = Sampling()
    model: Model = Model()
    objective: Objective = Objective()
    contrastive: Contrastive = Contrastive()
    distillation: Distillation = Distillation()
    optimizer: Optimizer = Optimizer()
    train: Train = Train()
    mesh: Annotated[Mesh, MAY_CHANGE] = Mesh()
    hosts: Annotated[Hosts, MAY_CHANGE] = Hosts()


def with_sections(config: Config, **sections: dict[str, Any]) -> Config:
    """The config with options of its sections changed."""
    changed = {name: dataclasses.replace(getattr(config, name), **options) for name, options in sections.items()}
    return dataclasses.replace(config, **changed)


def load_config(path: str, kinds: tuple[type, ...] = (Config,), commands: Mapping[type, str] | None = None) -> Any:
    """The config, of one of the types, that a Python file's `get_config()` returns.

    Args:
      commands: type of config → the command it is for, to name where it is not of the types.

    Raises:
      UserError: no such file, no `get_config` in it, or it returns something else.
    """
    file = Path(path)
    if (file / "config.json").is_file():
        return stored_config(path, kinds)
    if not file.is_file():
        raise UserError(f"{path}: no such config file; mlm-jax configs lists those that come with mlm_jax")
    if file.suffix != ".py":
        raise UserError(
            f"{path}: not a config file; name a .py file with a get_config(), or one of those that mlm-jax configs lists"
        )
    try:
        # Not as a module: Python's cache of those does not see a change within a second.
        defined = runpy.run_path(str(file), run_name="mlm_jax_config_file")
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{path}: {type(e).__name__}: {e}; mend the config file") from e
    wanted = " or ".join(f"{kind.__module__}.{kind.__name__}" for kind in kinds)
    if "get_config" not in defined:
        raise UserError(f"{path}: defines no get_config(); add one that returns {wanted}")
    try:
        config: Any = defined["get_config"]()
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{path}: get_config() fails ({type(e).__name__}: {e}); mend the config file") from e
    if not isinstance(config, kinds):
        other = (commands or {}).get(type(config))
        hint = f"; it is for mlm-jax {other}" if other else ""
        raise UserError(f"{path}: get_config() returned {type(config).__name__}, not {wanted}{hint}")
    sources = config.data.sources if isinstance(config, Config) else ()
    if not isinstance(sources, tuple) or not all(isinstance(source, Source) for source in sources):
        raise UserError(
            f"{path}: data.sources is not a tuple of Source(language, path); a tuple of one ends in a comma: (Source(...),)"
        )
    named: Any = config
    return named if named.workdir else dataclasses.replace(named, workdir=f"runs/{file.stem}")


def stored_config(workdir: str, kinds: tuple[type, ...]) -> Any:
    """The config, of one of the types, that a workdir was made with.

    Raises:
      UserError: it is of none of them.
    """
    path = Path(workdir) / "config.json"
    try:
        stored = read_json(path, dict[str, Any], "name the config file")
        # The type that has all of its options and fewest others.
        fitting = [kind for kind in kinds if set(stored) <= {field.name for field in dataclasses.fields(kind)}]
        kind = min(fitting, key=lambda kind: len(dataclasses.fields(kind)))
        config: Any = as_type(kind, stored)
    except ValueError as e:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise UserError(f"{path}: no {wanted} that this command can go on with ({e}); name the config file") from e
    return dataclasses.replace(config, workdir=workdir)


def fields_of(field: str | Sequence[str]) -> tuple[str, ...]:
    """The fields that `Source.field` names."""
    return (field,) if isinstance(field, str) else tuple(field)


def is_named(path: str) -> bool:
    """Whether a path names a data set (`tfds:NAME`), and no files; what is there by that name is a file."""
    return re.match(r"[A-Za-z]\w+:(?!//)", path) is not None and not matching_files(path)


def text_files(data: Data) -> list[str]:
    """Globs of the text that lies in files, training and validation."""
    # The validation of a data set is a split's name.
    found = [path for s in data.sources if not is_named(s.path) for path in (s.path, s.validation) if path]
    found += [path for parallel in data.parallel for path in parallel.paths if not is_named(path)]
    return [path.replace("{language}", "*") for path in found]


def validate_pretraining(config: Config) -> None:
    """Refuse a config that cannot work, before anything is loaded.

    Raises:
      UserError: naming the option, its value and what would be right.
    """
    check_bounds(config)
    data, sampling, model, objective, train = config.data, config.sampling, config.model, config.objective, config.train

    def require(ok: bool, message: str) -> None:
        if not ok:
            raise UserError(message)

    validate_pairs(config)
    require(
        bool(data.sources) or data.packing == "pairs", "data.sources: empty; name at least one Source(language, path)"
    )
    require(
        not (config.vocabulary.lowercase and config.vocabulary.model != "wordpiece"),
        f"vocabulary.lowercase: only of wordpiece, and vocabulary.model is {config.vocabulary.model}; set "
        "vocabulary.normalization to nmt_nfkc_cf instead",
    )
    require(
        not (config.vocabulary.lowercase and config.vocabulary.normalization),
        "vocabulary.lowercase: BERT's, which drops marks; with vocabulary.normalization use nfkc_cf, and leave lowercase out",
    )
    require(
        not (config.vocabulary.model == "wordpiece" and config.vocabulary.normalization.startswith("nmt_")),
        f"vocabulary.normalization: {config.vocabulary.normalization} is SentencePiece's alone; use "
        f"{config.vocabulary.normalization.removeprefix('nmt_')}",
    )
    require(
        not (config.vocabulary.normalization and config.vocabulary.path.endswith((".model", ".json"))),
        f"vocabulary.normalization: {config.vocabulary.path} has its own; leave vocabulary.normalization out",
    )
    parity = config.vocabulary.model == "parity_bpe" and not config.vocabulary.path
    require(
        not parity or "{language}" in config.vocabulary.parallel,
        f"vocabulary.parallel: {config.vocabulary.parallel or 'empty'}; parity_bpe compares languages on the same sentences: name their files, with "
        "{language} for the code",
    )
    lengths = {"data.sequence_length": data.sequence_length} | {
        f"train.phases[{i}].sequence_length": phase.sequence_length
        for i, phase in enumerate(train.phases)
        if phase.sequence_length is not None
    }
    for option, length in lengths.items():
        require(
            not model.positions or length <= model.positions,
            f"{option}: {length} is beyond model.positions {model.positions}; lower the first or raise the second",
        )
    for i, stage in enumerate(sampling.stages):
        require(
            stage.exponent is None or sampling.strategy == "exponent",
            f"sampling.stages[{i}].exponent: {stage.exponent}, but sampling.strategy is {sampling.strategy}, which "
            "has no exponent; leave it out, or set the strategy to exponent",
        )
    starts = [0] + [s.start for s in sampling.stages]
    require(
        all(a < b for a, b in itertools.pairwise(starts)),
        f"sampling.stages: starts {starts[1:]} must increase from a step after 0",
    )
    starts = [0] + [p.start for p in train.phases]
    require(
        all(a < b for a, b in itertools.pairwise(starts)),
        f"train.phases: starts {starts[1:]} must increase from {'a step' if train.unit == 'steps' else 'tokens'} after 0",
    )
    rotary = model.position_embedding == "rotary"
    for i, phase in enumerate(train.phases):
        require(
            rotary or (phase.rope_theta, phase.rope_local_theta) == (None, None),
            f"train.phases[{i}]: a rope_theta, but model.position_embedding is {model.position_embedding}; leave it out",
        )
        require(
            phase.causal is None or (objective.learn == "language_model" and not model.next_sentence),
            f"train.phases[{i}].causal: {phase.causal}, but {'model.next_sentence' if model.next_sentence else f'objective.learn {objective.learn}'} needs an encoder "
            "that looks both ways; leave it out",
        )
    require(
        sampling.parallel_share == 0 or bool(data.parallel),
        f"sampling.parallel_share: {sampling.parallel_share}, but data.parallel names no sentence pairs",
    )
    require(
        not (sampling.parallel_share and (model.causal or any(phase.causal for phase in train.phases))),
        "sampling.parallel_share: a causal model learns no translation LM; set it to 0, or model.causal (and that of train.phases) to False",
    )
    require(
        sampling.strategy != "unimax" or sampling.max_epochs > 0,
        "sampling.max_epochs: UniMax needs the most epochs a language may be repeated, e.g. 5",
    )
    require(
        model.width % model.heads == 0,
        f"model.heads: {model.heads} does not divide model.width {model.width}; "
        f"use one of {', '.join(str(h) for h in range(1, 65) if model.width % h == 0)}",
    )
    require(
        model.position_embedding == "learned" or (model.width // model.heads) % 2 == 0,
        f"model.heads: {model.heads} heads of width {model.width // model.heads}; rotary positions need an even width",
    )
    require(
        not (model.norm == "post" and not model.embedding_norm),
        "model.embedding_norm: post-norm needs it",
    )
    require(
        model.next_sentence == (data.packing == "next_sentence"),
        f"model.next_sentence: {model.next_sentence}, but data.packing is {data.packing}; next-sentence prediction "
        "needs both or neither",
    )
    require(
        not model.next_sentence or (model.pooler and model.token_types >= 2 and not model.causal),
        "model.next_sentence: needs model.pooler, model.token_types 2 and an encoder that is not causal",
    )
    require(
        model.attention_out_dropout == -1 or 0 <= model.attention_out_dropout < 1,
        f"model.attention_out_dropout: {model.attention_out_dropout} is neither -1 nor within 0 to 1",
    )
    require(
        model.attention not in FORMER_ATTENTION,
        f"model.attention: {model.attention}, a kernel of JAX's, is no more; set model.attention flash or auto",
    )
    require(
        model.attention != "cudnn" or model.attention_dropout == 0,
        "model.attention: cudnn has no dropout; set model.attention_dropout 0, or model.attention flash or auto",
    )
    require(
        model.head != "none" or bool(config.init) or not predicts_tokens(config),
        "model.head: none has no output layer to pretrain; use transform or plain",
    )
    validate_distillation(config)
    for i, (_, rate) in enumerate(objective.mask_rate_schedule):
        require(0 < rate < 1, f"objective.mask_rate_schedule[{i}]: {rate} is outside 0 to 1")
    require(
        objective.replace_mask + objective.replace_random <= 1 + 1e-9,
        f"objective: replace_mask {objective.replace_mask} and replace_random {objective.replace_random} "
        "must be shares that sum to at most 1",
    )
    require(
        not (objective.frequency_exponent and (objective.whole_words or objective.span_length > 1)),
        "objective.frequency_exponent: chooses single pieces; not with whole_words or span_length",
    )
    require(
        objective.fates == "piece" or objective.whole_words or objective.span_length > 1,
        "objective.fates: unit needs whole_words or span_length above 1; else leave it at piece",
    )
    require(
        config.optimizer.freeze == -1,
        f"optimizer.freeze: {config.optimizer.freeze}, but pretraining trains every layer; set it to -1",
    )
    require(
        config.optimizer.schedule != "wsd" or 0 < config.optimizer.decay_steps <= train.steps,
        f"optimizer.decay_steps: {config.optimizer.decay_steps}; wsd needs 1 to train.steps {train.steps}",
    )
    require(
        bool(train.phases) or train.batch_size % train.accumulate == 0,
        f"train.batch_size: {train.batch_size} does not divide into train.accumulate {train.accumulate} microbatches",
    )
    validate_mesh(config.mesh)
    validate_hosts(config.hosts)
    languages = [source.language for source in data.sources if source.language != "*"]
    check_names("data", [*languages, *(x for pair in data.parallel for x in pair.languages if x != "*")])


def weights_of(distillation: Distillation) -> dict[str, float]:
    """The weights above 0: what a student learns."""
    found = {name: getattr(distillation, name) for name in ("relations", "hidden", "vectors", "masked")}
    return {name: weight for name, weight in found.items() if weight}


def predicts_tokens(config: Config) -> bool:
    """Whether a run trains the output layer."""
    learn = config.objective.learn
    return learn == "language_model" or (learn == "distillation" and config.distillation.masked > 0)


def validate_distillation(config: Config) -> None:
    """Refuse what cannot be learned from a teacher.

    Raises:
      UserError: naming the option, its value and what would be right.
    """
    options, data = config.distillation, config.data
    if config.objective.learn != "distillation":
        if options.teacher:
            raise UserError(
                f"distillation.teacher: {options.teacher}, but objective.learn is {config.objective.learn}; set it to distillation"
            )
        return
    if not options.teacher:
        raise UserError("distillation.teacher: empty; name a run or a Hugging Face folder to learn from")
    if not {"relations", "hidden", "vectors"} & weights_of(options).keys():
        raise UserError(
            "distillation: nothing of the teacher has a weight; set distillation.relations, hidden or vectors above 0"
        )
    if config.model.causal:
        raise UserError("model.causal: a student and its teacher look both ways; set it to False")
    if data.packing == "next_sentence":
        raise UserError(
            "data.packing: next_sentence, which is no part of distillation; set it to segments or concatenate"
        )
    if options.vectors and (
        data.packing == "concatenate" or (data.packing == "segments" and config.sampling.parallel_share)
    ):
        raise UserError(
            "distillation.vectors: are of whole texts, a segment each; set data.packing to pairs, or to segments without sampling.parallel_share"
        )


def validate_pairs(config: Config) -> None:
    """Refuse what cannot be learned from pairs of texts.

    Raises:
      UserError: naming the option, its value and what would be right.
    """
    data, learn = config.data, config.objective.learn
    paired = data.packing == "pairs"
    for i, parallel in enumerate(data.parallel):
        for name, given in (("columns", parallel.columns), ("fields", parallel.fields)):
            if len(given) == 1 or (len(given) > 2 and not paired):
                more = "or more " if paired else ""
                raise UserError(f"data.parallel[{i}].{name}: {given}; name two {more}of them, or none")
        if any(parallel.prefixes) and not paired:
            raise UserError(f"data.parallel[{i}].prefixes: {parallel.prefixes}; they go with data.packing pairs alone")
    if learn == "contrastive" and not paired:
        raise UserError(f"objective.learn: contrastive, but data.packing is {data.packing}; set it to pairs")
    if learn == "language_model" and paired:
        raise UserError(
            "data.packing: pairs, from which no language model is learned; set objective.learn contrastive or distillation"
        )
    if not paired:
        return
    if not data.parallel:
        raise UserError("data.packing: pairs, but data.parallel is empty; name at least one Parallel(languages, paths)")
    if data.sequence_length < 4 * sides_of_pairs(data):
        raise UserError(
            f"data.sequence_length: {data.sequence_length} has no room for the {sides_of_pairs(data)} texts of a pair; raise it"
        )
    if config.sampling.parallel_share not in (0, 1):
        raise UserError(
            f"sampling.parallel_share: {config.sampling.parallel_share}, but with data.packing pairs all blocks hold pairs; leave it out"
        )
    if config.model.causal:
        raise UserError("model.causal: a text's vector needs an encoder that looks both ways; set it to False")
    wide = [n for n in config.contrastive.matryoshka if not 0 < n < config.model.width]
    if wide and not config.init:
        raise UserError(
            f"contrastive.matryoshka: {wide[0]} is not within 1 to {config.model.width - 1}, below model.width; name fewer dimensions"
        )
    sizes = {phase.batch_size or config.train.batch_size for phase in config.train.phases}
    if config.contrastive.batches == "by_stream" and sizes - {config.train.batch_size}:
        raise UserError(
            "contrastive.batches: by_stream needs batches of one size; leave batch_size out of train.phases, or set it to mixed"
        )


def sides_of_pairs(data: Data) -> int:
    """How many texts a pair may have: two, and its hard negatives."""
    return max((2, *(len(names) for parallel in data.parallel for names in (parallel.columns, parallel.fields))))


def pairs_per_block(data: Data) -> int:
    """How many pairs a block may have."""
    return data.pairs_per_block or max(1, data.sequence_length // 32)


def validate_mesh(mesh: Mesh) -> None:
    """Refuse a mesh that no number of devices can make up.

    Raises:
      UserError: with its axes.
    """
    axes = (mesh.data, mesh.fsdp, mesh.tensor)
    if sum(a == -1 for a in axes) > 1 or not all(a == -1 or a >= 1 for a in axes):
        raise UserError(f"mesh: {axes} (data, fsdp, tensor) must be positive, and at most one of them -1")


def validate_hosts(hosts: Hosts) -> None:
    """Refuse a description of the processes that cannot work.

    Raises:
      UserError: naming the option, its value and what would be right.
    """
    host, _, port = hosts.coordinator.rpartition(":")
    if hosts.start != "given":
        if (hosts.coordinator, hosts.processes, hosts.process) != ("", 1, 0):
            raise UserError(
                f"hosts.start: {hosts.start}, but hosts.coordinator, processes or process is set; they go with given"
            )
    elif not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(
            f'hosts.coordinator: "{hosts.coordinator}" is not host:port of process 0, such as 10.0.0.1:8476'
        )
    elif not 0 <= hosts.process < hosts.processes:
        raise UserError(
            f"hosts.process: {hosts.process} is not one of {hosts.processes} processes, which are numbered from 0"
        )


def config_to_json(config: Any) -> str:
    """The resolved config, as stored in a workdir."""
    return json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False) + "\n"


def pretraining_config(stored: dict[str, Any], where: str) -> Config:
    """A workdir's stored config.

    Raises:
      UserError: another version of mlm_jax stored it.
    """
    try:
        return dataclasses.replace(as_type(Config, stored), workdir=where)
    except ValueError as e:
        raise UserError(
            f"{where}/config.json: not a config of this mlm_jax ({e}); use the version that wrote it"
        ) from e


def flat_options(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted option → value, from a config or from its stored JSON."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        tree = json.loads(json.dumps(dataclasses.asdict(tree)))
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flat_options(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
