# SPDX-License-Identifier: Apache-2.0
"""A part of a Common Crawl snapshot as a corpus of every language in it, the step before XLM-R (CC-100, FineWeb-2).

    mlm-jax curate configs/curate/web.py --inputs 'crawl/*.warc.gz' --workdir /data/web

or --inputs warc.paths.gz --prefix crawl/ for the files that a snapshot's list names. Then, from its folder,
`Source("*", "corpus/{language}/*.jsonl.zst", field="text")` in the config of `pretrain` reads it.
"""

from mlm_jax.curate.config import Curate, Identify


def get_config() -> Curate:
    return Curate(inputs=("crawl/*.warc.gz",), identify=Identify(mixed="split"), dropped=20, memory=8.0)
