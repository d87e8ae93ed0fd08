"""The report of a run: one HTML page to look at, without network or framework.

Here:

    source      a run as the page needs it: images, truth, predictions, card, curve
    located     the same of a run of boxes, and all that the page says about them
    pictures    images, labels and CAMs as small pictures, exact where the page computes with them
    packed      bytes of pictures within a page
    reference   published curves of trainings
    facts       everything about a run besides its images: settings, scores, classes, training, comparison
    page        puts both into one file, with the markup, style and program in ``assets/``
    serve       the same page for large sets, with images made when they are looked at

Called by: ``scripts/report.py``; ``scripts/plot_run.py`` reads published curves here.

Not here: scores (`common.score`), which the page shows and does not compute, but for the labels at another threshold.
"""
