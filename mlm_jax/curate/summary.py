# SPDX-License-Identifier: Apache-2.0
"""What a run leaves beside the corpus: curate.json, and documents that went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from mlm_jax.curate.config import Curate
from mlm_jax.curate.counts import Counts, reasons_of
from mlm_jax.curate.parts import EXCERPT
from mlm_jax.errors import UserError
from mlm_jax.files import make_folder, write_json, write_whole


def summarize(
    inputs: int, damaged: Sequence[str], rules: Mapping[str, Any], steps: Mapping[str, Counts]
) -> dict[str, Any]:
    """What curate.json holds: after each step what passed it, and why others went.

    Args:
      inputs: files that were read.
      damaged: those that were cut off or damaged.
      rules: `rules.described`.
      steps: what each counted, in their order.
    """
    counted = {name: counts.to_json() for name, counts in steps.items()}
    samples: dict[str, dict[str, Any]] = {}
    for counts in counted.values():
        for language, found in counts["samples"].items():
            samples.setdefault(language, {}).update(found)
    return {
        "steps": [{"name": name, **{k: c[k] for k in ("passed", "gone", "noted")}} for name, c in counted.items()],
        "rules": rules,
        "inputs": inputs,
        "damaged": damaged,
        "samples": samples,
    }


def shards_of(passed: Mapping[str, Sequence[int]], shard_bytes: int) -> dict[str, int]:
    """Language → files of it.

    Args:
      passed: language → documents, bytes.
    """
    return {language: -(-size // shard_bytes) for language, (_, size) in passed.items()}


def check_left(config: Curate, summary: Mapping[str, Any]) -> None:
    """Raises UserError: no document passed every step."""
    if not summary["steps"][-1]["passed"]:
        raise UserError(f"{config.workdir}: no document is left; {most_went(summary)}; loosen what took them")


def most_went(summary: Mapping[str, Any]) -> str:
    """The reasons for which most documents went, in words."""
    reasons = reasons_of(summary["steps"])
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:4]
    return ", ".join(f"{number:,} went as {reason}" for reason, number in most) or "the input has none"


def finish(config: Curate, summary: dict[str, Any], first: Mapping[str, list[str]]) -> None:
    """Write dropped/, if it is asked for, and curate.json, which says that the corpus is there.

    Args:
      first: language → the beginnings of a few documents that are kept, for the page.
    """
    workdir = epath.Path(config.workdir)
    went = summary.pop("samples")
    if config.dropped:
        write_dropped(workdir, went)
    summary["samples"] = shown_samples(went, first)
    write_json(workdir / "curate.json", summary, 1)


def shown_samples(
    went: Mapping[str, Mapping[str, list[list[str]]]], kept: Mapping[str, list[str]]
) -> dict[str, list[tuple[str, str]]]:
    """Language → (kept, or why it went; the beginning of the text), for the page."""
    found = {language: [("kept", text) for text in texts] for language, texts in sorted(kept.items())}
    for language in sorted(went):
        for reason, samples in went[language].items():
            texts = [text for _, _, text in samples if text]
            found.setdefault(language, []).extend((reason, text[:EXCERPT]) for text in texts[:1])
    return {language: samples for language, samples in found.items() if samples}


def write_dropped(workdir: epath.Path, samples: Mapping[str, Mapping[str, list[list[str]]]]) -> None:
    """Write dropped/LANGUAGE.REASON.jsonl, documents that went, for a person to look at."""
    for language, reasons in samples.items():
        for reason, found in reasons.items():
            lines = [json.dumps({"url": url, "text": text}, ensure_ascii=False) for _, url, text in found]
            make_folder(workdir / "dropped")
            name = f"{language or 'unidentified'}.{reason.replace(' ', '_').replace('/', '_')}.jsonl"
            write_whole(workdir / "dropped" / name, "\n".join(lines) + "\n")
