import torch

from dualanodiff.sampler import defect_share

WHITE = torch.ones(1, 3, 1, 1)


def part(size: int = 16) -> torch.Tensor:
    """White ground with a black square whose edge is half grey, as a decoder blurs it."""
    rgb = torch.ones(1, 3, size, size)
    rgb[..., 4:12, 4:12] = 0.1
    rgb[..., 5:11, 5:11] = -1
    return rgb


def test_the_defect_is_shown_and_its_tinted_edge_is_not() -> None:
    share = defect_share(part(), WHITE)[0, 0]
    assert (share[5:11, 5:11] == 1).all()
    assert share.sum() == 36  # nothing of the blurred edge, nothing of the ground


def test_an_empty_part_shows_nothing_whatever_its_noise() -> None:
    noise = 0.05 * torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert defect_share(WHITE + noise, WHITE).max() == 0


def test_each_part_is_judged_by_its_own_strongest_defect() -> None:
    pale = 1 - (1 - part()) * 0.4
    both = defect_share(torch.cat([part(), pale]), WHITE)
    assert torch.equal(both[0] == 1, both[1] == 1)
