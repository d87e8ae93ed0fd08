"""Configuration: every shipped YAML, strictness, the papers' flags, help."""

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.masks.options import CRFMasksConfig
from common.pipeline.options import PipelineConfig
from common.run.command import number, script_parser
from common.run.config import CONFIG_DIR, at_least, config_path, leaves, load_config, save_config
from common.run.errors import UserError
from common.run.files import ROOT
from common.run.method import method_of
from common.run.script import SEEDS, TRAINING, Usage, parse_arguments, start
from common.train.schedule import scaled_lr
from methods.crt.config import CRTConfig
from methods.crt.wsol_config import WSOLConfig
from methods.cti.config import CTIConfig
from methods.deeplab.config import DeepLabConfig
from methods.dig.config import DiGConfig
from methods.dig.diffusion_config import DiffusionConfig
from methods.fusion.config import FusionConfig
from methods.irn.config import IRNConfig
from methods.pcss.config import PCSSConfig
from methods.psa.config import PSAConfig
from methods.segments.config import SegmentsConfig
from methods.toco.config import ToCoConfig
from methods.vitseg.config import VitSegConfig

# By the beginning of the YAML's name; the longest that fits.
CLASSES = {
    "cti": CTIConfig, "pcss": PCSSConfig, "dig": DiGConfig, "diffusion": DiffusionConfig, "toco": ToCoConfig,
    "psa": PSAConfig, "irn": IRNConfig, "crf": CRFMasksConfig, "deeplab": DeepLabConfig, "vitseg": VitSegConfig,
    "pipeline": PipelineConfig,
    "crt": CRTConfig, "crt_cub": WSOLConfig, "segments": SegmentsConfig, "fusion": FusionConfig,
    "backbone": CTIConfig,
}  # fmt: skip
SHIPPED = sorted(CONFIG_DIR.glob("*.yaml"))


def kind_of(path: Path) -> str:
    """The key of `CLASSES` that a shipped YAML belongs to."""
    return max((name for name in CLASSES if f"{path.stem}_".startswith(f"{name}_")), key=len)


def named_keys(content: dict[str, Any], prefix: str = "") -> set[str]:
    """The keys that a YAML names, sections flattened with dots."""
    nested = (named_keys(value, f"{prefix}{key}.") for key, value in content.items() if isinstance(value, dict))
    return {prefix + key for key, value in content.items() if not isinstance(value, dict)}.union(*nested)


def trained(*arguments: str, cls: type = CTIConfig) -> Any:
    """What a training's command line gives."""
    _, overrides = parse_arguments("", cls, "", TRAINING, argv=["--name", "x", *arguments])
    return load_config(cls, None, overrides)


def inferred(*arguments: str) -> CTIConfig:
    """What an inference's command line gives."""
    _, overrides = parse_arguments("", CTIConfig, "cti_cvpr24", SEEDS, argv=["--name", "x", *arguments])
    return load_config(CTIConfig, None, overrides)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_yaml_is_read_and_survives_being_written(path: Path, tmp_path: Path) -> None:
    """A YAML belongs to a class, names only its keys, and its resolved form reads back the same."""
    cls = CLASSES[kind_of(path)]
    config = load_config(cls, path)
    assert isinstance(config, cls)
    assert method_of(path) == cls.method
    save_config(config, tmp_path / "config.yaml")
    assert method_of(tmp_path / "config.yaml") == cls.method
    assert load_config(cls, tmp_path / "config.yaml") == config


@pytest.mark.parametrize("kind", sorted(set(CLASSES) - {"pipeline"}))
def test_experiments_of_a_kind_name_the_same_keys(kind: str) -> None:
    """So diff shows how they differ, also where one has the default; all other keys keep theirs, as each YAML says."""
    paths = [path for path in SHIPPED if kind_of(path) == kind and "demo" not in path.stem]
    keys = {path.stem: named_keys(yaml.safe_load(path.read_text())) for path in paths}
    everything = set.union(*keys.values())
    assert {name: sorted(everything - own) for name, own in keys.items() if own != everything} == {}
    for path in paths:
        head = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
        assert "Keys left out keep their defaults: see --help." in head, path.name


def test_a_renamed_key_goes_on_working_under_its_former_name(tmp_path: Path) -> None:
    """In the YAML of an old run, on the command line, and beside the present name, which is stronger."""
    (tmp_path / "old.yaml").write_text("views: {crop: 64}\nmodel: {arch: tiny}\n")
    assert load_config(PSAConfig, tmp_path / "old.yaml").views.crop_size == 64
    assert load_config(PSAConfig, tmp_path / "old.yaml", ["views.crop=128"]).views.crop_size == 128
    (tmp_path / "both.yaml").write_text("views: {crop: 64, crop_size: 96}\n")
    assert load_config(PSAConfig, tmp_path / "both.yaml").views.crop_size == 96
    (tmp_path / "odd.yaml").write_text("views: 3\n")
    with pytest.raises(UserError, match=r"views .*section"):
        load_config(PSAConfig, tmp_path / "odd.yaml")
    with pytest.raises(UserError, match=r"unknown.*'views.crops'"):
        load_config(PSAConfig, None, ["views.crops=64"])
    with pytest.raises(UserError, match=r"unknown.*'views.crops'"):  # whatever other keys refer to
        load_config(PSAConfig, None, ["data.root=${nowhere}", "views.crops=64"])


def test_the_papers_settings() -> None:
    """What the paper states for VOC and COCO is what the two YAMLs say."""
    voc, coco = (load_config(CTIConfig, config_path(name)) for name in ("cti_cvpr24", "cti_coco_cvpr24"))
    assert voc.loss.weights == [0.1, 1, 1] and voc.loss.aux_after_epoch == -1 and not voc.loss.detach_bg_cams
    assert coco.loss.weights == [0.1, 0.1, 0.1] and coco.loss.aux_after_epoch == 1 and coco.loss.detach_bg_cams
    for config in (voc, coco):
        assert (config.train.epochs, config.train.batch_size) == (60, 64)
        assert (config.loss.swap_idx, config.loss.n_layers, config.loss.memory_size) == (3, 6, 30)
        assert not config.loss.share_prefix and config.runtime.precision == "fp32" and config.infer.seed_map == "rcams"
    assert [epoch for epoch in range(60) if voc.train.validates(epoch)] == list(range(9, 60))
    assert [epoch for epoch in range(60) if coco.train.validates(epoch)] == [3, *range(11, 60)]


def test_coco_is_scored_alike_by_the_methods_that_share_an_evaluator() -> None:
    """Their searches end at the first threshold without improvement on COCO."""
    experiments = (CTIConfig, "cti_coco_cvpr24"), (PCSSConfig, "pcss_coco_eccv24"), (DiGConfig, "dig_coco_eccv24")
    assert all(load_config(cls, config_path(name)).eval.early_stop for cls, name in experiments)


def test_the_papers_settings_of_toco() -> None:
    """The two training scripts, the table of loss weights, and the two ways of joining flips and scales."""
    voc, coco = (load_config(ToCoConfig, config_path(name)) for name in ("toco_cvpr23", "toco_coco_cvpr23"))
    for config in (voc, coco):
        assert (config.model.arch, config.model.drop_path) == ("deit_base_patch16_224", 0)
        assert (config.loss.ptc, config.loss.ctc, config.loss.seg, config.loss.reg) == (0.2, 0.5, 0.1, 0.05)
        assert (config.loss.momentum, config.loss.cam_scales, config.loss.group) == (0.9, [1.0, 0.5, 1.5], 2)
        assert (config.optim.lr, config.optim.head_scale, config.optim.warmup_steps) == (6e-5, 10, 1500)
        assert (config.optim.weight_decay, config.optim.power, config.optim.warmup_ratio) == (0.01, 0.9, 1e-6)
        assert (config.views.crop_size, config.views.local_size, config.views.local_crops) == (448, 96, 8)
        assert config.views.scale == [0.5, 2.0] and not config.views.paired and not config.labels.scale_box
        assert (config.energy.weight, config.energy.sigma_rgb, config.energy.sigma_xy) == (1e-7, 15, 100)
        assert config.runtime.precision == "fp32" and not config.loss.compute_inactive
    assert (voc.model.aux_layer % 12, coco.model.aux_layer % 12) == (9, 9)
    assert (voc.labels.high, voc.labels.low, voc.labels.bkg, voc.loss.temperature) == (0.7, 0.25, 0.5, 0.5)
    assert (coco.labels.high, coco.labels.low, coco.labels.bkg, coco.loss.temperature) == (0.65, 0.25, 0.45, 1.0)
    steps = [(c.loss.contrast_after, c.loss.seg_after, c.loss.aux_cam_until, c.train.max_steps) for c in (voc, coco)]
    assert steps == [(-1, 2000, -1, 20_000), (12_000, 8000, 12_000, 80_000)]
    assert [(c.train.batch_size, c.train.eval_steps) for c in (voc, coco)] == [(4, 2000), (8, 4000)]
    views = [(c.infer.segment.resize, c.infer.segment.flip, c.infer.segment.merge) for c in (voc, coco)]
    assert views == [(0, "sum", "max"), (448, "max", "sum")]
    assert [c.infer.segment.scales for c in (voc, coco)] == [[1.0, 1.5, 1.25], [1.0, 1.25, 1.5]]
    assert (coco.train.val_list, coco.train.val_limit) == ("val14", 5000)


def test_the_papers_settings_of_crt() -> None:
    """The reference's constants and defaults, its momentum included; a crop fits the tiles, which is checked."""
    config = load_config(CRTConfig, config_path("crt_2022"))
    assert (config.model.cnn.arch, config.model.deit.arch) == ("resnet152", "deit_small_patch16_224")
    assert (config.model.passes, config.model.deit.img_size, config.model.deit.drop_path) == (3, 224, 0)
    assert (config.views.long_side, config.views.crop_size) == ([210, 420], 336)
    assert (config.loss.cam_lambda, config.loss.consistency_from) == (0.1, 1)
    assert (config.optim.lr, config.optim.head_scale, config.optim.momentum) == (0.1, 10, 1e-4)
    assert (config.optim.weight_decay, config.optim.power) == (1e-4, 0.9)
    assert (config.train.epochs, config.train.batch_size) == (10, 16) and not config.train.validates_at_all()
    assert (config.train.image_list, config.infer.image_list, config.infer.eval_list) == (
        "train_aug", "train_aug", "train",
    )  # fmt: skip
    assert config.infer.scales == [1.0, 0.5, 1.5, 2.0, 0.75, 1.25, 1.75] and config.infer.flip
    assert config.irn.exp == "irn_crt" and config.eval.fixed_threshold == 0.15 and config.runtime.precision == "fp32"
    for crop in (112, 300):
        with pytest.raises(UserError, match=rf"views.crop_size={crop} cannot be cut .*=224 .* a multiple of 112$"):
            load_config(CRTConfig, None, [f"views.crop_size={crop}"])


def test_flags_of_crts_command() -> None:
    """Those of the reference's run_sample.py that a training takes."""
    config = trained(
        "--train_list", "train", "--val_list", "val", "--cam_crop_size", "448", "--cam_batch_size", "8",
        "--cam_num_epoches", "5", "--cam_learning_rate", "0.05", "--cam_weight_decay", "1e-3",
        "--cam_eval_thres", "0.2", "--cam_lambda", "0.2", cls=CRTConfig,
    )  # fmt: skip
    assert (config.train.image_list, config.train.val_list, config.views.crop_size) == ("train", "val", 448)
    assert (config.train.batch_size, config.train.epochs, config.optim.lr) == (8, 5, 0.05)
    assert (config.optim.weight_decay, config.eval.fixed_threshold, config.loss.cam_lambda) == (1e-3, 0.2, 0.2)


def test_the_papers_settings_of_pcss() -> None:
    """For VOC and COCO: what its two training scripts have as defaults."""
    voc, coco = (load_config(PCSSConfig, config_path(name)) for name in ("pcss_eccv24", "pcss_coco_eccv24"))
    assert (voc.loss.weights, voc.loss.mpc_cam_start_epoch, voc.fim.start_epoch) == ([2, 2], 0, 2)
    assert (coco.loss.weights, coco.loss.mpc_cam_start_epoch, coco.fim.start_epoch) == ([0.4, 0.4], 3, 3)
    for config in (voc, coco):
        assert (config.train.epochs, config.train.batch_size) == (60, 64)
        assert (config.loss.mpc_idx, config.loss.mpc_org_ratio, config.loss.share_prefix) == (7, 0.3, False)
        assert (config.fim.interval, config.fim.images_per_class, config.fim.block) == (3, 100, 16)
        assert not config.fim.corrected and config.runtime.precision == "fp32" and config.runtime.seed == 0
        assert (config.views.scale, config.views.interpolation) == ([0.6, 1.2], "bicubic")
        assert (config.views.auto_augment, config.model.drop_path) == ("rand-m9-mstd0.5-inc1", 0.1)
        assert scaled_lr(config.optim, 64) == 6.25e-5 and config.optim.weight_decay == 0.05
        assert (config.optim.warmup_lr, config.optim.min_lr, config.optim.warmup_epochs) == (1e-6, 1e-5, 5)
        assert config.optim.schedule == "epoch" and config.eval.early_stop
        assert (config.infer.seed_map, config.infer.scales, config.infer.flip) == ("rcams", [1.0], True)
    assert [epoch for epoch in range(60) if voc.train.validates(epoch)] == list(range(9, 60))
    assert [epoch for epoch in range(60) if coco.train.validates(epoch)] == list(range(10, 60))
    assert (voc.eval.reference_range, coco.eval.reference_range) == ([0.30, 0.59], [0.32, 0.40])
    assert (voc.train.image_list, voc.train.val_list, voc.infer.image_list) == ("train_aug", "train", "train_aug")
    assert (coco.train.image_list, coco.train.val_list) == ("train14", "train14_small")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", r"unknown.*'train.epoch'.*Did you mean train.epochs\?"),
        ("lr=3", r"unknown.*'lr'.*Did you mean optim.lr\?"),
        ("optim.epochs=3", r"unknown.*'optim.epochs'.*Did you mean train.epochs\?"),
        ("trian.epochs=3", r"unknown.*'trian'.*Did you mean train\?"),
        ("qqq.zzz=3", "unknown.*'qqq' in the command line.*--help"),
        ("train.epochs=many", "'train.epochs'.*'many'.*Integer"),
        ("train.epochs=1.5", "'train.epochs'.*Integer"),
        ("optim.lr=fast", "'optim.lr'.*Float"),
        ("infer.flip=perhaps", "'infer.flip'"),
        ("loss.weights=[0.1, x, 1]", "'loss.weights.*'"),
        ("loss.weights=1", "'loss.weights'"),
        ("data.root=null", None),
        ("train.epochs=null", "'train.epochs'"),
        ("train.epochs.x=3", "'train.epochs'"),
        ("train=3", "train .*section.*train.image_list"),
        ("data.root=${nowhere}", "'data.root'.*nowhere"),
        ("data.dataset=VOC12", "data.dataset is 'VOC12'; it must be one of: voc12, coco14, folder"),
        ("train.batch_size=0", "train.batch_size is 0; it must be at least 1"),
        ("train.print_freq=0", "train.print_freq"),
        ("views.scale=[0.3]", r"views.scale is \[0.3\]; it must be 2 numbers"),
        ("optim.betas=[0.9]", "optim.betas"),
        ("infer.scales=[]", "infer.scales"),
        ("epochs", "not of the form key=value"),
        ("a." * 3000 + "b=1", "not of the form key=value"),
        ("data.root=" + "${" * 2000, "wrong value for configuration key 'data.root'"),
        ("train.validate_also=[1", "train.validate_also=.*not valid YAML"),
    ],
)
def test_wrong_overrides_are_errors_that_name_the_key(override: str, message: str | None) -> None:
    """Unknown keys, wrong types and values that are not allowed; a text may be anything."""
    if message is None:
        assert load_config(CTIConfig, None, [override]).data.root == "null"
    else:
        with pytest.raises(UserError, match=message):
            load_config(CTIConfig, None, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epoch: 3}", r"unknown.*'train.epoch' in .*x\.yaml.*train.epochs\?"),
        ("model: {depth: deep}", r"'model.depth' in .*x\.yaml"),
        ("data: {root: null}", "'data.root'"),
        ("train: 3", "train .*section"),
        ("- 1", "must hold sections"),
        ("1999-12-31: 3", r"x\.yaml.*the key '1999-12-31' is no text"),
        ("train: {", "not a readable YAML"),
        ("data: !!python/object:os.system {}", "not a readable YAML"),
        ("\0", "NUL bytes"),
        ("a: \x01", "not a readable YAML"),
    ],
)
def test_wrong_yaml_is_an_error_that_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    """The same for files, and for files that are no YAML or none of ours."""
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(CTIConfig, tmp_path / "x.yaml")


def test_yaml_without_content(tmp_path: Path) -> None:
    """An empty file, or a section with nothing under it, leaves the defaults."""
    for text in ("", "train:\nmodel:\n"):
        (tmp_path / "x.yaml").write_text(text)
        assert load_config(CTIConfig, tmp_path / "x.yaml") == load_config(CTIConfig)


def test_exp_is_a_name_or_a_path(tmp_path: Path) -> None:
    """``--exp`` takes both; a wrong one lists what there is."""
    assert config_path("cti_cvpr24") == config_path(str(CONFIG_DIR / "cti_cvpr24.yaml"))
    (tmp_path / "own.yaml").write_text("")
    assert config_path(str(tmp_path / "own.yaml")) == tmp_path / "own.yaml"
    with pytest.raises(UserError, match=r"no configuration 'cti_cvpr25'.*There are: .*cti_coco_cvpr24, cti_cvpr24"):
        config_path("cti_cvpr25")


def test_texts_are_taken_as_they_are() -> None:
    """What YAML would read as a number, a truth value or nothing stays text where a text is wanted."""
    values = ("2007_000032", "no", "007", "~", "a: b", "@x", "[1]", "")
    assert [load_config(CTIConfig, None, [f"data.root={value}"]).data.root for value in values] == list(values)
    assert load_config(CTIConfig, None, ['data.root="x y"']).data.root == "x y"
    assert load_config(CTIConfig, None, ["optim.lr=1e-3"]).optim.lr == 1e-3


def test_flags_of_the_papers_commands() -> None:
    """Each sets the key it stands for; in mixed order with key=value, which is stronger."""
    config = trained(
        "--W", "0.1", "1", "1", "train.save_epochs=5", "--batch_size", "32", "--scale", "0.3,1.1",
        "--scale2", "0.2", "1", "--data-path", "somewhere", "--data-set", "coco14", "--train_list", "train14",
        "--val_list", "val14", "--epochs", "7", "--num_workers", "3", "--lr", "1e-4", "--warmup-epochs", "2",
        "--print_freq", "9", "--seed", "5", "--drop-path", "0.2", "--input-size", "128", "train.epochs=9",
    )  # fmt: skip
    assert config.loss.weights == [0.1, 1, 1] and config.train.save_epochs == 5 and config.train.batch_size == 32
    assert config.views.scale == [0.3, 1.1] and config.views.scale2 == [0.2, 1]
    assert (config.data.root, config.data.dataset) == ("somewhere", "coco14")
    assert (config.train.image_list, config.train.val_list) == ("train14", "val14")
    assert config.train.epochs == 9 and config.runtime.num_workers == 3 and config.runtime.seed == 5
    assert (config.optim.lr, config.optim.warmup_epochs, config.train.print_freq) == (1e-4, 2, 9)
    assert (config.model.drop_path, config.model.img_size) == (0.2, 128)
    with pytest.raises(UserError, match=r"'loss.weights\[2\]'"):
        trained("--W", "0.1", "1", "one")


def test_flags_of_pcss_commands() -> None:
    """In both spellings that argparse users know."""
    config = trained(
        "--W", "0.4", "0.5", "--fim_start_epo", "3", "--fim_interval_epo", "4", "--fim_ipc", "50", "--mpc_idx", "5",
        "--mpc_org_ratio", "0.6", "--mpc_cam_start_epo", "2", "--scale", "0.5", "1.1", "--train-interpolation",
        "bilinear", "--aa", "", "--finetune", "x.pth", "--min-lr", "1e-6", "--warmup-lr", "2e-6", "--weight-decay",
        "0.1", "--epochs", "9", "--batch_size", "16", "--drop-path", "0.2", "--val_list", "val", cls=PCSSConfig,
    )  # fmt: skip
    assert config.loss.weights == [0.4, 0.5] and config.loss.mpc_idx == 5 and config.loss.mpc_org_ratio == 0.6
    assert (config.fim.start_epoch, config.fim.interval, config.fim.images_per_class) == (3, 4, 50)
    assert config.loss.mpc_cam_start_epoch == 2 and config.views.scale == [0.5, 1.1]
    assert (config.views.interpolation, config.views.auto_augment, config.model.pretrained) == ("bilinear", "", "x.pth")
    assert (config.optim.min_lr, config.optim.warmup_lr, config.optim.weight_decay) == (1e-6, 2e-6, 0.1)
    assert (config.train.epochs, config.train.batch_size, config.train.val_list) == (9, 16, "val")
    other = trained("--fim-start-epo", "7", "--fim-ipc", "8", "--mpc-idx", "2", "--mpc-org-ratio", "1", cls=PCSSConfig)
    assert (other.fim.start_epoch, other.fim.images_per_class) == (7, 8)
    assert (other.loss.mpc_idx, other.loss.mpc_org_ratio) == (2, 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.weights=[1, 1, 1]", r"loss\.weights is .*; it must be 2 numbers"),
        ("fim.start_epoch=-1", "fim.start_epoch is -1; it must be at least 0"),
        ("fim.interval=0", "fim.interval"),
        ("fim.images_per_class=0", "fim.images_per_class"),
        ("fim.block=0", "fim.block"),
        ("fim.batch_size=0", "fim.batch_size"),
        ("views.interpolation=nearest", "it must be one of: bicubic, bilinear"),
        ("views.scale2=[0.1, 1]", r"unknown.*'views\.scale2'"),
    ],
)
def test_wrong_overrides_of_pcss(override: str, message: str) -> None:
    """Its own sections' rules."""
    with pytest.raises(UserError, match=message):
        load_config(PCSSConfig, None, [override])


def test_flags_of_inference_mean_inference() -> None:
    """``--val_list`` and ``--num_workers`` set the inference's own keys there."""
    config = inferred("--val_list", "val", "--alphas", "1", "2", "--num_workers", "3", "train.epochs=3")
    assert config.infer.image_list == "val" and config.train.val_list == "train"
    assert config.infer.crf_alphas == [1, 2]
    assert config.infer.num_workers == 3 and config.runtime.num_workers == CTIConfig().runtime.num_workers


@pytest.mark.parametrize("flag", ["--vis", "--crf"])
def test_pictures_without_seeds_are_refused(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--vis`` and ``--crf`` need ``--dict``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["infer_trm.py", "--name", "x", "--load_pretrained", "file.pth", flag])
    with pytest.raises(UserError, match="add --dict"):
        start("", CTIConfig, "cti_cvpr24", SEEDS)


@pytest.mark.parametrize("cls", [CTIConfig, PCSSConfig])
@pytest.mark.parametrize(
    ("usage", "absent"), [(TRAINING, {"infer"}), (SEEDS, {"loss", "train", "fim"})], ids=["training", "seeds"]
)
def test_help_lists_flags_and_keys_with_their_sentences(
    usage: Usage, absent: set, cls: type, capsys: pytest.CaptureFixture
) -> None:
    """Every key that the script reads, with default and sentence; none of the sections that it does not read."""
    with pytest.raises(SystemExit) as stop:
        parse_arguments("What it does.", cls, "cti_cvpr24", usage, argv=["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    assert "--name" in shown and "--exp" in shown and "--seed" in shown
    for leaf in leaves(cls()):
        is_listed = f"\n  {leaf.key}={leaf.default}" in shown
        if leaf.key.split(".")[0] in absent:
            assert not is_listed, leaf.key
        elif is_listed:
            assert " ".join(leaf.help.split()) in words, leaf.key
            assert all(flag in shown for flag in leaf.flags), leaf.key
    assert shown.count("\n      ") >= 40 and "  runtime.precision=fp32  (fp32 | tf32 | bf16 | fp16)" in shown


@pytest.mark.parametrize("cls", CLASSES.values())
def test_every_key_is_documented(cls: type) -> None:
    """A sentence each, that ends as sentences do."""
    assert all(leaf.help.endswith(".") for leaf in leaves(cls()))


def sections() -> list[type]:
    """All classes with configuration fields, of all modules."""
    paths = [path for folder in ("common", "methods") for path in sorted((ROOT / folder).rglob("*.py"))]
    named = [path for path in paths if re.search(r"^    \w+: .* = option\(", path.read_text(), re.MULTILINE)]
    modules = [importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in named]
    found = [value for module in modules for value in vars(module).values() if dataclasses.is_dataclass(value)]
    own = [cls for cls in found if any("help" in field.metadata for field in dataclasses.fields(cls))]
    return list(dict.fromkeys([*own, *CLASSES.values()]))


def test_every_number_has_a_rule() -> None:
    """Of every configuration; its default obeys."""
    checked = 0
    for cls in sections():
        for leaf in leaves(cls()):
            if re.search(r"\b(int|float)\b", str(leaf.type)):
                assert leaf.rule, (cls, leaf.key)
                assert leaf.rule.holds(leaf.default), (cls, leaf.key)
                checked += 1
    assert checked > 400


@pytest.mark.parametrize(
    ("cls", "override", "words"),
    [
        (CTIConfig, "optim.lr=-1", "at least 0"), (CTIConfig, "optim.betas=[0.9, 1.0]", "from 0 to below 1"),
        (CTIConfig, "views.scale=[1.2, 0.3]", "2 numbers in ascending order, each above 0"),
        (CTIConfig, "views.scale=[0, 1]", "above 0"), (CTIConfig, "loss.weights=[0.1, -1, 1]", "3 numbers, each"),
        (CTIConfig, "model.drop_path=1", "below 1"), (CTIConfig, "runtime.seed=-1", "from 0 to 4294967295"),
        (CTIConfig, "runtime.num_workers=-1", "at least 0"), (CTIConfig, "infer.crf_alphas=[]", "one or more"),
        (CTIConfig, "infer.crf_alphas=[-6]", "from 0 to 99"),
        (CTIConfig, "eval.reference_range=[0.5, 0.3]", "empty or"), (CTIConfig, "optim.lr=.nan", "finite"),
        (CTIConfig, "views.scale=[.nan, .nan]", "finite"), (CTIConfig, "optim.lr=-.inf", "finite"),
        (CTIConfig, "infer.scales=[1.0, .inf]", "finite"), (CTIConfig, "train.epochs=10000000000000000", "finite"),
        (CTIConfig, "train.validate_also=[-1]", "at least 0"), (CTIConfig, "model.img_size=-1", "at least 0"),
        (CRFMasksConfig, "crf.bilateral_sxy=0", "above 0"), (DeepLabConfig, "model.atrous_rates=[0]", "at least 1"),
        (PSAConfig, "walk.bg_thr=1.5", "from 0 to 1"), (DiffusionConfig, "ema.decay=1", "below 1"),
    ],
)  # fmt: skip
def test_values_that_no_number_may_have(cls: type, override: str, words: str) -> None:
    with pytest.raises(UserError, match=f"{override.split('=')[0]} is .*; it must be .*{words}"):
        load_config(cls, None, [override])


def test_values_that_do_not_suit_each_other() -> None:
    with pytest.raises(UserError, match=r"labels\.low=0\.8 must not be above labels\.high=0\.7"):
        load_config(ToCoConfig, None, ["labels.low=0.8"])
    with pytest.raises(UserError, match=r"are 100000001 thresholds; take a larger step"):
        load_config(CTIConfig, None, ["eval.thresholds=[0, 1, 1e-8]"])


@pytest.mark.parametrize(
    ("text", "words"), [("nan", "it is nan; .*finite"), ("-1", "at least 0"), ("x", "is no number")]
)
def test_plain_flags_with_numbers(text: str, words: str) -> None:
    """Of scripts beside the configuration; a margin of nan let every score pass."""
    parser = script_parser("What it does.")
    parser.add_argument("--margin", type=number(float, at_least(0)))
    with pytest.raises(UserError, match=f"--margin: .*{words}"):
        parser.parse_args(["--margin", text])
    assert parser.parse_args(["--margin", "1.5"]).margin == 1.5
