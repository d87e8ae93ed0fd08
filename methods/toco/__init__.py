"""ToCo: Token Contrast for weakly supervised semantic segmentation (CVPR 2023)."""
