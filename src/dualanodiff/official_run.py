"""A checkpoint of the authors' code as a run, ready for `generate`."""

from pathlib import Path
from typing import Any

import torch

from dualanodiff.model.adapters import save_adapters
from dualanodiff.model.base import load_base
from dualanodiff.model.official import load_official, load_official_text, read_official
from dualanodiff.runs import RunFolder, file_record, make_lineage
from dualanodiff.settings import Settings

SCRIPTS = {
    "data.key_color": "grey",
    "sample.start": "noise",
    "sample.scheduler": "pndm",
    "sample.num_inference_steps": 100,
}
"""How the released scripts work: the part on mid-grey, 100 PNDM steps from pure noise."""


def import_official(file: Path, *, base: str, out: Path) -> dict[str, Any]:
    """Write the run folder `out` from the authors' `pytorch_lora_weights.bin` on its base.

    Returns run, rank and whether it has background compensation. Raises ModelError for a file that is not theirs, a
    pickle that holds more than tensors, or a base that does not fit; RunError when `out` is taken.
    """
    official = read_official(file)
    loaded = load_base(base)
    dual = load_official(official, loaded.unet)
    text = load_official_text(official, loaded.text_encoder, loaded.tokenizer)
    settings = Settings().updated(
        SCRIPTS
        | {
            "data.resolution": loaded.resolution,
            "model.rank": dual.rank,
            "model.text_rank": text.rank,
            "model.interaction": dual.interaction,
            "model.background": dual.background,
        },
        str(file),
    )
    folder = RunFolder(out)
    lineage = make_lineage(
        base=loaded.name, seed=0, files=[file_record(file, "official checkpoint")], category=None, defect=None
    )
    folder.begin(settings, lineage, resume=False)
    save_adapters(dual, text, folder.adapter)
    side = loaded.resolution // loaded.latent_factor
    facts = {
        "key_color": [128, 128, 128],
        "key_threshold": 0.0,
        "resolution": loaded.resolution,
        "shots": 0,
        "steps": 0,
        "start": "official",
        "object_masks": "not used",
        # Their scripts never multiply the background's latents by the autoencoder's scaling factor.
        "background_scale": 1 / float(loaded.vae.config["scaling_factor"]),
    }
    # Their file has no shots to take a mean from; sample.start is noise, as in their scripts.
    folder.save_start(torch.zeros(2, loaded.latent_channels, side, side), facts)
    return {"run": str(out), "rank": dual.rank, "background": dual.background}
