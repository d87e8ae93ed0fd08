"""Trains CTI's classifier.

python methods/cti/train_trm.py --name exp                                   VOC 2012, as published
python methods/cti/train_trm.py --name exp --exp cti_coco_cvpr24             COCO 2014
torchrun --nproc_per_node 2 methods/cti/train_trm.py --name exp              two processes, the same global batch
python methods/cti/train_trm.py --name exp --resume                          go on after an interruption
"""

from common.checkpoint import Checkpoints, Position
from common.data.dataset import ImageSet
from common.data.loader import EpochBatches, TrainViews, train_loader
from common.data.transforms import train_transform
from common.dist import start_processes, stop_processes
from common.errors import run_script
from common.optim import adamw, learning_rate, scaled_lr, set_lr
from common.pretrained import RANDOM_WEIGHTS, imagenet_weights
from common.run import RunLog
from common.runtime import Runtime, usable_workers
from common.scoring import scored_images, validate
from common.script import open_training_run, start_run, train_arguments
from common.training import LossWatch, ProgressLine, StopRequest, label_accuracy, micro_step, wrap_for_training
from methods.cti.config import CTIConfig
from methods.cti.losses import LOSS_TERMS, CTIStep
from methods.cti.memory import TokenMemory
from methods.cti.model import CTI

LOGGED = ("total", *LOSS_TERMS, "accuracy_cls", "accuracy_pcls")


def main() -> int:
    """Sets up in the order config, processes, data, model, optimiser; then the loop. Returns the exit code."""
    args, overrides = train_arguments(__doc__, CTIConfig, "cti_cvpr24")
    processes = start_processes()
    config, run = open_training_run(args, overrides, CTIConfig)
    runtime = Runtime(config.runtime, processes)
    train = config.train

    # Data
    images = ImageSet(config.data, train.image_list)
    val_images = scored_images(config.data, train.val_list, config.eval) if train.validates_at_all() else None
    views = [
        train_transform(config.model.img_size, config.views.scale, config.views.interpolation),
        train_transform(
            config.model.img_size, config.views.scale2, config.views.interpolation, config.views.auto_augment
        ),
    ]
    batches = EpochBatches(
        len(images), train.batch_size, config.runtime.seed, processes.rank, processes.world, train.accumulation
    )
    loader = train_loader(
        TrainViews(images, views, config.runtime.seed),
        batches,
        usable_workers(config.runtime.num_workers),
        runtime.device.type == "cuda",
    )

    # Model, memory, optimiser
    model = CTI(config.model, len(images.classes)).to(runtime.device)
    weights = None if args.resume else imagenet_weights(config.model.arch, config.model.pretrained)
    coverage = model.load_imagenet(weights) if weights else None
    memory = TokenMemory(len(images.classes), config.loss.memory_size, model.embed_dim, runtime.device)
    step_module = wrap_for_training(CTIStep(model, config.loss, memory, processes.gather_rows), runtime)
    optimizer, scaler = adamw(model, config.optim, train.batch_size), runtime.grad_scaler()
    watch, stop = LossWatch(LOGGED, images.ids), StopRequest()
    parts = {"optimizer": optimizer, "scaler": scaler, "memory": memory}
    identity = {
        "train.batch_size": train.batch_size, "training images": len(images), "classes": len(images.classes),
        "runtime.seed": config.runtime.seed,
    }  # fmt: skip
    checkpoints = Checkpoints(run.checkpoints, model, parts, {"watch": watch}, processes, identity)
    position = checkpoints.resume() if args.resume else Position()

    start_run(run, config, processes, args.overwrite)
    log = RunLog(run.path, processes.is_main, resumed_at=position.total_steps if args.resume else None)
    log.say(
        f"{run.path}: {len(images)} images, {len(images.classes)} classes, {len(batches)} steps an epoch on "
        f"{runtime.describe()}"
    )
    log.say(f"backbone: {coverage or ('resumed' if args.resume else RANDOM_WEIGHTS)}")

    # Loop
    peak = scaled_lr(config.optim, train.batch_size)
    log.say(f"epochs {position.epoch} to {train.epochs - 1}, peak learning rate {peak:.3g}")
    while not train.is_over(position):
        epoch = position.epoch
        batches.start_at(epoch, position.step)
        progress = ProgressLine(epoch, train.epochs, len(batches), position.step, processes.is_main)
        step_module.train()
        for micro, ((view1, view2), labels, indices) in enumerate(loader, start=1):
            is_last_micro = micro % train.accumulation == 0
            view1, view2, labels = runtime.to_device(view1, view2, labels)
            set_lr(optimizer, learning_rate(position, len(batches), train.epochs, peak, config.optim))
            with micro_step(step_module, is_last_micro):
                with runtime.autocast():
                    losses = step_module(view1, view2, labels, epoch)
                scaler.scale(losses["total"] / train.accumulation).backward()
            for head in ("cls", "pcls"):
                losses[f"accuracy_{head}"] = label_accuracy(losses[f"logits_{head}"], labels)
            watch.add(losses, indices)
            if not is_last_micro:
                continue
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            position.step += 1
            position.total_steps += 1
            progress.advance()
            if position.total_steps % train.print_freq == 0 or position.step == len(batches):
                values = watch.averages(processes)
                timing = {"lr": optimizer.param_groups[0]["lr"], "seconds_per_step": progress.seconds_per_step()}
                log.numbers(position.total_steps, {**values, **timing}, kind="train", epoch=epoch)
                progress.show(values)
            if stop.wanted(processes) or train.is_over(position):
                break
            if train.save_steps and position.total_steps % train.save_steps == 0:
                watch.check()
                checkpoints.save_last(position)
        progress.close()
        watch.check()
        if stop.wanted(processes):  # a finished epoch is closed by the resumed run
            checkpoints.save_last(position)
            log.say(
                f"stopped by signal {stop.signal} after step {position.total_steps}; go on with: --name {run.name} "
                "--resume"
            )
            return stop.exit_code
        if train.is_over(position) or train.keeps(epoch):
            checkpoints.save_epoch(epoch)
        if val_images is not None and train.validates(epoch):
            checkpoints.save_last(position)  # validation may fail; the resumed run begins with it
            model.eval()
            score = validate(
                model.foreground_maps(config.infer.seed_map),
                val_images,
                config.infer,
                config.eval,
                runtime,
                log,
                position,
                epoch,
            )
            if score > position.best:
                position.best = score
                checkpoints.save_best()
        if position.step == len(batches):
            position.epoch, position.step = epoch + 1, 0
        checkpoints.save_last(position)
    log.say(f"done: {position.total_steps} steps. Seeds: python methods/cti/infer_trm.py --name {run.name} --dict")
    log.close()
    stop_processes()
    return 0


if __name__ == "__main__":
    run_script(main)
