"""Names the known word that is most like an unknown one: keys and flags, experiments, lists, runs."""

import difflib
from collections.abc import Iterable, Mapping

# Words of other code bases for keys and flags, in the order of preference; those that a script has are offered.
SYNONYMS: dict[str, tuple[str, ...]] = {
    word: meant
    for words, meant in {
        "learning_rate learningrate base_lr": ("optim.lr",),
        "wd wt_decay": ("optim.weight_decay",),
        "epoch epo load_epoch": ("--load_epo", "--epochs", "train.epochs"),
        "num_epochs num_epoches max_epochs max_epoch n_epochs": ("train.epochs",),
        "iters max_iters max_iter iterations max_iterations num_iters steps": ("train.max_steps",),
        "bs batch batchsize batch_size samples_per_gpu spg": ("train.batch_size", "infer.batch_size"),
        "ckpt ckpt_path checkpoint weights load load_from model_path": ("--load_pretrained", "model.pretrained"),
        "init pretrain pretrained": ("model.pretrained", "model.cnn.pretrained", "--load_pretrained"),
        "backbone network arch": ("model.arch", "model.deit.arch"),
        "gpu gpus gpu_id gpu_ids cuda device": ("runtime.device",),
        "amp fp16 bf16 half precision": ("runtime.precision",),
        "workers jobs nworkers n_workers": ("--num_workers", "runtime.num_workers", "infer.num_workers"),
        "root data_root data_dir data_folder img_folder dataset_root voc_root voc12_root": ("data.root",),
        "dataset": ("data.dataset",),
        "num_classes c": ("data.classes",),
        "config cfg config_file config_path experiment": ("--exp",),
        "work_dir out_dir output output_dir save_dir session_name exp_name run_name": ("--name",),
        "force": ("--overwrite",),
        "continue resume_from": ("--resume",),
        "threshold thresh bg_thr bg_threshold": ("eval.fixed_threshold", "walk.background"),
        "train_set": ("train.image_list",),
        "list infer_set infer_list image_list": ("infer.image_list", "--list"),
        "val_set": ("train.val_list",),
        "cam_dir seed_dir": ("--seeds", "--dict_dir"),
    }.items()
    for word in words.split()
}


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A question that names the known word most like ``word``, to be added to a message; empty if none is."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return _question(by_lower[close[0]]) if close else ""


def similar_key(key: str, keys: Iterable[str], sections: Iterable[str] = (), is_typed: bool = False) -> str:
    """The same for a configuration key: one with the same last part, or of a similar name.

    Args:
        sections: names that count as well.
        is_typed: whether it is of the command line, where synonyms count.
    """
    keys = list(keys)
    last = key.rpartition(".")[2]
    names = {name.rpartition(".")[2]: name for name in reversed(keys)}  # the first of equal ones
    meant = [name for name in SYNONYMS.get(last.lower(), ()) if name in keys] if is_typed else []
    if last in names or meant:
        return _question(names.get(last) or meant[0])
    return did_you_mean(key, [*keys, *sections], 0.8) or _similar_last(last, names)


def similar_argument(word: str, flags: Iterable[str], keys: Iterable[str]) -> str:
    """The same for a word with dashes on the command line, which may stand for a flag or a key; synonyms count."""
    keys, flags = list(keys), list(flags)
    plain = word.lstrip("-").replace("-", "_")
    if plain in keys:
        return f" Keys have no dashes: {plain}=VALUE."
    by_name = {flag.lstrip("-").replace("-", "_"): flag for flag in reversed(flags)}
    meant = SYNONYMS.get(plain.lower(), ())
    close = difflib.get_close_matches(plain.lower(), by_name, n=1, cutoff=0.75)
    offered = [by_name[plain]] if plain in by_name else []
    offered += [name for name in meant if name in flags]
    offered += [by_name[name] for name in close]
    offered += [f"{name}=VALUE" for name in meant if name in keys]
    if offered:
        return _question(offered[0])
    return similar_key(plain, keys)


def _similar_last(last: str, names: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(last, names, n=1)
    return _question(names[close[0]]) if close else ""


def _question(name: str) -> str:
    return f" Did you mean {name}?"
