"""Configuration of the dense CRF. Imports no PyTorch."""

from dataclasses import dataclass
from pathlib import Path

from common.run.config import ABOVE_ZERO, at_least, option
from common.run.errors import UserError


@dataclass
class CRFConfig:
    """Dense CRF; the defaults are PSA's, which the methods built on it share."""

    backend: str = option(
        "auto", "Implementation; auto: pydensecrf on CPUs where it is installed (faster there), else lattice.",
        choices=("auto", "pydensecrf", "lattice"),
    )  # fmt: skip
    device: str = option("cpu", "Device of the lattice; cuda: the process's GPU.", choices=("cpu", "cuda"))
    iterations: int = option(10, "Mean-field iterations.", rule=at_least(0))
    gaussian_sxy: float = option(3.0, "Pixels over which the smoothing term reaches.", rule=ABOVE_ZERO)
    gaussian_compat: float = option(3.0, "Weight of the smoothing term.", rule=at_least(0))
    bilateral_sxy: float = option(80.0, "Pixels over which the colour term reaches.", rule=ABOVE_ZERO)
    bilateral_srgb: float = option(
        13.0, "Colour difference (of 255) over which the colour term reaches.", rule=ABOVE_ZERO
    )
    bilateral_compat: float = option(10.0, "Weight of the colour term.", rule=at_least(0))

    def check(self) -> None:
        """Checks the backend against the device.

        Raises:
            UserError: it has no version for it.
        """
        if self.backend == "pydensecrf" and self.device != "cpu":
            raise UserError(
                f"pydensecrf has no {self.device} version: use the CRF's backend lattice, or its device cpu"
            )


def crf_folder(folder: str | Path, alpha: int) -> Path:
    """The folder of one alpha's refined seeds: ``<folder>/06`` for 6."""
    return Path(folder) / f"{alpha:02d}"
