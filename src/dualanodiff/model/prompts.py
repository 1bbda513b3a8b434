"""Prompts to text embeddings, with one learned low-rank update of the text encoder (Paper sec. 3.2, "Nested Prompts")."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CLIPTextModel, CLIPTokenizer

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


class TextAdapter(nn.Module):
    """The update of every attention projection of a CLIP text encoder, shared by both branches.

    The encoder itself is frozen, never changed and not part of state_dict: the updated weights exist only inside
    `embed`. All updates are stacked, `down` (n, rank, width) and `up` (n, width, rank), in the order of `paths`.
    Rank 0 is the plain encoder.
    """

    def __init__(
        self,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        *,
        rank: int = 32,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        text_encoder.requires_grad_(False)
        # In a tuple, so that neither state_dict nor parameters nor .to() reaches the frozen encoder.
        self._frozen = (text_encoder, tokenizer)
        self.rank = rank
        modules = [name for name, _ in text_encoder.named_modules() if name.split(".")[-1] in PROJECTIONS]
        self._modules_changed = tuple(modules) if rank > 0 else ()
        first = next(text_encoder.parameters())
        place = "meta" if first.device.type == "meta" else "cpu"
        shape = (len(self._modules_changed), rank, text_encoder.config.hidden_size)
        down = torch.zeros(shape, device=place)
        if rank > 0:
            down.normal_(std=1 / rank, generator=generator)
        self.down = nn.Parameter(down.to(first.device))
        self.up = nn.Parameter(torch.zeros_like(self.down.mT, memory_format=torch.contiguous_format))

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the changed projections from `encoder.layers.0` on, the same in every version of transformers."""
        return tuple(name.removeprefix("text_model.") for name in self._modules_changed)

    def forward(self, prompts: list[str]) -> Tensor:
        """As `embed`."""
        return self.embed(prompts)

    def embed(self, prompts: list[str]) -> Tensor:
        """Embeddings (prompts, tokens, width); padded, and cut, to the tokenizer's length as Stable Diffusion does."""
        encoder, tokenizer = self._frozen
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids = tokens.input_ids.to(self.down.device)
        # Without autocast: a sum in bf16 would round small updates of the weights away.
        with torch.autocast(ids.device.type, enabled=False):
            updates = torch.bmm(self.up, self.down)
            weights = {f"{name}.weight": encoder.get_submodule(name).weight for name in self._modules_changed}
            changed = {
                name: weight + update.to(weight.dtype)  # type: ignore[union-attr]
                for (name, weight), update in zip(weights.items(), updates, strict=True)
            }
            return functional_call(encoder, changed, (ids,)).last_hidden_state
