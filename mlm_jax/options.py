# SPDX-License-Identifier: Apache-2.0
"""The command line → a config: a file's own, with dotted options in place of its values."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import re
import typing
import warnings
from collections.abc import Callable, Iterator

import tyro

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.evaluate import config as evaluate_options
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.fields import options as options_of
from mlm_jax.finetune import config as finetune_options
from mlm_jax.finetune.config import Finetune
from mlm_jax.neutrality import config as analyze_options
from mlm_jax.neutrality.config import Analyze
from mlm_jax.plan.config import Plan


def parse(command: str, arguments: list[str]) -> tuple[typing.Any, list[str]]:
    """The config file's config with the command line's options, validated.

    Raises:
      UserError: no such file, an unknown option (the nearest is named), a value of the wrong type.
    """
    path, *options = arguments
    if path.startswith("-"):
        raise UserError(f"{path}: name the config file before any option")
    kinds: dict[str, tuple[type, ...]] = {"finetune": (Finetune,), "evaluate": (Evaluate,), "analyze": (Analyze,)}
    kinds["report"] = (cfg.Config, Finetune, Evaluate, Analyze)
    base = cfg.load(path, kinds.get(command, (cfg.Config,)))
    base = Plan(**vars(base)) if command == "plan" else base
    kind = type(base)
    known = set(option_names(kind))
    for option in options:
        name = option.split("=")[0].replace("-", "_").lstrip("_")
        if not option.startswith("--") or option == "--help" or name in known:
            continue
        on = re.sub(r"(^|\.)no_", r"\1", name)
        if on not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            raise UserError(f"{option}: no such option; " + (f"did you mean --{near[0]}?" if near else "see --help"))
    options = list(_as_flags(options))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), warnings.catch_warnings():
            # Of a value in the file that is not of its option's type.
            warnings.simplefilter("error", UserWarning)
            config = tyro.cli(kind, prog=f"mlm-jax {command} {path}", args=options, default=base, use_underscores=True)
    except UserWarning as e:
        raise UserError(f"{path}: {str(e).split('. ')[0]}; mend the config file") from e
    except SystemExit as e:
        if e.code:
            raise UserError(f"{' '.join(options)}: {_first_sentence(said.getvalue())}; see --help") from None
        raise
    validators: dict[type, Callable[[typing.Any], None]] = {
        cfg.Config: cfg.validate,
        Plan: cfg.validate,
        Finetune: finetune_options.validate,
        Evaluate: evaluate_options.validate,
        Analyze: analyze_options.validate,
    }
    validators[kind](config)
    return config, arguments


def _as_flags(options: list[str]) -> Iterator[str]:
    """`--a.b True` and `--a.b False` as tyro has them: `--a.b` and `--a.no_b`."""
    for option, following in itertools.zip_longest(options, options[1:], fillvalue=""):
        section, dot, name = option.rpartition(".")
        if following.lower() == "false" and dot and option.startswith("--"):
            yield f"{section}.no_{name}"
        elif option.lower() not in ("true", "false"):
            yield option


def option_names(kind: type) -> list[str]:
    """The dotted names of a config's options on the command line: those with tyro's `Suppress` are for config files only."""
    return [option.name for option in options_of(kind()) if tyro.conf.Suppress not in option.notes]


def _first_sentence(box: str) -> str:
    """The message of tyro's error box, on one line."""
    # Title, rule, message, rule, help; the rules are of "─" or "-", as the terminal's encoding allows.
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    message: list[str] = []
    for line in lines:
        if set(line) <= {"─", "-"}:
            if message:
                break
        else:
            message.append(line)
    return " ".join(message) or "cannot be read"


def take_options(arguments: list[str], options: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Options and their values, wherever they stand among the arguments, and the other arguments.

    Raises:
      UserError: an unknown option, or one without a value.
    """
    found, rest, waiting = dict(options), [], iter(arguments)
    for argument in waiting:
        if not argument.startswith("--"):
            rest.append(argument)
            continue
        name, _, value = argument.partition("=")
        if name not in options:
            near = difflib.get_close_matches(name, options, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(options)}"
            raise UserError(f"{argument}: no such option; {hint}")
        value = value or next(waiting, "")
        if not value:
            raise UserError(f"{name}: needs a value")
        found[name] = value
    return found, rest
