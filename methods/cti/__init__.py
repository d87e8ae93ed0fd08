"""CTI: Class Tokens Infusion (CVPR 2024)."""
