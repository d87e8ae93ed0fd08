"""Pickles, read without unpickling: hostile files can neither run code nor reach foreign memory.

Here:

    read         the arrays and plain values in a pickle
    machine      runs opcodes, within bounds of memory and time
    whole        runs the opcodes of an array at once
    torch_files  checks of PyTorch's files of weights
    stand_ins    types and functions that pickles of arrays name: they record and check their arguments
    arrays       checks of arrays that files describe; the errors

Called by: `common.run.files` and `common.run.weights`.

Not here: files. No module here opens one.
"""
