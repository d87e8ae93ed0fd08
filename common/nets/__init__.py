"""Networks that several methods build on, and weights into them.

Here:

    vit           ViT with any number of class tokens, and attention maps on request: a DeiT, or one of timm's models
    attention     attention by the fused kernel, head-averaged maps where they are requested
    layers        the layers of a DeiT
    timm_models   timm's models by name: facts, and weights in one form
    timm_vit      the layers of timm's models in the form of vit
    plain_vit     a ViT with its own class token: patch features for decoders
    mctformer     MCTformer-V2: one class token per class, and a CAM head
    resnet        ResNet with five stage outputs and fixed statistics
    tiles         overlapping tiles of images, and maps merged from theirs
    load          state dicts into networks, with a report of the match; the checkpoint that a command line names
    average       the mean of the weights of several checkpoints
    pretrained    ImageNet weights: a file in pretrained/, or a hub
    hub           timm's hub
    options       the configuration sections of these networks

Called by: the ``model.py`` of the methods, their scripts, and `common.seeds.script`.

Not here: heads, state and losses of one method (``methods/<method>/``), and the checkpoints that a training writes
(`common.train.checkpoint`).
"""
