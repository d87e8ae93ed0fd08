"""Images, labels, masks and seed files, and the batches made of them.

Here: `dataset` (image sets with and without labels), `layout` (where the files of a data set lie), `lists` (ids),
`labels` (multi-hot image labels), `classes`, `masks` (label masks as PNG), `seeds` (the format of seed files), `cub`
(CUB-200-2011), `transforms` (plain input), `augment` (random views through timm), `options` (the section of a view),
`crops` (places of random crops), `loader` (training batches in exact order), `whole` (whole image lists in batches of
one size), `outputs` (one file for each image, restartable).

Called by all later packages, methods and scripts.

Not here: downloads, conversions and checks of data sets (`common.data.prepare`), scores of predictions
(`common.score`).
"""
