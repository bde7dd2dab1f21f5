# SPDX-License-Identifier: Apache-2.0
"""The shape of MaxText's 32B decoder, for which speeds on v5e and v5p are published: to compare `plan`'s prediction with (docs/plan.md).

    mlm-jax plan benchmarks/maxtext_32b.py --topology v5p:4x4x4 --effort -1

Source: MaxText's src/maxtext/configs/base.yml at global_parameter_scale 32, and tpu/v5p/32b.sh, of 2026: 6 blocks of 2,048 tokens per chip. Our
norms subtract the mean, our GLU is GELU's, and our head is tied: of the FLOPs none of it is more than a thousandth.
"""

from mlm_jax.config import Config, Data, Mesh, Model, Source, Train, Vocabulary


def get_config() -> Config:
    model = Model(
        layers=32,
        width=8_192,
        heads=64,
        mlp_width=28_672,
        norm="pre",
        embedding_norm=False,
        bias=False,
        gated=True,
        position_embedding="rotary",
        positions=2_048,
        position_offset=0,
        causal=True,
        head="plain",
        dropout=0.0,
        attention_dropout=0.0,
        remat="dots",
    )
    return Config(
        model=model,
        vocabulary=Vocabulary(size=32_000),
        data=Data(sources=(Source("en", "text/en.txt"),), sequence_length=2_048),
        train=Train(batch_size=384, accumulate=2),
        mesh=Mesh(data=1, fsdp=-1),
    )
