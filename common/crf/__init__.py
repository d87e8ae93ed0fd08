"""The dense CRF of an image: label probabilities to marginals.

Here:

    dense         the CRF of an image or of its seed, by either backend; the files made of a folder of seeds
    mean_field    mean-field inference on the lattice
    lattice       Gaussian filtering on the permutohedral lattice
    options       the configuration section of a CRF

Called by: `common.seeds` and `common.masks`; the labels of PSA and IRN; ToCo's energy loss, which takes the lattice.

Not here: folders and lists of images (`common.seeds.products`, `common.masks.crf_job`), and pixel-adaptive refinement
(ToCo's own).
"""
