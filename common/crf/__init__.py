"""The dense CRF of one image.

Here: `dense` (marginals by a backend, of seeds too), `mean_field` and `lattice` (this project's backend, on CPUs and
GPUs), `options` (its configuration section).

Called by inference with ``--crf``, the stages that refine seeds, and ToCo's energy loss (the lattice).

Not here: CRFs of whole image lists (`common.seeds.products`, `common.masks`).
"""
