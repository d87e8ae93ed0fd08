"""Writes one page to look at: scores, threshold slider, images, classes, training and comparison of a run.

    python scripts/report.py --name exp                                  seeds that evaluation.py has scored with --card
    python scripts/report.py --name exp_irn:eval_png                     masks: NAME:STEM of the evaluation's files
    python scripts/report.py --name wsol                                 boxes that CRT's eval_wsol.py has scored
    python scripts/report.py --name wsol --against wsol:eval_wsol:best   boxes of other weights: NAME:eval_wsol:WEIGHTS
    python scripts/report.py --name exp --against other third            two to five runs on the same images
    python scripts/report.py --name exp --dict_dir dict --list all       without true masks: images and seeds alone
    python scripts/report.py --name toco --reference docs/toco_reference_curve.csv      beside published curves
    python scripts/report.py --name exp --serve                          all images of a large set, at 127.0.0.1

The page is one file, experiment/NAME/report.html, which opens from the disk and asks for nothing outside itself.
"""

import time

from common.report.located import LocatedRun
from common.report.page import Images, chosen, content, page, with_pictures
from common.report.serve import ReportServer
from common.report.source import ScoredRun, Source, UnscoredRun
from common.run.command import script_parser
from common.run.errors import UserError, run_script
from common.run.files import atomic_write
from common.run.folder import BOX_SCORES, CARD, RunFolder
from common.run.provenance import provenance


def main() -> int:
    """Command line → page. Returns the exit code."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--name", required=True, metavar="NAME[:STEM]", help="the run, and the evaluation's files (default: eval_cam)")
    add("--against", nargs="+", default=[], metavar="NAME[:STEM]", help="up to four runs to compare it with")
    add("--images", type=int, default=100, help="number of images on the page (default: %(default)s)")
    add("--dict_dir", help="folder of predictions in the run folder, for images without true masks")
    add("--list", help="image list of --dict_dir: a file or a name")
    add("--task", choices=("cam", "png"), default="cam", help="kind of --dict_dir: seeds (default) or masks")
    add("--reference", nargs="+", default=[], metavar="FILE[:SERIES]", help="CSV of published curves, beside the run's")
    add("--serve", action="store_true", help="serve all images at 127.0.0.1 instead of writing a file")
    add("--port", type=int, default=8000, help="port of --serve; 0: a free one (default: %(default)s)")
    args = parser.parse_args()
    if args.images < 0:
        raise UserError(f"--images {args.images}: at least 0")
    if bool(args.dict_dir) != bool(args.list):
        raise UserError("--dict_dir and --list belong together: predictions without true masks, and their images")
    sources: list[Source]
    if args.dict_dir:
        sources = [UnscoredRun(name, args.dict_dir, args.list, args.task) for name in (args.name, *args.against)]
    else:
        sources = [scored(text) for text in (args.name, *args.against)]

    ids = chosen(sources[0], len(sources[0].ids) if args.serve else args.images)
    made = time.strftime("%Y-%m-%d %H:%M")
    data = content(sources, ids, {**provenance(), "made": made}, args.reference)
    images = Images(sources)
    if args.serve:
        server = ReportServer(data, images, args.port)
        print(f"report of {args.name}, {len(ids)} images: {server.address} (Ctrl-C ends it)", flush=True)
        with server:
            server.serve_forever()
        return 0
    path = sources[0].run.path / "report.html"
    html = page(with_pictures(data, images))
    with atomic_write(path) as file:
        file.write(html)
    print(f"report of {args.name}, {len(ids)} images, {path.stat().st_size / 1e6:.1f} MB: {path}")
    return 0


def scored(text: str) -> Source:
    """The evaluation that a text names; boxes if it names them, or if the run has no other scores."""
    name, _, rest = text.partition(":")
    run = RunFolder(name)
    boxes_alone = run.scores(BOX_SCORES).is_file() and not any(run.path.glob(f"eval_*{CARD}"))
    is_located = rest.partition(":")[0] == BOX_SCORES or (not rest and boxes_alone)
    return LocatedRun(text) if is_located else ScoredRun(text)


if __name__ == "__main__":
    run_script(main)
