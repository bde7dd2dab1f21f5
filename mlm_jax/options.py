# SPDX-License-Identifier: Apache-2.0
"""The command line → a config: a file's own, with dotted options in place of its values."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from mlm_jax import config as cfg
from mlm_jax.commands import WITH_CONFIG, Command, find_command
from mlm_jax.console import go_on_without_output
from mlm_jax.errors import UserError
from mlm_jax.fields import options as options_of
from mlm_jax.shipped import config_path
from mlm_jax.start import with_positions


def parse(name: str, arguments: list[str]) -> Any:
    """What a command is to run with: its config, validated, or a dict of its arguments and options.

    Raises:
      UserError: no such file, an unknown option (the nearest is named), a value of the wrong type or outside its bounds.
    """
    command = find_command(name)
    if command.config is None:
        return read_arguments(command, arguments)
    if not set(arguments) - set(command.flags):
        raise UserError(
            f"{name}: name a config file, one of those that mlm-jax configs lists, or a workdir to go on with"
        )
    path, *options = (argument for argument in _held_together(arguments) if argument not in command.flags)
    if path == "--" and options:
        path, *options = options
    elif path.startswith("-"):
        raise UserError(
            f"{path}: name the config file before any option; a path that begins with a dash stands after --"
        )
    return with_options(command, read_config(command, path), options, path)


def read_config(command: Command, path: str) -> Any:
    """The config of a file, of a name of `shipped.configs`, or of a workdir, for a command that has one.

    Raises:
      UserError: there is no such config, or it is for another command.
    """
    assert command.config is not None
    of_others = {c.config: c.name for c in WITH_CONFIG if c.config and c.report}
    return command.widen(cfg.load_config(config_path(path, command.name), (command.config, *command.also), of_others))


def with_options(command: Command, base: Any, options: Sequence[str], where: str) -> Any:
    """A config with options in place of its values, validated.

    Args:
      options: as on a command line, `--dotted.option`, `value`.
      where: the config's file, for messages.

    Raises:
      UserError: an unknown option (the nearest is named), a value of the wrong type or outside its bounds.
    """
    kind = type(base)
    known = option_names(kind)
    for before, option in itertools.pairwise(["", *options]):
        name = _name_of(option)
        if not option.startswith("--") or option == "--help" or name in known:
            continue
        on = re.sub(r"(^|\.)no_", r"\1", name)
        if on not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean --{near[0]}?" if near else "see --help"
            if "=" not in before and _name_of(before) in known:
                hint += f"; where it is a value, write {before}={option}"
            raise UserError(f"{option}: no such option; {hint}")
    options = list(_joined(_as_flags(list(options)), kind))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), warnings.catch_warnings():
            # Of a value in the file that is not of its option's type.
            warnings.simplefilter("error", UserWarning)
            prog = f"mlm-jax {command.name} {where}"
            config = tyro.cli(kind, prog=prog, args=options, default=base, use_underscores=True)
    except UserWarning as e:
        raise UserError(f"{where}: {str(e).split('. ')[0]}; mend the config file") from e
    except SystemExit as e:
        if e.code:
            raise UserError(f"{' '.join(options)}: {_first_sentence(said.getvalue())}; see --help") from None
        raise
    except OSError as e:  # of --help
        go_on_without_output(e)
        raise SystemExit(0) from None
    if isinstance(config, cfg.Config):
        config = with_positions(config)
    command.validate(config)
    return config


def _held_together(arguments: list[str]) -> Iterator[str]:
    """`--beam_options VALUE` and `--sbatch VALUE` as one argument: its value is options too, of another program."""
    waiting = iter(arguments)
    for argument in waiting:
        takes_options = _name_of(argument).endswith(("beam_options", "sbatch")) and "=" not in argument
        yield "=".join([argument, *itertools.islice(waiting, 1)]) if takes_options else argument


def _as_flags(options: list[str]) -> Iterator[str]:
    """`--a.b True` and `--a.b False` as tyro has them: `--a.b` and `--a.no_b`."""
    for option, following in itertools.zip_longest(options, options[1:], fillvalue=""):
        section, dot, name = option.rpartition(".")
        if following.lower() == "false" and dot and option.startswith("--"):
            yield f"{section}.no_{name}"
        elif option.lower() not in ("true", "false"):
            yield option


def _joined(options: Iterator[str], kind: type) -> Iterator[str]:
    """`--name -value` as `--name=-value`: of an option that takes one value, what follows is that, dash or not."""
    single = {o.name for o in options_of(kind()) if o.kind is not bool and not isinstance(o.value, tuple)}
    known = option_names(kind)
    waiting = list(options)
    while waiting:
        option = waiting.pop(0)
        takes_value = option.startswith("--") and _name_of(option) in single and "=" not in option
        if takes_value and waiting and waiting[0].startswith("-") and _name_of(waiting[0]) not in known:
            option = f"{option}={waiting.pop(0)}"
        yield option


def _name_of(option: str) -> str:
    """`--a.b-c=d` → `a.b_c`."""
    return option.split("=")[0].replace("-", "_").lstrip("_") if option.startswith("--") else ""


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


def read_arguments(command: Command, given: list[str]) -> dict[str, str]:
    """The arguments and options of a command that has no config file: options wherever they stand, or their defaults.

    Raises:
      UserError: an unknown option, one without a value, too few arguments or too many.
    """
    found = {option: default for option, (_, default) in command.options.items()}
    rest, waiting = [], list(given)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            rest += waiting
            break
        if not argument.startswith("--"):
            rest.append(argument)
            continue
        name, equals, value = argument.partition("=")
        if name not in found:
            near = difflib.get_close_matches(name, found, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(found)}"
            raise UserError(f"{argument}: no such option; {hint}; paths that begin so stand after --")
        if not equals and waiting and waiting[0].partition("=")[0] not in found:
            value = waiting.pop(0)
        if not value:
            raise UserError(f"{name}: needs a value")
        found[name] = value
    names = [*command.arguments, *(name for group in command.optional for name in group.split())]
    counts = itertools.accumulate((len(group.split()) for group in command.optional), initial=len(command.arguments))
    if len(rest) not in counts:
        raise UserError(f"{command.name} {' '.join(given)}: cannot be read; {command.usage}")
    return found | dict(zip(names, rest, strict=False))
