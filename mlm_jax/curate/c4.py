# SPDX-License-Identifier: Apache-2.0
"""C4's rules (Raffel et al. 2020, section 2.2), which are for English; FineWeb-2 left them out because they hurt.

Lines go that do not end like a sentence, have fewer than 3 words or one of over 1,000 characters, or speak of JavaScript, cookies or terms of use. Documents go
that hold "lorem ipsum" or a curly bracket, or have fewer than 5 sentences left. The list of bad words is not here.
"""

from __future__ import annotations

import re

ENDINGS = (".", "?", "!", '"', "'")
LEAST_WORDS, LONGEST_WORD, LEAST_SENTENCES = 3, 1000, 5
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATIONS = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_SENTENCE = re.compile(r"[.?!]+[\"')\]]*(?=\s|$)")


def apply_c4(text: str) -> tuple[str, str]:
    """The lines that stay, or the reason why the document goes; one of the two is empty."""
    kept: list[str] = []
    for raw in text.splitlines():
        words = raw.split()
        line = _CITATIONS.sub("", raw.strip())
        if any(len(word) > LONGEST_WORD for word in words) or len(words) < LEAST_WORDS:
            continue
        if not line.endswith(ENDINGS) or line.endswith("..."):
            continue
        lower = line.lower()
        if "lorem ipsum" in lower:
            return "", "lorem_ipsum"
        if "javascript" in lower:
            continue
        if "{" in line:
            return "", "curly_bracket"
        if not any(phrase in lower for phrase in POLICIES):
            kept.append(line)
    if sum(max(1, len(_SENTENCE.findall(line))) for line in kept) < LEAST_SENTENCES:
        return "", "few_sentences"
    return "\n".join(kept), ""
