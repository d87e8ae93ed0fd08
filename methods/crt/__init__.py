"""CRT: Dual Progressive Transformations, a CNN-refined Transformer (2022)."""
