"""Attention by plain products, which a CPU takes in bf16, is attention."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from dualanodiff.model.dual import FEW_SCORES, attend


@pytest.mark.parametrize("tokens", [(16, 16), (16, 5)])
def test_products_in_bf16_are_attention_to_rounding(tokens: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(3, 2, n, 8, generator=generator) for n in (tokens[0], tokens[1], tokens[1])]
    rough = [one.bfloat16().requires_grad_() for one in exact]
    exact = [one.detach().float().requires_grad_() for one in rough]
    assert tokens[0] * tokens[1] <= FEW_SCORES
    found = attend(*rough, SimpleNamespace(scale=0.3))  # type: ignore[arg-type]
    wanted = F.scaled_dot_product_attention(*exact, scale=0.3).transpose(1, 2).flatten(2)
    assert found.dtype == torch.bfloat16
    assert found.shape == (3, tokens[0], 16)
    torch.testing.assert_close(found.float(), wanted, atol=0.03, rtol=0.03)
    found.float().square().sum().backward()
    wanted.square().sum().backward()
    for mine, theirs in zip(rough, exact, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        apart = (mine.grad.float() - theirs.grad).norm() / theirs.grad.norm()
        assert apart < 0.03
