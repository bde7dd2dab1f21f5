# SPDX-License-Identifier: Apache-2.0
"""The configs that come with mlm_jax, by name: in a checkout its `configs/`, in an installed package `mlm_jax/configs/`."""

from __future__ import annotations

import ast
import difflib
import runpy
from pathlib import Path
from typing import Any

from mlm_jax.errors import UserError

PACKAGE = Path(__file__).parent
FOLDER = next(
    (found for found in (PACKAGE / "configs", PACKAGE.parent / "configs") if found.is_dir()), PACKAGE / "configs"
)


def configs() -> dict[str, Path]:
    """Name → file: "quickstart", or with the command it is for, "finetune/small_ner"; in the order of their names, pretraining's first."""
    found = {str(path.relative_to(FOLDER).with_suffix("")): path for path in FOLDER.rglob("*.py")}
    return dict(sorted(found.items(), key=lambda item: ("/" in item[0], item[0])))


def command_of(name: str) -> str:
    """The command that a config of a name is for: its folder's, studies' being study, and pretrain of those in none."""
    folder = name.rpartition("/")[0] or "pretrain"
    return {"studies": "study"}.get(folder, folder)


def summary(path: Path) -> str:
    """The first line of a config's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def named(name: str, command: str = "") -> Path | None:
    """The config of a name, whole or without the folder it is in; None: there is none.

    Args:
      command: whose folder is looked in first.
    """
    known = configs()
    if name.startswith("configs/"):  # as it is written in a checkout
        name = name.removeprefix("configs/").removesuffix(".py")
    fitting = [known[name]] if name in known else []
    fitting += [path for x, path in known.items() if command_of(x) == command and x.rpartition("/")[2] == name]
    fitting += [path for x, path in known.items() if x.rpartition("/")[2] == name]
    return fitting[0] if fitting else None


def config_path(given: str, command: str = "") -> str:
    """A file or a workdir as it was given, where it is there or is no name; else the config of that name, if there is one.

    Raises:
      UserError: it is a name (without an ending) of nothing; the nearest is named.
    """
    path = Path(given)
    if path.is_file() or (path / "config.json").is_file():
        return given
    found = named(given, command)
    if found is not None:
        return str(found)
    if not path.suffix and not path.exists():
        known = [*configs(), *(x.rpartition("/")[2] for x in configs())]
        near = difflib.get_close_matches(given, known, 1)
        hint = f"did you mean {near[0]}?" if near else "mlm-jax configs lists those that come with mlm_jax"
        raise UserError(f"{given}: no such config file and no config of that name; {hint}")
    return given


def run_config(name: str) -> dict[str, Any]:
    """What the config of a name defines, for one that builds on it: a copy of that, wherever it lies, finds it too.

    Raises:
      UserError: there is none of that name.
    """
    path = named(name)
    if path is None:
        raise UserError(f"{name}: no config of that name; mlm-jax configs lists those that come with mlm_jax")
    return runpy.run_path(str(path))


def copy_config(name: str, target: str = "") -> str:
    """Copy a config, to be changed; what its docstring says of its command is of the copy.

    Args:
      target: the file to write; empty: NAME.py here.

    Returns:
      The file that was written.

    Raises:
      UserError: there is none of that name, or the file is there already or cannot be written.
    """
    source = named(name)
    if source is None:
        near = difflib.get_close_matches(name, [x.rpartition("/")[2] for x in configs()], 1)
        hint = f"did you mean {near[0]}?" if near else "mlm-jax configs lists them"
        raise UserError(f"{name}: no config of that name; {hint}")
    target = target or source.name
    if Path(target).is_dir():
        target = str(Path(target) / source.name)
    if Path(target).suffix != ".py":
        raise UserError(f"{target}: not a .py file, as configs are; name one")
    text = source.read_text(encoding="utf-8").replace(f"configs/{source.relative_to(FOLDER)}", target)
    try:
        with open(target, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{target}: is there already; name another file") from None
    except OSError as e:
        raise UserError(f"{target}: cannot be written ({e.strerror or e}); name another file") from e
    return target
