"""From seeds to a segmentation network: refinement, masks, DeepLab, and a table of the mIoU after each stage.

python scripts/run_pipeline.py --name exp --from seeds --refine irn --segment deeplab       seeds: experiment/exp/dict
python scripts/run_pipeline.py --name exp --refine irn --segment vitseg                     a ViT in place of DeepLab
python scripts/run_pipeline.py --name exp --refine psa --nproc 4                            four processes each script
python scripts/run_pipeline.py --name exp --refine crf --segment none --seeds other/dict    masks alone
python scripts/run_pipeline.py --name exp --from masks --refine irn                         masks: experiment/exp_irn
python scripts/run_pipeline.py --name exp --refine segments                                 a vote over segments
python scripts/run_pipeline.py --name best --exp pipeline_best --fuse cti pcss              fusion → vote → CRF

The same command goes on after any interruption; stages with complete output are skipped. --exp names the pipeline's
YAML; without it, --refine irn means configs/pipeline_irn.yaml. Run folders are experiment/NAME_irn and
experiment/NAME_irn_deeplab (or _vitseg); the table and a record of the stages go to experiment/NAME/pipeline_irn.json.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.crf.options import crf_folder
from common.data.dataset import ImageSet, class_names
from common.data.seeds import FORMATS
from common.data.segments import FORMATS as SEGMENT_FORMATS
from common.masks.from_seeds import require_maps, seed_thresholds
from common.masks.options import SeedsConfig
from common.pipeline.builders import (
    KINDS,
    files,
    images_digest,
    parse_pipeline,
    require_within,
    run_stages,
    score,
    settings_of,
    start_checks,
)
from common.pipeline.options import PipelineConfig, data_overrides
from common.pipeline.stages import Stage, has_files
from common.pipeline.table import Score, is_scored
from common.run.command import script_parser
from common.run.config import config_path, load_config, save_config
from common.run.errors import UserError, run_script
from common.run.files import sweep
from common.run.fingerprint import digest, stat_parts
from common.run.folder import MASK_SCORES, REFINED_MASK_SCORES, RunFolder
from common.run.needs import Needs
from common.score.files import MaskFiles
from methods.fusion.config import seed_folder

TRAINED = ("irn", "psa")  # refinements with a training

NETWORKS = {"deeplab": "DeepLab", "vitseg": "ViT segmenter"}  # that learn from masks, and their titles


def main() -> int:
    """Command line → stages → each run or skipped → table. Returns the exit code."""
    args, overrides = arguments()
    config = load_config(PipelineConfig, config_path(args.exp), overrides)
    run = RunFolder(args.name)
    require_input(run, config, args.check)
    pipeline = Pipeline(run, config)
    pipeline.build()
    run.lock()
    sweep(run.path)
    save_config(config, pipeline.yaml)
    return run_stages(pipeline.stages, pipeline.scores, args.nproc, pipeline.yaml.with_suffix(".json"))


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line: ``(args, configuration overrides)``."""
    parser = script_parser(__doc__, PipelineConfig)
    parser.add_argument("--name", required=True, help="the pipeline: experiment/NAME/, and NAME_... of its stages")
    parser.add_argument("--exp", default="", help="the pipeline's YAML (default: pipeline_<refine>)")
    args, overrides = parse_pipeline(parser)
    refine = [text.partition("=")[2] for text in overrides if text.startswith("flow.refine=")]
    args.exp = args.exp or f"pipeline_{(refine or ['irn'])[-1]}"
    return args, overrides


def require_input(run: RunFolder, config: PipelineConfig, only_check: bool) -> None:
    """Makes sure that data set, lists, seeds or masks, and the first weights of all trainings are there.

    Raises:
        UserError: some are missing; all are named.
        SystemExit: none is, and ``only_check``.
    """
    flow, lists = config.flow, config.lists
    refined = RunFolder(f"{run.name}_{flow.refine}")
    needs = Needs()
    needs.ask_all(config.data.needs([lists.train, lists.score, lists.val]))
    if flow.first == "seeds":
        sources = flow.fuse or [config.seeds.folder or str(run.seeds)]
        needs.ask_all([lambda source=source: _require_seeds(source, bool(flow.fuse)) for source in sources])
        needs.ask(config.seeds.check_thresholds)
        needs.ask_all(start_checks(config, flow.refine, refined))
    else:
        needs.ask(_require_masks, refined.masks)
    if flow.segment != "none":
        masks = f"train.masks={refined.masks}"
        needs.ask_all(start_checks(config, flow.segment, RunFolder(f"{refined.name}_{flow.segment}"), masks))
    needs.settle(only_check)


def _require_seeds(source: str, is_run: bool) -> str:
    return str(seed_folder(source) if is_run else SeedsConfig(source).path())


def _require_masks(folder: Path) -> str:
    if not folder.is_dir():
        raise UserError(f"--from masks: no folder {folder}; without --from, the pipeline makes masks of seeds")
    return str(folder)


class Pipeline:
    """The stages of a configuration in their order, and the rows of the table at their end."""

    def __init__(self, run: RunFolder, config: PipelineConfig) -> None:
        """Names the folders; `build` adds the stages.

        Raises:
            UserError: a list or an image is missing, or the lists do not suit each other.
        """
        self.run = run
        self.config = config
        self.lists = config.lists
        self.kind = config.flow.refine
        self.yaml = run.path / f"pipeline_{self.kind}.yaml"  # evaluation.py takes the data set from it
        self.refined = RunFolder(f"{run.name}_{self.kind}")
        self.seeds = Path(config.seeds.folder or run.seeds)
        self.sources = [seed_folder(source) for source in config.flow.fuse] or [self.seeds]
        self.images = ImageSet(config.data, self.lists.train)
        self.digests = images_digest(self.images)
        self.truth = {name: MaskFiles(config.data, name) for name in (self.lists.score, self.lists.val)}
        self.thresholds = seed_thresholds(config.seeds, class_names(config.data))
        self.stages: list[Stage] = []
        self.scores: list[Score] = []
        scored = f"lists.score={self.lists.score}"
        within = f"lists.train={self.lists.train}"
        require_within(self.truth[self.lists.score].ids, self.images.ids, scored, within, "masks")

    def build(self) -> None:
        """Adds all stages.

        Raises:
            UserError: settings are wrong, or seeds (or masks, for ``--from masks``) are missing.
        """
        flow = self.config.flow
        refine = self.settings(self.kind)
        network = self.settings(flow.segment) if flow.segment != "none" else None
        if flow.first == "seeds":
            if flow.fuse:
                self.add_fusion(*self.settings("fusion"))
            else:
                require_maps(self.images, self.seeds, "the inference script of the seeds' method, with --dict")
            self.add_seeds()
            if flow.vote:
                self.add_vote(RunFolder(f"{self.run.name}_vote"), *self.settings("segments"))
            self.add_masks(*refine)
        elif not has_files(self.refined.masks, self.images.ids, ["png"]):
            raise UserError(f"--from masks: not every image of {self.lists.train!r} has a mask in {self.refined.masks}")
        self.scores.append(Score(f"masks ({self.kind})", self.refined.scores(MASK_SCORES), self.lists.score))
        if network:
            self.add_network(*network)

    def settings(self, kind: str) -> tuple[list[str], Any]:
        """The arguments of a stage's scripts, and the configuration that results from them."""
        stage = getattr(self.config, kind)
        lists = self.lists
        cls = KINDS[kind].config_class()
        own = load_config(cls, config_path(stage.exp), stage.overrides)
        given = data_overrides(self.config.data, own.data)
        if kind in NETWORKS:
            given += [f"train.image_list={lists.train}", f"train.val_list={lists.val}", f"infer.image_list={lists.val}"]
        else:
            given += [f"infer.image_list={lists.train}", f"infer.eval_list={lists.score}"]
            given += [f"train.image_list={lists.train}"] if kind in TRAINED else []
            given += [f"train.displacement_list={lists.score}"] if kind == "irn" else []
        given += stage.overrides
        return ["--exp", stage.exp, *given], load_config(cls, config_path(stage.exp), given)

    def of_seeds(self) -> list[str]:
        """The arguments that name the seeds, and the thresholds that they are calibrated by."""
        file = [f"seeds.thresholds={self.config.seeds.thresholds}"] if self.thresholds else []
        return ["--seeds", str(self.seeds), *file]

    @property
    def calibration(self) -> dict[str, Any]:
        """The thresholds that the seeds are calibrated by, as settings of a stage; none without a file."""
        return {"calibrated_by": {str(key): value for key, value in self.thresholds.items()}} if self.thresholds else {}

    def add_seeds(self) -> None:
        """Adds scores of the seeds, also on the held-out list if it has seeds."""
        for name, truth in self.truth.items():
            if not self.can_score(name):
                print(f"note: there are no true masks of {name!r}, such as {truth.path(truth.ids[0])}: no scores")
            elif all(has_files(folder, truth.ids, FORMATS) for folder in self.sources):
                self.add_score(
                    "fused seeds" if self.config.flow.fuse else "seeds",
                    self.seeds,
                    "cam",
                    name,
                    f"eval_seeds_{Path(name).stem}",
                )

    def add_fusion(self, given: list[str], own: Any) -> None:
        """Adds the fusion of runs, of the held-out list as well if all of them have seeds of it; its result is refined.

        Raises:
            UserError: a run lacks seeds.
        """
        run = RunFolder(f"{self.run.name}_fused")
        for folder in self.sources:
            require_maps(self.images, folder, "the inference script of the run's method, with --dict")
        val = self.truth[self.lists.val].ids
        lists = {self.lists.train: self.images.ids}
        if all(has_files(folder, val, FORMATS) for folder in self.sources):
            lists[self.lists.val] = val
        self.seeds = run.seeds
        for name, ids in lists.items():
            command = [*self.config.flow.fuse, *given, f"infer.image_list={name}", "infer.eval_list="]
            folders = [run.seeds, run.agreement]
            first, *more = self.sources
            fusion = f"fusion, {name}", KINDS["fusion"].masks, run, command, first, folders, ids, FORMATS
            settings = settings_of(KINDS["fusion"].masks, own, self.digests)
            self.stages.append(files(*fusion, more=more, settings=settings, is_shared=True))

    def add_vote(self, run: RunFolder, given: list[str], own: Any) -> None:
        """Adds the vote over segments, which are made unless a folder is named, and the score of its seeds."""
        kind = KINDS["segments"]
        ids = self.images.ids
        segments = own.segments.path(run.segments)
        if segments == run.segments:
            settings = settings_of(kind.prepare, own, self.digests)
            made = "segments", kind.prepare, run, given, self.images.root, [segments], ids, SEGMENT_FORMATS
            self.stages.append(files(*made, settings=settings))
        of_seeds = [*self.of_seeds(), *given]
        more = [segments] if segments else []
        both = [run.seeds, run.masks]
        suffixes = (*FORMATS, "png")

        def is_reported() -> bool:
            return self.is_reported(run.scores(MASK_SCORES), self.lists.score)

        vote = "vote over segments", kind.masks, run, of_seeds, self.seeds, both, ids, suffixes
        settings = settings_of(kind.masks, own, self.digests) | self.calibration
        self.stages.append(files(*vote, is_reported=is_reported, more=more, settings=settings))
        self.seeds = run.seeds
        self.thresholds = {}  # the vote has calibrated them
        if self.can_score(self.lists.score):
            self.add_score("seeds after the vote", run.seeds, "cam", self.lists.score, "eval_seeds_voted")

    def add_score(self, row: str, folder: Path, task: str, list_name: str, stem: str) -> None:
        """Adds the score of a folder of seeds or CRF marginals, in the pipeline's own folder, and its rows."""
        more = "--out", stem, "--data", str(self.yaml)
        truth = self.truth[list_name]
        masks = digest(*truth.ids, *map(stat_parts, map(truth.path, truth.ids)))
        settings = {"eval": vars(self.config.eval), "masks": masks}
        title = f"score: {row}, {list_name}"
        self.stages.append(score(title, self.run, folder, task, list_name, stem, more, settings))
        file = self.run.scores(stem)
        if task == "cam":
            points = ("best", "fixed")
            self.scores += [Score(f"{row}, {point} threshold", file, list_name, point) for point in points]
        else:
            self.scores.append(Score(row, file, list_name))

    def can_score(self, list_name: str) -> bool:
        """Whether there are true masks of a list."""
        truth = self.truth[list_name]
        return any(truth.path(image_id).is_file() for image_id in truth.ids)

    def is_reported(self, file: Path, list_name: str) -> bool:
        """Whether a script has written the score of a list, or there are no true masks for one."""
        return is_scored(file, list_name) or not self.can_score(list_name)

    def add_masks(self, given: list[str], own: Any) -> None:
        """Adds the stages from seeds to masks, all in one run folder."""
        run = self.refined
        if self.kind == "segments":
            return self.add_vote(run, given, own)
        kind = KINDS[self.kind]
        ids = self.images.ids
        of_seeds = [*self.of_seeds(), *given]
        scripts = (kind.prepare, kind.train, kind.masks)
        prepared, trained, masked = (settings_of(script, own, self.digests) if script else {} for script in scripts)
        prepared, masked = prepared | self.calibration, masked | self.calibration
        weights = (kind.weights_in(run),) if kind.weights else ()
        if self.kind == "irn":
            self.stages += [
                files("IRN's labels", kind.prepare, run, of_seeds, self.seeds, [run.labels], ids, settings=prepared),
                kind.training("IRN's training", run, given, run.labels, trained),
            ]
        if self.kind == "psa":
            folders = [crf_folder(run.crf, alpha) for alpha in own.crf.alphas()]
            title = "PSA's CRF marginals"
            self.stages.append(
                files(title, kind.prepare, run, of_seeds, self.seeds, folders, ids, FORMATS, settings=prepared)
            )
            if self.can_score(self.lists.score) and own.crf.format == "npy":  # what evaluation.py reads
                self.add_marginals(folders)
            self.stages.append(kind.training("PSA's training", run, given, folders[0], trained))

        def is_reported() -> bool:
            return self.is_reported(run.scores(MASK_SCORES), self.lists.score)

        masks = f"masks ({self.kind})", kind.masks, run, of_seeds, self.seeds, [run.masks], ids
        return self.stages.append(files(*masks, is_reported=is_reported, settings=masked, inputs=weights))

    def add_marginals(self, folders: Sequence[Path]) -> None:
        """Adds scores of the CRF marginals, which go to the pipeline's folder: PSA's may hold only training inputs."""
        for folder in folders:
            row = f"CRF marginals, exponent {int(folder.name)}"
            self.add_score(row, folder, "crf", self.lists.score, f"eval_psa_crf_{folder.name}")

    def add_network(self, given: list[str], own: Any) -> None:
        """Adds the training on the masks, and the test on the held-out list."""
        segment = self.config.flow.segment
        kind = KINDS[segment]
        name = NETWORKS[segment]
        run = RunFolder(f"{self.refined.name}_{segment}")
        masks = self.refined.masks
        val = self.lists.val
        folders = [run.segs(val), run.refined_segs(val)]
        scores = [run.scores(MASK_SCORES), run.scores(REFINED_MASK_SCORES)]

        def is_reported() -> bool:
            return all(self.is_reported(file, val) for file in scores)

        test = f"{name}'s test", kind.masks, run, ["--crf", *given], masks, folders, self.truth[val].ids
        self.stages += [
            kind.training(
                f"{name}'s training",
                run,
                ["--masks", str(masks), *given],
                masks,
                settings_of(kind.train, own, self.digests),
            ),
            files(
                *test,
                is_reported=is_reported,
                settings=settings_of(kind.masks, own, {}),
                inputs=(kind.weights_in(run),),
            ),
        ]
        self.scores += [Score(name, scores[0], val), Score(f"{name} after the CRF", scores[1], val)]


if __name__ == "__main__":
    run_script(main)
