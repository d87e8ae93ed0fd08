"""A tiny experiment for every training script; in its paths, DATA stands for the root of the data set."""

from pathlib import Path
from typing import Any

import yaml

VOC = {"dataset": "voc12", "root": "DATA", "classes": "DATA/classes.txt"}  # as `make_shapes` makes it
RUNTIME = {"num_workers": 0, "device": "cpu"}
TINY = {  # a classifier by image labels: two epochs of 6 steps
    "data": {**VOC, "labels": "DATA/Annotations"},
    "model": {
        "pretrained": "none", "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2,
        "drop_path": 0.3,
    },
    "optim": {"lr": 1e-3, "base_batch": 4, "warmup_epochs": 1},
    "train": {
        "image_list": "train", "val_list": "val", "epochs": 2, "batch_size": 4, "validate_from": -1, "print_freq": 1,
    },
    "infer": {"image_list": "val", "eval_list": "val", "num_workers": 0},
    "runtime": RUNTIME,
}  # fmt: skip
RESNET = {"arch": "resnet18", "blocks": [1, 1, 1, 1], "pretrained": "none"}
TINY_OF = {
    "cti": {**TINY, "loss": {"swap_idx": 1, "n_layers": 2, "memory_size": 3}},
    "pcss": {  # rounds of frequency importance after epochs 0 and 1, suppression in epochs 1 and 2
        **TINY,
        "loss": {"mpc_idx": 1},
        "fim": {"start_epoch": 0, "interval": 1, "images_per_class": 3, "block": 8},
        "train": {**TINY["train"], "epochs": 3},
    },
    "dig": {  # the CAM losses in epoch 1; fixtures.py makes the diffusion model's file
        **TINY,
        "loss": {"cam_start_epoch": 1},
        "diffusion": {"feature_timesteps": [0, 3]},
        "unet": {"dim": 8, "dim_mults": [1, 2]},
    },
    "diffusion": {  # an epoch of 6 steps and 2 more; milestones after 5 and 8, last.pth after 4; an average that lags
        "data": {"dataset": "voc12", "root": "DATA"},
        "views": {"size": 16},
        "unet": {"dim": 8, "dim_mults": [1, 2]},
        "optim": {"lr": 1e-3},
        "train": {
            "image_list": "train", "max_steps": 8, "batch_size": 4, "save_steps": 4, "save_every": 5, "print_freq": 4,
        },
        "ema": {"every": 2, "after": 2, "decay": 0.9},
        "sampling": {"images": 5, "steps": 3},
        "runtime": RUNTIME,
    },
    "toco": {  # an epoch of 6 steps and 2 more; the segmentation counts from step 3, validation after 5 and 8
        **TINY,
        "views": {"crop_size": 32, "local_size": 16, "local_crops": 3, "scale": [0.75, 1.5]},
        "model": {**TINY["model"], "drop_path": 0.0, "aux_layer": -2, "decoder_dim": 16, "proj_dim": 32},
        "loss": {"seg_after": 2, "cam_scales": [1.0, 0.5]},
        "optim": {"lr": 1e-3, "warmup_steps": 2},
        "train": {
            "image_list": "train", "val_list": "val", "max_steps": 8, "batch_size": 4, "print_freq": 1,
            "eval_steps": 5, "keep_steps": 4, "save_steps": 3, "val_size": 32,
        },
        "infer": {**TINY["infer"], "cam_size": 32, "segment": {"image_list": "val", "num_workers": 0}},
    },
    "crt": {  # the consistency loss in the second epoch; 4 tiles a crop
        **TINY,
        "views": {"long_side": [32, 64], "crop_size": 48},
        "model": {
            "cnn": RESNET,
            "deit": {**TINY["model"], "depth": 2, "drop_path": 0.0},
            "passes": 2,
        },
        "optim": {"lr": 0.01},
        "infer": {**TINY["infer"], "scales": [1.0, 0.5]},
    },
    "wsol": {  # on birds; three epochs of 3 steps, the third of 4 images instead of 10; consistency in epochs 1 and 2,
        # a smaller learning rate in the last; validation after each
        "data": {"root": "DATA"},
        "views": {"resize": 36},
        "model": {"deit": {**TINY["model"], "depth": 2}, "cnn": RESNET},
        "loss": {"period": 2},
        "optim": {"lr": 1e-3, "decay_epochs": 3, "cnn_lr": 0.01},
        "train": {"epochs": 3, "batch_size": 10, "print_freq": 2},
        "eval": {"batch_size": 5, "cam_threshold": 0.4},
        "runtime": RUNTIME,
    },
    "psa": {  # two epochs of 6 steps; the crop is smaller than some sides
        "data": VOC,
        "crf": {"low_alpha": 4, "high_alpha": 16},
        "views": {"crop": 40},
        "model": {"arch": "tiny"},
        "optim": {"lr": 0.02},
        "train": {"image_list": "train", "epochs": 2, "batch_size": 4, "print_freq": 4},
        "walk": {"bg_thr": 0.3, "log2_rounds": 4},
        "infer": {"image_list": "val", "eval_list": "val", "num_workers": 0},
        "runtime": RUNTIME,
    },
    "irn": {  # two epochs of 6 steps; last.pth after steps 4 and 8, too
        "data": VOC,
        "labels": {"fg_threshold": 0.5, "bg_threshold": 0.3},
        "views": {"crop_size": 32, "scale": [0.8, 1.2]},
        "model": RESNET,
        "loss": {"radius": 3},
        "train": {
            "image_list": "train", "displacement_list": "val", "epochs": 2, "batch_size": 4, "save_steps": 4,
            "print_freq": 4,
        },
        "walk": {"radius": 2, "log2_rounds": 3},
        "infer": {"image_list": "val", "eval_list": "val", "canvas": 64, "batch_size": 1},
        "runtime": RUNTIME,
    },
    "vitseg": {  # on true masks, with a teacher from the second epoch on; files and validation as DeepLab's
        "data": {**VOC, "labels": "DATA/Annotations"},
        "views": {"crop_size": 32},
        "model": {**TINY["model"], "depth": 2, "drop_path": 0.0, "decoder_depth": 1},
        "optim": {"lr": 1e-3, "warmup_steps": 2, "layer_decay": 0.9},
        "teacher": {"from_epoch": 1, "momentum": 0.9, "confidence": 0.2},
        "train": {
            "image_list": "train", "val_list": "val", "masks": "DATA/SegmentationClass", "max_steps": 8,
            "batch_size": 4, "keep_steps": 3, "eval_steps": 4, "save_steps": 5, "print_freq": 4,
        },
        "infer": {"image_list": "val", "num_workers": 0},
        "runtime": RUNTIME,
    },
    "deeplab": {  # on true masks; an epoch of 6 steps and 2 more; files after 3, 6 and 8, validation after 4 and 8,
        # last.pth besides after 5
        "data": {**VOC, "labels": "DATA/Annotations"},
        "views": {"input": "imagenet", "crop_size": 33},
        "model": {"pretrained": "none", "width": 4, "blocks": [1, 1, 1, 1], "atrous_rates": [1, 2]},
        "optim": {"lr": 1e-3, "lr_decay": 2},
        "train": {
            "image_list": "train", "val_list": "val", "masks": "DATA/SegmentationClass", "max_steps": 8,
            "batch_size": 4, "accumulation": 2, "keep_steps": 3, "eval_steps": 4, "save_steps": 5, "print_freq": 4,
        },
        "infer": {"image_list": "val", "num_workers": 0},
        "runtime": RUNTIME,
    },
}  # fmt: skip


def write_experiment(path: Path, data: Path, method: str = "cti", **sections: dict[str, Any]) -> Path:
    """A method's tiny experiment on a data set, with other sections: a YAML file."""
    path.write_text(yaml.safe_dump({**TINY_OF[method], **sections}).replace("DATA", str(data)))
    return path
