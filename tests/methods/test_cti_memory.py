"""The class-token memory against the reference's lists."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods.cti.memory import TokenMemory
from tests.helpers import assert_same

DIM = 3


class Lists:
    """The definition: for each class a list, appended to in row-major order and cut to the last ``size``."""

    def __init__(self, num_classes: int, size: int) -> None:
        self.size, self.rows = size, [[] for _ in range(num_classes)]

    def push(self, tokens: Tensor, labels: Tensor) -> None:
        for image, present in zip(tokens, labels, strict=True):
            for c in present.nonzero().flatten().tolist():
                self.rows[c].append(image[c])
        self.rows = [rows[-self.size :] for rows in self.rows]

    def means(self) -> Tensor:
        return torch.stack([torch.stack(rows).mean(0) if rows else torch.zeros(DIM) for rows in self.rows])


@settings(max_examples=100, deadline=None)
@given(
    num_classes=st.integers(1, 4), size=st.integers(1, 5), batches=st.lists(st.integers(0, 12), max_size=8),
    density=st.sampled_from([0.0, 0.3, 0.8, 1.0]), seed=st.integers(0, 99), reload_after=st.integers(0, 8),
)  # fmt: skip
def test_is_the_lists(
    num_classes: int, size: int, batches: list[int], density: float, seed: int, reload_after: int
) -> None:
    """Lengths, fullness and means after any pushes; batches may hold more of a class than fits; saved and restored."""
    generator = torch.Generator().manual_seed(seed)
    memory, lists = TokenMemory(num_classes, size, DIM), Lists(num_classes, size)
    for number, batch in enumerate(batches):
        tokens = torch.rand(batch, num_classes, DIM, generator=generator)
        labels = (torch.rand(batch, num_classes, generator=generator) < density).float()
        memory.push(tokens, labels)
        lists.push(tokens, labels)
        if number == reload_after:
            state, memory = memory.state_dict(), TokenMemory(num_classes, size, DIM)
            memory.load_state_dict(state)
        assert memory.lengths().tolist() == [len(rows) for rows in lists.rows]
        assert bool(memory.is_full()) == all(len(rows) == size for rows in lists.rows)
        torch.testing.assert_close(memory.means(), lists.means(), rtol=1e-5, atol=1e-6)


def test_state_is_a_copy() -> None:
    """What is pushed later does not change a state that was taken before."""
    memory = TokenMemory(2, 3, DIM)
    memory.push(torch.ones(1, 2, DIM), torch.tensor([[1.0, 0.0]]))
    state = memory.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    memory.push(torch.zeros(4, 2, DIM), torch.ones(4, 2))
    assert_same(state, before)


def test_nothing_is_kept_for_gradients() -> None:
    """Tokens with a graph are stored as numbers, in the memory's own format."""
    memory = TokenMemory(2, 3, DIM)
    memory.push(torch.ones(1, 2, DIM, dtype=torch.bfloat16, requires_grad=True) * 2, torch.ones(1, 2))
    assert not memory.means().requires_grad and memory.means().dtype == torch.float32
    assert memory.means().tolist() == [[2.0] * DIM] * 2
