"""Any image in, masks out: prediction of images that need no labels, by the code of the methods' own inference.

Here:

    predictor    a trained network that predicts images: for scripts, and for programs of users
    photos       images named by files and folders, and their ids
    presence     the classes that are looked for in an image: given, all, or by class scores
    score        scores on a labelled list: F1 of the classes, mIoU of the masks
    results      the folder of predictions: masks, overlays, seeds, table, manifest

Called by: ``scripts/predict.py``, and programs of users (docs/predict.md).

Not here: the networks (``methods/``, found by `common.pipeline.builders`), seeds and masks of image lists
(`common.seeds`, `common.masks`), and the files of annotation tools (`common.data.prepare.annotations`).
"""
