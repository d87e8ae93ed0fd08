"""Masks: pseudo masks of seeds, and the masks of a segmentation network.

Here:

    from_seeds    reading a folder of seeds for a refinement, and what identifies it
    pairs         pairs of pixels, their affinity labels, and the random walk (PSA and IRN)
    network       masks of a segmentation network: flips and scales, CRF, files, scores
    crf_job       the dense CRF of one image to a mask file, as a job for a pool of processes
    submission    the archive for VOC's evaluation server
    options       the configuration sections of masks, and of the seeds they are made of

Called by: the scripts of PSA, IRN, DeepLab and ToCo, ``scripts/crf_masks.py``, and `common.pipeline`.

Not here: the networks of PSA, IRN and DeepLab (``methods/``), reading and writing of mask files (`common.data`), and
scores (`common.score`).
"""
