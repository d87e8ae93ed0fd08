"""Evaluation: predictions against true masks.

Here: `counts` (pixel counts, at every threshold in one pass), `evaluate` (predictions from files or memory, shared by
all processes), `result` (scores and their files), `report` (one report of a result, or of the reason for none),
`images` (images that can be scored), `options` (the section ``eval``).

Called by evaluation.py, validation within trainings, and every inference that scores its output.

Not here: making of predictions (`common.seeds`, `common.masks`), scores of object localisation (its own folder).
"""
