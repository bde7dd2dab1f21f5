# SPDX-License-Identifier: Apache-2.0
"""Pretrain multilingual text encoders from raw text in JAX, and use them.

    import mlm_jax

    mlm_jax.pretrain("quickstart")
    encoder = mlm_jax.load("runs/quickstart")
    encoder.embed(["Habari", "Hello"])

What is listed in `__all__` is documented in docs/python.md and stays. JAX is loaded when something is used, not when this is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlm_jax.version import __version__

# Name → the module that defines it, imported at the first use. Those without one are packages that are functions too (`called`).
_FROM = {
    "TextEncoder": "mlm_jax.text_encoder",
    "Tokens": "mlm_jax.text_encoder",
    "UserError": "mlm_jax.errors",
    "adapt": "",
    "analyze": "mlm_jax.functions",
    "evaluate": "",
    "export": "mlm_jax.functions",
    "finetune": "",
    "load": "mlm_jax.text_encoder",
    "load_config": "mlm_jax.functions",
    "prepare": "",
    "pretrain": "mlm_jax.functions",
    "read_metrics": "mlm_jax.functions",
}

__all__ = [
    "TextEncoder",
    "Tokens",
    "UserError",
    "__version__",
    "adapt",
    "analyze",
    "evaluate",
    "export",
    "finetune",
    "load",
    "load_config",
    "prepare",
    "pretrain",
    "read_metrics",
]

if TYPE_CHECKING:
    from mlm_jax.errors import UserError as UserError
    from mlm_jax.functions import adapt as adapt
    from mlm_jax.functions import analyze as analyze
    from mlm_jax.functions import evaluate as evaluate
    from mlm_jax.functions import export as export
    from mlm_jax.functions import finetune as finetune
    from mlm_jax.functions import load_config as load_config
    from mlm_jax.functions import prepare as prepare
    from mlm_jax.functions import pretrain as pretrain
    from mlm_jax.functions import read_metrics as read_metrics
    from mlm_jax.text_encoder import TextEncoder as TextEncoder
    from mlm_jax.text_encoder import Tokens as Tokens
    from mlm_jax.text_encoder import load as load


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _FROM[name]:
        return importlib.import_module(f"{__name__}.{name}")
    return globals().setdefault(name, getattr(importlib.import_module(_FROM[name]), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
