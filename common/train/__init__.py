"""The engine of the training loop; the loop itself stands in each training script.

Here:

    trainer       the verbs of the loop: epochs, batches, forward, learn, record, close
    step          the two objects of the loop: a batch, and the module that computes its losses
    course        the length of a training, and when it validates and saves; the configuration section ``train``
    schedule      learning-rate schedules; the configuration section ``optim``
    optim         AdamW in the groups of the DeiT recipes
    checkpoint    checkpoints, and exact resume
    cost          operations and memory of a step before it runs
    watch         stop signals, averages of losses, progress

Called by: all training scripts.

Not here: networks, losses and views (``methods/<method>/``), order and loading of batches (`common.data.loader`), and
validation (`common.seeds.score`, or the method's own).
"""
