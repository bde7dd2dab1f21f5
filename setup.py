# SPDX-License-Identifier: Apache-2.0
"""The package and its extras: ranges here; constraints.txt has the exact versions that were tested together."""

from setuptools import find_packages, setup

setup(
    name="mlm_jax",
    version="0.1.0",
    description="Pretrain multilingual text encoders from raw text in JAX",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["mlm_jax", "mlm_jax.*"]),
    entry_points={"console_scripts": ["mlm-jax = mlm_jax.cli:main"]},
    # All of training, without TensorFlow: what a machine needs that only trains.
    install_requires=[
        "etils[epath]>=1.13",
        "flax>=0.12,<0.13",
        "google-crc32c>=1.6",  # TFRecord's checksum, from C
        "grain>=0.2.18,<0.3",
        "jax>=0.10,<0.13",
        "matplotlib>=3.9",
        "numpy>=2.0,<3",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "protobuf>=6.31,<8",
        "rich>=13",
        "sentencepiece>=0.2.1,<0.3",
        "tensorboardX>=2.6",  # TensorBoard's files without TensorFlow
        "tyro>=1.0,<2",
        "zstandard>=0.23",
    ],
    extras_require={
        # The preparation half: SeqIO tasks and TensorFlow data sets.
        "prepare": ["seqio>=0.0.20", "tensorflow>=2.20,<3", "tensorflow-datasets>=4.9.9,<5"],
        # The default corpus is the text of Django's translation catalogues; nothing imports Django.
        "sample": ["django>=5.2,<5.3"],
        # Preparation on a cluster. Beam wants protobuf < 7, and sentencepiece from 0.2.2 on a newer one.
        "beam": ["apache-beam>=2.77", "sentencepiece<0.2.2"],
        "gpu": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "test": ["hypothesis>=6.100", "import-linter>=2.1", "mypy>=1.15", "pre-commit>=4", "pytest>=8", "ruff>=0.9"],
        # Comparisons with Hugging Face's models. A plain `torch` brings gigabytes of CUDA: see launch/README.md.
        "parity": ["torch==2.13.0", "transformers>=5"],
    },
)
