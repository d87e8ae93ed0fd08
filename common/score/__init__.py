"""Scores: predictions against true masks, as IoU, precision and recall.

Here:

    evaluate      scores predictions from files or from memory, over all processes
    files       predictions and true masks as files
    counts        the pixel counts behind a score, for all thresholds in one pass
    bins        numbers of thresholds below values
    result      an evaluation's points and files
    read        reads the JSON of an evaluation
    report      scores within a script, or the reason for none
    mask_meaning    whether true masks and image labels mean the same classes
    trivial     scores of the two trivial predictions, which every prediction must beat
    values      values of seeds that make a score doubtful
    origin      the fingerprint of a score: all that it depends on
    lists       the list that predictions are scored on
    sheet       choice and captions of the images on contact sheets of predictions
    images      images that can be scored: images with true masks
    options     the configuration section ``eval``

    card        the evaluation card: all scores with intervals, and its files
    image_counts     pixel counts of every single image
    boundary    boundary pixels of regions, for boundary IoU
    average_precision    pixel average precision of CAMs
    sizes       recall by the size of objects
    boxes       boxes of a localisation as a file, and the maps that they enclose
    bootstrap   draws of images, and intervals
    means       scores and means from the counts of images
    per_image   the table of a card
    pictures    the pictures of a card
    compare     paired differences of runs

Called by: ``evaluation.py``, `common.seeds`, `common.train`, `common.masks`, and scripts that score at their end.

Not here: the making of predictions (`common.seeds`, `common.masks`), and the scores of object localisation (CRT's own).
"""
