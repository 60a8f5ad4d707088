"""What a resumed training needs comes back; more in ``test_train`` and ``test_train_cnn``."""

import pytest

from brambling.errors import ConfigError, FileProblem

torch = pytest.importorskip("torch")
checkpoint = pytest.importorskip("brambling.quant.checkpoint")
nn = torch.nn


class Small:
    """A training of one dense layer."""

    def __init__(self, kind, seed=1):
        torch.manual_seed(seed)
        self.seed, self.epoch, self.model = seed, 0, nn.Linear(3, 2)
        groups = [{"params": [self.model.weight]}, {"params": [self.model.bias]}]
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        self.optimiser = kind(groups, lr=0.1, **options)

    def describe(self):
        return {"seed": self.seed}

    def learn(self):
        self.optimiser.zero_grad()
        self.model(torch.arange(6.0).view(2, 3)).square().sum().backward()
        self.optimiser.step()
        self.epoch += 1


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("done", [0, 1, 2])
def test_goes_on_bit_for_bit(tmp_path, kind, done):
    whole, first, second = (Small(kind) for _ in range(3))
    for _ in range(done):
        first.learn()
    checkpoint.save_training(first, tmp_path / "file")
    for _ in range(3):
        whole.learn()
        second.learn()  # to be forgotten
    checkpoint.go_back(second, tmp_path / "file")
    assert second.epoch == done
    for _ in range(3 - done):
        second.learn()
    assert torch.equal(second.model.weight, whole.model.weight)
    assert torch.equal(second.model.bias, whole.model.bias)


def test_tensors_and_facts_come_back(tmp_path):
    tensors = {"a": torch.arange(6).view(2, 3).t(), "b": torch.tensor(0.5)}
    checkpoint.write(tmp_path / "file", tensors, {"n": 1, "names": ["x"]})
    back, facts = checkpoint.read(tmp_path / "file")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)
    assert facts == {"n": 1, "names": ["x"]}


def test_of_another_training(tmp_path):
    path = tmp_path / "file"
    checkpoint.save_training(Small(torch.optim.SGD), path)
    with pytest.raises(ConfigError) as caught:
        checkpoint.go_back(Small(torch.optim.SGD, seed=2), path)
    assert str(caught.value) == (
        f"{path}: was made with another seed; use the same, or delete it and start again"
    )


def test_of_no_training(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"something else")
    with pytest.raises(FileProblem, match=r"file: not a whole checkpoint \(.*\); delete it$"):
        checkpoint.read(path)
