"""Seeds of a whole list: batches, restart, refusals, what goes wrong in the middle."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.data.dataset import DataConfig, LabelledImages
from common.data.seeds import read_seed
from common.data.whole import size_batches
from common.nets.vit import ClassMaps
from common.run.errors import UserError
from common.seeds.cam import max_norm, multi_view
from tests.datasets import truncate, write_image, write_lines, write_xml
from tests.helpers import Scripts, contents, failure

SEEDS = Path("experiment/x/dict")


@pytest.fixture(scope="module")
def reference(checkpoint: Path, experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The seeds of all six validation images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reference"))
        assert Scripts(patch, experiment).infer("x", "--load_pretrained", checkpoint, "--dict") == 0
        return contents(SEEDS)


def image_set(root: Path, sizes: list[tuple[int, int]], entries: list[str]) -> LabelledImages:
    """Images ``0``, ``1``, ... of these sizes (H, W) and a list."""
    for number, size in enumerate(sizes):
        write_image(root / "JPEGImages" / f"{number}.jpg", size, seed=number)
        write_xml(root / "Annotations" / f"{number}.xml", ["cat"])
    config = DataConfig(root=str(root), labels=str(root / "Annotations"))
    return LabelledImages(config, str(write_lines(root / "list.txt", entries)))


def test_batches_hold_images_of_one_size_largest_first(tmp_path: Path) -> None:
    """Every image once, however often the list names it; portrait and landscape apart."""
    sizes = [(24, 32), (32, 24), (24, 32), (48, 48), (24, 32), (24, 32)]
    images = image_set(tmp_path, sizes, ["4", "0", "1", "0", "2", "3", "5", "4"])
    batches = size_batches(images, 3)
    named = [[images.ids[index] for index in batch] for batch in batches]
    assert named[0] == ["3"] and sorted(map(sorted, named[1:])) == [["0", "2", "4"], ["1"], ["5"]]
    truncate(images.images[0])
    images.images[0].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"4\.jpg cannot be decoded"):
        size_batches(images, 3)


def test_only_what_is_missing_is_made_again(scripts: Scripts, checkpoint: Path, reference: dict, capsys) -> None:
    """The same bytes as before; the other files are not touched."""
    arguments = ("x", "--load_pretrained", checkpoint, "--dict")
    assert scripts.infer(*arguments) == 0 and contents(SEEDS) == reference
    capsys.readouterr()
    assert scripts.infer(*arguments) == 0
    assert "0 seeds written, 6 were there" in capsys.readouterr().out
    gone, *kept = sorted(SEEDS.glob("*.npy"))
    before = {path: path.stat().st_mtime_ns for path in kept}
    gone.unlink()
    assert scripts.infer(*arguments, "infer.batch_size=4") == 0
    assert contents(SEEDS) == reference
    same_size = [other for other in kept if read_shape(other) == read_shape(gone)]
    changed = [path for path, modified in before.items() if path.stat().st_mtime_ns != modified]
    assert set(changed) <= set(same_size)  # those of its batch


def read_shape(path: Path) -> tuple[int, ...]:
    """(H, W) of a seed."""
    return next(iter(read_seed(path).values())).shape


def test_workers_do_not_change_seeds(scripts: Scripts, checkpoint: Path, reference: dict) -> None:
    """Nor does the number of threads that read and write."""
    arguments = ("--load_pretrained", checkpoint, "--dict", "--num_workers", 2, "infer.eval_list=")
    assert scripts.infer("x", *arguments) == 0
    assert contents(SEEDS) == reference and not Path("experiment/x/eval_cam.json").exists()


def test_seeds_of_other_settings_are_not_mixed(scripts: Scripts, checkpoint: Path, reference: dict) -> None:
    """Refused until --overwrite, which deletes seeds only, or another folder."""
    arguments = ("x", "--load_pretrained", checkpoint, "--dict")
    assert scripts.infer(*arguments) == 0
    (SEEDS / "notes.txt").touch()
    for change in ("infer.seed_map=cams", "infer.flip=false", "infer.scales=[1, 0.5]", "runtime.precision=bf16"):
        with pytest.raises(UserError, match=r"dict holds seeds of another checkpoint or other settings.*--overwrite"):
            scripts.infer(*arguments, change)
    assert {name: data for name, data in contents(SEEDS).items() if name != "notes.txt"} == reference
    assert scripts.infer(*arguments, "--dict_dir", "other", "infer.seed_map=cams") == 0
    other = contents("experiment/x/other")
    assert other.keys() == reference.keys() and other != reference
    assert scripts.infer(*arguments, "infer.seed_map=cams", "--overwrite") == 0
    assert contents(SEEDS) == {**other, "notes.txt": b""}


def test_compact_format(scripts: Scripts, checkpoint: Path, reference: dict, tmp_path: Path) -> None:
    """The same classes and sizes, nearly the same values, the same way to the score."""
    assert scripts.infer("x", "--load_pretrained", checkpoint, "--dict", "infer.format=npz") == 0
    assert Path("experiment/x/eval_cam.json").is_file()
    for name, data in reference.items():
        (tmp_path / name).write_bytes(data)
        exact, compact = read_seed(tmp_path / name), read_seed(SEEDS / name.replace("npy", "npz"))
        assert exact.keys() == compact.keys()
        for key, cam in exact.items():
            assert compact[key].shape == cam.shape and np.abs(compact[key] - cam).mean() < 0.1


def test_pictures_and_refinement(scripts: Scripts, checkpoint: Path) -> None:
    """--vis and --crf --alphas in the same command."""
    assert scripts.infer("x", "--load_pretrained", checkpoint, "--dict", "--vis", "--crf", "--alphas", 1, 6) == 0
    for folder, suffix in (("dict", "npy"), ("vis", "png"), ("crf/01", "npy"), ("crf/06", "npy")):
        found = {path.name for path in (Path("experiment/x") / folder).glob("2*")}
        assert found == {f"2027_{number:06d}.{suffix}" for number in range(1, 7)}


def test_score_only(scripts: Scripts, checkpoint: Path, capsys) -> None:
    """Without --dict nothing but the score is written; it is the one that the files get."""
    assert scripts.infer("x", "--load_pretrained", checkpoint) == 0
    run = Path("experiment/x")
    written = {path.name for path in run.iterdir()}
    assert written == {"config.yaml", "eval_cam.json", "eval_cam.csv", "eval_cam.png"}
    from_memory = (run / "eval_cam.csv").read_bytes()
    assert scripts.infer("x", "--load_pretrained", checkpoint, "--dict") == 0
    assert (run / "eval_cam.csv").read_bytes() == from_memory


def test_the_runs_own_checkpoints(scripts: Scripts, capsys) -> None:
    """The best, else the last one; --load_epo takes its epoch; what is not there is listed."""
    with pytest.raises(UserError, match="no run folder experiment/x"):
        scripts.infer("x", "--dict")
    assert scripts.train("x", "train.batch_size=12") == 0
    capsys.readouterr()
    shown = []
    for more in ((), ("--load_epo", 0)):
        assert scripts.infer("x", *more) == 0
        shown.append(capsys.readouterr().out.splitlines()[0])
    assert "001net_trm.pth: 63 of 63" in shown[0] and "000net_trm.pth" in shown[1]
    shutil.copy("experiment/x/ckpt/000net_trm.pth", "experiment/x/ckpt/best.pth")
    assert scripts.infer("x") == 0
    assert "best.pth" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no checkpoint .*007net_trm\.pth\. There are epochs 0 to 1"):
        scripts.infer("x", "--load_epo", 7)
    shutil.rmtree("experiment/x/ckpt")
    with pytest.raises(UserError, match=r"no checkpoint in .*train first.*--load_pretrained"):
        scripts.infer("x")


def test_a_truncated_image_is_one_clear_error(scripts: Scripts, checkpoint: Path, own_data: Path, capsys) -> None:
    """The seeds made until then are kept, and the repaired list goes on from them."""
    smallest = min((own_data / "JPEGImages").glob("2027*"), key=lambda path: np.prod(Image.open(path).size))
    whole = smallest.read_bytes()
    truncate(smallest)
    arguments = ("x", "--load_pretrained", checkpoint, "--dict", f"data.root={own_data}", "infer.batch_size=1")
    for workers in (0, 2):
        message = failure(capsys, scripts.infer, *arguments, "--num_workers", workers)
        assert f"the image {smallest} cannot be decoded" in message and "check_data" in message
    before = {path: path.stat().st_mtime_ns for path in SEEDS.glob("*.npy")}
    assert 1 <= len(before) < 6 and not Path("experiment/x/eval_cam.json").exists()
    smallest.write_bytes(whole)
    assert scripts.infer(*arguments) == 0
    assert len(contents(SEEDS)) == 6 and {path: path.stat().st_mtime_ns for path in before} == before


def test_an_image_without_labels_gets_an_empty_seed(scripts: Scripts, checkpoint: Path, own_data: Path) -> None:
    """In both formats; it counts as background when scored."""
    write_xml(own_data / "Annotations" / "2027_000003.xml", ["nothing known"])
    for fmt in ("npy", "npz"):
        arguments = (f"data.labels={own_data / 'Annotations'}", f"infer.format={fmt}", "--overwrite")
        assert scripts.infer("x", "--load_pretrained", checkpoint, "--dict", *arguments) == 0
        assert read_seed(SEEDS / f"2027_000003.{fmt}") == {}
        assert sum(read_seed(path) == {} for path in SEEDS.glob("*.np[yz]")) == 1


def test_seeds_without_masks_are_not_scored(scripts: Scripts, checkpoint: Path, own_data: Path, capsys) -> None:
    """The seeds are written; why there is no score is said. Without --dict there would be nothing to do."""
    shutil.rmtree(own_data / "SegmentationClass")
    arguments = ("x", "--load_pretrained", checkpoint, f"data.root={own_data}")
    assert scripts.infer(*arguments, "--dict") == 0
    assert "not scored: no masks of 'val'" in capsys.readouterr().out
    with pytest.raises(UserError, match="6 of the 6 masks of list 'val' are missing"):
        scripts.infer(*arguments)
    with pytest.raises(UserError, match="6 of the 6 masks of list 'val' are missing"):
        scripts.train("y", f"data.root={own_data}", "train.validate_from=1")


def one_view(cams_of, image: Tensor, size: tuple[int, int], scale: float, is_flipped: bool) -> Tensor:
    """Maps of one view of one image, (C, H, W)."""
    view = image if scale == 1 else F.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
    maps = cams_of(view.flip(-1) if is_flipped else view)
    maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0]
    return maps.flip(-1) if is_flipped else maps


@pytest.mark.parametrize("scales", [[1.0], [1.0, 0.5, 1.5], [2.0]])
@pytest.mark.parametrize("flip", [True, False])
def test_multi_view_view_by_view(scales: list[float], flip: bool) -> None:
    """Each image and view on its own, all classes: upsample, mask, flip back, sum, normalise."""
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 8, stride=8)

    def with_logits(views: Tensor) -> ClassMaps:
        return ClassMaps(network(views), network(views).mean((-2, -1)))

    images, labels = torch.randn(3, 3, 40, 56), torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 1.0]])
    with torch.no_grad():
        found = multi_view(with_logits, scales, flip)(images, labels).maps
        for image, label, maps in zip(images.split(1), labels, found, strict=True):
            views = [(scale, is_flipped) for scale in scales for is_flipped in ([False, True] if flip else [False])]
            total = sum(one_view(network, image, (40, 56), *view) * label[:, None, None] for view in views)
            torch.testing.assert_close(maps, max_norm(total)[label > 0], rtol=1e-4, atol=1e-5)
            assert maps.shape == (int(label.sum()), 40, 56)


def test_max_norm_of_a_flat_map() -> None:
    """Nothing stands out: all zeros, no division by zero, with usable gradients."""
    maps = torch.full((1, 2, 3, 3), 0.7, requires_grad=True)
    normal = max_norm(maps)
    normal.sum().backward()
    assert not normal.any() and maps.grad.isfinite().all()
    assert max_norm(torch.rand(1, 1, 5, 5)).max() < 1
