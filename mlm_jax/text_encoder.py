# SPDX-License-Identifier: Apache-2.0
"""An encoder as Python programs and notebooks use it: `mlm_jax.load(FOLDER)`."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console, start
from mlm_jax.cuda_plugin import import_jax
from mlm_jax.encode.given import as_list, as_text, as_texts
from mlm_jax.errors import UserError
from mlm_jax.tokenizers import Tokenizer, load_tokenizer
from mlm_jax.vocabulary import NAMES, Vocabulary

if TYPE_CHECKING:
    import jax

    from mlm_jax.encode.sentences import Embed
    from mlm_jax.finetune.predict import Predictor
    from mlm_jax.model.encoder import Encoder
    from mlm_jax.model.task_head import Pooling
    from mlm_jax.pretrained import Params, Pretrained, SentenceVectors

SPACES = ("\u2581", "\u0120")  # marks of a space before a piece: SentencePiece's, and the byte-level alphabet's
LEAST = 3  # tokens that are read of a text: one between the specials


def load(path: str | os.PathLike[str], step: str | int = "best", model: str = "", max_length: int = 0) -> TextEncoder:
    """Load an encoder, onto all devices that are here.

    Args:
      path: a workdir (of pretrain, import, adapt or finetune), or a folder of Hugging Face's or sentence-transformers.
      step: of a run's checkpoints: "best" by macro validation loss, "last", or its number.
      model: of a workdir of `finetune` that has several.
      max_length: tokens that are read of a text, specials included; 0: as many as it was trained on.

    Raises:
      UserError: there is no encoder there.
    """
    import_jax()
    from mlm_jax.encode.read import read_pretrained
    from mlm_jax.interchange.workdir import read_foreign
    from mlm_jax.mesh import make_mesh
    from mlm_jax.pretrained import place

    given = os.fspath(path)
    folder = epath.Path(given)
    if not folder.is_dir():
        raise UserError(
            f"{given}: no such folder; name a run's workdir, or a Hugging Face or sentence-transformers folder"
        )
    mesh = make_mesh(cfg.ALL_DEVICES)
    if start.is_foreign(given):
        # Its parameters go straight to the devices: of a large one a workdir would take gigabytes on the way.
        with tempfile.TemporaryDirectory() as words:
            found = place(read_foreign(given, epath.Path(words)), mesh)
            tokenizer = load_tokenizer(words)
    else:
        found = read_pretrained(given, str(step), mesh, model)
        of_model = (folder / "model.json").exists()  # WORKDIR/models/NAME
        tokenizer = load_tokenizer((folder.parent.parent if of_model else folder) / "vocabulary")
    return TextEncoder(given, found, tokenizer, mesh, model, max_length)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a text, each with its vector.

    Attributes:
      text: as it was given; of one that is longer than the encoder reads, its first tokens are here.
      pieces: of the vocabulary, the specials at begin and end included.
      offsets: begin and end of each in characters of the text, int32 [tokens, 2]; specials are empty, at its begin and end.
      vectors: float32 [tokens, width].
    """

    text: str
    pieces: tuple[str, ...]
    offsets: np.ndarray
    vectors: np.ndarray

    def __repr__(self) -> str:
        return f"Tokens({len(self.pieces)} of {self.text[:40]!r}, vectors {list(self.vectors.shape)})"


class TextEncoder:
    """An encoder with its weights and its vocabulary, on the devices that are here; `load` makes one.

    What a method returns for a text does not depend on the texts beside it, but for rounding.

    Attributes:
      path: of the folder that it was loaded from.
      pretrained: model, parameters, vocabulary, languages and source (`pretrained.Pretrained`).
      tokenizer: text → token ids and back (`tokenizers.Tokenizer`).
      max_length: tokens that are read of a text, specials included; a warning says where a text is cut.
    """

    def __init__(
        self,
        path: str,
        pretrained: Pretrained,
        tokenizer: Tokenizer,
        mesh: jax.sharding.Mesh,
        model: str = "",
        max_length: int = 0,
    ):
        from mlm_jax.encode.run import refuse_longer

        positions = pretrained.model.positions
        self.path, self.pretrained, self.tokenizer = path, pretrained, tokenizer
        self.max_length = max_length or min(pretrained.trained or positions, positions)
        refuse_longer(self.max_length, pretrained)
        if self.max_length < LEAST:
            raise UserError(f"max_length: {self.max_length} leaves no place between the specials; use at least {LEAST}")
        self._mesh, self._model = mesh, model
        self._embedders: dict[tuple[Any, ...], Embed] = {}

    def __repr__(self) -> str:
        found = self.pretrained
        count = sum(leaf.size for leaf in _leaves(found.params))
        step = f", step {found.step:,}" if found.step else ""
        head = "no head"
        if found.head is not None:
            head = f"fine-tuned to {found.head.task['kind']}"
        elif self.has_head:
            head = "with a head that fills masks"
        return (
            f"TextEncoder({self.path!r}: {found.model.layers} layers of width {found.model.width}, {found.vocabulary.size:,} pieces, "
            f"{count:,} parameters, reads {self.max_length:,} tokens, {head}{step})"
        )

    @property
    def params(self) -> Params:
        """Nested dicts of float32 arrays on the devices: embedding, layers, and head and pooler where the encoder has them."""
        return self.pretrained.params

    @property
    def vocabulary(self) -> Vocabulary:
        """Its size and the ids of its specials."""
        return self.pretrained.vocabulary

    @property
    def languages(self) -> tuple[str, ...]:
        """Those it was trained on, in the order of language ids; empty where that is not known."""
        return self.pretrained.languages

    @property
    def has_head(self) -> bool:
        """Whether it has an output layer over the vocabulary, with which `fill_mask` works."""
        return "head" in self.pretrained.params

    @functools.cached_property
    def model(self) -> Encoder:
        """The Flax module of the layers, without a head: `model.apply({"params": params}, batch)`; `apply` is short for it."""
        return self.pretrained.encoder(layers=self.pretrained.model.layers)

    def apply(self, params: Params, batch: dict[str, Any]) -> jax.Array:
        """The last layer's output as a pure function, to be differentiated or put into a program of one's own.

        Args:
          params: as `params`.
          batch: as `batch` makes it, int32 [rows, length] each.

        Returns:
          [rows, length, width], of the dtype of activations.
        """
        from mlm_jax.model.encoder import apply_encoder

        arrays: Any = batch
        return apply_encoder(self.model, {name: params[name] for name in ("embedding", "layers")}, arrays)

    def batch(self, texts: Sequence[str], language: str = "") -> dict[str, np.ndarray]:
        """Texts as `apply` reads them, a row each.

        Returns:
          tokens, segment_ids (1; 0 is padding), positions, token_types, language_ids: int32 [texts, length].

        Raises:
          UserError: a text is no text or empty, or the encoder has no embedding for the language.
        """
        from mlm_jax.encode.rows import Shape, round_up, to_arrays
        from mlm_jax.encode.run import frame

        ids = [frame(pieces, self.vocabulary, self.max_length) for pieces in self.tokenizer.encode(self._given(texts))]
        items = self._items(ids, language)
        shape = Shape(len(ids), round_up(max(items.lengths, default=1)), 1)
        made = to_arrays(
            items, [[i] for i in range(len(ids))], shape, self.vocabulary.pad, self.pretrained.model.token_types
        )
        return {name: value for name, value in made.items() if name not in ("starts", "valid")}

    def embed(
        self,
        texts: Sequence[str],
        layer: int | None = None,
        pooling: Pooling | None = None,
        normalise: bool | None = None,
        prompt: str = "",
        language: str = "",
        dimensions: int | None = None,
    ) -> np.ndarray:
        """A vector of each text. What is left out is as the encoder was trained to make vectors (a folder of sentence-transformers says
        it), else the mean of the last layer's tokens, of length 1.

        Args:
          layer: whose output is pooled, counted from 1; 0: the last.
          pooling: of the tokens, specials included: "mean", "first" or "max".
          normalise: to length 1.
          prompt: one of the encoder's by name ("query"), or a text to put before each ("query: ").
          language: of the texts, which encoders with language embeddings (XLM's) need.
          dimensions: the first so many are kept; 0: all.

        Returns:
          float32 [texts, dimensions].

        Raises:
          UserError: a text is no text or empty; no such layer, pooling, prompt or language.
        """
        from mlm_jax.encode.sentences import make_embedder, prompt_of
        from mlm_jax.pretrained import SentenceVectors

        base = self.pretrained.vectors or SentenceVectors()
        if pooling not in (None, "mean", "first", "max"):
            raise UserError(f"pooling: {pooling}; use mean, first or max")
        given: dict[str, Any] = {"layer": layer, "pooling": pooling, "normalise": normalise, "dimensions": dimensions}
        vectors: SentenceVectors = dataclasses.replace(base, **{k: v for k, v in given.items() if v is not None})
        before = prompt_of(vectors, prompt)
        key = (vectors.layer, vectors.pooling, vectors.normalise, vectors.dimensions)
        if key not in self._embedders:
            made = make_embedder(self.pretrained, self.tokenizer, self._mesh, vectors, self.max_length)
            self._embedders[key] = made
        return self._embedders[key](self._given(texts, before), language, before)

    def hidden_states(self, texts: Sequence[str], layer: int = 0, language: str = "") -> list[Tokens]:
        """The tokens of each text, and the vectors that a layer makes of them.

        Args:
          layer: counted from 1; 0: the last.
          language: as in `embed`.

        Raises:
          UserError: as in `embed`.
        """
        from mlm_jax.encode.run import frame

        words, texts = self.vocabulary, self._given(texts)
        encoded = self.tokenizer.encode_offsets(list(texts))
        ids = [frame(pieces, words, self.max_length) for pieces, _ in encoded]
        found: list[np.ndarray] = [np.zeros(0)] * len(ids)
        params, run = self._runner(layer)
        for batch, hidden in run(self._items(ids, language), params):
            for at, [item] in enumerate(batch):
                found[item] = hidden[at, : len(ids[item])]
        made = []
        for text, row, (_, offsets), vectors in zip(texts, ids, encoded, found, strict=True):
            places = [(0, 0), *offsets[: len(row) - 2], (len(text), len(text))]
            pieces = tuple(self.piece(number) for number in row.tolist())
            made.append(Tokens(text, pieces, np.asarray(places, np.int32).reshape(-1, 2), vectors))
        return made

    def fill_mask(self, text: str, best: int = 5, language: str = "") -> list[dict[str, Any]]:
        """What may stand where a text has a mask (`<mask>`, or `[MASK]`).

        Args:
          text: with one mask or several, each of which stands for one piece. A space before one is no part of the text.
          best: rows of each.
          language: as in `embed`.

        Returns:
          Rows, the likeliest of each mask first: mask (its number, from 0), piece, id, probability (of all pieces), and text, with that mask
          filled.

        Raises:
          UserError: the text has no mask or is too long, or the encoder has no output layer or is causal.
        """
        given, words = self.pretrained, self.vocabulary
        if not self.has_head:
            tuned = " (it was fine-tuned)" if given.head is not None else ""
            raise UserError(
                f"{self.path}: has no output layer over the vocabulary{tuned}; load one that was pretrained"
            )
        if given.model.causal:
            raise UserError(f"{self.path}: a causal model, which sees nothing behind a mask; load one of a masked LM")
        if not 1 <= best <= words.size:
            raise UserError(f"best: {best}, the vocabulary has {words.size:,} pieces; use 1 to that")
        as_text(text, "text")
        found = list(self._masks.finditer(text))
        if not found:
            raise UserError(f"text: no {self.mask} in {text[:60]!r}; put one where a piece is wanted")
        edges = [0, *(at for match in found for at in match.span()), len(text)]
        parts = [text[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)]
        # As published tokenizers do, which take the space before a mask for a part of it.
        pieces = self.tokenizer.encode([*(part.rstrip() for part in parts[:-1]), parts[-1]])
        ids = [words.bos]
        for number, part in enumerate(pieces):
            ids += [words.mask] * (number > 0) + part
        ids.append(words.eos)
        if len(ids) > self.max_length:
            raise UserError(f"text: {len(ids):,} tokens, the encoder reads {self.max_length:,}; shorten it")
        params, run = self._fillers(len(found), best)
        [(_, (chances, numbers))] = run(self._items([np.asarray(ids, np.int32)], language), params)
        return [
            {
                "mask": number,
                "piece": self.piece(piece),
                "id": piece,
                "probability": chance,
                "text": self._filled(text[: match.start()], piece, text[match.end() :]),
            }
            for number, match in enumerate(found)
            for chance, piece in zip(chances[0, number].tolist(), numbers[0, number].tolist(), strict=True)
        ]

    def predict(
        self, texts: Sequence[Any], second: Sequence[str] | None = None, language: str = ""
    ) -> list[dict[str, Any]]:
        """What a fine-tuned encoder says of each text: the rows that `mlm-jax predict` writes.

        Args:
          texts: texts; of a tagger also lists of words; of an answer finder, questions.
          second: the other text of each pair, or each question's paragraph.
          language: as in `embed`.

        Returns:
          Rows with key (the text's number), text, predicted, probability, ...; of tagged words, words, offsets and entities.

        Raises:
          UserError: the encoder is not fine-tuned, or does not read such texts.
        """
        from mlm_jax.finetune.examples import Example
        from mlm_jax.finetune.output import record

        found = self._predictor.texts(texts, second, language)
        examples = [Example(f"texts[{i}]", text, None, None, str(i)) for i, text in enumerate(as_list(texts))]
        return [record(e, p) for e, p in zip(examples, found, strict=True)]

    @property
    def mask(self) -> str:
        """What a mask is called in this encoder's vocabulary; `fill_mask` takes `<mask>` and `[MASK]` too."""
        own = self.piece(self.vocabulary.mask)
        return own if own else NAMES["mask"][1]

    def piece(self, number: int) -> str:
        """The piece of an id; empty of an id that has none."""
        names = {getattr(self.vocabulary, role): called[-1] for role, called in NAMES.items()}
        own = self.tokenizer.pieces[number] if number < len(self.tokenizer.pieces) else ""
        return own or names.get(number, "")

    @functools.cached_property
    def _masks(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(name) for name in {self.mask, *NAMES["mask"]}))

    @functools.cached_property
    def _predictor(self) -> Predictor:
        from mlm_jax.finetune.predict import Predictor

        if self.pretrained.head is None:
            raise UserError(f"{self.path}: not fine-tuned; run: mlm-jax finetune CONFIG --init {self.path}")
        with start.finetuned_workdir(self.path) as workdir:
            return Predictor.load(workdir, self._model)

    def _given(self, texts: Sequence[str], before: str = "") -> list[str]:
        """Checked texts, with a warning where some are cut."""
        texts = as_texts(texts)
        # A token is a byte or more, so that few have to be cut into tokens for this.
        long = [before + text for text in texts if len((before + text).encode()) > self.max_length - LEAST]
        cut = sum(len(pieces) > self.max_length - 2 for pieces in self.tokenizer.encode(long)) if long else 0
        if cut:
            console.warn(f"texts: {cut:,} of {len(texts):,} cut to {self.max_length} tokens, which the encoder reads")
        return texts

    def _items(self, ids: list[np.ndarray], language: str) -> Any:
        from mlm_jax.encode.run import items_of

        return items_of(ids, language, self.languages, self.pretrained.model.language_embedding)

    @functools.cached_property
    def _runner(self) -> Callable[[int], tuple[Params, Any]]:
        """Layer → the parameters up to it, and what runs them: tokens → float32 [rows, length, width]."""
        import jax
        import jax.numpy as jnp

        from mlm_jax.encode.run import make_run
        from mlm_jax.model.encoder import apply_encoder

        model, layers = self.pretrained.model, self.pretrained.model.layers

        @functools.cache
        def of_layer(layer: int) -> tuple[Params, Any]:
            if not 0 <= layer <= layers:
                raise UserError(f"layer: {layer}, the encoder has {layers}")
            wanted = layer or layers
            encoder = self.pretrained.encoder(layers=wanted)
            params = {name: self.params[name] for name in ("embedding", "layers")}
            if wanted < layers:
                params["layers"] = jax.tree.map(lambda leaf: leaf[:wanted], params["layers"])

            def hidden(params: Params, batch: Any) -> jax.Array:
                return apply_encoder(encoder, params, batch).astype(jnp.float32)

            return params, make_run(hidden, self._mesh, self.vocabulary.pad, model.token_types)

        return of_layer

    @functools.cached_property
    def _fillers(self) -> Callable[[int, int], tuple[Params, Any]]:
        """(masks, best) → the parameters, and what runs them: tokens → probabilities float32 and ids int32 [rows, masks, best]."""
        import jax
        import jax.numpy as jnp

        from mlm_jax.encode.run import make_run
        from mlm_jax.model.products import product

        encoder, words = self.pretrained.encoder(), self.vocabulary

        @functools.cache
        def of_masks(masks: int, best: int) -> tuple[Params, Any]:
            def places(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
                found = np.zeros((len(arrays["tokens"]), masks), np.int32)
                found[0] = np.flatnonzero(
                    arrays["tokens"][0] == words.mask
                )  # the other rows are padding, to divide over devices
                return {"masked_positions": found}

            def filled(params: Params, batch: Any) -> Any:
                found: Any = encoder.apply({"params": params}, batch, batch["masked_positions"], method="features")
                scores = product("bme,re->bmr", found.vectors, found.matrix[0], encoder.dtype, jnp.dtype(jnp.float32))
                scores = (scores + found.bias[None, None])[:, :, : words.size]  # [rows, masks, pieces]
                return jax.lax.top_k(jax.nn.softmax(scores), best)

            return self.params, make_run(filled, self._mesh, words.pad, self.pretrained.model.token_types, more=places)

        return of_masks

    def _filled(self, before: str, number: int, after: str) -> str:
        """A text with a piece in place of a mask, a space before it where the piece has one."""
        piece, starts_word = self.piece(number), self.tokenizer.starts_word
        surface = (
            self.tokenizer.decode([number]).strip().removeprefix("##") if number < len(self.tokenizer.pieces) else piece
        )
        if piece.startswith(SPACES):
            before = before if not before or before[-1].isspace() else f"{before} "
        elif starts_word is not None and not starts_word(piece):
            before = before.rstrip()
        elif starts_word is not None and before[-1:].isalnum() and unicodedata.east_asian_width(before[-1]) not in "WF":
            before = f"{before} "  # WordPiece marks the pieces that go on a word
        return f"{before}{surface or piece}{after}"


def _leaves(params: Params) -> list[Any]:
    import jax

    return jax.tree.leaves(params)
