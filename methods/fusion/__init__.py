"""Fusion: the seeds of several runs become one, with the agreement of the runs."""
