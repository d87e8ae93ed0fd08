"""Mutation fuzzing: every reader of the project is fed with damaged files.

Here:

    engine      mutations, and child processes of limited memory and time that read them
    samples     sound files of every kind, which are then mutated
    readers     all readers by name

Called by: ``scripts/fuzz.py`` and its test.

Not here: the readers themselves; they lie with what they read.
"""
