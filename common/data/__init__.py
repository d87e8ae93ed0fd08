"""Data sets: id lists, image labels, images and masks, transforms, loaders."""
