"""The configuration section that every script with a device shares. Imports no PyTorch."""

from dataclasses import dataclass

from common.run.config import at_least, between, option

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


@dataclass
class RuntimeConfig:
    """Device, number format, seed and workers of a run."""

    device: str = option(
        "auto", "auto (a GPU if there is one), cpu, cuda or mps.", choices=("auto", "cpu", "cuda", "mps")
    )
    precision: str = option(
        "fp32", "fp32 is exact; tf32, bf16 and fp16 (with loss scaling) are faster on GPUs.", choices=PRECISIONS
    )
    compile: bool = option(False, "Compile the model with torch.compile.")
    seed: int = option(0, "Seed of every random draw.", flag="--seed", rule=between(0, 2**32 - 1))
    num_workers: int = option(
        8,
        "Data-loader worker processes per process, at most one a core; results do not depend on it.",
        flag="--num_workers",
        rule=at_least(0),
    )
    byte_views: bool = option(
        True,
        "Views reach the device as bytes and are normalised there: equal numbers on CPUs, within the last bit on GPUs; "
        "false: the loader workers normalise them.",
    )
    deterministic: bool = option(False, "Only deterministic GPU kernels (slower); CPU runs are deterministic anyway.")
