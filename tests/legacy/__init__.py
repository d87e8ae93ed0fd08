"""Run folders of earlier versions, which later ones go on reading: one archive for each method."""
