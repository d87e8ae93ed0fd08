"""Parts that two or more methods share, in packages by station of a run.

Here, in the order of a run; a package imports only those before it:

    run         start of a script: configuration, run folder, log, processes, device
    data        images, image labels, masks, lists; `data.prepare` makes and checks data sets
    crf         dense CRF
    nets        networks, and weights into them
    score       scores of seeds and masks against true masks
    seeds       CAMs of a network as seeds, one file per image
    train       the engine of the training loop; beside `masks`
    masks       pseudo masks of seeds, masks of a segmentation network; beside `train`
    pipeline    scripts of several methods, one after the other
    predict     images that need no labels: masks, overlays, a table
    report      one page to look at: images, scores and curves of runs
    fuzz        damaged files for every reader; beside `report`

Two modules lie beside them, and every package above `data` may import them: `tensors` (types that torch's annotations
leave open) and `visual` (pictures).

Called by: the scripts and modules of `methods`, `scripts/` and `evaluation.py`.

Not here: anything that knows a method or serves one alone; it lies in ``methods/<method>/``.
"""
