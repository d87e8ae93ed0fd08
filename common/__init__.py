"""Parts that two or more methods share, in packages by station of a run; knows no method.

    run        how a script starts, and where and how it runs
    data       images, labels, masks, seed files, batches
    crf        the dense CRF
    nets       networks, and weights into them
    score      evaluation
    seeds      CAMs to seeds of a whole image list
    train      the engine under every training loop
    masks      seeds or a segmentation network to masks
    pipeline   stages that run one after the other

A package imports only those above it (train and masks stand side by side). `visual` draws pictures and `tensors` has
small typed helpers for all of them. Methods, scripts and evaluation.py call these packages. Networks, losses and states
of one method are not here, but in methods/<method>/.
"""
