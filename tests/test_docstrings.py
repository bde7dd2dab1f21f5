# SPDX-License-Identifier: Apache-2.0
"""Public functions of arrays say in their docstrings what shape and dtype the arrays have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mlm_jax"
ARRAYS = re.compile(r"\b(jax\.Array|np\.ndarray|ArrayLike)\b")
SHAPE = re.compile(r"\[[^\[\]`\"']*\]")  # [batch, length], [n / devices, embed], [...], [] of a scalar
DTYPE = re.compile(r"\b(u?int\d+|b?float\d*|int|bool|str|dtype|[Tt]yped keys)\b")


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Public functions and methods of a module, with their dotted names; what is in a function is not public."""
    for node in ast.iter_child_nodes(tree):
        name = getattr(node, "name", "")
        if isinstance(node, ast.ClassDef) and not name.startswith("_"):
            # A method without a docstring has that of the class of ours it overrides.
            ours = any(not isinstance(base, ast.Attribute) for base in node.bases)
            members = functions(node, f"{prefix}{name}.")
            yield from ((full, method) for full, method in members if not ours or ast.get_docstring(method))
        elif isinstance(node, ast.FunctionDef) and (not name.startswith("_") or name == "__call__"):
            yield f"{prefix}{name}", node


def of_arrays(node: ast.FunctionDef) -> bool:
    """Whether a function takes or returns arrays, themselves or in lists and dicts."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    annotations = [argument.annotation for argument in arguments] + [node.returns]
    # A function that is an argument has arrays of its own.
    texts = [re.sub(r"Callable\[.*\]", "", ast.unparse(a)) for a in annotations if a is not None]
    return any(ARRAYS.search(text) for text in texts)


def test_functions_of_arrays_say_shapes_and_dtypes():
    silent = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for name, node in functions(ast.parse(file.read_text())):
            said = ast.get_docstring(node) or ""
            if of_arrays(node) and not (SHAPE.search(said) and DTYPE.search(said)):
                missing = "no shape" if not SHAPE.search(said) else "no dtype"
                silent.append(f"{file.relative_to(PACKAGE.parent)}:{node.lineno} {name}: {missing}")
    assert not silent, "\n" + "\n".join(silent)
