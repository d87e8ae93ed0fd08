"""The engine under every training loop.

Here: `trainer` (the verbs of the loop that scripts show), `step` (a batch, and the module that makes losses of it),
`course` (length, validation and checkpoints of a run), `schedule` (learning rates), `optim` (AdamW in groups),
`checkpoint` (exact resume), `watch` (stop signals, averages of the losses, progress).

Called by the training scripts of all methods and of the stages after the seeds.

Not here: losses, networks and states of a method, which the scripts hand to the trainer.
"""
