"""Making, checking and exporting data sets, beside any run.

Here:

    fetch        downloading and unpacking public archives
    voc          VOC: masks of SBD, labels of the annotations
    matlab       reading SBD's MATLAB files
    coco         COCO: the instances JSON, masks painted from it
    shapes       generated images of coloured shapes
    cub_check    the check of CUB-200-2011
    report       the report of a check
    annotations  masks as files of annotation tools

Called by: ``scripts/prepare_data.py``, ``check_data.py``, ``make_shapes.py``, ``make_cub_shapes.py`` and
``export_masks.py`` alone.

Not here: anything that a training or an inference needs of a data set; see `common.data`.
"""
