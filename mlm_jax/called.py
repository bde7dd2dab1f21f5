# SPDX-License-Identifier: Apache-2.0
"""Packages that are functions too: `mlm_jax.finetune(config)` beside `mlm_jax.finetune.config`."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

FUNCTIONS = "mlm_jax.functions"  # a name, so that who is called so imports nothing of what the function stands on


class Called(types.ModuleType):
    """A package that is called as the function of its own name."""

    @property
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module(FUNCTIONS), self.__name__.rpartition(".")[2])
        return function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)


def make_callable(package: str) -> None:
    """Let a package that is being imported be called."""
    sys.modules[package].__class__ = Called
