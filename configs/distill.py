# SPDX-License-Identifier: Apache-2.0
"""A student of 6 layers of width 384 learns the attention relations of XLM-R base, after MiniLM v2 (Wang et al. 2021, section 4).

    mlm-jax pretrain configs/distill.py --distillation.teacher FOLDER

Text: one file per language, `text/{language}.txt`, one document per line; the languages are the files' names. Of 278 M parameters 107 M are
left, of which 96 M are the embedding of the 250,002 pieces (`mlm-jax adapt` takes out those of other languages). Relations are of 48 heads, whatever
both encoders' own are. Of XLM-R large take `--distillation.relation_layer 19 --distillation.relation_heads 64`.

To begin with some of the teacher's layers instead, at the teacher's width: `mlm-jax import FOLDER runs/distill --layers 1,3,5,7,9,11`, and then
the command above.
"""

from mlm_jax.config import Config, Data, Distillation, Model, Objective, Optimizer, Sampling, Source, Train


def get_config() -> Config:
    return Config(
        data=Data(sources=(Source("*", "text/{language}.txt"),), sequence_length=512),
        sampling=Sampling(exponent=0.3),
        model=Model(layers=6, width=384, heads=12, mlp_width=1536, positions=512),
        objective=Objective(learn="distillation"),
        distillation=Distillation(teacher="xlm-roberta-base", relations=1.0, relation_heads=48),
        optimizer=Optimizer(learning_rate=6e-4, warmup_steps=4_000),
        train=Train(steps=400_000, batch_size=256, validate_every=10_000, save_every=10_000),
    )
