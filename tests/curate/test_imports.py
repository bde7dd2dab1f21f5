# SPDX-License-Identifier: Apache-2.0
"""Reading, filtering and deduplicating need neither JAX nor TensorFlow."""

import subprocess
import sys

MODULES = [
    "archives",
    "c4",
    "clean",
    "contamination",
    "encodings",
    "filters",
    "groups",
    "identify",
    "main_text",
    "minhash",
    "near_duplicates",
    "paragraphs",
    "parts",
    "perplexity",
    "spill",
    "summary",
    "thresholds",
    "words",
]


def test_without_jax_and_tensorflow():
    lines = [f"import mlm_jax.curate.{name}" for name in MODULES]
    lines += ["import sys", "print(sorted({'jax', 'flax', 'tensorflow', 'seqio', 'torch'} & set(sys.modules)))"]
    out = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
