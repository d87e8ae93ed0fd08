"""The start of a run, and the ground under all others: configuration, folder, log, processes, device.

Here:

    script       starts every script: command line, configuration, run folder, processes, device
    command      command lines: flags, key=value, --help
    config       typed, strict configuration of YAML, flags and key=value
    memory       freed memory stays with the process
    gpu_memory   the GPU memory that scripts needed, for the process that started them
    method       the entry that tells of which method a YAML is
    similar      "Did you mean ...?"
    needs        input of a script, checked before any work
    options      the configuration section ``runtime``
    launch       several processes of a script, without torchrun's report of a failure
    lock         one writer at a time in a run folder
    parent       processes that end with the one that started them
    fingerprint  digests of files, and differences of settings
    folder       names and places of all files of a run
    files        atomic writing; reading of files of arrays
    pickles      pickles of arrays, read without running their code
    weights      files of weights, written and read in the same way
    log          text, numbers and curves of a run
    processes    one process or several: shares, collectives
    progress     a bar in a terminal, elsewhere a line every 30 seconds
    device       device, number format, seeds of this process
    random       generators seeded from integers, and their states
    papers       flags of the papers' own commands that are no flags here
    provenance   origin of a result: commit, versions, device, hashes
    pool         processes for CPU work beside the network
    text         text files and JSON of users
    strict_yaml  YAML of users
    errors       the one exception that is meant for the user

Called by: every script, and every other package of `common`.

Not here: anything about images, networks or scores. The packages after this one have sections of their own, in their
modules ``options``.
"""
