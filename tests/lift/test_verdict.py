"""The sentence at the end says what the numbers say."""

import pytest

from dualanodiff.lift.verdict import decide, summarise

REAL = [0.50, 0.52, 0.51]


def shifted(values, by):
    return [value + by for value in values]


def verdict(made, far=None, arm="real+generated", real=REAL):
    scores = {"real": real, arm: made}
    return decide(scores, far if far is not None else scores, name="scratch", held_back=20)


def test_spread_is_the_standard_deviation_of_a_sample():
    summary = summarise([0.1, 0.2, 0.3])
    assert (summary.mean, summary.spread) == (pytest.approx(0.2), pytest.approx(0.1))
    assert summary.text() == "20.0 ± 10.0"
    assert summarise([0.5]).spread is None
    assert summarise([0.5]).text() == "50.0"


def test_a_difference_within_the_spread_is_no_help():
    found = verdict(shifted(REAL, 0.01))
    assert found.word == "no help"
    assert found.sentence.startswith("scratch: no help: the difference is within the seeds' spread of 1.4.")
    assert (
        "pixel AP 51.0 ± 1.0 with the real shots only and 52.0 ± 1.0 with real+generated (+1.0, 3 seeds, 20"
        in found.sentence
    )


def test_a_loss_beyond_the_spread_is_harm():
    found = verdict(shifted(REAL, -0.05))
    assert found.word == "harm"
    assert found.sentence.startswith("scratch: harm: the loss is beyond the seeds' spread of 1.4.")


def test_a_gain_is_worth_as_many_real_defects_as_do_the_same():
    far = {
        "real": [0.40],
        "real+generated": [0.45],
        "real+4": [0.44],
        "real+8": [0.48],
        "generated": [0.1],
    }
    found = verdict(shifted(REAL, 0.05), far)
    assert (found.word, found.worth, found.at_least) == ("help", 5, False)
    assert found.sentence.startswith("scratch: worth about 5 more real defects; the gain is beyond the seeds' spread")


def test_a_gain_above_the_ladder_is_worth_its_top_or_more():
    far = {"real": [0.40], "real+generated": [0.60], "real+4": [0.44], "real+8": [0.48]}
    found = verdict(shifted(REAL, 0.2), far)
    assert (found.worth, found.at_least) == (8, True)
    assert "worth 8 more real defects or more (there were no more to try)" in found.sentence


def test_a_ladder_with_a_dent_is_climbed_by_its_highest_step_so_far():
    far = {"real": [0.40], "real+generated": [0.43], "real+2": [0.44], "real+4": [0.41], "real+8": [0.48]}
    assert verdict(shifted(REAL, 0.05), far).worth in {1, 2}


@pytest.mark.parametrize(
    ("far", "words"),
    [
        ({"real": [0.4], "real+generated": [0.5]}, "worth an unknown number of real defects (no arm real+N was run)"),
        ({"real": [0.4], "real+generated": [0.5], "real+8": [0.3]}, "help, where 8 more real defects did not help"),
        ({"real": [0.4], "real+generated": [0.4], "real+8": [0.5]}, "so its worth cannot be said"),
    ],
)
def test_a_worth_that_cannot_be_said_is_not_said(far, words):
    found = verdict(shifted(REAL, 0.05), far)
    assert found.worth is None
    assert words in found.sentence


def test_one_seed_decides_nothing():
    found = verdict([0.9], real=[0.5])
    assert found.word == "undecided"
    assert "undecided, because one seed has no spread; run three or more" in found.sentence


def test_generated_alone_is_judged_where_nothing_was_mixed():
    assert verdict(shifted(REAL, 0.05), {}, arm="generated").arm == "generated"


def test_without_the_real_arm_there_is_no_verdict():
    assert decide({"generated": [0.5]}, {}, name="scratch", held_back=3) is None
    assert decide({"real": [0.5]}, {}, name="scratch", held_back=3) is None
