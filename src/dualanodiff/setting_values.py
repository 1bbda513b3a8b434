"""What a setting may be: text turned into its type, numbers within their range."""

from typing import Any, Literal, get_args, get_origin

from dualanodiff.errors import SettingsError

_NOT_NEGATIVE = (
    "model.text_rank train.lr_warmup_steps train.preview_steps train.part_weight train.inclusion_weight train.prompt_dropout "
    "train.snr_gamma train.adapt_steps train.adapt_rate "
    "train.learning_rate train.adam_weight_decay train.max_grad_norm sample.inclusion sample.lead sample.guidance_from sample.guidance_until "
    "onto.inclusion onto.strange onto.begin onto.smallest onto.collar "
    "onto.inside onto.visible mask.threshold"
)
_AT_LEAST_ONE = (
    "model.rank model.interaction_rank train.max_train_steps train.train_batch_size train.checkpointing_steps "
    "train.patience "
    "sample.num_inference_steps sample.batch_size onto.attempts mask.minimum_area"
)
_SHARES = "train.prompt_dropout sample.inclusion sample.lead sample.guidance_from sample.guidance_until onto.freedom onto.inclusion onto.inside mask.threshold"
_MINIMUM: dict[str, float] = {
    **dict.fromkeys(_NOT_NEGATIVE.split(), 0),
    **dict.fromkeys(_AT_LEAST_ONE.split(), 1),
    "data.resolution": 8,
    "onto.freedom": 0.05,
    "onto.tolerance": 0.01,
}
_MAXIMUM: dict[str, float] = {
    **dict.fromkeys(_SHARES.split(), 1),
    "onto.begin": 0.9,
    "onto.smallest": 0.5,
}


def check_range(name: str, value: object, source: str) -> None:
    """Raise SettingsError for a number outside what the setting of this name may be."""
    low, high = _MINIMUM.get(name), _MAXIMUM.get(name)
    if isinstance(value, int | float) and low is not None and not value >= low:
        msg = f"{source}: {name} is {value} but must be {low:g} or more"
        raise SettingsError(msg)
    if isinstance(value, int | float) and high is not None and not value <= high:
        msg = f"{source}: {name} is {value} but must be {high:g} or less"
        raise SettingsError(msg)


def parse_value(value: object, kind: Any, place: str) -> object:
    """Turn text from the command line, or a TOML value, into the setting's own type."""
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        msg = f"{place} is {value!r} but must be one of {', '.join(get_args(kind))}"
        raise SettingsError(msg)
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        if kind is bool and str(value).lower() in words:
            return words[str(value).lower()]
        if kind is str and isinstance(value, str):
            return value
        if kind is int and not isinstance(value, bool) and float(str(value)) == int(float(str(value))):
            return int(float(str(value)))
        if kind is float and not isinstance(value, bool) and abs(float(str(value))) < float("inf"):
            return float(str(value))
    except (ValueError, OverflowError):
        pass
    msg = f"{place} is {value!r} but must be {_KIND_NAMES[kind]}"
    raise SettingsError(msg)


_KIND_NAMES = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
