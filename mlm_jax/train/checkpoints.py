# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: Orbax, asynchronous, the best and the last few kept, the newest readable one restored."""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from orbax.checkpoint import checkpoint_managers

from mlm_jax import console, hosts, lock
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket, sync_tree
from mlm_jax.train.state import State

# Of what Orbax logs: the warnings after which a checkpoint is not whole, or not there. What it raises it logs too.
LOSSES = ("Skipping merge", "save will be skipped", "Failed to read", "Failed to delete")

# Orbax looks for the parts of an OCDBT checkpoint by a pattern that begins with the folder.
IN_PATTERNS = "*?["

NO_DAMAGE = {
    errno.EMFILE: "let a process have more files open, by ulimit -n",
    errno.ENFILE: "let the machine have more files open",
    errno.EIO: "mend the disk",
    errno.EACCES: "mend permissions",
    errno.EPERM: "mend permissions",
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space",
}
OS_ERROR = re.compile(r"os_error_code='(\d+)'")  # in what TensorStore says
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)  # these are damage


def _say_loss(record: logging.LogRecord) -> bool:
    """Say a warning that means loss as a line of ours; of what absl logs nothing else is shown."""
    text = re.sub(r"^(\[[^]]*\])+ *", "", " ".join(record.getMessage().split()))  # without process and thread
    # In such a folder nothing has to be merged.
    meant = "Skipping merge" in text and any(c in text for c in IN_PATTERNS)
    if any(loss in text for loss in LOSSES) and not meant:
        console.warn(f"checkpoints: {text[:300]}")
    return False


class _Said:
    """What absl logs while some folder of checkpoints is open, by how many there are; afterwards it is as it was.

    A counter, because they are closed in any order.
    """

    def __init__(self) -> None:
        self.open, self._level = 0, 0

    def begin(self) -> None:
        logger = logging.getLogger("absl")
        if not self.open:
            self._level = logger.level
            logger.setLevel(logging.WARNING)
            logger.addFilter(_say_loss)
        self.open += 1

    def end(self) -> None:
        self.open -= 1
        if not self.open:
            logger = logging.getLogger("absl")
            logger.removeFilter(_say_loss)
            logger.setLevel(self._level)


_said = _Said()


# What the hashes of a checkpoint are of, where their names do not say it.
WHAT = {"manifest_sha256": "another corpus", "examples_sha256": "other examples", "labels_sha256": "other labels"}


class Checkpoints:
    """A folder of checkpoints, each with the state and what it was trained on.

    The first that is saved is read back, so that no run trains on for weeks and has nothing.

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
        self._read_back = False  # whether what was saved here can be read
        self._closed = False
        _said.begin()
        policies = checkpoint_managers
        ocdbt = not any(c in str(self._folder) for c in IN_PATTERNS)
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(use_ocdbt=ocdbt),
                "identity": ocp.JsonCheckpointHandler(),
            },
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

    def save(
        self, step: int, state: State, metrics: dict[str, float] | None, progress: dict[str, float] | None = None
    ) -> None:
        """Start to save; returns once the state is copied and the training may go on, but the first time once it is read back.

        Args:
          metrics: of a validation at this very step, by which the best checkpoint is known.
          progress: `seconds` of training and `lines` of metrics so far.

        Raises:
          UserError: this save or the one before could not be written, or the first cannot be read.
        """
        if step in self._manager.all_steps():
            return
        lock.check()
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_as_dict(state)),
                    identity=ocp.args.JsonSave({**self._noted, **self._must_match, **(progress or {})}),
                ),
                metrics=metrics,
            )
        except Exception as e:
            raise self._not_written(e) from e
        if not self._read_back:
            self.wait()
            self._refuse_unreadable(step, state)
            self._read_back = True

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

    def progress(self, step: int) -> dict[str, float]:
        """`seconds` of training and `lines` of metrics up to a checkpoint; 0 where an earlier version saved it."""
        stored = ocp.JsonCheckpointHandler().restore(self._folder / str(step) / "identity")
        return {name: stored.get(name, 0) for name in ("seconds", "lines")}

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
          UserError: the checkpoints are of another vocabulary or corpus, or none can be read; or memory, open files, permissions or
            the disk do not let one be read, which is no damage.
        """
        steps = sorted(self._manager.all_steps(), reverse=True) if step is None else [step]
        unreadable = []
        for step in steps:
            restored, reason, cause = None, "another process cannot read its part", ""
            try:
                restored = self._read(step, abstract_state)
            except UserError:
                raise
            except Exception as e:
                reason, cause = _first_line(e), _no_damage(e)
            found = hosts.allgather(_HINDERED if cause else int(restored is not None))
            if _HINDERED in found:
                raise self._hindered(step, cause or "another process says why: mend it")
            if not all(found):
                console.warn(
                    f"{self._folder / str(step)}: checkpoint cannot be read ({reason[:200]}); trying the one before"
                )
                unreadable.append(step)
                continue
            for bad in unreadable if jax.process_index() == 0 else ():
                # Aside and not away: it may be worth more than we can tell.
                (self._folder / str(bad)).rename(_free(self._folder.parent / f"unreadable_checkpoint_{bad}"))
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
            if cause := _no_damage(e):
                raise self._hindered(step, cause) from e
            raise UserError(
                f"{folder}: checkpoint cannot be read ({_first_line(e)[:200]}); choose another --step"
            ) from e

    def close(self) -> None:
        """Wait until what is being saved is on disk."""
        try:
            self._manager.close()
        finally:
            if not self._closed:
                _said.end()
            self._closed = True

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

    def _refuse_unreadable(self, step: int, state: State) -> None:
        """Compare a checkpoint with the state that was saved: its structure, and the bytes of one tensor that lie on this process.

        Raises:
          UserError: there is another, or none.
        """
        folder, reason = self._folder / str(step), "another process cannot read its part"
        hosts.allgather(0)  # once it is in place
        # Another host may see the files late.
        for _ in range(1 if jax.process_count() == 1 else 10):
            try:
                self._compare(step, state)
                reason = ""
                break
            except Exception as e:
                reason = _first_line(e)
                time.sleep(0 if jax.process_count() == 1 else 1)
        if not all(hosts.allgather(int(not reason))):
            raise UserError(
                f"{folder}: the first checkpoint was written and cannot be read back ({reason[:200] or 'by another process'}), "
                "so the run stops before it trains on for nothing; move it away, and use a --workdir on another disk"
            )

    def _compare(self, step: int, state: State) -> None:
        folder, saved = self._folder / str(step), _as_dict(state)
        self._check(step, ocp.JsonCheckpointHandler().restore(folder / "identity"))
        handler = ocp.PyTreeCheckpointHandler()
        kinds = [
            sorted((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(tree))
            for tree in (handler.metadata(folder / "state").tree, saved)
        ]
        if kinds[0] != kinds[1]:
            raise ValueError("it holds other tensors")
        tensors = traverse_util.flatten_dict(saved["params"])
        path = min(tensors, key=lambda path: (tensors[path].ndim < 2, tensors[path].size, path))
        wanted: Any = {"params": traverse_util.unflatten_dict({path: jax.ShapeDtypeStruct((), np.float32)})}
        types = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        asked = ocp.args.PyTreeRestore(item=wanted, restore_args=types, partial_restore=True)
        stored = jax.tree.leaves(handler.restore(folder / "state", args=asked))[0]
        with jax.transfer_guard("allow"):
            for shard in tensors[path].addressable_shards:
                if np.asarray(shard.data).tobytes() != stored[shard.index].tobytes():
                    raise ValueError(f"params/{'/'.join(path)} has other values")

    def _hindered(self, step: int, cause: str) -> UserError:
        return UserError(
            f"{self._folder / str(step)}: checkpoint is not read now ({cause}, then run the same command again); nothing is lost or moved"
        )

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


_HINDERED = 2  # of a process that cannot read a checkpoint for a reason other than the checkpoint


def _no_damage(error: BaseException) -> str:
    """Why a checkpoint was not read and what to do, where that is not the checkpoint's fault; else empty."""
    chain = list(_causes(error))
    text = "\n".join(map(str, chain))
    codes = [e.errno for e in chain if isinstance(e, OSError) and e.errno]
    codes += map(int, OS_ERROR.findall(text))
    memory = any(isinstance(e, MemoryError) for e in chain) or errno.ENOMEM in codes
    for code in codes:
        if code not in (*MISSING, errno.ENOMEM):
            return f"{os.strerror(code)}: {NO_DAMAGE.get(code, 'mend it')}"
    if memory or "RESOURCE_EXHAUSTED" in text or "bad_alloc" in text:
        return "memory does not suffice: free some, or split the parameters over more devices (mesh.fsdp)"
    if "PERMISSION_DENIED" in text or "UNAUTHENTICATED" in text:
        return "permission denied: mend permissions"
    if "UNAVAILABLE" in text or "DEADLINE_EXCEEDED" in text:
        return "the store does not answer: wait until it does"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _free(path: epath.Path) -> epath.Path:
    """A path that is not there: this one, or with a number behind it."""
    names = (path, *(path.parent / f"{path.name}_{n}" for n in range(2, 1000)))
    return next(name for name in names if not name.exists())


def _as_dict(state: State) -> dict[str, Any]:
    return {"step": state.step, "params": state.params, "opt_state": state.opt_state, "window": state.window}


def _clips(opt_state: Any) -> bool:
    """Whether an optimizer's state, or what is stored of one, begins with that of clipping by the norm, which is empty."""
    return isinstance(opt_state, list | tuple) and isinstance(next(iter(opt_state), 0), optax.EmptyState | None)


def _cause(error: Exception) -> str:
    """Why TensorStore failed, short: its messages end with the cause, and after it notes in brackets that may be long."""
    text = str(error).strip()
    if code := OS_ERROR.search(text):
        return os.strerror(int(code[1]))
    return ": ".join(re.split(r"\s+\[[\w ]+='", text)[0].split(": ")[-2:])[-300:] or type(error).__name__
