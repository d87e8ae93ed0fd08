"""Seeds: normalised CAMs of the labelled classes, for a whole image list.

Here: `cam` (normalisation, flips and scales), `infer` (batches to seeds, and their folder), `script` (the inference
script of every classifier), `products` (pictures and dense CRF of a folder of seeds), `score` (seeds in memory, within
a training too), `options` (the section ``infer``).

Called by the inference scripts of the methods, and by the training engine to validate.

Not here: the format of seed files (`common.data.seeds`), pseudo masks (`common.masks`).
"""
