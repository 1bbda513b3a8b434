"""Learn one defect type from its shots: shots -> latents -> adapters.

The main path is `Fit.run`: build, resume, step, log, checkpoint, finish.
"""

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dualanodiff.checkpoints import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from dualanodiff.data.shots import Shot
from dualanodiff.diffusion.start import mean_latents
from dualanodiff.errors import DataError, TrainingStopped
from dualanodiff.grid import pair_grid
from dualanodiff.held_out import HeldOut, hold_out
from dualanodiff.images import is_grey, to_rgb
from dualanodiff.inclusion import key_tint
from dualanodiff.keying import choose_key
from dualanodiff.latents import check_resolution, encode_shots
from dualanodiff.lead import Lead
from dualanodiff.masks.key import calibrate_threshold, key_mask
from dualanodiff.memory import is_out_of_memory, peak, release
from dualanodiff.model.adapters import save_adapters
from dualanodiff.model.base import Base
from dualanodiff.pair_model import Batch, PairModel, build_pair_model, draw_batch, rate_share, wants_bf16
from dualanodiff.preparing import (
    encode_normals,
    find_objects,
    input_files,
    make_accelerator,
    make_optimizer,
    needs,
    recommended,
    spread,
)
from dualanodiff.progress import Bar, progress
from dualanodiff.runs import RunFolder, make_lineage
from dualanodiff.sampler import PairSampler, quick, schedule_of
from dualanodiff.settings import Settings
from dualanodiff.stopping import held_interrupt, one_clear_line
from dualanodiff.storage import append_jsonl

LOG_STEPS = 10
PREVIEW_PAIRS = 4
MAX_BACKGROUNDS = 64
"""Normal pictures whose backgrounds a run keeps for sampling."""


def fit(
    shots: Sequence[Shot],
    base: Base,
    out: str | Path,
    config: Settings | None = None,
    *,
    normals: Sequence[Path] = (),
    category: str | None = None,
    defect: str | None = None,
    resume: bool = False,
) -> RunFolder:
    """Learn one defect type from `shots` on `base` and write the run folder `out`.

    `config` is by default the paper's settings with what the base recommends. `normals` are pictures of good parts,
    needed only with background compensation. Raises DataError, SettingsError or RunError for unusable input, and
    TrainingStopped, with the last good state kept, when training cannot go on.
    """
    settings = config or recommended(base)
    if not shots:
        msg = "no shots to learn from; give at least one defect picture with its mask"
        raise DataError(msg)
    if settings.model.background != "none" and not normals:
        msg = (
            "model.background needs normal pictures to take backgrounds from; give some (train/good), or set it to none"
        )
        raise DataError(msg)
    chosen = spread(normals, MAX_BACKGROUNDS) if settings.model.background != "none" else []
    files = input_files(shots, chosen, base)
    lineage = make_lineage(base=base.name, seed=settings.seed, files=files, category=category, defect=defect)
    folder = RunFolder(Path(out))
    check_resolution(base, shots)
    with one_clear_line(folder.path):
        # Built before the folder is begun, so that a setting that cannot be used leaves nothing behind.
        job = Fit(shots, base, folder, settings, chosen)
        with job.accelerator.main_process_first():
            if job.accelerator.is_main_process:
                folder.begin(settings, lineage, resume=resume)
        job.run()
    return folder


class Fit:
    """One fit in progress."""

    def __init__(
        self, shots: Sequence[Shot], base: Base, folder: RunFolder, settings: Settings, normals: Sequence[Path]
    ) -> None:
        self.shots, self.base, self.folder, self.settings, self.normals = shots, base, folder, settings, normals
        self.accelerator = make_accelerator(settings, folder)
        self.device = self.accelerator.device
        for part in (base.vae, base.unet, base.text_encoder):
            part.to(self.device)
        self.key, key_overlaps = choose_key(settings.data.key_color, base, shots, seed=settings.seed)
        self.objects, object_source = find_objects([shot.image for shot in shots], settings)
        self.schedule = schedule_of(base)
        if settings.train.gradient_checkpointing:
            base.unet.enable_gradient_checkpointing()
        model, self.start = build_pair_model(base, self.schedule, settings)
        model.to(self.device)
        if settings.train.compile:
            model.dual.compile_unet()
        self.model: nn.Module
        self.model, self.optimizer = self.accelerator.prepare(model, make_optimizer(settings.train, model.parameters()))
        self.pair_model: PairModel = self.accelerator.unwrap_model(self.model)
        self.pieces = 1
        """Parts that a batch is computed in; more where memory is short."""
        self.held_out: HeldOut | None = None
        self.say = Bar("fit", 0, 0).note
        self.facts: dict[str, Any] = {
            "key_color": list(self.key),
            "key_tint": key_tint(shots, self.key),
            "grey": all(is_grey(shot.image) for shot in shots),
            "resolution": shots[0].image.shape[0],
            "shots": len(shots),
            "start": self.start,
            "object_masks": object_source,
            "key_overlaps": key_overlaps,
        }

    def encode(self) -> None:
        """Shots, and normals' backgrounds, as latents: read from the run if they are there, else made and kept."""
        with self.accelerator.main_process_first():
            self.latents = encode_shots(
                self.base,
                self.shots,
                self.key,
                horizontal=self.settings.data.flip_horizontal,
                vertical=self.settings.data.flip_vertical,
                objects=self.objects,
                cache=self.folder.path / "latents.safetensors",
            )
            side = self.shots[0].image.shape[0]
            self.backgrounds = encode_normals(self.normals, side, self.base, self.settings, self.folder)
        self.mean = mean_latents(self.latents.pairs.flatten(0, 1))
        self.learned = self.latents
        if self.settings.train.stop == "held-out":
            self.learned, self.held_out = hold_out(self.latents, self.settings, self.device)

    def run(self) -> None:
        """Train to the end, from the newest checkpoint if there is one, and write what was learned."""
        if self.accelerator.log_with:
            plain = {name: json.dumps(group) for name, group in self.settings.to_dict().items()}
            self.accelerator.init_trackers("dualanodiff", config=plain)
        self.encode()
        train = self.settings.train
        step, spent = self._resume()
        began = time.monotonic() - spent
        recent: list[torch.Tensor] = []
        with (
            progress("fit", train.max_train_steps, start=step) as bar,
            held_interrupt(hold=self.accelerator.num_processes == 1) as interrupted,
        ):
            self.say = bar.note
            while step < train.max_train_steps and not self._should_stop(step):
                recent.append(self.step(step))
                step += 1
                last = step == train.max_train_steps
                if step % LOG_STEPS == 0 or last:
                    loss = self._log(step, recent, time.monotonic() - began)
                    recent = []
                    bar.step(LOG_STEPS if step % LOG_STEPS == 0 else step % LOG_STEPS, loss=loss)
                    bar.foretell(needs(self.pair_model, peak(self.device)))
                    last = last or self._should_stop(step)
                stop = interrupted()
                if step % train.checkpointing_steps == 0 or last or stop:
                    self._checkpoint(step)
                if stop:
                    raise KeyboardInterrupt
                if train.preview_steps and step % train.preview_steps == 0 and not last:
                    self._preview(step)
        if self.held_out is not None and self.held_out.weights:
            self.pair_model.load_state_dict(self.held_out.weights)
            self.facts |= {"best_step": self.held_out.step}
        self._finish(step)

    def step(self, step: int) -> torch.Tensor:
        """One optimiser step; its losses (3,), left on the device."""
        train = self.settings.train
        for group in self.optimizer.param_groups:
            group["lr"] = train.learning_rate * rate_share(train, step)
        batch = draw_batch(self.learned, self.settings, step, process=self.accelerator.process_index).to(self.device)
        while (losses := self._gradients(batch)) is None:
            self.pieces *= 2
            release(self.device)
            self.say(
                f"not enough memory at step {step}; batches now go in {self.pieces} pieces, which changes no result"
            )
        self.accelerator.clip_grad_norm_(self.model.parameters(), train.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        # Left on the device: reading it now would make the device wait for us every step.
        return losses

    def _gradients(self, batch: Batch) -> torch.Tensor | None:
        """Add a batch's gradients, piece by piece; its losses (3,), or None where memory ended and pieces can be smaller."""
        train, total = self.settings.train, torch.zeros(3, device=self.device)
        weights = torch.tensor([1.0, train.part_weight, train.inclusion_weight]).to(self.device, non_blocking=True)
        try:
            for piece, share in batch.split(self.pieces, self.schedule):
                with self._precision():
                    losses = self.model(piece, train) * share
                self.accelerator.backward((losses * weights).sum())
                total += losses.detach()
            return total
        except (MemoryError, RuntimeError) as error:
            # Several processes must go through the same number of pieces, or they wait for each other for ever.
            last = self.pieces >= len(batch.timesteps) or self.accelerator.num_processes > 1
            if last or not is_out_of_memory(error):
                raise
        self.optimizer.zero_grad()
        return None

    def _should_stop(self, step: int) -> bool:
        return self.held_out is not None and self.held_out.says_stop(step, self.settings.train.patience)

    def _precision(self) -> AbstractContextManager[Any]:
        """Mixed precision, unless the base's own weights are bf16 already."""
        wanted = wants_bf16(self.settings, self.device) and self.base.unet.dtype == torch.float32
        return torch.autocast(self.device.type, torch.bfloat16) if wanted else nullcontext()

    def _log(self, step: int, recent: list[torch.Tensor], seconds: float) -> float:
        losses = torch.stack(recent).float().mean(dim=0).tolist()
        total = (
            losses[0] + self.settings.train.part_weight * losses[1] + self.settings.train.inclusion_weight * losses[2]
        )
        if not np.isfinite(total):
            raise self._diverged(step, found="the loss is not a number")
        held_out = None
        if self.held_out is not None:
            with self._precision():
                held_out = self.held_out.judge(self.pair_model, self.settings.train, step)
        if self.accelerator.is_main_process:
            image, part, inclusion = (round(value, 6) for value in losses)
            row = {"step": step, "loss": round(total, 6), "image": image, "part": part, "inclusion": inclusion}
            row |= {} if held_out is None else {"held_out": round(held_out, 6)}
            append_jsonl(self.folder.metrics, {**row, "seconds": round(seconds, 1)})
            self.accelerator.log(row, step=step)
        return total

    def _diverged(self, step: int, *, found: str) -> TrainingStopped:
        kept = [int(path.stem.split("-")[1]) for path in self.folder.checkpoints()]
        last = f"the state of step {kept[-1]} is kept" if kept else "no state had been kept yet"
        return TrainingStopped(
            f"{self.folder.path}: {found} at step {step}; {last}. Fit again into a new folder with a lower "
            f"train.learning_rate (now {self.settings.train.learning_rate:g}) or train.mixed_precision=no"
        )

    def _checkpoint(self, step: int) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in self.pair_model.parameters()):
            raise self._diverged(step, found="weights are not numbers")
        if self.accelerator.is_main_process:
            groups = {
                "model": self.pair_model.state_dict(),
                "optimizer": optimizer_tensors(self._optimizer, self.pair_model.named_parameters()),
            }
            meta = {"step": step, "settings": asdict(self.settings)}
            if self.held_out is not None:
                groups["held-out"], meta["held-out"] = self.held_out.weights, self.held_out.facts()
            save_checkpoint(self.folder.checkpoint_path(step), groups, meta)
            self.folder.drop_old_checkpoints()
        self.accelerator.wait_for_everyone()

    def _resume(self) -> tuple[int, float]:
        """Load the newest checkpoint; the step it was made after, 0 without one, and the seconds spent until then."""
        checkpoints = self.folder.checkpoints()
        step = 0
        if checkpoints:
            groups, meta = load_checkpoint(checkpoints[-1])
            self.pair_model.load_state_dict(groups["model"])
            restore_optimizer(self._optimizer, self.pair_model.named_parameters(), groups.get("optimizer", {}))
            step = int(meta["step"])
            if self.held_out is not None:
                self.held_out.restore(groups.get("held-out", {}), meta["held-out"])
        if not self.accelerator.is_main_process:
            return step, 0.0
        self.folder.drop_old_checkpoints()
        rows = self.folder.trim_metrics(step)
        return step, rows[-1]["seconds"] if rows else 0.0

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        """Torch's own optimiser inside accelerate's wrapper."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    @torch.no_grad()
    def sampler(self) -> PairSampler:
        """The model as it is now, ready to draw pairs as `generate` will."""
        flips = (self.settings.data.flip_horizontal, self.settings.data.flip_vertical)
        led = self.settings.sample.lead > 0 and all(shot.path and shot.mask_path for shot in self.shots)
        return PairSampler(
            base=self.base,
            dual=self.pair_model.dual,
            text=self.pair_model.embed().to(self.device),
            mean=self.mean,
            key=self.key,
            key_tint=self.facts["key_tint"],
            grey=self.facts["grey"],
            backgrounds=self.backgrounds,
            lead=Lead(self.base, tuple(self.shots), self.key, flips) if led else None,
        )

    def _preview(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        with self._precision():
            drawn = self.sampler().draw(range(PREVIEW_PAIRS), self.settings.seed, quick(self.settings.sample))
        masks = [key_mask(part, self.key).mask for part in drawn.part]
        pair_grid(
            drawn.image,
            masks,
            drawn.part,
            self.folder.path / "preview" / f"step-{step:08d}.png",
            self.shots,
            key=self.key,
        )

    def _finish(self, step: int) -> None:
        if self.accelerator.is_main_process:
            self._write(step)
        self.accelerator.wait_for_everyone()  # whoever reads the run next finds it whole
        self.accelerator.end_training()

    def _write(self, step: int) -> None:
        """Write the adapters, a last preview, and last of all what sampling starts from, which marks the run finished."""
        stored = getattr(torch, self.settings.train.adapter_precision)
        save_adapters(self.pair_model.dual, self.pair_model.text, self.folder.adapter, dtype=stored)
        if self.settings.train.preview_steps:
            self._preview(step)
        parts = self.latents.pairs[:, 0, 1].to(self.device)
        decoded = to_rgb(self.base.decode(parts))
        masks = [shot.mask for shot in self.shots]
        self.facts |= {"steps": step, "key_threshold": calibrate_threshold(list(decoded), masks, self.key)}
        self.folder.save_start(self.mean, self.facts)
