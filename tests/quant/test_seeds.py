import pytest

torch = pytest.importorskip("torch")
seeds = pytest.importorskip("brambling.quant.seeds")


def test_numbers_depend_on_seed_purpose_and_index_only():
    def draw(*arguments):
        return tuple(torch.rand(3, generator=seeds.generator(*arguments)).tolist())

    uses = [(1, "set", 0), (2, "set", 0), (1, "order", 0), (1, "set", 1)]
    assert len({draw(*use) for use in uses}) == 4
    assert draw(1, "set", 0) == draw(1, "set", 0)


def test_torch_is_left_as_it_was():
    torch.manual_seed(3)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(3)
    with seeds.reproducible():
        assert torch.get_num_threads() == 1
        torch.rand(5)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads
