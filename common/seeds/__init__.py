"""Seeds: the CAMs of a network for an image list, written, refined, drawn, scored.

Here:

    script      the inference script of a classifier, from checkpoint to score
    face        a classifier as inference sees it
    infer       seeds of a whole image list, and their folder
    cam         CAMs over flips and scales, normalised
    thresholds  thresholds of class scores and background, beside the weights
    products    pictures of seeds, and their dense CRF
    score       scores of seeds in memory
    faithfulness     scores of seeds without masks: deletion and insertion
    options     the configuration section ``infer``

Called by: the inference scripts of CTI, PCSS, DiG, CRT and ToCo; `common.train`, for validation.

Not here: the format of seed files (`common.data.seeds`), and the refinement of seeds to pseudo masks (`common.masks`,
the scripts of PSA and IRN).
"""
