# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's data-centre GPUs as their published documents have them, and as XLA's GPU compiler is told of one that is not here.

Sources: the data sheets and architecture papers of the A100, H100, H200 and B200, the CUDA programming guide's table of compute
capabilities, and the data sheets of DGX A100, H100, H200 and B200, of which a host is one.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 2**10, 2**20


@dataclass(frozen=True)
class Card:
    """A GPU with NVLink (SXM).

    Attributes:
      name: as the driver calls it.
      capability: compute capability, (major, minor).
      accelerated: whether the compiler may use what only this architecture has (sm_90a, sm_100a).
      multiprocessors, float32_units: the latter per multiprocessor.
      shared_memory: bytes per multiprocessor; a block may have 1 KiB less.
      l2: bytes.
      clock: GHz at most.
      memory: bytes of HBM that the driver reports.
      bandwidth: of HBM, bytes/s.
      nvlink: to all GPUs of the host together, one way, bytes/s.
      nvlinks: links that this is.
      network: of the host's adapters (one per GPU), one way, bytes/s per GPU.
    """

    name: str
    capability: tuple[int, int]
    accelerated: bool
    multiprocessors: int
    float32_units: int
    shared_memory: int
    l2: int
    clock: float
    memory: int
    bandwidth: float
    nvlink: float
    nvlinks: int
    network: float


CARDS = {
    "a100": Card(
        *("NVIDIA A100-SXM4-80GB", (8, 0), False, 108, 64, 164 * KIB, 40 * MIB, 1.41),
        *(85_100_068_864, 2.039e12, 300e9, 12, 25e9),
    ),
    "h100": Card(
        *("NVIDIA H100 80GB HBM3", (9, 0), True, 132, 128, 228 * KIB, 50 * MIB, 1.98),
        *(84_942_979_072, 3.352e12, 450e9, 18, 50e9),
    ),
    "h200": Card(
        *("NVIDIA H200", (9, 0), True, 132, 128, 228 * KIB, 50 * MIB, 1.98),
        *(151_397_597_184, 4.8e12, 450e9, 18, 50e9),
    ),
    "b200": Card(
        *("NVIDIA B200", (10, 0), True, 148, 128, 228 * KIB, 126 * MIB, 1.965),
        *(191_514_411_008, 8e12, 900e9, 18, 50e9),
    ),
}
# What all of them have alike.
THREADS_OF_A_WARP, THREADS_OF_A_BLOCK, THREADS_OF_A_MULTIPROCESSOR, REGISTERS = 32, 1024, 2048, 65_536
CUDNN = (9, 10, 0)  # the least that JAX's wheels ask for


def target_config(card: Card) -> str:
    """The card as XLA reads it where there is none: text of its GpuTargetConfigProto."""
    major, minor = card.capability
    return f"""gpu_device_info {{
  name: "{card.name}"
  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability {{
    major: {major}
    minor: {minor}
    feature_extension: {"ACCELERATED_FEATURES" if card.accelerated else "NONE"}
  }}
  core_count: {card.multiprocessors}
  fpus_per_core: {card.float32_units}
  threads_per_warp: {THREADS_OF_A_WARP}
  threads_per_block_limit: {THREADS_OF_A_BLOCK}
  threads_per_core_limit: {THREADS_OF_A_MULTIPROCESSOR}
  registers_per_core_limit: {REGISTERS}
  registers_per_block_limit: {REGISTERS}
  shared_memory_per_core: {card.shared_memory}
  shared_memory_per_block: {48 * KIB}
  shared_memory_per_block_optin: {card.shared_memory - KIB}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: {2**16 - 1}
  block_dim_limit_z: {2**16 - 1}
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  l2_cache_size: {card.l2}
  clock_rate_ghz: {card.clock}
  memory_bandwidth: {card.bandwidth:.0f}
  device_memory_size: {card.memory}
  runtime_version: "12.8.0"
  driver_version: "13.0.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "{".".join(map(str, CUDNN))}"
  device_interconnect_info {{
    active_links: {card.nvlinks}
  }}
}}
platform_name: "CUDA"
dnn_version_info {{
  major: {CUDNN[0]}
  minor: {CUDNN[1]}
  patch: {CUDNN[2]}
}}
device_description_str: "{card.name}"
"""
