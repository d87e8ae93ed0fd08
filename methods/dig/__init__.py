"""DiG: Diffusion-Guided weakly supervised semantic segmentation (ECCV 2024)."""
