# SPDX-License-Identifier: Apache-2.0
"""What curating is worth: the same tiny encoder, of the same vocabulary and updates, trained on a crawl as it comes and on what `curate` left of it.

    python benchmarks/curation.py make DATA WORKDIR                        # the crawl, and clean text held out
    python benchmarks/curation.py train WORKDIR ARM SEED                   # of ARMS
    python benchmarks/curation.py table WORKDIR

DATA is ../shared/data: the LibreOffice help as its packages give it (a paragraph without a translation is in English there), each page in a site's
markup, with the menu and the footer of that site, at one to six addresses, a third of the copies with other words at their ends; and the pages of
`web`, which have spam, pages of menus, errors and pages in legacy encodings beside. A twentieth of the help's pages is held out, in every language: of them
the paragraphs that are translated and stand nowhere else are the clean text. The crawl's text is a page's whole text, as in WET files, its
language what the address says. Languages are drawn evenly, so that only the text differs; the vocabulary is made of the crawl's.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import html
import json
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import zstandard

from mlm_jax.config import Config, Data, Model, Objective, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.curate.archives import Raw, read_archive
from mlm_jax.curate.config import Curate, Duplicates, Filters
from mlm_jax.curate.encodings import decode
from mlm_jax.curate.run import run as curate

# Codes of corpora → the help's, and those of addresses.
LANGUAGES = {"de": "de", "en": "en", "fi": "fi", "hi": "hi", "km": "km", "ru": "ru", "vi": "vi", "zh": "zh_CN"}
ADDRESSES = {"en": "en-us", "zh": "zh-cn"}
PAGES = 700  # of the help in a language
HELD_OUT = 20  # one of so many pages
MENU = 40  # links on every page
STEPS = 1_000
ADVERTISEMENT = (
    "Visit our partners for downloads, templates and support. Subscribe to the newsletter and save up to 40 %."
)
ARMS = {
    "raw": None,
    "identified": Curate(duplicates=Duplicates(False, False), filters=Filters(False, False, False)),
    "deduplicated": Curate(filters=Filters(False, False, False)),
    "curated": Curate(),
}


def help_pages(data: Path) -> dict[str, dict[str, list[tuple[str, bool]]]]:
    """Language → page → its paragraphs, in the order of English, and whether each is in the language."""
    texts: dict[str, dict[str, str]] = {}
    for language, code in LANGUAGES.items():
        with gzip.open(data / "libreoffice_help" / f"{code}.tsv.gz", "rt") as file:
            texts[language] = dict(line.rstrip("\n").split("\t", 1) for line in file)
    pages: dict[str, dict[str, list[tuple[str, bool]]]] = {}
    for language, own in texts.items():
        made = pages.setdefault(language, {})
        for key, english in texts["en"].items():
            made.setdefault(key.partition("#")[0], []).append((own.get(key, english), key in own))
    return pages


def is_held_out(page: str) -> bool:
    return int.from_bytes(blake2b(page.encode(), digest_size=8).digest()) % HELD_OUT == 0


def records(data: Path) -> Iterator[Raw]:
    for path in sorted((data / "web").glob("*[0-9].warc.gz")):
        yield from (one for one in read_archive(str(path)) if isinstance(one, Raw))


def site(data: Path) -> dict[str, tuple[str, str]]:
    """Address's language → what stands before and after the body of the site's pages."""
    found: dict[str, tuple[str, str]] = {}
    for record in records(data):
        page = record.data.decode("utf-8", "replace")
        if record.url.startswith("https://docs.") and (begin := re.search(r'<div id="DisplayArea"[^>]*>', page)):
            end = page.find('<div id="SearchFrame">', begin.end())
            if end > 0:
                found.setdefault(record.url.split("/")[3], (page[: begin.end()], page[end:]))
    return found


def crawl(data: Path) -> Iterator[tuple[str, str, str]]:
    """Language by the address, address, page."""
    pages, sites, chosen = help_pages(data), site(data), random.Random(0)
    for language, own in pages.items():
        code = ADDRESSES.get(language, language)
        before, after = sites[code]
        names = [name for name in sorted(own) if not is_held_out(name)]
        menu = [own[name][0][0] for name in chosen.sample(names, MENU)]
        for name in chosen.sample(names, min(PAGES, len(names))):
            address = f"https://docs.example.org/{code}/help/{name}.html"
            for copy in range(chosen.choice((1, 1, 1, 2, 3, 6))):
                changed = [ADVERTISEMENT] if copy % 3 == 1 else []
                lines = [text for text, _ in own[name]]
                body = "".join(f"<p>{html.escape(line)}</p>\n" for line in changed + lines)
                links = "".join(f'<li><a href="{i}">{html.escape(line)}</a></li>\n' for i, line in enumerate(menu))
                page = f"{before}{body}</div><div class=sidebar><ul>{links}</ul></div>{after}"
                yield language, address.replace("docs", f"mirror{copy}") if copy else address, page
    known = {row["url"]: row for row in csv.DictReader((data / "web" / "truth.tsv").open(), delimiter="\t")}
    codes = {ADDRESSES.get(language, language): language for language in LANGUAGES}
    for record in records(data):
        language = codes.get(known[record.url]["language"], "")
        name = record.url.split("/", 4)[-1].removesuffix(".html").removeprefix("cut/")
        if language and not is_held_out(name):
            yield language, record.url, decode(record.data, record.charset)


def whole_text(page: str) -> str:
    """All text of a page, as WET files have it."""
    from resiliparse.extract.html2text import extract_plain_text

    lines = extract_plain_text(page, main_content=False, alt_texts=False, list_bullets=False).splitlines()
    return "\n".join(line.strip() for line in lines if line.strip())


def make(data: Path, workdir: Path) -> None:
    """Write crawl/*.warc, what is read of it by each arm, and clean/LANGUAGE.jsonl."""
    (workdir / "crawl").mkdir(parents=True)
    (workdir / "raw").mkdir()
    (workdir / "clean").mkdir()
    raw: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    with open(workdir / "crawl" / "crawl.warc", "wb") as archive:
        for language, address, page in crawl(data):
            body = page.encode("utf-8", "replace")
            archive.write(
                f"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: {address}\r\nContent-Type: text/html; charset=utf-8\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
                + b"\r\n\r\n"
            )
            raw[language].append(json.dumps({"text": whole_text(page)}, ensure_ascii=False) + "\n")
    for language, lines in raw.items():
        (workdir / "raw" / f"{language}.jsonl").write_text("".join(lines))
    for language, own in help_pages(data).items():
        elsewhere = {text for name, lines in own.items() if not is_held_out(name) for text, _ in lines}
        kept = []
        for name in filter(is_held_out, sorted(own)):
            lines = [text for text, is_own in own[name] if is_own and text not in elsewhere]
            if sum(map(len, lines)) >= 200:
                kept.append(json.dumps({"text": "\n".join(lines)}, ensure_ascii=False) + "\n")
        (workdir / "clean" / f"{language}.jsonl").write_text("".join(kept))
    for arm, config in ARMS.items():
        if config is not None:
            made = dataclasses.replace(config, inputs=(str(workdir / "crawl" / "*.warc"),), workdir=str(workdir / arm))
            curate(dataclasses.replace(made, workers=1))
        print(arm, {language: f"{size / 1e6:.2f} MB" for language, size in sizes(workdir, arm).items()}, flush=True)


def text_of(workdir: Path, arm: str, language: str) -> str:
    return str(workdir / (f"raw/{language}.jsonl" if arm == "raw" else f"{arm}/corpus/{language}/*.jsonl.zst"))


def sizes(workdir: Path, arm: str) -> dict[str, int]:
    """Language → bytes of text, about."""
    found = {}
    for language in LANGUAGES:
        path = Path(text_of(workdir, arm, language))
        found[language] = 0
        for file in sorted(path.parent.glob(path.name)):
            with open(file, "rb") as packed:
                stream = packed if file.suffix == ".jsonl" else zstandard.ZstdDecompressor().stream_reader(packed)
                found[language] += sum(len(json.loads(line)["text"].encode()) for line in stream.read().splitlines())
    return found


def config_of(workdir: Path, arm: str, seed: int) -> Config:
    """The run of an arm; the first makes the vocabulary, of the crawl."""
    sources = tuple(
        Source(code, text_of(workdir, arm, code), field="text", validation=str(workdir / f"clean/{code}.jsonl"))
        for code in LANGUAGES
    )
    made = workdir / "run.raw.0" / "vocabulary"
    path = "" if (arm, seed) == ("raw", 0) else str(next(made.glob("*.model")))
    return Config(
        data=Data(sources=sources, sequence_length=64, workers=1),
        vocabulary=Vocabulary(path=path, size=8_000, sample_bytes=8_000_000),
        sampling=Sampling(exponent=0.0),
        model=Model(layers=2, width=128, heads=4, mlp_width=512, positions=64, dropout=0.0, attention_dropout=0.0),
        objective=Objective(mask_rate=0.25),
        optimizer=Optimizer(learning_rate=1.5e-3, warmup_steps=100, weight_decay=0.0),
        train=Train(
            steps=STEPS, batch_size=16, log_every=100, validate_every=STEPS, save_every=STEPS, validation_blocks=256
        ),
        workdir=str(workdir / f"run.{arm}.{seed}"),
        seed=seed,
    )


def train(workdir: Path, arm: str, seed: int) -> None:
    """One run: `pretrain`, which prepares the text."""
    file = workdir / f"{arm}_{seed}.py"
    config = config_of(workdir, arm, seed)
    file.write_text(f"from mlm_jax.config import *\n\n\ndef get_config():\n    return {config!r}\n")
    subprocess.run([sys.executable, "-m", "mlm_jax", "pretrain", str(file)], check=True, stdout=sys.stderr)


def table(workdir: Path) -> None:
    """Bits per byte of clean text, per language: means over seeds, and the spread of the mean over languages."""
    found: dict[str, list[dict[str, float]]] = {}
    for run in sorted(path.parent for path in workdir.glob("run.*/metrics.jsonl")):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        scored = [row for row in rows if row["kind"] == "validation" and row["step"] == STEPS]
        if not scored:
            continue  # it trains still
        last = scored[-1]["languages"]
        found.setdefault(run.name.split(".")[1], []).append({code: last[code]["bits_per_byte"] for code in LANGUAGES})
    arms = [arm for arm in ARMS if arm in found]
    print(
        "| language | "
        + " | ".join(f"{arm} ({len(found[arm])} seeds)" for arm in arms)
        + " |\n"
        + "| --- " * (len(arms) + 1)
        + "|"
    )
    for code in LANGUAGES:
        print(
            f"| {code} | "
            + " | ".join(f"{statistics.mean(run[code] for run in found[arm]):.3f}" for arm in arms)
            + " |"
        )
    means = {arm: [statistics.mean(run.values()) for run in found[arm]] for arm in arms}
    print(
        "| mean | " + " | ".join(f"{statistics.mean(m):.3f} ({min(m):.3f}-{max(m):.3f})" for m in means.values()) + " |"
    )


def main() -> None:
    command, *given = sys.argv[1:]
    if command == "make":
        make(Path(given[0]), Path(given[1]))
    elif command == "train":
        train(Path(given[0]), given[1], int(given[2]))
    else:
        table(Path(given[0]))


if __name__ == "__main__":
    main()
