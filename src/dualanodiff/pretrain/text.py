"""The base's words: a small byte-pair vocabulary learned from captions, and a fresh CLIP text encoder over it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

RARE_WORDS = ("vfx", "sks")
"""The paper's rare words (sec. 3.2, "Nested Prompts"); each gets a token of its own, as in CLIP."""
TOKENS = 16
"""Longest prompt; short, because every cross-attention layer pays for it."""
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str], folder: Path, *, size: int = 1024) -> CLIPTokenizer:
    """Learn at most `size` word pieces and write them to `folder` as a CLIP tokenizer."""
    model = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        # Last letters too: the learner would number them in the order of a hash table, another one each time.
        special_tokens=[START, END, *(f"{letter}</w>" for letter in alphabet)],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    # Repeated, so that the learner merges the rare words whole; single characters, so that any word can be spelt.
    words = [f"a {RARE_WORDS[0]} with {RARE_WORDS[1]}"] * 5000 + [" ".join(alphabet)]
    model.train_from_iterator([*words, *captions], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    model.model.save(str(folder))
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=TOKENS,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_text_encoder(tokenizer: CLIPTokenizer, *, width: int = 128, layers: int = 3) -> CLIPTextModel:
    """A fresh CLIP text encoder for this vocabulary."""
    marks: Any = tokenizer  # whose ids are typed as many things
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=marks.bos_token_id,
        eos_token_id=marks.eos_token_id,
        pad_token_id=marks.pad_token_id,
    )
    return CLIPTextModel(config)
