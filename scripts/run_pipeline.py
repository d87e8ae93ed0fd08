"""From seeds to a segmentation network: refinement, masks, DeepLab, and a table of the mIoU after every stage.

python scripts/run_pipeline.py --name exp --from seeds --refine irn --segment deeplab       seeds: experiment/exp/dict
python scripts/run_pipeline.py --name exp --refine psa --nproc 4                            four processes a script
python scripts/run_pipeline.py --name exp --refine crf --segment none --seeds other/dict    masks alone
python scripts/run_pipeline.py --name exp --from masks --refine irn                         masks: experiment/exp_irn

A stage whose output is complete is skipped, an interrupted one goes on: the same command does both, after any
interruption. --exp names the pipeline's YAML; without it, --refine irn means configs/pipeline_irn.yaml. Every script
has its own run folder, experiment/NAME_irn and experiment/NAME_irn_deeplab; the table and what was done go to
experiment/NAME/pipeline_irn.json.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from common.config import config_path, load_config, parse_config, save_config, script_parser
from common.crf import crf_folder
from common.crf_masks import CRFMasksConfig
from common.data.dataset import ImageSet
from common.errors import UserError, preview, run_script
from common.evaluate import MaskFiles
from common.files import write_json
from common.pipeline import PipelineConfig, Score, data_overrides, is_scored, table, with_gains
from common.refine import require_maps
from common.run import RunFolder
from common.seeds import FORMATS
from common.stages import Stage, carry_out, has_files, read_state
from methods.deeplab.config import FINAL_FILE, DeepLabConfig
from methods.irn.config import IRNConfig
from methods.psa.config import MASKS_DIR, SCORES_DIR, PSAConfig

CONFIGS = {"irn": IRNConfig, "psa": PSAConfig, "crf": CRFMasksConfig, "deeplab": DeepLabConfig}
MASK_SCRIPTS = {"irn": "methods/irn/infer_irn.py", "psa": "methods/psa/infer_aff.py", "crf": "scripts/crf_masks.py"}


def main() -> int:
    """Command line → stages → each run or skipped → table. Returns the exit code."""
    args, overrides = arguments()
    config, run = load_config(PipelineConfig, config_path(args.exp), overrides), RunFolder(args.name)
    pipeline = Pipeline(run, config)
    pipeline.build()
    run.create()
    save_config(config, pipeline.yaml)
    state_file = pipeline.yaml.with_suffix(".json")
    code = carry_out(pipeline.stages, args.nproc, state_file)
    if code == 0:
        rows = with_gains(pipeline.scores)
        write_json(state_file, {**read_state(state_file), "unit": "percent", "table": rows})
        print(f"\n{table(rows)}\nwritten: {state_file}")
    return code


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line: ``(args, configuration overrides)``."""
    parser = script_parser(__doc__, PipelineConfig)
    parser.add_argument("--name", required=True, help="the pipeline: experiment/NAME/, and NAME_... of its stages")
    parser.add_argument("--exp", default="", help="the pipeline's YAML (default: pipeline_ and what --refine says)")
    parser.add_argument("--nproc", type=int, default=1, help="processes of every script, by torchrun (default: 1)")
    args, overrides = parse_config(parser)
    if args.nproc < 1:
        raise UserError(f"--nproc {args.nproc}: at least one process")
    refine = [text.partition("=")[2] for text in overrides if text.startswith("flow.refine=")]
    args.exp = args.exp or f"pipeline_{(refine or ['irn'])[-1]}"
    return args, overrides


class Pipeline:
    """The stages of a configuration in their order, and the rows of the table at their end."""

    def __init__(self, run: RunFolder, config: PipelineConfig) -> None:
        """Names the folders; `build` finds out what is to be done.

        Raises:
            UserError: a list or an image is missing, or the lists do not suit each other.
        """
        self.run, self.config, self.lists, self.kind = run, config, config.lists, config.flow.refine
        self.yaml = run.path / f"pipeline_{self.kind}.yaml"  # evaluation.py takes the data set from it
        self.refined = RunFolder(f"{run.name}_{self.kind}")
        self.seeds, self.masks = Path(config.seeds.folder or run.path / "dict"), self.refined.path / MASKS_DIR
        self.images = ImageSet(config.data, self.lists.train)
        self.truth = {name: MaskFiles(config.data, name) for name in (self.lists.score, self.lists.val)}
        self.stages: list[Stage] = []
        self.scores: list[Score] = []
        outside = set(self.truth[self.lists.score].ids) - set(self.images.ids)
        if outside:
            raise UserError(
                f"lists.score={self.lists.score} has {len(outside)} images that are not in lists.train="
                f"{self.lists.train} and get no masks: {preview(sorted(outside), 3)}"
            )

    def build(self) -> None:
        """Adds all stages.

        Raises:
            UserError: what no stage makes is missing or wrong: settings, seeds, or the masks to begin with.
        """
        flow = self.config.flow
        refine, deeplab = self.settings(self.kind), self.settings("deeplab")
        if flow.first == "seeds":
            require_maps(self.images, self.seeds, "the inference script of the seeds' method, with --dict")
            self.add_seeds()
            self.add_masks(*refine)
        elif not has_files(self.masks, self.images.ids, ["png"]):
            raise UserError(f"--from masks: not every image of {self.lists.train!r} has a mask in {self.masks}")
        self.scores.append(Score(f"masks ({self.kind})", self.refined.path / "eval_png.json", self.lists.score))
        if flow.segment == "deeplab":
            self.add_deeplab(deeplab[0])

    def settings(self, kind: str) -> tuple[list[str], Any]:
        """What the scripts of a stage get on their command line, and what configuration that gives."""
        stage, lists = getattr(self.config, kind), self.lists
        own = load_config(CONFIGS[kind], config_path(stage.exp), stage.overrides)
        given = data_overrides(self.config.data, own.data)
        if kind == "deeplab":
            given += [f"train.image_list={lists.train}", f"train.val_list={lists.val}", f"infer.image_list={lists.val}"]
        else:
            given += [f"infer.image_list={lists.train}", f"infer.eval_list={lists.score}"]
            given += [] if kind == "crf" else [f"train.image_list={lists.train}"]
            given += [f"train.displacement_list={lists.score}"] if kind == "irn" else []
        given += stage.overrides
        return ["--exp", stage.exp, *given], load_config(CONFIGS[kind], config_path(stage.exp), given)

    def add(self, title: str, script: str, arguments: list[str], run: RunFolder, source: Path, **more: Any) -> None:
        """Appends a stage that writes into a run folder; ``more`` as `Stage`."""
        self.stages.append(Stage(title, script, ("--name", run.name, *arguments), run.path, source=source, **more))

    def add_training(
        self, title: str, script: str, given: list[str], run: RunFolder, weights: str, source: Path
    ) -> None:
        """A training, complete when the weights of its end are there."""
        folder = run.checkpoints
        self.add(title, script, given, run, source, is_complete=lambda: any(folder.glob(weights)), weights=folder)

    def add_score(self, row: str, run: RunFolder, folder: Path, task: str, list_name: str, stem: str) -> None:
        """A call of evaluation.py for a folder of seeds or of CRF scores, and its rows."""
        file, place = run.path / f"{stem}.json", os.path.relpath(folder, run.path)
        self.add(
            f"score: {row}, {list_name}", "evaluation.py",
            ["--task", task, "--dict_dir", place, "--list", list_name, "--out", stem, "--data", str(self.yaml)],
            run, folder, is_complete=lambda: is_scored(file, list_name), is_score=True,
        )  # fmt: skip
        for point in ("best", "fixed") if task == "cam" else ("best",):
            self.scores.append(Score(f"{row}, {point} threshold" if task == "cam" else row, file, list_name, point))

    def add_seeds(self) -> None:
        """Scores of the seeds; of the held-out list, too, where it has any."""
        for name, truth in self.truth.items():
            if not self.can_score(name):
                print(f"note: there are no true masks of {name!r}, such as {truth.path(truth.ids[0])}: no scores")
            elif has_files(self.seeds, truth.ids, FORMATS):
                self.add_score("seeds", self.run, self.seeds, "cam", name, f"eval_seeds_{Path(name).stem}")

    def can_score(self, list_name: str) -> bool:
        """Whether there are true masks of a list."""
        truth = self.truth[list_name]
        return any(truth.path(image_id).is_file() for image_id in truth.ids)

    def add_masks(self, given: list[str], own: Any) -> None:
        """What leads from seeds to masks, all in one run folder."""
        run, score, of_seeds = self.refined, self.lists.score, ["--seeds", str(self.seeds), *given]

        def are_made(folder: str | Path, suffixes: tuple[str, ...] = ("png",)) -> bool:
            return has_files(run.path / folder, self.images.ids, suffixes)

        if self.kind == "irn":
            script = "methods/irn/make_ir_label.py"
            self.add("IRN's labels", script, of_seeds, run, self.seeds, is_complete=lambda: are_made("ir_label"))
            script, labels = "methods/irn/train_irn.py", run.path / "ir_label"
            self.add_training("IRN's training", script, given, run, "*res50_irn.pth", labels)
        if self.kind == "psa":
            folders = [crf_folder(run.path / SCORES_DIR, alpha) for alpha in own.crf.alphas()]
            names, script = [folder.relative_to(run.path) for folder in folders], "methods/psa/make_crf.py"
            self.add(
                "PSA's CRF scores", script, of_seeds, run, self.seeds,
                is_complete=lambda: all(are_made(name, FORMATS) for name in names),
            )  # fmt: skip
            for folder in folders if self.can_score(score) and own.crf.format == "npy" else ():  # what is scored
                row, stem = f"CRF scores, exponent {int(folder.name)}", f"eval_psa_crf_{folder.name}"
                self.add_score(row, self.run, folder, "crf", score, stem)  # the training takes a folder of scores only
            script = "methods/psa/train_aff.py"
            self.add_training("PSA's training", script, given, run, "*net_trm.pth", folders[0])
        self.add(
            f"masks ({self.kind})", MASK_SCRIPTS[self.kind], of_seeds, run, self.seeds,
            is_complete=lambda: are_made(MASKS_DIR) and self.is_reported(run.path / "eval_png.json", score),
        )  # fmt: skip

    def is_reported(self, file: Path, list_name: str) -> bool:
        """Whether a script has written the score of a list, or could not."""
        return is_scored(file, list_name) or not self.can_score(list_name)

    def add_deeplab(self, given: list[str]) -> None:
        """Training on the masks, and test on the held-out list."""
        run, val = RunFolder(f"{self.refined.name}_deeplab"), self.lists.val
        folders = [run.path / name / Path(val).stem for name in ("segs", "segs_crf")]
        files = [run.path / f"eval_png{suffix}.json" for suffix in ("", "_crf")]

        def is_tested() -> bool:
            is_there = all(has_files(folder, self.truth[val].ids, ["png"]) for folder in folders)
            return is_there and all(self.is_reported(file, val) for file in files)

        training = "methods/deeplab/train_deeplab.py", ["--masks", str(self.masks), *given]
        self.add_training("DeepLab's training", *training, run, FINAL_FILE, self.masks)
        test = "methods/deeplab/test_deeplab.py", ["--crf", *given]
        self.add("DeepLab's test", *test, run, self.masks, is_complete=is_tested)
        self.scores += [Score("DeepLab", files[0], val), Score("DeepLab after the CRF", files[1], val)]


if __name__ == "__main__":
    run_script(main)
