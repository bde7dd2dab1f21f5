# SPDX-License-Identifier: Apache-2.0
"""A compiled program's text read: against arithmetic, XLA's own counts and the ways in which XLA writes things."""

import jax
import jax.numpy as jnp
import pytest

from mlm_jax.plan import program
from mlm_jax.plan.program import Sight


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


@pytest.mark.parametrize("turns", [1, 5])
def test_products_in_a_loop_count_as_often_as_it_turns(turns):
    def f(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    text = jax.jit(f).lower(shape(64, 32), shape(turns, 32, 32)).compile().as_text()
    assert program.read(text).flops == pytest.approx(turns * 2 * 64 * 32 * 32)


@pytest.mark.parametrize("equation", ["ij,jk->ik", "bij,bjk->bik", "bhqd,bhkd->bhqk", "nw,vw->nv"])
def test_flops_are_what_xla_counts(equation):
    sizes = dict(zip("ijkbhqdnwv", (4, 8, 16, 3, 2, 6, 5, 7, 9, 11), strict=True))
    left, right = equation.split("->")[0].split(",")
    operands = (shape(*(sizes[c] for c in side)) for side in (left, right))
    compiled = jax.jit(lambda a, b: jnp.einsum(equation, a, b)).lower(*operands).compile()
    assert program.read(compiled.as_text()).flops == pytest.approx(compiled.cost_analysis()["flops"])


def test_a_product_as_the_tpu_compiler_writes_it():
    # Attention's scores: 16 blocks and 12 heads are batches; 512 queries, 512 keys, width 64.
    line = (
        "%c = f32[16,12,512,512]{2,3,1,0:T(8,128)} convolution(%q, %k), window={size=16x12 stride=15x11 lhs_dilate=16x12}, "
        "dim_labels=01bf_01oi->01bf"
    )
    text = (
        "ENTRY %main (q: bf16[16,12,512,64], k: bf16[16,12,512,64]) -> f32[16,12,512,512] {\n"
        "  %q = bf16[16,12,512,64]{3,2,1,0:T(8,128)(2,1)} parameter(0)\n"
        "  %k = bf16[16,12,512,64]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(1)\n"
        f"  ROOT {line}\n}}\n"
    )
    read = program.read(text)
    assert read.flops == 2 * 16 * 12 * 512 * 512 * 64
    # The keys lie in fast memory already.
    assert read.traffic == 16 * 12 * 512 * 64 * 2 + 16 * 12 * 512 * 512 * 4


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("replica_groups={{0,2,4},{1,3,5}}", (0, 2, 4)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", (0, 4)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", tuple(range(8))),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=8], device_ids=([8,2]T(1,0)) {'axis_0'}", (0, 1)),
        ("source_target_pairs={{0,3},{3,0}}", (0, 3)),
    ],
)
def test_groups(written, group):
    assert program._group(f", channel_id=1, {written}, dimensions={{0}}") == group


def test_collectives_are_counted_with_their_loops_and_groups():
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    over = jax.sharding.PartitionSpec

    def part(x):
        def body(x, _):
            return x + jax.lax.psum(x, "b"), None

        x = jax.lax.scan(body, x, None, length=3)[0]
        return jax.lax.all_gather(x, "a", tiled=True)

    f = jax.shard_map(part, mesh=mesh, in_specs=over("a", "b"), out_specs=over(None, "b"), check_vma=False)
    found = program.read(jax.jit(f).lower(shape(8, 16)).compile().as_text()).collectives
    kinds = {c.kind: c for c in found}
    assert kinds["all-reduce"].times == 3 and kinds["all-reduce"].group == (0, 1, 2, 3)
    assert kinds["all-reduce"].bytes == 4 * 4 * 4
    assert kinds["all-gather"].times == 1 and kinds["all-gather"].group == (0, 4)
    assert kinds["all-gather"].bytes == 8 * 4 * 4
    assert program.totals(found)["all-reduce", 4] == (3, 3 * 64)


def test_of_a_stack_only_the_slice_is_read_and_written():
    stack, x = shape(1_000, 256), shape(256)

    def f(stack, x):
        return jax.lax.scan(lambda x, row: (x + row, x * row), x, stack)

    traffic = program.read(jax.jit(f).lower(stack, x).compile().as_text()).traffic
    once = 1_000 * 256 * 4
    assert 2 * once <= traffic <= 12 * once  # and not 1,000 times


def test_reserved_memory_moves_nothing():
    reserved = '  %r = f32[12,512]{1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer", metadata={op_name="broadcast"}\n'
    text = f"ENTRY %main () -> f32[12,512] {{\n{reserved}  ROOT %c = f32[12,512]{{1,0:T(8,128)}} copy(%r)\n}}\n"
    assert program.read(text).traffic == 2 * 12 * 512 * 4  # the copy's


# A loop's body writes a layer into its stack, or reads one: as the TPU compiler writes it, which first lays the stack out anew.
STACKED = """%copy_fusion (input: pred[12,16,512]) -> pred[12,16,512] {{
  %input = pred[12,16,512]{{2,1,0:T(32,128)(4,1)}} parameter(0)
  ROOT %copy.1 = pred[12,16,512]{{2,1,0:T(8,128)(4,1)}} copy(%input)
}}

%fused (stack: pred[12,16,512], row: pred[1,16,512], layer: s32[]) -> pred[{layers},16,512] {{
  %stack = pred[12,16,512]{{2,1,0:T(32,128)(4,1)}} parameter(0)
  %row = pred[1,16,512]{{2,1,0:T(8,128)(4,1)}} parameter(1)
  %layer = s32[]{{:T(128)}} parameter(2)
  %zero = s32[]{{:T(128)}} constant(0)
  %flat = pred[12,1,16,512]{{3,2,1,0:T(32,128)(4,1)}} bitcast(%stack)
  %back = pred[12,16,512]{{2,1,0:T(32,128)(4,1)}} bitcast(%flat)
  %laid = pred[12,16,512]{{2,1,0:T(8,128)(4,1)}} fusion(%back), kind=kLoop, {alias}calls=%copy_fusion
  ROOT {root}
}}

ENTRY %main (stack: pred[12,16,512], row: pred[1,16,512], layer: s32[]) -> pred[{layers},16,512] {{
  %stack = pred[12,16,512]{{2,1,0:T(32,128)(4,1)}} parameter(0)
  %row = pred[1,16,512]{{2,1,0:T(8,128)(4,1)}} parameter(1)
  %layer = s32[]{{:T(128)}} parameter(2)
  ROOT %f = pred[{layers},16,512]{{2,1,0:T(8,128)(4,1)}} fusion(%stack, %row, %layer), kind=kLoop, calls=%fused
}}
"""
UPDATE = "%d = pred[12,16,512]{2,1,0:T(8,128)(4,1)} dynamic-update-slice(%laid, %row, %layer, %zero, %zero)"
CUT = "%d = pred[1,16,512]{2,1,0:T(8,128)(4,1)} dynamic-slice(%laid, %layer, %zero, %zero), dynamic_slice_sizes={1,16,512}"
WHOLE = "%d = pred[12,16,512]{2,1,0:T(8,128)(4,1)} not(%laid)"
ALIAS = "output_to_operand_aliasing={{}: (0, {})}, "
ROW, LAYER = 16 * 512, 4


@pytest.mark.parametrize(
    ("root", "alias", "moved"),
    [
        (UPDATE, ALIAS, ROW + ROW + LAYER),  # the row is read and written
        (CUT, ALIAS, ROW + ROW + LAYER),  # from the stack to the result
        # What is not laid out in place, or is used whole, counts whole.
        (UPDATE, "", 12 * ROW + ROW + ROW + LAYER),
        (WHOLE, ALIAS, 12 * ROW + 12 * ROW),
    ],
)
def test_a_stack_counts_as_what_is_cut_out_whatever_it_passes_before(root, alias, moved):
    text = STACKED.format(root=root, alias=alias, layers=1 if root is CUT else 12)
    assert program.read(text).traffic == moved


def test_a_stack_that_leaves_a_fusion_under_another_name_is_read_whole():
    root = "%d = pred[12,1,16,512]{3,2,1,0:T(8,128)(4,1)} bitcast(%laid)"
    text = STACKED.format(root=root, alias=ALIAS, layers=12)
    assert program.read(text).traffic == 2 * 12 * ROW


# ---- As the GPU compiler writes things.


def gpu(lines, arguments="a: bf16[8,256,512], b: bf16[8,512,128]"):
    parameters = [
        f"  %{name} = {kind} parameter({i})"
        for i, (name, kind) in enumerate(part.split(": ") for part in arguments.split(", "))
    ]
    return "\n".join([f"ENTRY %main ({arguments}) -> f32[] {{", *parameters, *(f"  {line}" for line in lines), "}\n"])


def test_a_fused_loop_turns_as_often_as_is_written_beside_it_and_so_do_the_cycles_expected_of_it():
    body = """%plus (i: s32[]) -> s32[] {
  %i = s32[] parameter(0)
  %one = s32[] constant(1)
  ROOT %next = s32[] add(%i, %one)
}

%body (p: (s32[], f32[256])) -> (s32[], f32[256]) {
  %p = (s32[], f32[256]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[256]{0} get-tuple-element(%p), index=1
  %next = s32[] fusion(%i), kind=kLoop, calls=%plus
  %y = f32[256]{0} negate(%x), backend_config={"flag_configs":[],"estimated_cycles":"100"}
  ROOT %t = (s32[], f32[256]{0}) tuple(%next, %y)
}

%condition (p: (s32[], f32[256])) -> pred[] {
  %p = (s32[], f32[256]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] fusion(%i), kind=kLoop, calls=%compare
}

"""
    loop = (
        "ROOT %w = (s32[], f32[256]{0}) while(%a), condition=%condition, body=%body, "
        'backend_config={"known_trip_count":{"n":"12"},"known_init_step":{"init":"0","step":"1"}}'
    )
    counters = 2 * 4  # the counter is read and written
    read = program.read(body + gpu([loop], "a: (s32[])"))
    assert read.traffic == 12 * (2 * 256 * 4 + counters)
    assert sum(work.cycles for work in read.work) == 12 * 100


def test_a_product_by_cublas_counts_and_its_memory_to_work_in_does_not():
    call = (
        "ROOT %c = (bf16[8,256,128]{2,1,0}, s8[33554432]{0}) custom-call(%a, %b), "
        'custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{'
        '"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],"lhs_batch_dimensions":["0"],'
        '"rhs_batch_dimensions":["0"]}}}'
    )
    read = program.read(gpu([call]))
    assert read.flops == 2 * 8 * 256 * 512 * 128
    assert read.traffic == 2 * 8 * (256 * 512 + 512 * 128 + 256 * 128)


ROWS, HEADS, LENGTH, HEAD = 4, 12, 512, 64
ONE = 2 * ROWS * HEADS * LENGTH * LENGTH * HEAD  # a product of queries and keys
BOUNDS = f"bounds: s32[{ROWS},8,2], numbers: s32[2], seeds: s32[{ROWS}], ids: s32[{ROWS},1,{LENGTH}]"


@pytest.mark.parametrize(
    ("call", "arguments", "products"),
    [
        pytest.param(
            f"(bf16[{ROWS},{HEADS},{LENGTH},{HEAD}]{{3,1,2,0}}, u8[0]{{0}}) custom-call(%q), "
            'custom_call_target="__cudnn$fmhaScaleBiasSoftmax", backend_config={"cudnn_fmha_backend_config": {'
            f'"intermediate_tensor_shape": {{"element_type": "BF16", "dimensions": ["{ROWS}", "{HEADS}", "512", "512"]}}}}}}',
            f"q: bf16[{ROWS},{LENGTH},{HEADS},{HEAD}]",
            {"dot_product_attention_fwd.0": 2, "dot_product_attention_bwd.9": 5},
            id="cudnn",
        ),
        pytest.param(
            f"(bf16[{ROWS},{LENGTH},{HEADS},{HEAD}]{{3,2,1,0}}) custom-call(%q, %ids), "
            'custom_call_target="__gpu$xla.gpu.triton", backend_config={grid_x = 4 : i32, ir = "ML\\EF", name = "NAME"}',
            f"q: bf16[{ROWS},{LENGTH},{HEADS},{HEAD}], ids: s32[{ROWS},{LENGTH}]",
            {"mha_forward": 2, "mha_backward": 7, "mha_preprocess_backward": 0},
            id="triton",
        ),
        pytest.param(
            f"bf16[{ROWS},{HEADS},{LENGTH},{HEAD}]{{3,2,1,0}} custom-call(%bounds, %numbers, %seeds, %ids, %q), "
            'custom_call_target="__gpu$xla.gpu.triton", backend_config={grid_x = 4 : i32, ir = "ML\\EF", name = "NAME"}',
            f"{BOUNDS}, q: bf16[{ROWS},{HEADS},{LENGTH},{HEAD}]",
            {"flash_forward": 2, "flash_dkv": 4, "flash_dq": 3},
            id="ours on a GPU",
        ),
        pytest.param(
            f"bf16[{ROWS},{HEADS},{HEAD},{LENGTH}]{{3,2,1,0}} custom-call(%bounds, %numbers, %seeds, %ids, %q), "
            'custom_call_target="tpu_custom_call"',
            f"{BOUNDS}, q: bf16[{ROWS},{HEADS},{HEAD},{LENGTH}]",
            {"flash_forward.3": 2, "flash_backward.4": 5},
            id="ours on a TPU",
        ),
    ],
)
def test_attention_kernels_count_by_their_names(call, arguments, products):
    for name, count in products.items():
        line = f"ROOT %{'pallas_call.1' if 'NAME' in call else name} = {call.replace('NAME', name)}"
        assert program.read(gpu([line], arguments)).flops == count * ONE
    # Where the program does not say what it visits, the model does: a fourth of the layers sees all, the others 64 tokens.
    whole = program.read(gpu([line], arguments)).flops
    local = program.read(gpu([line], arguments), Sight(0.25, 64)).flops
    tiles = 8 * 3 - 2  # 64 tokens each: a tile's own, and one to either side
    assert local == (whole * (0.25 + 0.75 * tiles / 64) if "bounds" in arguments else whole)


def test_tiles_that_are_visited():
    assert Sight().visited(8, 8, 512) == 1
    assert Sight(causal=True).visited(8, 8, 512) == (8 * 9 / 2) / 64
    # Windows of 64 reach from a tile of 64 into its neighbours; of 65 one token further.
    assert Sight(0, 64).visited(8, 8, 512) == (8 * 3 - 2) / 64
    assert Sight(0, 65).visited(8, 8, 512) == (8 * 5 - 6) / 64
    assert Sight(0, 64, causal=True).visited(8, 8, 512) == (8 * 2 - 1) / 64
    assert Sight(0.5, 64).visited(8, 8, 512) == (1 + (8 * 3 - 2) / 64) / 2


@pytest.mark.parametrize(("synchronous", "alone"), [("true", True), ("false", False)])
def test_collectives_of_gpus_are_alone_where_they_do_not_go_on_beside_others(synchronous, alone):
    groups = 'channel_id=1, replica_groups={{0,1}}, backend_config={"collective_backend_config":{"is_sync":SYNC}}'
    lines = [
        "%s = ((bf16[8,256,512], bf16[8,512,128]), (bf16[16,256,512], bf16[16,512,128])) all-gather-start(%a, %b), dimensions={0}, "
        + groups.replace("SYNC", synchronous),
        "ROOT %d = (bf16[16,256,512], bf16[16,512,128]) all-gather-done(%s)",
    ]
    (found,) = program.read(gpu(lines)).collectives
    assert found.alone is alone and found.group == (0, 1)
    assert found.bytes == 2 * 16 * (256 * 512 + 512 * 128)


BEGUN_EARLY = """%cut (stack: bf16[12,32,768], layer: s32[]) -> bf16[1,32,768] {{
  %stack = bf16[12,32,768]{{2,1,0}} parameter(0)
  %layer = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = bf16[1,32,768]{{2,1,0}} dynamic-slice(%stack, %layer, %zero, %zero), dynamic_slice_sizes={{1,32,768}}
}}
ENTRY %main (stack: bf16[12,32,768], layer: s32[]) -> bf16[1,32,768] {{
  %stack = bf16[12,32,768]{{2,1,0}} parameter(0)
  %layer = s32[] parameter(1)
{fusion}
}}
"""


def test_a_fusion_that_begins_early_moves_what_one_in_its_place_moves():
    """The GPU compiler of jax 0.11 cuts a layer out of a stack while other things run."""
    calls = "kind=kLoop, calls=%cut"
    at_once = f"  ROOT %f = bf16[1,32,768]{{2,1,0}} fusion(%stack, %layer), {calls}"
    early = (
        "  %s = ((bf16[12,32,768]{2,1,0}, s32[]), bf16[1,32,768]{2,1,0}, u32[]) "
        f"fusion-start(%stack, %layer), {calls}\n"
        "  ROOT %f = bf16[1,32,768]{2,1,0} fusion-done(%s)"
    )
    wanted, found = (program.read(BEGUN_EARLY.format(fusion=text)).traffic for text in (at_once, early))
    assert found == wanted == pytest.approx(2 * 2 * 32 * 768, abs=8)
