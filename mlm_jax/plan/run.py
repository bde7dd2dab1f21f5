# SPDX-License-Identifier: Apache-2.0
"""What `plan` does and prints."""

from __future__ import annotations

import signal
import threading
from typing import cast

from mlm_jax import console
from mlm_jax import mesh as meshes
from mlm_jax.config import Config, flat_options
from mlm_jax.errors import UserError, end_at_once
from mlm_jax.phases import in_steps, largest, parts_of
from mlm_jax.plan import topology
from mlm_jax.plan.config import Plan
from mlm_jax.plan.planned import Planned, adapt, plan_step
from mlm_jax.plan.search import LEAST_EFFORT, cure, search, what_is_kept
from mlm_jax.plan.topology import GIB, Topology
from mlm_jax.signals import handling


def changes(before: Config, after: Config) -> str:
    """The options of mesh, train and model that differ, as they would be given on the command line."""
    was, now = flat_options(before), flat_options(after)
    differ = [
        name for name in now if name.startswith(("mesh.", "train.", "model.")) and was[name] not in (now[name], -1)
    ]
    return " ".join(f"--{name} {now[name]}" for name in differ)


def describe(planned: Planned, before: Config) -> str:
    """What `plan` prints of a step."""
    config, where, memory = planned.config, planned.topology, planned.memory
    mesh, chip = config.mesh, where.chip
    axes = " × ".join(f"{axis} {getattr(mesh, axis)}" for axis in meshes.AXES if getattr(mesh, axis) > 1) or "one"
    microbatches = config.train.accumulate
    lines = [
        f"{where}: {where.chips} {where.noun}{'s' if where.chips > 1 else ''} ({axes}), remat {config.model.remat}",
        f"{planned.parameters:,} parameters; {config.train.batch_size:,} blocks of {config.data.sequence_length} tokens per "
        f"update, {planned.rows:,} per {where.noun} at once"
        + (f" in {microbatches} microbatches" if microbatches > 1 else ""),
    ]
    if options := changes(before, config):
        lines.append(f"other than the config: {options}")
    room = f"{chip.memory / GIB:.2f} GiB"
    if chip.card is not None:
        room += f" that JAX takes by default of the card's {chip.card.memory / GIB:.2f} (XLA_CLIENT_MEM_FRACTION)"
    lines += ["", f"memory per {where.noun}, of {room}"]
    labels = {
        "activations": "activations kept for the backward pass" + (", at most" if mesh.tensor > 1 else ""),
        "temporaries": "gradients and other temporaries",
    }
    for name in ("parameters", "optimizer", "batch", "activations", "temporaries", "total"):
        label = labels.get(name, name)
        lines.append(f"  {label:<46}{getattr(memory, name) / GIB:>9.3f} GiB")
    left = chip.memory - memory.total
    if not planned.fits:
        return "\n".join([*lines, f"does not fit: {-left / GIB:.2f} GiB too much"])
    assert planned.predicted and planned.collectives is not None and planned.executed_flops is not None
    lines += [f"fits: {left / GIB:.2f} GiB are left", "", "collectives per chip and update"]
    cells = [
        [kind, f"{devices}", f"{times:,.0f}", f"{size / 1e9:,.3f}"]
        for (kind, devices), (times, size) in sorted(planned.collectives.items(), key=lambda item: -item[1][1])
    ]
    lines.append(console.format_table(["kind", f"{where.noun}s", "times", "GB"], cells) if cells else "  none")
    computed = planned.executed_flops * where.chips / planned.model_flops
    predicted = planned.predicted
    lines += [
        "",
        f"model FLOPs: {planned.model_flops / planned.tokens / 1e9:.3f} G per token, {planned.model_flops:.3e} per update; "
        f"the compiled step executes {computed:.2f} times as many",
        "predicted by the roofline of published figures, not measured; no real run is as fast:",
        f"  {predicted.step:.3f} s per update (matrix products {predicted.compute:.3f} s, HBM {predicted.memory:.3f} s, "
        f"links {predicted.links:.3f} s)",
        f"  {planned.tokens / predicted.step:,.0f} tokens/s, MFU {planned.mfu:.1%}",
    ]
    if predicted.expected is not None:
        lines += [
            "what the compiler itself expects of these instructions, which is more cautious:",
            f"  {predicted.expected:.3f} s per update, {planned.tokens / predicted.expected:,.0f} tokens/s, "
            f"MFU {planned.mfu_at(predicted.expected):.1%}",
        ]
    return "\n".join(lines)


def advise(planned: Planned) -> str:
    """What to do with a step that does not fit."""
    kept = what_is_kept(planned.config, topology.devices(planned.topology)[0])
    better = cure(planned, kept)
    if better is None:
        return "no rematerialisation and number of microbatches fits this mesh by estimate: let --search look for a mesh, or take more chips"
    return (
        f"by estimate the fastest that fits on this mesh: {changes(planned.config, better)}; --search compiles, and looks for a "
        "mesh as well"
    )


def searched(config: Plan, where: Topology) -> Planned:
    """What a search finds, compiled with the effort that is asked for; Ctrl-C shows the best so far and ends the process, though a step is being compiled.

    Python hears a signal in its first thread only, and not while that compiles: so another one does.
    """
    best: list[Planned] = []
    outcome: list[Planned | BaseException] = []

    def work() -> None:
        try:
            planned = search(config, where, config.compiles, best.append)
            if config.effort > LEAST_EFFORT:
                planned = plan_step(planned.config, where, config.effort)
            outcome.append(planned)
        except BaseException as e:
            outcome.append(e)

    def interrupted(number: int, frame: object) -> None:
        if not best:
            end_at_once("interrupted before a step that fits was compiled", 130)
        console.say(f"\n{describe(best[-1], config)}")
        end_at_once("interrupted; this is the best so far", 130)

    thread = threading.Thread(target=work, daemon=True)
    with handling({signal.SIGINT: interrupted}):
        thread.start()
        thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def phase_of(config: Plan) -> Plan:
    """The config of the phase that is to be planned.

    Raises:
      UserError: there is none of that number.
    """
    run = in_steps(config)
    parts = parts_of(run)
    if config.phase > len(parts):
        raise UserError(f"phase: {config.phase}, but the run has {len(parts)}, counted from 1; 0 takes the largest")
    return cast(Plan, (parts[config.phase - 1] if config.phase else largest(run)).config)


def refuse_unplanned(config: Config) -> None:
    """Refuse what `plan` does not compile.

    Raises:
      UserError: it learns no language model.
    """
    if config.objective.learn == "contrastive":
        raise UserError(
            "objective.learn: contrastive is not planned, whose pairs compare with each other; plan its encoder by --objective.learn "
            "language_model --data.packing segments"
        )
    if config.objective.learn == "distillation":
        raise UserError(
            "objective.learn: distillation is not planned, as its teacher is read from WORKDIR; plan teacher and student by "
            "--objective.learn language_model --distillation.teacher '', and add the teacher's forward pass"
        )


def run(config: Plan) -> None:
    """Plan a run, or a phase of one, and print it.

    Raises:
      UserError: no such topology, no such phase, no compiler, a config that fits no way, or one that learns no language model.
    """
    refuse_unplanned(config)
    config = phase_of(config)
    where = topology.parse(config.topology, config.mesh.slices)
    topology.require_compiler(where)
    planned = searched(config, where) if config.search else plan_step(adapt(config, where), where, config.effort)
    console.say(describe(planned, config))
    if not planned.fits:
        console.say(advise(planned))
