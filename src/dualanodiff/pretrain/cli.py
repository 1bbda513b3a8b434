"""`dualanodiff pretrain`: make a base from pictures, one stage a command."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dualanodiff.console import JsonOption, SetOption, command_line, read_assignments, show
from dualanodiff.errors import SettingsError
from dualanodiff.progress import duration

app = typer.Typer(no_args_is_help=True, help="Make a base from a folder of pictures, stage by stage; each resumes.")

PackArgument = Annotated[Path, typer.Argument(metavar="PACK", help="A file made by `pretrain pack`.")]
FolderOption = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="The base folder to make, or to go on with.")
]
SizeOption = Annotated[int, typer.Option("--size", min=32, help="Side of the pictures in pixels.")]
MinutesOption = Annotated[float | None, typer.Option("--minutes", min=0, help="Stop after so long; resumable.")]


class Prediction(StrEnum):
    """What a UNet may learn to predict."""

    v = "v_prediction"
    epsilon = "epsilon"


@app.command()
def pack(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURES...", help="Folders of pictures, free to use.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to make.")],
    index: Annotated[
        Path | None, typer.Option("--index", help="A tab-separated table: picture, original file name.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pack folders of pictures, 256 x 256 each, into one file."""
    from dualanodiff.pretrain.pictures import pack_folders

    result = pack_folders(pictures, out, index=index)
    next_step = command_line("pretrain", "autoencoder", out, "--out", "FOLDER")
    show(result, f"Packed {result['pictures']} pictures into {out}. Next: {next_step}", as_json=as_json)


@app.command()
def autoencoder(
    file: PackArgument,
    out: FolderOption,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps in all.")] = 4000,
    size: SizeOption = 128,
    channels: Annotated[int, typer.Option("--latent-channels", min=1, help="Numbers a latent cell holds.")] = 8,
    batch: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures a step.")] = 8,
    decoder_only: Annotated[
        bool, typer.Option("--decoder-only", help="Leave the encoder, and every latent made with it, as it is.")
    ] = False,
    minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the autoencoder: pictures to latents and back."""
    from dualanodiff.pretrain.autoencoder import AutoencoderPlan, train_autoencoder
    from dualanodiff.pretrain.pictures import load_pack

    plan = AutoencoderPlan(steps=steps, size=size, latent_channels=channels, batch=batch, decoder_only=decoder_only)
    result = train_autoencoder(load_pack(file), out, plan, seconds=_seconds(minutes))
    next_step = _next(result["steps"] == steps, "pretrain", "unet", file, "--out", out)
    text = f"{result['steps']} of {steps} steps in {duration(result['seconds'])}: {out / 'vae'}. Next: {next_step}"
    show(result, text, as_json=as_json)


@app.command()
def unet(
    file: PackArgument,
    out: FolderOption,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps in all.")] = 8000,
    size: SizeOption = 128,
    channels: Annotated[str, typer.Option("--channels", help="Widths of the UNet's levels.")] = "96,192",
    plain: Annotated[int, typer.Option("--plain-levels", min=0, help="Outermost levels without attention.")] = 0,
    begin: Annotated[
        Path | None,
        typer.Option(
            "--begin-from",
            metavar="FOLDER",
            help="A training to begin from: with the same levels, or at half the size with one less.",
        ),
    ] = None,
    rate: Annotated[float, typer.Option("--learning-rate", min=0, help="Peak AdamW rate.")] = 5e-4,
    batch_pairs: Annotated[int, typer.Option("--batch-pairs", min=1, help="Pairs a step, two rows each.")] = 8,
    batch_singles: Annotated[int, typer.Option("--batch-singles", min=1, help="Single pictures a step.")] = 4,
    prediction: Annotated[
        Prediction, typer.Option("--prediction", help="What the UNet learns to predict.")
    ] = Prediction.v,
    noise_weight: Annotated[
        float, typer.Option("--noise-weight", min=1, help="Most that an error counts where little signal is left.")
    ] = 1.0,
    part_weight: Annotated[float, typer.Option("--part-weight", min=0, help="Weight of the part branch's loss.")] = 1.0,
    layout_share: Annotated[
        float,
        typer.Option(
            "--layout-share", min=0, max=1, help="Share of timesteps from 400 to 900, where layout is decided."
        ),
    ] = 0.0,
    zero_snr: Annotated[bool, typer.Option("--zero-snr", help="The last timestep is pure noise.")] = False,
    scale_shift: Annotated[
        bool, typer.Option("--scale-shift", help="The noise level also scales features, not only shifts them.")
    ] = False,
    inclusion: Annotated[float, typer.Option("--inclusion", min=0, help="Weight of the inclusion law.")] = 0.0,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Procedural pairs to draw from.")] = 12000,
    singles: Annotated[int, typer.Option("--singles", min=1, help="Single pictures to draw from.")] = 6000,
    card: Annotated[
        Path | None, typer.Option("--card", metavar="FILE", help="The base.toml to put into the base.")
    ] = None,
    minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the UNet with its pair of branches, and write the base to FOLDER/base."""
    from dualanodiff.pretrain.batch import UNetPlan
    from dualanodiff.pretrain.pictures import load_pack
    from dualanodiff.pretrain.stage_two import train_unet

    text = card.read_text(encoding="utf-8") if card else ""
    widths = tuple(int(width) for width in channels.split(",") if width.strip().isdecimal())
    if len(widths) != channels.count(",") + 1 or plain >= len(widths):
        msg = f"--channels {channels} --plain-levels {plain}: give widths like 96,96,192, and fewer plain levels than widths"
        raise SettingsError(msg)
    plan = UNetPlan(steps=steps, size=size, channels=widths, plain_levels=plain, rate=rate)
    if zero_snr and prediction is Prediction.epsilon:
        msg = "--zero-snr needs --prediction v_prediction: from pure noise, the noise says nothing about the picture"
        raise SettingsError(msg)
    if noise_weight > 1 and prediction is Prediction.v:
        msg = f"--noise-weight {noise_weight:g} is for --prediction epsilon: v counts every timestep's error alike already"
        raise SettingsError(msg)
    plan = replace(plan, pairs=batch_pairs, singles=batch_singles, inclusion=inclusion)
    plan = replace(plan, prediction=prediction.value, zero_snr=zero_snr, scale_shift=scale_shift)
    plan = replace(plan, noise_weight=noise_weight, part_weight=part_weight, layout_share=layout_share)
    bank = {"bank_pairs": pairs, "bank_singles": singles}
    result = train_unet(load_pack(file), out, plan, begin=begin, card=text, seconds=_seconds(minutes), **bank)
    done = result["steps"] == steps
    next_step = _next(done, "fit", "DATA", "--defect", "D", "--base", result["base"], "--out", "RUN")
    text = f"{result['steps']} of {steps} steps in {duration(result['seconds'])}: {result['base']}. Next: {next_step}"
    show(result, text, as_json=as_json)


@app.command()
def pair(
    out: FolderOption,
    base: Annotated[str, typer.Option("--base", help="A folder in Stable Diffusion's layout, or a hub id.")],
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps in all.")] = 3000,
    batch_pairs: Annotated[int, typer.Option("--batch-pairs", min=1, help="Pairs a step, two rows each.")] = 4,
    rate: Annotated[float, typer.Option("--learning-rate", min=0, help="Peak AdamW rate.")] = 2e-4,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Procedural pairs to draw from.")] = 4000,
    minutes: MinutesOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Teach a finished base, which stays frozen, a pair that fits begin from; FOLDER becomes a copy of it with the pair."""
    assignments = read_assignments(settings)
    from dualanodiff.model.base import load_base
    from dualanodiff.preparing import recommended
    from dualanodiff.pretrain.pair import PairPlan, pretrain_pair

    loaded = load_base(base)
    wished = recommended(loaded).updated({"model.interaction": "lowrank", **assignments}, "--set")
    plan = PairPlan(steps=steps, batch=batch_pairs, rate=rate, drawn=pairs)
    result = pretrain_pair(loaded, out, plan, wished, seconds=_seconds(minutes))
    next_step = _next(result["done"], "fit", "DATA", "--defect", "D", "--base", out, "--out", "RUN")
    text = f"{result['step']} of {steps} steps in {duration(result['seconds'])}: {out}. Next: {next_step}"
    show(result, text, as_json=as_json)


def _next(done: bool, *words: str | Path | int) -> str:
    return command_line(*words) if done else "the same command again, which goes on"


def _seconds(minutes: float | None) -> float:
    return float("inf") if minutes is None else minutes * 60
