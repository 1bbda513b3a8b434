"""Settings: every field explained, every layer checked, every refusal names the way out."""

import tomllib

import hypothesis
import pytest
from hypothesis import strategies as st

from dualanodiff.errors import SettingsError
from dualanodiff.settings import Settings, describe, parse_assignments, read_settings, setting_names, to_toml

# The names that people and scripts hold on to.
CONTRACT = [
    "train.max_train_steps",
    "train.train_batch_size",
    "train.learning_rate",
    "train.checkpointing_steps",
    "train.mixed_precision",
    "train.report_to",
    "model.rank",
    "model.interaction",
    "model.background",
    "sample.num_inference_steps",
    "sample.guidance_scale",
    "sample.scheduler",
    "sample.batch_size",
    "seed",
]


def test_every_setting_says_what_it_does():
    notes = describe()
    assert set(notes) >= set(setting_names())
    assert all(notes[name].endswith(".") and len(notes[name]) >= 15 for name in setting_names())


@pytest.mark.parametrize("name", CONTRACT)
def test_names_of_the_contract_stay(name):
    assert name in setting_names()


def test_the_defaults_are_the_papers():
    settings = Settings()
    assert (settings.model.rank, settings.model.interaction) == (32, "full")
    assert (settings.train.max_train_steps, settings.train.train_batch_size) == (5000, 4)
    assert (settings.train.adam_weight_decay, settings.train.max_grad_norm) == (1e-2, 1.0)
    assert (settings.sample.guidance_scale, settings.sample.num_inference_steps) == (2.5, 50)
    assert (settings.model.prompt_image, settings.model.prompt_part) == ("a vfx with sks", "sks")


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        Settings().train.learning_rate = 1.0  # type: ignore[misc]


def test_a_later_layer_wins_and_leaves_the_rest(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("seed = 3\n[train]\nmax_train_steps = 10\nlearning_rate = 1\n")
    settings = read_settings(path).updated({"train.max_train_steps": "20", "data.flip_vertical": "off"}, "--set")
    assert (settings.seed, settings.train.max_train_steps, settings.train.learning_rate) == (3, 20, 1.0)
    assert isinstance(settings.train.learning_rate, float)
    assert settings.data.flip_vertical is False
    assert settings.data.flip_horizontal is True
    assert settings.model == Settings().model


def test_a_file_goes_over_given_settings(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[sample]\nbatch_size = 2\n")
    over = Settings().updated({"data.resolution": 128}, "base")
    assert read_settings(path, over).data.resolution == 128


def test_toml_of_settings_explains_itself_and_reads_back(tmp_path):
    settings = Settings().updated({"model.prompt_image": 'a "quoted" \\ word', "train.part_weight": 0.25}, "test")
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings), encoding="utf-8")
    assert read_settings(path) == settings
    lines = path.read_text(encoding="utf-8").splitlines()
    for name in setting_names():
        key = name.rsplit(".", 1)[-1]
        assert any(
            note.startswith("# ") and line.startswith(f"{key} = ") for note, line in zip(lines, lines[1:], strict=False)
        )


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(
    rate=st.floats(0, 1e3, allow_nan=False),
    steps=st.integers(1, 10**9),
    prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    flip=st.booleans(),
)
def test_any_value_survives_toml(rate, steps, prompt, flip):
    values = {
        "train.learning_rate": rate,
        "train.max_train_steps": steps,
        "model.prompt_part": prompt,
        "data.flip_vertical": flip,
    }
    settings = Settings().updated(values, "test")
    assert Settings().updated(tomllib.loads(to_toml(settings)), "toml") == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.learning_rat=1", "--set: unknown setting 'train.learning_rat'; did you mean 'train.learning_rate'?"),
        ("learning_rate=1", "--set: unknown setting 'learning_rate'; did you mean 'train.learning_rate'?"),
        ("sede=1", "--set: unknown setting 'sede'; did you mean 'seed'?"),
        ("train=1", "--set: unknown setting 'train'; did you mean '"),
        ("train.max_train_steps=many", "--set: train.max_train_steps is 'many' but must be a whole number"),
        ("train.max_train_steps=1.5", "--set: train.max_train_steps is '1.5' but must be a whole number"),
        ("train.max_train_steps=inf", "--set: train.max_train_steps is 'inf' but must be a whole number"),
        ("train.max_train_steps=0", "--set: train.max_train_steps is 0 but must be 1 or more"),
        ("train.learning_rate=fast", "--set: train.learning_rate is 'fast' but must be a number"),
        ("train.learning_rate=nan", "--set: train.learning_rate is 'nan' but must be a number"),
        ("train.learning_rate=-1", "--set: train.learning_rate is -1.0 but must be 0 or more"),
        ("train.snr_gamma=-1", "--set: train.snr_gamma is -1.0 but must be 0 or more"),
        ("train.adapt_rate=-1", "--set: train.adapt_rate is -1.0 but must be 0 or more"),
        ("train.adapt_steps=-1", "--set: train.adapt_steps is -1 but must be 0 or more"),
        ("train.prompt_dropout=1.5", "--set: train.prompt_dropout is 1.5 but must be 1 or less"),
        ("data.flip_vertical=perhaps", "--set: data.flip_vertical is 'perhaps' but must be true or false"),
        ("model.interaction=ful", "--set: model.interaction is 'ful' but must be one of full, lowrank, none"),
        (
            "sample.scheduler=DDIM",
            "--set: sample.scheduler is 'DDIM' but must be one of ddim, dpmsolver++, pndm, distilled",
        ),
    ],
)
def test_a_wrong_assignment_says_what_is_right(text, message):
    with pytest.raises(SettingsError) as caught:
        Settings().updated(parse_assignments([text]), "--set")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_assignment_needs_an_equals_sign():
    with pytest.raises(SettingsError, match=r"--set seed 1: write it as group.name=value, for example"):
        parse_assignments(["seed 1"])


def test_a_value_may_contain_equals_signs_and_spaces():
    assert parse_assignments(["model.prompt_part = a=b c"]) == {"model.prompt_part": "a=b c"}


def test_true_is_no_number_and_a_number_is_no_text():
    with pytest.raises(SettingsError, match="file: seed is True but must be a whole number"):
        Settings().updated({"seed": True}, "file")
    with pytest.raises(SettingsError, match=r"file: train\.learning_rate is True but must be a number"):
        Settings().updated({"train": {"learning_rate": True}}, "file")
    with pytest.raises(SettingsError, match=r"file: model\.prompt_part is 5 but must be text"):
        Settings().updated({"model": {"prompt_part": 5}}, "file")


def test_an_absent_settings_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml: no such settings file"):
        read_settings(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"seed = = 1", b"\xff\xfe\x00", b"[train\n"])
def test_a_broken_settings_file_is_named(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"broken\.toml: not a readable TOML file .*; write settings as"):
        read_settings(path)


def test_a_folder_is_no_settings_file(tmp_path):
    with pytest.raises(SettingsError, match="not a readable TOML file"):
        read_settings(tmp_path)


def test_an_unknown_setting_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[sample]\nguidance = 3\n")
    with pytest.raises(SettingsError, match=r"mine\.toml: unknown setting 'sample\.guidance'; did you mean 'sample\."):
        read_settings(path)
