"""Images with their labels, masks and seeds: found, read, turned into network input, and written one file per image.

Here:

    dataset       an image list with images, image labels and true masks
    layout        folders and file names of VOC, COCO and a user's own set; the configuration section ``data``
    lists         image ids, and the lists that name them
    labels        multi-hot image labels from every usual source
    csv_labels    the label table of a user's own set
    voc_xml       names of the objects in VOC annotations
    instances     instances JSON in COCO's format, checked
    classes       class names of the public data sets, and of a user's file
    cub           CUB-200-2011: classes and bounding boxes
    images        the one reader of images
    sizes         sizes of the images of a list, from their headers
    masks         the one reader of label masks, and their writer
    seeds         the formats of seed files
    seed_labels   labels of seeds: the highest class at each pixel, or background
    segments      the formats of segment files
    rle           run lengths of regions, checked
    agreement     the files of the agreement of fused runs
    thresholds    thresholds of classes, as a JSON
    stamp         kind and origin of the files in a folder, recorded in it
    outputs       folders of one file per image, and how they are filled
    transforms    the whole image as network input
    augment       random training views
    crops         crops of fixed size with a known place
    options       the configuration section of the training views
    loader        training batches
    whole         batches of whole image lists, for inference
    prepare       making and checking data sets (a package)

Called by: all scripts and all packages after this one.

Not here: the contents of the files that are written (seeds: `common.seeds`, masks: `common.masks`), and scores
(`common.score`).
"""
