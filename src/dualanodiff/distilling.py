"""Few-step sampling: a fitted run taught to reach in 2 to 8 steps what it reaches in many, as a run of its own.

The teacher draws pairs with everything it has (guidance, the inclusion law, as many steps as it likes; no lead) and keeps
where it was on the way. The student, which begins as the teacher, learns to say from each of these places, and from
where its own steps lead, what the pair became in the end: consistency with the end of the teacher's path
(Song et al., "Consistency Models"; Luhman and Luhman, "Knowledge Distillation in Iterative Generative Models").
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from dualanodiff.checkpoints import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from dualanodiff.diffusion.objective import Schedule
from dualanodiff.diffusion.sampling import SCHEDULERS
from dualanodiff.errors import RunError, SettingsError
from dualanodiff.fitted import FittedModel, load
from dualanodiff.loop import Loop
from dualanodiff.model.adapters import load_adapters, save_adapters
from dualanodiff.model.fixed import FixedDual
from dualanodiff.pair_model import rate_share
from dualanodiff.preparing import make_optimizer
from dualanodiff.progress import progress
from dualanodiff.runs import RunFolder, file_record
from dualanodiff.sampler import PairSampler, schedule_of
from dualanodiff.seeds import numpy_stream
from dualanodiff.settings import SampleSettings, Settings
from dualanodiff.stopping import one_clear_line
from dualanodiff.storage import write_atomic

TEACHER_STEPS = 24
"""Steps that the teacher makes at least; a multiple of the student's."""


@dataclass(frozen=True)
class Lessons:
    """Paths of the teacher, n pairs at the k noise levels that the student stops at."""

    states: Tensor
    """float32 (n, k, 2, c, h, w): latents before each of the student's steps."""
    ends: Tensor
    """float32 (n, 2, c, h, w): the clean latents that they became."""


def distill(
    run: Path, out: Path, *, steps: int, lessons: int, sampling_steps: int, assignments: dict[str, str], resume: bool
) -> dict[str, Any]:
    """Teach the run `run` to draw in `sampling_steps` and write the run `out`, which `generate` takes like any other.

    `steps` optimiser steps on `lessons` pairs of the teacher; `assignments` change settings of the training. Returns
    run, steps, lessons, sampling_steps, loss (of the last logged steps) and seconds. Raises RunError where `run` has
    not ended, is distilled itself, or `out` holds another run; SettingsError for settings that cannot be used.
    """
    teacher = load(run, led=False)
    if teacher.settings.sample.scheduler == "distilled":
        msg = f"{run}: was made by distill already; give the run that it was made from"
        raise RunError(msg)
    settings = student_settings(teacher.settings, steps, sampling_steps, assignments)
    folder = RunFolder(out)
    lineage = {**teacher.folder.lineage(), "distilled": {"run": str(run), "lessons": lessons}}
    adapter = sorted(teacher.folder.adapter.glob("*.safetensors"))
    lineage["files"] = [*lineage["files"], *(file_record(path, "teacher") for path in adapter)]
    with one_clear_line(out):
        folder.begin(settings, lineage, resume=resume)
        if folder.lineage()["distilled"]["lessons"] != lessons:
            msg = f"{out}: was begun with {folder.lineage()['distilled']['lessons']} lessons, now {lessons}; resume with the same"
            raise RunError(msg)
        return Distillation(teacher, folder, settings).run(lessons)


def student_settings(teacher: Settings, steps: int, sampling_steps: int, assignments: dict[str, str]) -> Settings:
    """The teacher's settings, with what is the student's own put over them."""
    own = {
        "train.max_train_steps": steps,
        "train.lr_scheduler": "linear",
        "sample.scheduler": "distilled",
        "sample.num_inference_steps": sampling_steps,
        "sample.guidance_scale": 1.0,
        "sample.lead": 0.0,  # a lead is drawn anew for each pair, from the shots: nothing that noise could tell
    }
    settings = teacher.updated(own, "distill").updated(assignments, "--set")
    for name, value in own.items():
        if name.startswith("sample.") and getattr(settings.sample, name.removeprefix("sample.")) != value:
            msg = f"--set: {name} is {value} in a distilled run; leave it out"
            raise SettingsError(msg)
    return settings


class Distillation:
    """One distillation in progress."""

    def __init__(self, teacher: FittedModel, folder: RunFolder, settings: Settings) -> None:
        self.teacher, self.folder, self.settings = teacher, folder, settings
        base = teacher.base
        self.device = base.unet.device
        self.schedule: Schedule = schedule_of(base)
        # Loaded again: the teacher's stay as they are while these learn.
        self.dual, self.text_adapter = load_adapters(teacher.folder.adapter, base)
        self.parameters = [(name, value) for name, value in self.dual.named_parameters() if value.requires_grad]
        self.optimizer = make_optimizer(settings.train, [value for _, value in self.parameters])
        scheduler: Any = SCHEDULERS["distilled"](dict(base.scheduler.config))
        scheduler.set_timesteps(settings.sample.num_inference_steps)
        self.times = scheduler.timesteps.to(self.device)
        """(k,): the timesteps that the student stops at, from the noisiest on."""

    def run(self, count: int) -> dict[str, Any]:
        """Draw the lessons, learn from them to the end, and write the run."""
        lessons = draw_lessons(self.teacher, self.folder.path / "lessons", count, self.times)
        train = self.settings.train
        loop = Loop(
            "distill",
            train.max_train_steps,
            self.folder.metrics,
            ("loss",),
            train.checkpointing_steps,
            "distill into a new folder with a lower train.learning_rate",
        )
        step = loop.run(lambda step: self.step(lessons, step)[None], self._checkpoint, start=self._resume())
        return self._finish(step, count)

    def step(self, lessons: Lessons, step: int) -> Tensor:
        """One optimiser step; its loss, left on the device."""
        train = self.settings.train
        random = numpy_stream(self.settings.seed, "distill", step)
        rows = random.integers(len(lessons.ends), size=train.train_batch_size)
        places = torch.from_numpy(random.integers(len(self.times), size=len(rows)))
        own = torch.from_numpy(random.random(len(rows)) < 0.5) & (places > 0)
        states = lessons.states[rows, places].transpose(0, 1).to(self.device)
        if own.any():
            before = lessons.states[rows, (places - 1).clamp_min(0)].transpose(0, 1).to(self.device)
            arrived = self._arrive(before, places, rows)
            states = torch.where(own.view(1, -1, 1, 1, 1).to(self.device), arrived, states)
        found = self._ends(states, places, rows)
        _, sigma = self.schedule.levels(self.times[places.to(self.device)], found)
        # The error of v, which weighs the noise levels alike whatever the base predicts.
        loss = ((found - lessons.ends[rows].transpose(0, 1).to(self.device)) / sigma).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([value for _, value in self.parameters], train.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = train.learning_rate * rate_share(train, step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    @torch.no_grad()
    def _arrive(self, before: Tensor, places: Tensor, rows: Any) -> Tensor:
        """Where the student's own step leads from the states before, as its sampler would take it."""
        earlier = (places - 1).clamp_min(0)
        clean = self._ends(before, earlier, rows)
        signal, sigma = self.schedule.levels(self.times[earlier.to(self.device)], before)
        return self.schedule.add_noise(clean, (before - signal * clean) / sigma, self.times[places.to(self.device)])

    def _ends(self, states: Tensor, places: Tensor, rows: Any) -> Tensor:
        """The clean latents that the student foresees from states (2, B, c, h, w)."""
        sampler, times = self.teacher.sampler, self.times[places.to(self.device)]
        text, extra = sampler.text[:2, None], {}
        if sampler.backgrounds is not None:
            behind = [sampler.background([int(row)], self.settings.seed) for row in rows]
            clean, noise = (torch.cat([getattr(one, name) for one in behind]) for name in ("latents", "noise"))
            extra = {"background": self.schedule.add_noise(clean, noise, times), "background_text": text[0]}
        return self.schedule.clean_from(states, self.dual(states, times, text, **extra).float(), times)

    def _checkpoint(self, step: int) -> None:
        groups = {"model": self.dual.state_dict(), "optimizer": optimizer_tensors(self.optimizer, self.parameters)}
        save_checkpoint(self.folder.checkpoint_path(step), groups, {"step": step})
        self.folder.drop_old_checkpoints()

    def _resume(self) -> int:
        checkpoints = self.folder.checkpoints()
        if not checkpoints:
            return 0
        groups, meta = load_checkpoint(checkpoints[-1])
        self.dual.load_state_dict(groups["model"])
        restore_optimizer(self.optimizer, self.parameters, groups.get("optimizer", {}))
        return int(meta["step"])

    def _finish(self, step: int, count: int) -> dict[str, Any]:
        teacher, stored = self.teacher.folder, getattr(torch, self.settings.train.adapter_precision)
        save_adapters(self.dual, self.text_adapter, self.folder.adapter, dtype=stored)
        if teacher.has_backgrounds:
            self.folder.save_backgrounds(teacher.load_backgrounds())
        mean, facts = teacher.load_start()
        self.folder.save_start(mean, {**facts, "steps": step, "start": "distilled"})
        shutil.rmtree(self.folder.path / "lessons", ignore_errors=True)
        *_, last = self.folder.trim_metrics(step)
        return {
            "run": str(self.folder.path),
            "steps": step,
            "lessons": count,
            "sampling_steps": len(self.times),
            "loss": last["loss"],
            "seconds": last["seconds"],
        }


def draw_lessons(teacher: FittedModel, folder: Path, count: int, times: Tensor) -> Lessons:
    """`count` pairs of the teacher with the states at `times`; what a stopped call has drawn into `folder` is kept."""
    parts: list[dict[str, Tensor]] = []
    size = teacher.settings.sample.batch_size
    with progress("draw lessons", count) as bar, torch.no_grad():
        for begin in range(0, count, size):
            path = folder / f"{begin:06d}.safetensors"
            indices = range(begin, min(begin + size, count))
            if not path.exists():
                tensors = _lesson(teacher.sampler, list(indices), teacher.settings, times)
                write_atomic(path, lambda temporary, tensors=tensors: save_file(tensors, temporary))
            parts.append(load_file(path))
            bar.step(len(indices))
    return Lessons(*(torch.cat([part[name] for part in parts]) for name in ("states", "ends")))


class _Watched:
    """A model that remembers the latents it is called with; a guided call holds them twice."""

    def __init__(self, sampler: PairSampler, pairs: int) -> None:
        self.model, self.pairs = FixedDual(sampler.dual), pairs
        self.seen: list[Tensor] = []

    def __call__(self, latents: Tensor, timesteps: Tensor, text: Tensor, *others: Any, **named: Any) -> Tensor:
        self.seen.append(latents[:, : self.pairs].float().cpu())
        return self.model(latents, timesteps, text, *others, **named)


def _lesson(sampler: PairSampler, indices: list[int], settings: Settings, times: Tensor) -> dict[str, Tensor]:
    """States and ends of some pairs, whose noise is none of the pairs that `generate` draws."""
    each = -(-TEACHER_STEPS // len(times))
    sample: SampleSettings = replace(
        settings.sample, scheduler="dpmsolver++", num_inference_steps=each * len(times), compile=False
    )
    # Steps that end where the student's do.
    spaced: Any = DDPMScheduler.from_config(dict(sampler.base.scheduler.config), timestep_spacing="trailing")
    watched = _Watched(sampler, len(indices))
    able: Any = replace(sampler, base=replace(sampler.base, scheduler=spaced), dual=watched)  # pyright: ignore[reportArgumentType]
    noise = sampler.noise(settings.seed, [("lesson", index) for index in indices])
    ends, _ = able.denoise(
        noise,
        sampler.mean if sample.start == "mean" else None,
        sample,
        background=sampler.background(indices, settings.seed),
    )
    ends, _ = sampler.show_part(ends, sample)
    states = torch.stack(watched.seen[::each])  # (k, 2, B, ...)
    return {
        "states": states.permute(2, 0, 1, 3, 4, 5).contiguous(),
        "ends": ends.transpose(0, 1).float().cpu().contiguous(),
    }
