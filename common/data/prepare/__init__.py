"""Getting, converting, generating and checking data sets.

Here: `fetch` (downloads, checksums, archives), `voc`, `coco`, `matlab` (SBD's masks), `shapes` (the demo's pictures),
`report` and `cub_check` (the data check).

Called by scripts alone: prepare_data.py, check_data.py, make_shapes.py, make_cub_shapes.py.

Not here: reading a prepared data set (`common.data`).
"""
