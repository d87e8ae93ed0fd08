"""Pipelines: the scripts of several methods, one after the other, with a table of their scores at the end.

Here:

    stages      a stage, and running stages: skipped when complete, gone on with after an interruption
    builders    the stages of refinement and segmentation; the one module of `common` that names methods
    plan        the cost of a training before it is started: memory, GPU hours, disk
    recipe      the way to a paper's numbers on a data set, and the table of published and own numbers
    table       the table of scores
    options     the configuration of a pipeline

Called by: ``scripts/run_pipeline.py``, ``scripts/pipeline_table.py``, ``scripts/plan.py``, ``scripts/reproduce.py``,
CRT's ``run_sample.py``.

Not here: the work of a stage. Each stage is a script of its own, which is started as a process and leaves its results
in a run folder.
"""
