"""Scores CRT's object localisation: classes, boxes, and the reasons of wrong boxes.

python methods/crt/eval_wsol.py --name wsol --vis                              best and last weights of a run
python methods/crt/eval_wsol.py --name wsol --load_epo 59                      of epoch 59
python methods/crt/eval_wsol.py --name wsol eval.tune_list=train               with thresholds of another split, too
python methods/crt/eval_wsol.py --name new --load_pretrained model_best.pth    of a released checkpoint
torchrun --nproc_per_node 2 methods/crt/eval_wsol.py --name wsol               shared by two processes

Writes experiment/NAME/eval_wsol.json, boxes_<weights>.csv, boxes_<weights>.npz (boxes at every threshold, and CAMs, for
scripts/report.py) and, with --vis, wsol_<weights>.png.
"""

from pathlib import Path

from common.run.errors import run_script
from common.run.files import write_json
from common.run.folder import BEST_FILE, LAST_FILE, epoch_checkpoint
from common.run.script import Setup, Usage, start, start_run
from methods.crt.localization import OUTCOMES, PERCENTAGES
from methods.crt.wsol_config import BEST_LOC_FILE, WSOLConfig

EVALUATION = Usage(
    kind="evaluation",
    weights="the best and the last",
    flags=(
        ("--vis", {"action": "store_true", "help": "draw a sheet of images, CAMs, true and found boxes"}),
        ("--least", {
            "type": float, "default": -1.0, "help": "exit with 1 if the last weights' GT-known (%%) is not above this",
        }),
    ),
    ignores=("views", "loss", "optim", "train", "runtime.seed", "runtime.compile"),
)  # fmt: skip
TITLES = {"best": "best GT-known", "best_loc": "best Loc@1", "last": "last"}  # of a run's weights
HEADINGS = ("Cls@1", "Cls@5", "Loc@1", "Loc@5", "GT-known")


def main() -> int:
    """Goes in the order config, data, model; then boxes, scores, pictures of each weights. Returns the exit code."""
    setup = start(__doc__, WSOLConfig, "crt_cub", EVALUATION, file="")
    config, run, processes, runtime = setup.config, setup.run, setup.processes, setup.runtime
    side = config.model.deit.img_size

    from common.data.cub import CUBImages
    from common.nets.load import load_checked, state_dict_in
    from common.run.processes import stop_processes
    from common.score.boxes import boxes_path
    from methods.crt.max_box import max_box_scores
    from methods.crt.model import released_deit
    from methods.crt.wsol_model import wsol_deit
    from methods.crt.wsol_scoring import box_file, locate, sweeps, with_intervals, write_boxes
    from methods.crt.wsol_sheet import draw_sheet

    # Data
    images = CUBImages(config.data, config.eval.image_list)
    tuning = CUBImages(config.data, config.eval.tune_list) if config.eval.tune_list else None

    # Model: all weights are tried before the work begins
    deit = wsol_deit(config.model, len(images.classes))
    checkpoints = chosen_weights(setup)
    for path in checkpoints.values():
        load_checked(deit, released_deit(state_dict_in(path, setup.args.key)), str(path))
    deit.to(runtime.device).eval()
    start_run(run, config, processes, keep_config=True)
    processes.say(f"{len(images)} images of {images.list_name!r} on {runtime.describe()}")

    # Boxes, scores, pictures
    results = {}
    for name, path in checkpoints.items():
        load_checked(deit, released_deit(state_dict_in(path, setup.args.key)), str(path))
        findings = locate(deit, images, config.eval, side, runtime, name, sweep=True)
        tuned = None
        if tuning is not None:
            others = locate(deit, tuning, config.eval, side, runtime, f"{name}, thresholds", sweep=True)
            tuned = max_box_scores(sweeps(others))
        chosen_on = config.train.val_list if name in ("best", "best_loc") else None
        results[name] = {"checkpoint": str(path), "chosen_on": chosen_on, **with_intervals(findings, tuned)}
        if processes.is_main:
            write_boxes(run.path / f"boxes_{name}.csv", findings, images)
            box_file(findings, images, side, config.eval.cam_threshold).write(boxes_path(run.path, name))
        if processes.is_main and setup.args.vis:
            score = f"GT-known {results[name]['gt_known']:.2f} % of {len(images)} images of {images.list_name}"
            title = f"run {run.name}, {path.name}: {score}"
            sheet = run.path / f"wsol_{name}.png"
            draw_sheet(sheet, deit, images, findings, config.eval.vis_limit, side, runtime, title)
            print(f"boxes and CAMs of images spread over the list: {sheet}")
    if processes.is_main:
        content = {
            "list": images.list_name, "images": len(images), "classes": len(images.classes), "unit": "percent",
            "cam_threshold": config.eval.cam_threshold, "tuned_on": config.eval.tune_list or None, "weights": results,
        }  # fmt: skip
        write_json(run.path / "eval_wsol.json", content)
        print("\n".join(report(results)))
        print(f"all numbers: {run.path}/eval_wsol.json; every box: boxes_<weights>.csv beside it")
    stop_processes()
    return int(results[name]["gt_known"] <= setup.args.least)  # the last weights, or the only ones


def chosen_weights(setup: Setup[WSOLConfig]) -> dict[str, Path]:
    """The files of weights to score, by the name that their results get.

    Raises:
        UserError: there is none.
    """
    args, folder = setup.args, setup.run.checkpoints
    if args.load_pretrained:
        return {args.load_pretrained.stem: args.load_pretrained}
    if args.load_epo is not None:
        return {f"epoch_{args.load_epo}": epoch_checkpoint(folder, args.load_epo)}
    own = {"best": folder / BEST_FILE, "best_loc": folder / BEST_LOC_FILE, "last": folder / LAST_FILE}
    there = {name: path for name, path in own.items() if path.is_file()}
    return there or {"best": epoch_checkpoint(folder, None)}  # an error that names the missing file


def report(results: dict[str, dict]) -> list[str]:
    """The scores as lines of text: a table, and the outcomes of the first class's boxes."""
    titles = {
        name: TITLES.get(name, name) + (f" (chosen on {result['chosen_on']})" if result["chosen_on"] else "")
        for name, result in results.items()
    }
    width = max(map(len, titles.values()))
    lines = [" " * width + "".join(f"{heading:>10}" for heading in HEADINGS)]
    for name, result in results.items():
        lines.append(f"{titles[name]:{width}}" + "".join(f"{result[key]:10.2f}" for key in PERCENTAGES))
    for name, result in results.items():
        low, high = result["intervals"]["gt_known"]
        parts = "/".join(f"{result[f'max_box_acc_v2_{level}']:.1f}" for level in (30, 50, 70))
        lines.append(
            f"{titles[name]}: GT-known {result['gt_known']:.2f} [{low:.2f}, {high:.2f}], MaxBoxAcc "
            f"{result['max_box_acc']:.2f}, MaxBoxAccV2 {result['max_box_acc_v2']:.2f} ({parts} at IoU 30/50/70)"
        )
        if "box_acc" in result:
            lines.append(
                f"{titles[name]}, thresholds of another split: box accuracy {result['box_acc']:.2f}, "
                f"over the three IoUs {result['box_acc_v2']:.2f}"
            )
    for name, result in results.items():
        lines.append(f"{titles[name]}: " + ", ".join(f"{key} {result[f'top1_{key}']:.2f}" for key in OUTCOMES))
    return lines


if __name__ == "__main__":
    run_script(main)
