# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: Orbax, asynchronous, the best and the last few kept, the newest readable one restored."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from mlm_jax import console, hosts, lock
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket, sync_tree
from mlm_jax.train.state import State

# Orbax logs, with the stack of its threads, what it also raises.
logging.getLogger("absl").setLevel(logging.CRITICAL)


# What the hashes of a checkpoint are of, where their names do not say it.
WHAT = {"manifest_sha256": "another corpus", "examples_sha256": "other examples", "labels_sha256": "other labels"}


class Checkpoints:
    """A folder of checkpoints, each with the state and what it was trained on.

    Args:
      folder: made where it is not there.
      must_match: what a checkpoint was trained on, as name → sha256: it has to be the same in one that is restored.
      noted: stored beside that for whoever reads it, JSON.
      keep_last: newest checkpoints kept.
      best: metrics by each of which the best checkpoint is kept besides.
      highest: whether the best is the highest.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        must_match: dict[str, str],
        noted: dict[str, Any],
        keep_last: int = 2,
        best: Sequence[str] = ("macro_loss",),
        highest: bool = False,
    ):
        self._folder = epath.Path(folder) if in_bucket(folder) else epath.Path(folder).absolute()
        self._must_match, self._noted = must_match, noted
        self._best, self._sign = best[0] if best else "", 1 if highest else -1
        policies = checkpoint_managers
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                async_options=ocp.AsyncOptions(post_finalization_callback=self._sync),
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep_last),
                        *(
                            policies.BestN(
                                get_metric_fn=lambda metrics, name=name: self._sign * metrics[name],
                                reverse=False,
                                n=1,
                                keep_checkpoints_without_metrics=False,
                            )
                            for name in best
                        ),
                    ]
                ),
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A failing process of several does not wait: the others may be dead.
        if kind is None or jax.process_count() == 1:
            self.close()

    def save(self, step: int, state: State, metrics: dict[str, float] | None) -> None:
        """Start to save; returns once the state is copied and the training may go on.

        Args:
          metrics: of a validation at this very step, by which the best checkpoint is known.

        Raises:
          UserError: this save or the one before could not be written.
        """
        if step in self._manager.all_steps():
            return
        lock.check()
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_as_dict(state)),
                    identity=ocp.args.JsonSave(self._noted | self._must_match),
                ),
                metrics=metrics,
            )
        except Exception as e:
            raise self._not_written(e) from e

    def _sync(self) -> None:
        """Bring checkpoints to disk: TensorStore does so with its files, Orbax not with what describes them, nor with its commits.

        Called before a commit, which is a rename, and so before an older checkpoint is removed for the one that was committed last.
        """
        if jax.process_index() == 0 and not in_bucket(self._folder):
            sync_tree(self._folder)

    def wait(self) -> None:
        """Wait until what is being saved is on disk.

        Raises:
          UserError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            self._sync()
        except Exception as e:
            raise self._not_written(e) from e

    def latest(self) -> int | None:
        """The newest checkpoint's step."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Those there are, ascending."""
        return sorted(self._manager.all_steps())

    def choose(self, which: str) -> int | None:
        """The step of a checkpoint by name: "best" by the first of the metrics, "last", or the step itself.

        Returns:
          None where there is no checkpoint; the last, where none was validated.

        Raises:
          UserError: there are others, but not this one.
        """
        steps = self.steps()
        if not steps or which == "last":
            return steps[-1] if steps else None
        if which == "best":
            metrics = {step: self._manager.metrics(step) for step in steps}
            scored = {step: self._sign * found[self._best] for step, found in metrics.items() if found}
            return max(scored, key=lambda step: scored[step]) if scored else steps[-1]
        if not which.isdecimal() or int(which) not in steps:
            raise UserError(
                f"{self._folder}: no checkpoint {which}; there are best, last, {', '.join(map(str, steps))}"
            )
        return int(which)

    def restore(self, abstract_state: State, step: int | None = None) -> State | None:
        """The newest checkpoint that can be read, on the abstract state's mesh; None where there is none.

        A checkpoint that cannot be read is skipped with a warning, and removed: its step comes again.

        Args:
          step: take this one, or none.

        Raises:
          UserError: the checkpoints are of another vocabulary or corpus, or none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True) if step is None else [step]
        unreadable = []
        for step in steps:
            restored, reason = None, "another process cannot read its part"
            try:
                restored = self._read(step, abstract_state)
            except UserError:
                raise
            except Exception as e:
                reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
            if not all(hosts.allgather(restored is not None)):
                console.warn(
                    f"{self._folder / str(step)}: checkpoint cannot be read ({reason[:200]}); trying the one before"
                )
                unreadable.append(step)
                continue
            for bad in unreadable if jax.process_index() == 0 else ():
                # Aside and not away: it may be worth more than we can tell.
                (self._folder / str(bad)).rename(self._folder.parent / f"unreadable_checkpoint_{bad}")
            if unreadable:
                hosts.allgather(0)  # once it is aside
                self._manager.reload()
            return restored
        if steps:
            raise UserError(
                f"{self._folder}: none of the checkpoints {', '.join(map(str, steps))} can be read; "
                "move the folder away to start from step 0"
            )
        return None

    def restore_params(self, abstract: dict[str, Any], step: int) -> dict[str, Any]:
        """The parameters of a checkpoint, without the optimizer's state.

        Args:
          abstract: their shapes and dtypes; with shardings, to lie on a mesh; without, to be NumPy arrays.

        Raises:
          UserError: it is of another vocabulary or corpus, or cannot be read.
        """
        wanted = {"params": abstract}
        on_mesh = jax.tree.leaves(abstract)[0].sharding is not None
        types = (
            ocp.checkpoint_utils.construct_restore_args(wanted)
            if on_mesh
            else jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        )
        folder = self._folder / str(step)
        try:
            self._check(step, ocp.JsonCheckpointHandler().restore(folder / "identity"))
            asked = ocp.args.PyTreeRestore(item=wanted, restore_args=types, partial_restore=True)
            return ocp.PyTreeCheckpointHandler().restore(folder / "state", args=asked)["params"]
        except UserError:
            raise
        except Exception as e:
            reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
            raise UserError(f"{folder}: checkpoint cannot be read ({reason[:200]}); choose another --step") from e

    def close(self) -> None:
        """Wait until what is being saved is on disk."""
        self._manager.close()

    def _read(self, step: int, abstract_state: State) -> State:
        # Not through the manager, which waits for all processes at the end: those that failed would not come.
        folder = self._folder / str(step)
        self._check(step, ocp.JsonCheckpointHandler().restore(folder / "identity"))
        handler = ocp.StandardCheckpointHandler()
        wanted, window = _as_dict(abstract_state), abstract_state.window
        stored = handler.metadata(folder / "state").tree
        # `optimizer.clip_norm` may be set, or set to 0, since: clipping is a first state, which is empty, or is not there.
        clips, clipped = _clips(abstract_state.opt_state), _clips(stored["opt_state"])
        if clips and not clipped:
            wanted["opt_state"] = abstract_state.opt_state[1]
        elif clipped and not clips:
            wanted["opt_state"] = (optax.EmptyState(), abstract_state.opt_state)
        anew = stored["window"].keys() != window.keys()
        if anew:
            # An earlier version summed up other things: what it had of the current line of metrics cannot be gone on with.
            console.warn(f"{folder}: of an earlier version; the current line of metrics begins anew at step {step}")
            scalar = next(iter(window.values())).sharding
            wanted["window"] = {
                name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=scalar)
                for name, leaf in stored["window"].items()
            }
        restored = handler.restore(folder / "state", args=ocp.args.StandardRestore(wanted))
        if clips and not clipped:
            restored["opt_state"] = (optax.EmptyState(), restored["opt_state"])
        elif clipped and not clips:
            restored["opt_state"] = restored["opt_state"][1]
        if anew:
            restored["window"] = {
                name: jax.device_put(np.full(leaf.shape, -1 if name == "first_bad" else 0, leaf.dtype), leaf.sharding)
                for name, leaf in window.items()
            }
        return State(**restored)

    def _check(self, step: int, stored: dict[str, Any]) -> None:
        for name, wanted in self._must_match.items():
            if stored.get(name) != wanted:
                what = WHAT.get(name, f"another {name.removesuffix('_sha256')}")
                raise UserError(
                    f"{self._folder / str(step)}: trained with {what} ({name} {str(stored.get(name))[:12]}, the "
                    f"workdir's is {wanted[:12]}); use a new workdir, or put the {what.split()[-1]} back"
                )

    def _not_written(self, error: Exception) -> Exception:
        if hosts.is_loss(error):
            return error
        reason = _cause(error)
        latest = self._manager.latest_step()
        last = "there is no earlier one" if latest is None else f"the last good one is {self._folder / str(latest)}"
        return UserError(
            f"{self._folder}: checkpoint could not be written ({reason}); {last}; "
            "free space or mend permissions, then run the same command to continue"
        )


def _as_dict(state: State) -> dict[str, Any]:
    return {"step": state.step, "params": state.params, "opt_state": state.opt_state, "window": state.window}


def _clips(opt_state: Any) -> bool:
    """Whether an optimizer's state, or what is stored of one, begins with that of clipping by the norm, which is empty."""
    return isinstance(opt_state, list | tuple) and isinstance(next(iter(opt_state), 0), optax.EmptyState | None)


def _cause(error: Exception) -> str:
    """Why TensorStore failed, short: its messages end with the cause, and after it notes in brackets that may be long."""
    text = str(error).strip()
    if code := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(code[1]))
    return ": ".join(re.split(r"\s+\[[\w ]+='", text)[0].split(": ")[-2:])[-300:] or type(error).__name__
