"""Networks that several methods build on, and weights into them.

Here: `vit` (DeiT/ViT blocks with attention maps on request), `mctformer` (one class token for each class), `resnet`,
`pretrained` (ImageNet weights from files or hubs), `load` (checkpoints with a report of the match), `options` (the
sections of the networks).

Called by the networks of the methods, and by inference to load a checkpoint.

Not here: a method's own network (methods/<method>/model.py), saving of checkpoints (`common.train.checkpoint`).
"""
