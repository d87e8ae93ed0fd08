"""Masks of whole image lists: pseudo masks made from seeds, and masks of a segmentation network.

Here: `network` (logits of flips and scales to masks, CRF, scores), `crf_job` (the CRF of one image, in a pool of
processes), `submission` (the archive for VOC's server), `from_seeds` (reading the seeds that are refined), `crf_alone`
(masks by a dense CRF of seeds), `pairs` (pairs of neighbouring cells, for affinities), `options` (the sections of masks
and seeds).

Called by the scripts that segment images or refine seeds.

Not here: the networks of the refinements (methods/<stage>/), writing of mask files (`common.data.outputs`).
"""
