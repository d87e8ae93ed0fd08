"""The mean of the weights of several checkpoints: a law, the command line, and where it does not apply."""

from pathlib import Path

import pytest
import torch

from common.nets.average import averaged_state
from common.run.errors import UserError
from common.run.folder import RunFolder, last_checkpoints
from common.run.weights import load_torch, save_torch
from tests.helpers import Scripts, contents, failure


def test_the_mean_of_equal_weights_is_the_weights() -> None:
    state = {"a": torch.rand(3, 4), "b": torch.tensor([7])}
    for count in (2, 3, 5):
        found = averaged_state([Path(str(place)) for place in range(count)], lambda path: state)
        assert torch.equal(found["a"].float(), state["a"]) and torch.equal(found["b"], state["b"])
    states = {Path(name): {"a": torch.rand(3, 4), "b": torch.tensor([place])} for place, name in enumerate("xyz")}
    found = averaged_state(list(states), states.__getitem__)
    expected = sum(state["a"].double() for state in states.values()) / 3
    torch.testing.assert_close(found["a"], expected, rtol=1e-12, atol=0)
    assert found["b"].item() == 2


def test_weights_that_have_no_mean() -> None:
    """Of other networks; with running statistics that moved. Fixed ones are those of all."""
    base = {"w": torch.ones(2), "norm.running_mean": torch.zeros(3)}
    for other, words in (
        ({"w": torch.ones(3), "norm.running_mean": torch.zeros(3)}, r"different networks \(w\)"),
        ({"w": torch.ones(2)}, r"different networks \(norm\.running_mean\)"),
        ({"w": torch.ones(2), "norm.running_mean": torch.ones(3)}, r"does not apply to this network: .*norm\.running"),
    ):
        states = {Path("x"): base, Path("y"): other}
        with pytest.raises(UserError, match=words):
            averaged_state(list(states), states.__getitem__)
    found = averaged_state([Path("x"), Path("x")], lambda path: base)
    assert torch.equal(found["norm.running_mean"].float(), base["norm.running_mean"])


def test_the_last_files_are_found(tmp_path: Path) -> None:
    for number in (0, 2, 10, 11):
        (tmp_path / f"{number:03d}net_trm.pth").touch()
    (tmp_path / "best.pth").touch()
    assert [path.name[:3] for path in last_checkpoints(tmp_path, 3, None)] == ["002", "010", "011"]
    assert [path.name[:3] for path in last_checkpoints(tmp_path, 2, 10)] == ["002", "010"]
    with pytest.raises(UserError, match=r"last3: .* has 2 epoch files up to epoch 9\. There are epochs 0 to 11\."):
        last_checkpoints(tmp_path, 3, 9)
    with pytest.raises(UserError, match=r"has 0 epoch files\. There is no epoch file at all"):
        last_checkpoints(tmp_path / "lost", 2, None)


def test_seeds_of_averaged_weights(scripts: Scripts, checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    """Of equal checkpoints they are those of one, and not mixed with them; wrong use is one line."""
    folder = RunFolder("x").checkpoints
    folder.mkdir(parents=True)
    state = load_torch(checkpoint)
    for epoch in (0, 1, 2):
        save_torch(folder / f"{epoch:03d}net_trm.pth", state)
    assert scripts.infer("x", "--dict") == 0
    single = {name: data for name, data in contents("experiment/x/dict").items() if not name.endswith(".json")}
    message = failure(capsys, scripts.infer, "x", "--dict", "--average", "last3")
    assert "experiment/x/dict holds seeds of another checkpoint or other settings" in message
    assert scripts.infer("x", "--dict", "--average", "last3", "--dict_dir", "mean") == 0
    assert "mean of 3 checkpoints up to experiment/x/ckpt/002net_trm.pth" in capsys.readouterr().out
    found = {name: data for name, data in contents("experiment/x/mean").items() if not name.endswith(".json")}
    assert found == single
    for arguments, words in (
        (("--average", "5"), "not of the form lastK"), (("--average", "last1"), "not of the form lastK"),
        (("--average", "last4"), "has 3 epoch files"),
        (("--average", "last2", "--load_pretrained", checkpoint), "give one of them"),
        (("--average", "last2", "--load_epo", "0"), "has 1 epoch files up to epoch 0"),
    ):  # fmt: skip
        assert words in failure(capsys, scripts.infer, "x", "--dict", *arguments)
