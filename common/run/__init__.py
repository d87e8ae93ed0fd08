"""How a script starts, and where and how it runs.

Here: `script` (the one way to start: command line, configuration, run folder, then processes and device), `config`
(typed, strict configuration), `options` (the section ``runtime``), `folder` (names and places in a run folder), `log`,
`device`, `processes` (one, or several under torchrun), `random` (seeds and states of generators), `pool` (worker
processes), `files` (atomic writing, safe reading), `weights` (tensors in files), `errors` (messages for the user).

Called by every script and package. `script`, `config`, `options`, `folder`, `files`, `errors` and `pool` import no
PyTorch, so that help and mistakes are answered at once.

Not here: anything about images, networks or losses.
"""
