"""Stages that run one after the other, each a script of its own.

Here: `stages` (run, skip or go on with a stage), `builders` (the stages of a pipeline; the one module that names
methods' scripts), `table` (scores after every stage), `options` (the configuration of a pipeline).

Called by the scripts that run several others, such as scripts/run_pipeline.py.

Not here: the work of a stage.
"""
