"""A ViT segmenter on label masks: any vision transformer and a light decoder (after Segmenter, ICCV 2021)."""
