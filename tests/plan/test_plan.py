# SPDX-License-Identifier: Apache-2.0
"""`plan`: topologies, the roofline's arithmetic, the search, what is printed; and, with libtpu, the real compiler."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax import cli, objectives
from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.config import with_sections
from mlm_jax.cuda_plugin import has_cuda_plugin
from mlm_jax.errors import UserError
from mlm_jax.model.encoder import padded_rows
from mlm_jax.model.flops import step_flops
from mlm_jax.plan import cards, program, roofline, topology
from mlm_jax.plan.compile import Memory, activations, compile_step, out_of_memory
from mlm_jax.plan.planned import Planned, adapt, plan_step
from mlm_jax.plan.program import Collective, Program, Work
from mlm_jax.plan.roofline import Roofline
from mlm_jax.plan.run import advise
from mlm_jax.plan.search import LEAST_EFFORT, Kept, candidates, cure, estimate, judge
from mlm_jax.plan.topology import GIB, Topology
from tests.corpora import tiny_config, write_config
from tests.train.test_step import assert_no_vocabulary_moves

needs_compiler = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu (extra plan)")

needs_gpu_compiler = pytest.mark.skipif(not has_cuda_plugin(), reason="needs JAX's plugin for CUDA (extra plan-gpu)")


@pytest.mark.parametrize(
    ("text", "shape", "chips"),
    [
        ("v5e:16x16", (16, 16), 256),
        ("v5e-16", (4, 4), 16),
        ("v5litepod-8", (2, 4), 8),
        ("v4-128", (4, 4, 4), 64),  # counts cores
        ("v5p:2x2x1", (2, 2, 1), 4),
        ("v6e-256", (16, 16), 256),
        ("h100:8", (8, 1), 8),
        ("a100:4x2", (4, 2), 8),  # two hosts of four
        ("b200:8x16", (8, 16), 128),
    ],
)
def test_topologies_by_shape_and_by_name(text, shape, chips):
    found = topology.parse(text)
    assert found.shape == shape and found.chips == chips


@pytest.mark.parametrize(
    "text", ["v3-8", "v5e", "v5e:3x3", "v5e-7", "v4-4", "v4:4x4", "h100-8", "h100:3", "h100:8x0", "b100:8"]
)
def test_what_is_no_topology_is_refused_in_a_line(text):
    with pytest.raises(UserError, match="topology") as error:
        topology.parse(text)
    assert "\n" not in str(error.value)


def grid(where):
    """Devices of a topology as the compiler describes them."""
    places = np.stack(np.meshgrid(*map(range, where.shape), indexing="ij"), -1).reshape(-1, len(where.shape))
    return [
        SimpleNamespace(coords=tuple(place), slice_index=i) for i in range(where.slices) for place in places.tolist()
    ]


def seconds(where, kind, group, size=1e9):
    return roofline.collective_seconds(Collective(kind, size, group, 1, ((1,),), True), where, grid(where))


def test_collectives_take_the_links_that_their_group_spans():
    whole, part = topology.parse("v5e:16x16"), topology.parse("v5e:4x4")
    link = whole.chip.link
    # A row of 16 is a ring: both ways carry half each. 4 chips of a row are none.
    row = tuple(range(16))
    assert seconds(whole, "all-gather", row) == pytest.approx(1e9 * 15 / 16 / (2 * link))
    assert seconds(part, "all-gather", (0, 1, 2, 3)) == pytest.approx(1e9 * 3 / 4 / link)
    assert seconds(whole, "all-reduce", row) == pytest.approx(2 * seconds(whole, "reduce-scatter", row))
    everywhere = tuple(range(256))
    assert seconds(whole, "all-gather", everywhere) == pytest.approx(1e9 * 255 / 256 / (4 * link))
    assert seconds(whole, "all-gather", (0,)) == 0
    two = Topology("v5e", (4, 4), 2)
    across = seconds(two, "all-reduce", (0, 16))
    assert across == pytest.approx(2 * 1e9 / 2 / two.chip.network)


def test_gpus_take_nvlink_within_a_host_and_an_adapter_each_between_hosts():
    where = topology.parse("h100:8x2")
    nvlink, network = where.chip.link, where.chip.network
    cards = [SimpleNamespace(process_index=host) for host in range(2) for _ in range(8)]

    def took(kind, *group):
        return roofline.collective_seconds(Collective(kind, 1e9, group, 1, ((1,),), True), where, cards)

    host = tuple(range(8))
    assert took("all-gather", *host) == pytest.approx(7 / 8 * 1e9 / nvlink)
    assert took("all-reduce", *host) == pytest.approx(2 * took("reduce-scatter", *host))
    assert took("all-reduce", 0, 8) == pytest.approx(2 * 1e9 / 2 / network)
    # Of what a host has put together each of its adapters sends an eighth; half of it has to come from the other host.
    both = tuple(range(16))
    assert took("all-gather", *both) == pytest.approx(took("all-gather", *host) + 1e9 / 8 / 2 / network)
    # Each sends a sixteenth of its sixteenth to each: eight of those parts leave the host.
    assert took("all-to-all", *both) == pytest.approx(8 * 1e9 / 16 / 16 / network)
    assert took("collective-permute", 0, 1) == pytest.approx(1e9 / nvlink)
    assert took("collective-permute", 0, 8) == pytest.approx(1e9 / network)


def test_the_roofline_takes_the_longer_time_of_each_instruction():
    where = topology.parse("v5e:4x4")
    chip = where.chip
    work = [Work(chip.peak, 0.0), Work(0.0, 2 * chip.bandwidth), Work(chip.peak, chip.bandwidth / 2)]
    does = Program(2 * chip.peak, 2.5 * chip.bandwidth, work, [])
    found = roofline.predict(does, where, grid(where))
    assert (found.compute, found.memory, found.links, found.step) == pytest.approx((2, 2.5, 0, 4))
    assert found.expected is None
    # The compiler expects 6 seconds of the first; of the others it says nothing.
    expected = Program(0, 0, [Work(chip.peak, 0.0, 6 * chip.clock), *work[1:]], [])
    assert roofline.predict(expected, where, grid(where)).expected == pytest.approx(6 + 2 + 1)
    size = 10 * chip.link * 4 / 3
    beside, alone = (Collective("all-gather", size, (0, 1, 2, 3), 1, ((1,),), a) for a in (False, True))
    assert roofline.predict(Program(0, 0, work, [beside]), where, grid(where)).step == pytest.approx(10)
    assert roofline.predict(Program(0, 0, work, [alone]), where, grid(where)).step == pytest.approx(14)


def test_a_mesh_that_does_not_divide_gives_way():
    config = with_sections(tiny_config("x"), train={"batch_size": 100, "accumulate": 4}, mesh={"data": 1, "fsdp": -1})
    adapted = adapt(config, topology.parse("v5e:8x8"))
    # A width of 32 is cut into 32 at most; 100 blocks are rounded up to 128, and two microbatches of 64 divide.
    assert (adapted.mesh.data, adapted.mesh.fsdp, adapted.mesh.tensor) == (2, 32, 1)
    assert (adapted.train.batch_size, adapted.train.accumulate) == (128, 2)
    cfg.validate_pretraining(adapted)


KEPT = Kept({"none": 0.3 * GIB, "dots": 0.2 * GIB, "full": 0.03 * GIB}, True)  # as XLM-R base's, of 512 tokens


def test_muon_keeps_one_moment_of_the_layers_kernels():
    config = with_sections(tiny_config("x"), model={"layers": 3, "width": 32, "mlp_width": 64})
    with_muon = with_sections(config, optimizer={"name": "muon"})
    where = topology.parse("v5e:2x2")
    saved = estimate(config, where, KEPT).state - estimate(with_muon, where, KEPT).state
    shards = config.mesh.fsdp * config.mesh.tensor
    assert saved == 4 * 3 * (4 * 32 * 32 + 2 * 32 * 64) / shards


def test_the_search_takes_the_fastest_that_fits_and_compiles_no_more_than_it_may():
    where = topology.parse("v5e:4x4")
    config = with_sections(cfg.Config(data=cfg.Data(sources=(cfg.Source("en", "x"),))), train={"batch_size": 512})
    options = [estimate(c, where, KEPT) for c in candidates(config, where)]
    compiled = []

    def plan(config, where, effort):
        """A world where memory is three times the estimate, and time twice."""
        about = estimate(config, where, KEPT)
        compiled.append(config)
        total = about.state + 3 * about.growing
        fits = total < where.chip.memory
        predicted = Roofline(1, 1, 1, 2 * about.seconds) if fits else None
        return Planned(config, where, 1, Memory(0, 0, 0, 0, total, total), 1.0, 1.0, {}, predicted)

    better = []
    best = judge(options, where, 30, plan, better.append)
    seconds = [planned.predicted.step for planned in better]
    assert better[-1] is best and seconds == sorted(seconds, reverse=True)
    fitting = [o for o in options if o.state + 3 * o.growing < where.chip.memory]
    assert best.predicted.step == pytest.approx(2 * min(o.seconds for o in fitting))
    assert len(compiled) < 12
    compiled.clear()
    judge(options, where, 2, plan)
    assert len(compiled) == 2
    assert judge(options, Topology("v5e", (2, 2)), 0, plan) is None


def refused(config, where, more):
    """A step that the compiler refuses, because it needs `more` times the estimate."""
    about = estimate(config, where, KEPT)
    total = about.state + more * about.growing
    assert total > where.chip.memory
    return Planned(config, where, 1, Memory(0, 0, 0, 0, total, total), 1.0, None, None, None)


@pytest.mark.parametrize("more", [1.0, 1.5])
def test_the_cure_of_a_step_that_does_not_fit_is_the_fastest_that_does(more):
    where = topology.parse("v5e:4x4")
    config = adapt(cfg.Config(data=cfg.Data(sources=(cfg.Source("en", "x"),))), where)
    config = with_sections(config, train={"batch_size": 1024, "accumulate": 1})
    cured = cure(refused(config, where, more), KEPT)
    assert cured.mesh == config.mesh and cured.train.batch_size == 1024
    found = estimate(cured, where, KEPT)
    assert found.state + more * found.growing < where.chip.memory
    for remat in ("none", "dots", "full"):
        for microbatches in (1, 2, 4, 8, 16, 32, 64):
            changed = with_sections(config, model={"remat": remat}, train={"accumulate": microbatches})
            other = estimate(changed, where, KEPT)
            assert other.seconds >= found.seconds or other.state + more * other.growing > 0.95 * where.chip.memory
    # One block per chip is too much.
    assert cure(refused(config, where, 10_000), KEPT) is None


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.34G of 15.75G hbm.",
            20.34,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (16.69G) exceeds available HBM (15.75G).",
            16.69,
        ),
        ("INTERNAL: something else", None),
    ],
)
def test_what_a_refusal_says_is_needed(message, needed):
    assert out_of_memory(message) == (None if needed is None else pytest.approx(needed * GIB))


def test_without_the_compiler_a_line_names_the_extra(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / "tiny.py", tiny_config(str(tmp_path / "run")))
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["plan", str(config)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "[plan]" in said.err and not said.out
    assert cli.main(["plan", str(config), "--topology", "h100:8"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "[plan-gpu]" in said.err and not said.out
    assert cli.main(["plan", str(config), "--topolgy", "v5e-16"]) == 2
    assert "did you mean --topology?" in capsys.readouterr().err


def compiled(where, room=float("inf"), **sections):
    topology.require_compiler(where)
    shape = {"heads": 8, "width": 64, "dtype": "bfloat16", "loss_chunk": 128}
    config = with_sections(tiny_config("x"), model=shape, vocabulary={"size": 500}, train={"batch_size": 32})
    config = with_sections(config, **sections)
    mesh = meshes.make_mesh(config.mesh, config.train.batch_size, topology.devices(where))
    return mesh, compile_step(config, mesh, -1.0, room)


def test_activations_are_what_each_rematerialisation_keeps():
    shape = {"layers": 6, "width": 64, "heads": 4, "mlp_width": 256, "dtype": "bfloat16", "positions": 128}
    config = with_sections(tiny_config("x"), model=shape, data={"sequence_length": 128}, vocabulary={"size": 500})
    mesh = meshes.make_mesh(cfg.Mesh(), 16, jax.devices()[:1])

    def kept(remat, rows=16):
        changed = with_sections(config, model={"remat": remat}, train={"batch_size": rows})
        return activations(changed, mesh)

    # Of each layer the stream and what it reads, on a CPU in float32; and what embedding and head keep.
    inputs = 6 * 16 * 128 * 64 * 4
    assert 2 * inputs < kept("full") < 4 * inputs
    # The products as well: queries, keys and values, the MLP's two, attention's output; no scores.
    assert 8 * inputs < kept("dots") < kept("none")
    scores = 6 * 16 * 4 * 128 * 128 * 2
    assert kept("none") > kept("dots") + scores
    for remat in ("none", "dots", "full"):
        assert kept(remat, 32) == pytest.approx(2 * kept(remat), rel=0.02)


@needs_compiler
@pytest.mark.slow
def test_the_tpu_compiler_moves_no_vocabulary_either():
    mesh, step = compiled(topology.parse("v5e:2x4"), mesh={"data": 2, "fsdp": 2, "tensor": 2})
    assert_no_vocabulary_moves(step.program, mesh.devices.shape, width=64)
    assert step.memory.optimizer == pytest.approx(2 * step.memory.parameters, abs=100)  # two moments and a counter
    assert 0 < step.memory.total < 0.1 * GIB


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("every", "window", "visited"), [(1, 128, 16 + 16), (2, 256, 16 + 10)])
def test_what_flash_attention_computes_is_counted(every, window, visited):
    """Against plain products, of which too the backward pass computes scores again; a local layer's tiles of queries see 2, 3, 3, 2 of keys."""
    rows, heads, length, head, tile = 2, 2, 2048, 128, 512
    model = {"layers": 2, "heads": heads, "width": heads * head, "positions": length, "global_every": every}
    model |= {"window": window, "attention_dropout": 0.0}
    flops = {}
    for attention in ("xla", "flash"):
        _, step = compiled(
            topology.parse("v5e:2x2"),
            model=model | {"attention": attention},
            data={"sequence_length": length},
            train={"batch_size": 4 * rows},
        )
        flops[attention] = program.read(step.program, program.Sight(1 / every, window // 2)).flops
    one = 2 * rows * heads * head
    expected = 7 * one * (tile**2 * visited - 2 * length**2)
    assert flops["flash"] - flops["xla"] == pytest.approx(expected, rel=1e-6)


@needs_compiler
@pytest.mark.slow
def test_slices_share_nothing_but_the_data_axis():
    where = Topology("v5e", (2, 2), 2)
    mesh, step = compiled(where, mesh={"data": -1, "fsdp": 2, "slices": 2})
    assert mesh.devices.shape == (4, 2, 1)
    of_slice = np.vectorize(lambda d: d.slice_index)(mesh.devices)
    assert (of_slice[:2] == 0).all() and (of_slice[2:] == 1).all()
    assert step.program is not None
    with pytest.raises(UserError, match=r"mesh.slices: 1, but the devices are of 2 slices"):
        meshes.make_mesh(cfg.Mesh(), 32, list(mesh.devices.flat))
    with pytest.raises(UserError, match=r"mesh.data: 1 does not divide over 2 slices"):
        meshes.make_mesh(cfg.Mesh(data=1, fsdp=8, slices=2), 32, list(mesh.devices.flat))


@needs_compiler
@pytest.mark.parametrize("name", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_a_chips_memory_is_what_the_compiler_says(name):
    where = topology.parse(name)
    topology.require_compiler(where)
    sharding = jax.sharding.SingleDeviceSharding(topology.devices(where)[0])
    large = jax.ShapeDtypeStruct((2**36,), jnp.float32, sharding=sharding)
    with pytest.raises(jax.errors.JaxRuntimeError, match=rf"exceeds available HBM \({where.chip.memory / GIB:.2f}G\)"):
        jax.jit(lambda x: x * 2).lower(large).compile()


@needs_compiler
@pytest.mark.slow
def test_the_command(tmp_path):
    config = write_config(tmp_path / "tiny.py", tiny_config(str(tmp_path / "run"), train={"batch_size": 64}))
    command = [
        sys.executable,
        "-m",
        "mlm_jax",
        "plan",
        str(config),
        "--topology",
        "v4-8",
        "--search",
        "--compiles",
        "2",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for expected in ("v4:2x2x1: 4 chips", "fits: ", "model FLOPs: ", "predicted by the roofline", "MFU "):
        assert expected in done.stdout
    assert not (tmp_path / "run").exists()


@needs_gpu_compiler
@pytest.mark.parametrize("name", cards.CARDS)
def test_each_card_is_compiled_for(name):
    where = topology.parse(f"{name}:2")
    topology.require_compiler(where)
    devices = topology.devices(where)
    assert [device.device_kind for device in devices] == [where.chip.card.name] * 2
    square = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16, sharding=jax.sharding.SingleDeviceSharding(devices[0]))
    text = jax.jit(lambda x: x @ x).lower(square).compile({"xla_gpu_autotune_level": 0}).as_text()
    assert program.read(text).flops == 2 * 256**3


@needs_gpu_compiler
@pytest.mark.parametrize(
    ("attention", "products"),
    [
        ("xla", 1),  # scores
        pytest.param("flash", 2 + 4 + 3 - 6, marks=pytest.mark.slow),
        pytest.param("cudnn", 2 + 5 - 6, marks=pytest.mark.slow),
    ],
)
def test_a_step_for_eight_gpus(attention, products):
    rows, heads, length, head = 2, 2, 512, 64
    model = {"layers": 2, "heads": heads, "width": heads * head, "positions": length, "attention_dropout": 0.0}
    _, step = compiled(
        topology.parse("h100:8"),
        model=model | {"attention": attention},
        data={"sequence_length": length},
        train={"batch_size": 8 * rows},
    )
    does = program.read(step.program)
    # As many FLOPs as the model has, but for what an attention kernel computes again, and for the head, which is computed twice.
    config = with_sections(tiny_config("x"), model=model, vocabulary={"size": 500})
    predictions = objectives.max_predictions(length, config.objective)
    needed = step_flops(config.model, padded_rows(500), rows, length, predictions)
    head_again = 2 * rows * predictions * head * heads * padded_rows(500)
    again = 2 * products * 2 * rows * heads * length * length * head
    assert does.flops == pytest.approx(needed + again + head_again, rel=0.02)
    # The gradients are summed once over all eight.
    summed = sum(c.bytes * c.times for c in does.collectives if c.kind == "all-reduce")
    assert {len(c.group) for c in does.collectives} == {8}
    assert 2 * step.parameters <= summed <= 4.01 * step.parameters
    assert step.memory.optimizer == pytest.approx(2 * step.memory.parameters, abs=100)


@pytest.mark.slow
@needs_gpu_compiler
@pytest.mark.parametrize(
    ("attention", "dropout", "gib", "least_mfu"),
    [("xla", 0.1, 9.0, 0.20), ("flash", 0.1, 8.0, 0.33), ("cudnn", 0.0, 8.0, 0.33)],
)
def test_xlmr_base_on_eight_gpus_with_each_kernel(attention, dropout, gib, least_mfu):
    where = topology.parse("h100:8")
    topology.require_compiler(where)
    config = with_sections(
        cfg.load_config(str(Path(__file__).parents[2] / "configs/xlmr_base.py")),
        model={"attention": attention, "attention_dropout": dropout},
        train={"batch_size": 8 * 32, "accumulate": 1},
        mesh={"data": -1, "fsdp": 1, "tensor": 1},
    )
    found = plan_step(config, where, -1.0)
    assert found.fits and found.memory.total < gib * GIB
    # What is computed again is the head, and by the kernels the scores.
    assert 1.05 < found.executed_flops * where.chips / found.model_flops < 1.15
    assert found.mfu > least_mfu
    assert {kind for kind, _ in found.collectives} == {"all-reduce"}


@pytest.mark.slow
@needs_gpu_compiler
def test_what_a_gpu_has_no_room_for_does_not_fit():
    where = topology.parse("h100:1")
    _, step = compiled(where)
    assert step.program is not None
    _, step = compiled(where, room=step.memory.total - 1)
    assert step.program is None and step.memory.total > 0


@needs_compiler
@pytest.mark.slow
def test_advice_for_what_does_not_fit_is_followed_and_fits():
    where = topology.parse("v5e:2x2")
    topology.require_compiler(where)
    model = {"layers": 4, "width": 256, "heads": 4, "mlp_width": 1024, "positions": 512, "dtype": "bfloat16"}
    config = with_sections(
        tiny_config("x"), model=model, data={"sequence_length": 512}, train={"batch_size": 4 * 2048, "accumulate": 1}
    )
    planned = plan_step(adapt(config, where), where, LEAST_EFFORT)
    assert not planned.fits
    said = advise(planned)
    options = said.split("mesh: ")[1].split(";")[0].split()
    assert options and set(options[::2]) <= {"--model.remat", "--train.accumulate"}
    changed = with_sections(
        planned.config,
        **{
            name.removeprefix("--").split(".")[0]: {name.split(".")[1]: int(value) if value.isdigit() else value}
            for name, value in zip(options[::2], options[1::2], strict=True)
        },
    )
    assert plan_step(changed, where, LEAST_EFFORT).fits


# A line per candidate, and a last compilation that is not over when the interrupt comes, however fast this machine is.
SLOW_AT_LAST = """\
import sys
import time
from mlm_jax import console
from mlm_jax.__main__ import main
from mlm_jax.plan import run

run.plan_step = lambda *arguments: time.sleep(300)
console.LINE_EVERY = 0
sys.exit(main())
"""


@needs_gpu_compiler
@pytest.mark.slow
def test_a_search_that_is_interrupted_shows_the_best_so_far(tmp_path):
    config = write_config(tmp_path / "tiny.py", tiny_config(str(tmp_path / "run"), train={"batch_size": 64}))
    command = [sys.executable, "-c", SLOW_AT_LAST, "plan", str(config), "--topology", "h100:8", "--search"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*command, "--compiles", "100"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "best so far" in line and "best so far none" not in line:
                process.send_signal(signal.SIGINT)
                break
        lines += process.stdout
        error = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted; this is the best so far" in error
    said = "".join(lines)
    assert "candidates, of which at most 100 are compiled; about" in said
    assert "fits: " in said and "MFU" in said.split("best so far")[-1]
