# SPDX-License-Identifier: Apache-2.0
"""A step planned on a topology: compiled, read, predicted."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from mlm_jax import mesh as meshes
from mlm_jax import objectives
from mlm_jax.config import Config, Mesh, Model, with_sections
from mlm_jax.model.encoder import padded_rows
from mlm_jax.model.flops import step_flops
from mlm_jax.phases import tokens_of
from mlm_jax.plan import program, roofline, topology
from mlm_jax.plan.compile import Memory, compile_step
from mlm_jax.plan.roofline import Roofline
from mlm_jax.plan.topology import Topology


@dataclass(frozen=True)
class Planned:
    """A step on a topology.

    Attributes:
      config: as it was compiled.
      parameters: of the model.
      memory: bytes per chip.
      model_flops: of an update, all chips (`step_flops`).
      executed_flops: of an update on one chip, as compiled; None, as `collectives` and `predicted`, where it does not fit.
      collectives: (kind, devices per group) → (times, bytes) of an update on one chip.
    """

    config: Config
    topology: Topology
    parameters: int
    memory: Memory
    model_flops: float
    executed_flops: float | None
    collectives: dict[tuple[str, int], tuple[float, float]] | None
    predicted: Roofline | None

    @property
    def fits(self) -> bool:
        return self.predicted is not None

    @property
    def tokens(self) -> int:
        """Of an update."""
        return tokens_of(self.config)

    @property
    def rows(self) -> int:
        """Blocks that a chip computes at once."""
        mesh = self.config.mesh
        return self.config.train.batch_size // self.config.train.accumulate // (mesh.data * mesh.fsdp)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation that the roofline predicts."""
        assert self.predicted is not None
        return self.mfu_at(self.predicted.step)

    def mfu_at(self, seconds: float) -> float:
        """Model FLOPs utilisation of updates of so many seconds."""
        return self.model_flops / (seconds * self.topology.chip.peak * self.topology.chips)


def plan_step(config: Config, where: Topology, effort: float = 0.0) -> Planned:
    """Compile the config's training step for a topology and see what it will need.

    Args:
      effort: see `compile_step`.

    Raises:
      UserError: the mesh or the batch does not divide over the chips.
    """
    devices = topology.devices(where)
    mesh = meshes.make_mesh(config.mesh, config.train.batch_size // config.train.accumulate, devices)
    data, fsdp, tensor = mesh.devices.shape
    config = with_sections(config, mesh={"data": data, "fsdp": fsdp, "tensor": tensor})
    step = compile_step(config, mesh, effort, where.chip.memory)
    flops = step_flops(
        config.model,
        padded_rows(config.vocabulary.size),
        config.train.batch_size,
        config.data.sequence_length,
        objectives.max_predictions(config.data.sequence_length, config.objective, config.model.causal),
    )
    parameters, executed, collectives, predicted = step.parameters, None, None, None
    if step.program is not None:
        does = program.read(step.program, sight(config.model))
        executed, collectives = does.flops, program.totals(does.collectives)
        predicted = roofline.predict(does, where, list(mesh.devices.flat))
        # At less effort the compiler writes, and expects, products that are several times slower than a run's.
        if effort < 0:
            predicted = dataclasses.replace(predicted, expected=None)
    return Planned(config, where, parameters, step.memory, flops, executed, collectives, predicted)


def sight(model: Model) -> program.Sight:
    """Who sees whom in a model's attention."""
    whole = len(range(0, model.layers, model.global_every)) / model.layers
    return program.Sight(whole, model.window // 2 if whole < 1 else 0, model.causal)


def adapt(config: Config, where: Topology) -> Config:
    """The config with a mesh and a batch that divide over the topology's chips, where its own do not.

    Axes that do not multiply to the chips, or split the width into uneven parts, give way to the data axis; a batch that
    does not divide is cut into fewer microbatches, and if that does not help rounded up.
    """
    sizes = [config.mesh.data, config.mesh.fsdp, config.mesh.tensor]
    fixed = math.prod(size for size in sizes if size != -1)
    if where.chips % fixed or (-1 not in sizes and fixed != where.chips):
        sizes, fixed = [-1, 1, 1], 1
    _, fsdp, tensor = (where.chips // fixed if size == -1 else size for size in sizes)
    fsdp = math.gcd(fsdp, config.model.width, where.chips // where.slices // tensor)
    over = where.chips // tensor
    batch = -(-config.train.batch_size // over) * over
    accumulate = config.train.accumulate
    while batch % (accumulate * over):
        accumulate -= 1
    mesh = Mesh(over // fsdp, fsdp, tensor, where.slices)
    train = {"batch_size": batch, "accumulate": accumulate}
    return dataclasses.replace(with_sections(config, train=train), mesh=mesh)
