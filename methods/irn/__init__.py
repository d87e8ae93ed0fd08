"""IRN: inter-pixel relations refine seeds to pseudo masks."""
