"""PCSS: phase concentration and shortcut suppression (ECCV 2024)."""
