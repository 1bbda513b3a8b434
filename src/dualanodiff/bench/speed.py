"""`bench speed`: fit steps and generated pairs a second, and peak memory, beside the plain path, in one run."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dualanodiff import __version__
from dualanodiff.bench.reference_path import PlainPath
from dualanodiff.bench.sizes import noise_shots, size_base
from dualanodiff.bench.stopwatch import Arm, compare
from dualanodiff.data.shots import Shot, part_target
from dualanodiff.fitting import Fit, recommended
from dualanodiff.images import write_png
from dualanodiff.memory import best_device
from dualanodiff.model.base import Base
from dualanodiff.pair_model import draw_batch, wants_bf16
from dualanodiff.progress import progress
from dualanodiff.runs import RunFolder
from dualanodiff.seeds import torch_stream
from dualanodiff.settings import SampleSettings, Settings
from dualanodiff.storage import append_jsonl, read_jsonl, write_json, write_text

SHOTS = 8
GREY = (128, 128, 128)
PAPER_STEPS = 50


class Bench:
    """The work of one size, ready to be timed: fits in float32 and as by default, and the plain path on their weights."""

    def __init__(self, size: str, folder: Path, assignments: Mapping[str, str], *, background: str) -> None:
        base = size_base(size)
        quiet = {"data.key_color": "grey", "train.preview_steps": 0, "model.background": background}
        if base.folder is None:  # what `mini` recommends, at its own resolution
            card = size_base("mini").card["settings"]
            base = replace(base, card={"settings": {**card, "data": {"resolution": base.resolution}}})
        settings = recommended(base).updated(quiet, "bench").updated(assignments, "--set")
        self.side = settings.data.resolution
        self.shots = noise_shots(SHOTS, self.side)
        normal = folder / "normal.png"
        write_png(normal, self.shots[0].image)
        exact = settings.updated({"train.mixed_precision": "no"}, "bench")
        normals = [normal] if background != "none" else []
        self.exact = build_fit(self.shots, copy.deepcopy(base), exact, folder, normals)
        self.default = build_fit(self.shots, copy.deepcopy(base), settings, folder, normals)
        fit = self.exact
        self.settings, self.device = settings, fit.device
        model, prompts = fit.pair_model, fit.pair_model.prompts[:2]
        # The released scripts leave the autoencoder as it comes.
        vae = nn.Module.to(copy.deepcopy(fit.base.vae), memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        self.plain = PlainPath(replace(fit.base, vae=vae), model.dual, model.text, fit.schedule, prompts)
        self.plain_optimizer = torch.optim.AdamW([p for p in model.parameters() if p.numel()], lr=1e-5)
        self.parts = [part_target(shot.image, shot.mask, GREY) for shot in self.shots]

    def plain_step(self, turn: int) -> None:
        """One optimiser step of the plain path."""
        fit = self.exact
        batch = draw_batch(fit.latents, fit.settings, turn).to(self.device)
        chosen = [i % SHOTS for i in range(batch.latents.shape[1])]
        objects = None if fit.objects is None else [fit.objects[i] for i in chosen]
        losses = self.plain.losses(
            [self.shots[i].image for i in chosen],
            [self.parts[i] for i in chosen],
            batch.noise,
            batch.timesteps,
            objects,
            batch.background_noise,
        )
        losses.sum().backward()
        nn.utils.clip_grad_norm_(fit.pair_model.parameters(), 1.0)
        self.plain_optimizer.step()
        self.plain_optimizer.zero_grad()

    def fit_arms(self) -> list[Arm]:
        """Training steps of one batch."""
        return [
            Arm("plain", self.plain_step),
            Arm("ours, float32", self.exact.step),
            Arm("ours, defaults", self.default.step),
        ]

    def pair_arms(self, steps: int, batch: int) -> list[Arm]:
        """Pairs at equal steps; and by default, where as many steps as usual stand for the paper's 50."""
        usual = self.settings.sample
        equal = replace(
            usual,
            scheduler="pndm",
            num_inference_steps=steps,
            batch_size=batch,
            start="noise",
            inclusion=0.0,
            lead=0.0,
            guidance_from=0.0,
            guidance_until=1.0,
        )
        mine = replace(usual, num_inference_steps=max(1, usual.num_inference_steps * steps // PAPER_STEPS))

        def plain(turn: int) -> None:
            index = 1000 * turn
            noise = torch.randn(self.exact.mean.shape, generator=torch_stream(0, "pair", index))
            behind = None
            if self.exact.backgrounds is not None:
                behind = self.exact.backgrounds[0].to(self.device), noise[0].to(self.device)
            self.plain.pair(noise, steps=steps, scale=equal.guidance_scale, background=behind)

        return [
            Arm("plain", plain),
            Arm("ours, float32", lambda turn: self._draw(self.exact, turn, equal), batch),
            Arm("ours, bf16", lambda turn: self._draw(self.default, turn, equal), batch),
            Arm("ours, defaults", lambda turn: self._draw(self.default, turn, mine), mine.batch_size),
        ]

    @staticmethod
    def _draw(fit: Fit, turn: int, settings: SampleSettings) -> None:
        """One call; the model is made quick anew, which a set's many calls do once."""
        first = 1000 * turn
        fit.sampler().draw(range(first, first + settings.batch_size), 0, settings)


def build_fit(shots: Sequence[Shot], base: Base, settings: Settings, folder: Path, normals: Sequence[Path]) -> Fit:
    """A fit whose next step can be timed, in the precision that its settings ask for."""
    device = best_device()
    if wants_bf16(settings, device):
        nn.Module.to(base.unet, torch.bfloat16)
    fit = Fit(shots, base, RunFolder(Path(tempfile.mkdtemp(dir=folder))), settings, normals)
    fit.encode()
    if wants_bf16(settings, device):  # a fit encodes in float32, `generate` decodes in bf16
        nn.Module.to(base.vae, torch.bfloat16)
    return fit


def measure_speed(
    out: Path,
    *,
    sizes: Sequence[str],
    rounds: int,
    steps: int,
    batch: int,
    backgrounds: Sequence[str] = ("none",),
    assignments: Mapping[str, str],
) -> dict[str, Any]:
    """Time every size and fill `out`: cells.jsonl as it goes (what is there is not timed again), speed.json, speed.md."""
    cells = out / "cells.jsonl"
    wish = {"rounds": rounds, "steps": steps, "batch": batch, "set": dict(assignments), "version": __version__}
    done = {(row["size"], row["background"]): row for row in read_jsonl(cells) if row["wish"] == wish}
    places = [(size, background) for size in sizes for background in backgrounds]
    with progress("bench speed", len(places)) as bar:
        for size, background in places:
            if (size, background) not in done:
                row = _cell(size, background, wish)
                append_jsonl(cells, row)
                done[size, background] = row
            bar.step()
    rows = [done[place] for place in places]
    result = {"out": str(out), "machine": machine(), "cells": rows}
    write_json(out / "speed.json", result)
    write_text(out / "speed.md", table(rows))
    return result


def _cell(size: str, background: str, wish: Mapping[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(size, Path(folder), wish["set"], background=background)
        return {
            "size": size,
            "background": background,
            "side": bench.side,
            "wish": dict(wish),
            "fit": compare(bench.fit_arms(), rounds=wish["rounds"], device=bench.device),
            "pair": compare(bench.pair_arms(wish["steps"], wish["batch"]), rounds=wish["rounds"], device=bench.device),
        }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The ratios as Markdown: how many times as fast as the plain path, its slowest and fastest round in brackets."""
    lines = ["| size | what | way | times as fast | seconds a piece | peak memory |", "|---|---|---|---|---|---|"]
    for row in rows:
        name = f"{row['size']}, {row['side']} px" + (
            "" if row["background"] == "none" else f", background {row['background']}"
        )
        for what in ("fit", "pair"):
            found = row[what]
            for way, ratio in found["ratio"].items():
                spread = "" if way == "plain" else f" ({ratio['min']:.2f} to {ratio['max']:.2f})"
                peak = found["peak_bytes"][way]
                memory = "-" if peak is None else f"{peak / 2**20:.0f} MiB"
                lines.append(
                    f"| {name} | {what} | {way} | {ratio['median']:.2f}{spread} | {found['median'][way]:.3g} | {memory} |"
                )
    return "\n".join(lines) + "\n"
