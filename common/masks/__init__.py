"""Masks: pseudo masks of seeds, and the masks of a segmentation network.

Here:

    from_seeds    reading a folder of seeds for a refinement, and what identifies it
    pairs         pairs of pixels, their affinity labels, and the random walk (PSA and IRN)
    face          a segmentation network as inference sees it
    network       masks of a segmentation network: flips and scales, CRF, files, scores
    crf_job       the dense CRF of one image to a mask file, as a job for a pool of processes
    training      the masks that a segmentation network is trained on
    views         its inputs: random crops with their masks, whole images
    losses        its cross-entropy
    scores        scores of its masks, and its validation
    submission    the archive for VOC's evaluation server
    options       the configuration sections of masks, and of the seeds they are made of

Called by: the scripts of PSA, IRN, DeepLab, the ViT segmenter and ToCo, ``scripts/crf_masks.py``, `common.pipeline`.

Not here: the networks (``methods/``), reading and writing of mask files (`common.data`), and scores against true masks
(`common.score`).
"""
