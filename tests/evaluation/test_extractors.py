"""torch-fidelity's extractors: whose weights they get, what is refused, and features that are its own to the bit."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from support.callbacks import Ear
from support.inception_weights import random_inception, random_state
from torch import Tensor, nn

from sagan_cli.errors import SaganError, UsageError
from sagan_cli.evaluation.extractors import torch_fidelity, weights
from sagan_cli.evaluation.extractors.extractor import Extractor, tensor_digest
from sagan_cli.evaluation.extractors.weights import PUBLISHED, Published

INCEPTION = "inception-v3-compat"
CPU = torch.device("cpu")


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache of downloads, empty; and no proxy between the tests and their server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_inception(tmp_path_factory.mktemp("weights") / "random.pth")


@pytest.fixture(scope="module")
def inception(file: Path) -> Extractor:
    ear = Ear()
    return torch_fidelity.open_torch_fidelity(INCEPTION, weights=file, device=CPU, environ={}, **ear.how)


def find(ear: Ear, given: Path | None = None, name: str = INCEPTION, **environ: str) -> weights.Weights:
    return weights.find_weights(name, given, environ=environ, **ear.how)


def open_it(ear: Ear, name: str, given: Path | None = None, **environ: str) -> Extractor:
    return torch_fidelity.open_torch_fidelity(name, weights=given, device=CPU, environ=environ, **ear.how)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pictures(count: int = 3, seed: int = 0) -> Tensor:
    """Soft blobs of colour, uint8 (count, 3, 40, 32)."""
    coarse = torch.rand(count, 3, 5, 4, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear") * 255).to(torch.uint8)


# The names and the table


def test_the_names_cost_no_torch() -> None:
    names = "from sagan_cli.evaluation.extractors.weights import EXTRACTORS"
    code = f"import sys; {names}; print(len(EXTRACTORS), 'torch' in sys.modules)"
    root = Path(weights.__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["15", "False"]


def test_names_urls_and_digests_are_torch_fidelitys() -> None:
    from torch_fidelity import feature_extractor_clip, feature_extractor_dinov2, feature_extractor_inceptionv3
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
    from torchvision.models import VGG16_Weights

    assert set(weights.EXTRACTORS) == set(FEATURE_EXTRACTORS_REGISTRY)
    assert PUBLISHED[INCEPTION].url == feature_extractor_inceptionv3.URL_INCEPTION_V3
    assert PUBLISHED["vgg16"].url == VGG16_Weights.IMAGENET1K_V1.url
    for name, facts in feature_extractor_clip.MODEL_METADATA.items():
        assert PUBLISHED[name].sha256 == facts["hash"]
        assert PUBLISHED[name].url == feature_extractor_clip.MODEL_URLS[name]
    assert weights.DINO == feature_extractor_dinov2.MODEL_METADATA
    for entry in PUBLISHED.values():
        stem = Path(entry.files[0]).stem
        assert len(entry.sha256) == 64
        assert entry.sha256.startswith(stem.rpartition("-")[2])  # the names carry 8 digits, CLIP's all of them


def test_a_name_nearly_right(ear: Ear) -> None:
    with pytest.raises(UsageError, match=r"--extractor inception: .*there are inception-v3-compat, vgg16"):
        open_it(ear, "inception")


# Features


def test_features_are_torch_fidelitys_to_the_bit(inception: Extractor, file: Path) -> None:
    from torch_fidelity.utils import create_feature_extractor

    batch = pictures()
    for layers in (("2048",), ("2048", "logits_unbiased")):
        theirs = create_feature_extractor(
            INCEPTION, list(layers), cuda=False, feature_extractor_weights_path=str(file), verbose=False
        )
        with torch.no_grad():
            expected = theirs.convert_features_tuple_to_dict(theirs(batch))
        found = inception(batch, layers)
        assert list(found) == list(layers)
        for layer in layers:
            assert found[layer].dtype == torch.float32
            assert torch.equal(found[layer], expected[layer]), layer


def test_every_metric_has_torch_fidelitys_layer(inception: Extractor) -> None:
    assert dict(inception.layers) == {"fid": "2048", "kid": "2048", "prc": "2048", "isc": "logits_unbiased"}
    assert "299x299" in inception.resize


def test_logits_are_not_computed_unasked(inception: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    module = inception.compute.args[0]  # type: ignore[attr-defined]
    monkeypatch.setitem(module._modules, "fc", None)
    assert inception(pictures(1), ("2048",))["2048"].shape == (1, 2048)
    with pytest.raises(AttributeError, match="weight"):
        inception(pictures(1), ("logits_unbiased",))


def test_an_unknown_layer(inception: Extractor) -> None:
    with pytest.raises(ValueError, match=r"no layers \['1024'\]"):
        inception(pictures(1), ("1024",))


def test_opening_is_quiet_frozen_and_leaves_no_trace(ear: Ear, file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    module = open_it(ear, INCEPTION, file).compute.args[0]  # type: ignore[attr-defined]
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())
    assert capfd.readouterr() == ("", "")
    assert ear.notes == []


# The helper that makes weights


def test_random_inception_tells_pictures_apart(inception: Extractor) -> None:
    features = inception(pictures(4, seed=3), ("2048", "logits_unbiased"))
    mean, spread = float(features["2048"].mean()), float(features["2048"].std(0).mean())
    assert 0.1 < mean < 2
    assert spread > 0.2 * mean
    assert float(features["logits_unbiased"].std(0).mean()) > 0.05


def test_random_inception_is_seeded(file: Path) -> None:
    stored = torch.load(file, weights_only=True)
    again, other = random_state(0), random_state(1)
    assert len(stored) == 566
    assert stored["fc.weight"].shape == (1008, 2048)
    assert all(torch.equal(stored[name], tensor) for name, tensor in again.items())
    assert not torch.equal(stored["fc.weight"], other["fc.weight"])


# Which file


def test_a_given_file_is_taken_and_not_called_published(inception: Extractor, file: Path) -> None:
    assert inception.published is False
    assert inception.facts["weights_file"] == str(file)
    assert inception.facts["weights_file_sha256"] == sha256(file)
    assert inception.digest == tensor_digest(random_state(0))


def test_safetensors_are_the_same_weights(inception: Extractor, ear: Ear, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "random.safetensors"
    save_file(torch.load(file, weights_only=True), other)
    opened = open_it(ear, INCEPTION, other)
    assert opened.digest == inception.digest
    assert torch.equal(opened(pictures(1), ("2048",))["2048"], inception(pictures(1), ("2048",))["2048"])


@pytest.mark.parametrize("index", [0, 1])
def test_a_published_file_at_hand(
    index: int, inception: Extractor, ear: Ear, file: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = PUBLISHED[INCEPTION]
    monkeypatch.setitem(PUBLISHED, INCEPTION, Published(entry.url, sha256(file), entry.files))  # type: ignore[arg-type]
    (checkpoints / entry.files[index]).symlink_to(file)
    found = find(ear, SAGAN_OFFLINE="1")
    assert (found.path.name, found.published) == (entry.files[index], True)
    if index == 0:
        opened = open_it(ear, INCEPTION, SAGAN_OFFLINE="1")
        assert (opened.digest, opened.published) == (sha256(file), True)


@pytest.mark.parametrize("variable", weights.OFFLINE)
def test_offline_without_weights_says_every_way_out(variable: str, ear: Ear) -> None:
    with pytest.raises(SaganError) as caught:
        open_it(ear, INCEPTION, **{variable: "1"})
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert "\n" not in message
    entry = PUBLISHED[INCEPTION]
    for part in (variable, "--weights FILE", "SAGAN_FID_WEIGHTS", entry.url, entry.sha256, "--extractor classifier"):
        assert part in message


# What a file may hold


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_code_in_a_pickle_is_not_run(ear: Ear, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "bomb.pth"
    torch.save({"fc.bias": torch.zeros(1), "x": Bomb(mark)}, path)
    with pytest.raises(SaganError, match=r"bomb\.pth: refused"):
        open_it(ear, INCEPTION, path)
    assert not mark.exists()
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
        assert b"mkdir" in archive.read(name)  # the file carries the call ...
    call, arguments = Bomb(mark).__reduce__()
    call(*arguments)
    assert mark.exists()  # ... which is one that leaves its mark


def test_constructors_that_ask_for_any_pickle_get_tensors_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, path = tmp_path / "mark", tmp_path / "bomb.pth"
    torch.save({"x": Bomb(mark)}, path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with torch_fidelity._tensors_only(), pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    assert not mark.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def _damaged(path: Path) -> None:
    torch.save(random_small(), path)
    path.write_bytes(path.read_bytes()[:-300])


def random_small() -> dict[str, Tensor]:
    return {"a": torch.zeros(8, 8), "b": torch.ones(3)}


def _script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated; CLIP is published in it
        torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("text.pth", lambda p: p.write_text("no weights here"), None),
        ("empty.pth", lambda p: p.write_bytes(b""), None),
        ("cut.pth", _damaged, None),
        ("script.pth", _script, None),
        ("list.pth", lambda p: torch.save([torch.zeros(1)], p), "found list"),
        ("nothing.pth", lambda p: torch.save({}, p), "tensors by name"),
        ("nested.pth", lambda p: torch.save({"state_dict": random_small()}, p), "'state_dict' is no plain tensor"),
        ("number.pth", lambda p: torch.save({"a": torch.zeros(1), "step": 3}, p), "'step' is no plain tensor"),
        ("keys.pth", lambda p: torch.save({0: torch.zeros(1)}, p), "'0' is no plain tensor"),
        ("meta.pth", lambda p: torch.save({"a": torch.zeros(1, device="meta")}, p), "'a' is no plain tensor"),
        ("nan.pth", lambda p: torch.save({"a": torch.tensor([1.0, float("nan")])}, p), "'a' holds .* not finite"),
        ("text.safetensors", lambda p: p.write_text("no weights here"), None),
        ("pickle.safetensors", lambda p: torch.save(random_small(), p), None),
    ],
)  # fmt: skip
def test_what_is_not_weights(
    name: str, make: Callable[[Path], Any], words: str | None, ear: Ear, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(SaganError, match=words) as caught:
        open_it(ear, INCEPTION, tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_weights_of_another_network(ear: Ear, tmp_path: Path) -> None:
    complete = {name: torch.zeros((1,) * t.ndim).expand(t.shape) for name, t in random_state().items()}  # a small file
    path = tmp_path / "other.pth"
    for change, words in (
        ({"fc.bias": None}, r'Missing key\(s\) in state_dict: "fc.bias"'),
        ({"AuxLogits.fc.bias": torch.zeros(1)}, r'Unexpected key\(s\) in state_dict: "AuxLogits.fc.bias"'),
        ({"fc.weight": torch.zeros(1).expand(1000, 2048)}, "size mismatch for fc.weight"),
    ):
        torch.save({name: t for name, t in {**complete, **change}.items() if t is not None}, path)
        with pytest.raises(SaganError, match=f"other.pth: not weights of {INCEPTION}: {words}") as caught:
            open_it(ear, INCEPTION, path)
        assert "\n" not in str(caught.value)
    torch.save(random_small(), path)
    with pytest.raises(SaganError, match=r'Missing key\(s\) in state_dict: "Conv2d_1a_3x3.conv.weight"$'):
        open_it(ear, INCEPTION, path)


# VGG16, CLIP, DINOv2


def narrow_vgg16() -> nn.Module:
    """VGG16 with 16 units where 4096 are, which spares 500 MB."""
    from torchvision.models.vgg import VGG, cfgs, make_layers

    network = VGG(make_layers(cfgs["D"]), init_weights=False)
    for place, (inward, outward) in {0: (25088, 16), 3: (16, 16), 6: (16, 10)}.items():
        network.classifier[place] = nn.Linear(inward, outward)
    return network


def test_vgg16(ear: Ear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    with torch.device("meta"):
        monkeypatch.setattr(torchvision.models, "vgg16", narrow_vgg16)
        blank = narrow_vgg16().state_dict()
    draw = torch.Generator().manual_seed(0)
    path = tmp_path / "vgg.pth"
    torch.save({k: torch.randn(t.shape, generator=draw) / t[0].numel() ** 0.5 for k, t in blank.items()}, path)
    extractor = open_it(ear, "vgg16", path)
    assert dict(extractor.layers) == dict.fromkeys(("fid", "kid", "prc"), "fc2_relu")
    assert (extractor.published, "224x224" in extractor.resize) == (False, True)
    theirs = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=str(path))
    batch = pictures(1)
    found = extractor(batch, ("fc2_relu",))["fc2_relu"]
    assert found.shape == (1, 16)
    assert float(found.std()) > 0
    assert torch.equal(found, theirs(batch)[0])
    torch.save(random_small(), path)
    with pytest.raises(SaganError, match=r'not weights of vgg16: Missing key\(s\) in state_dict: "features.0.weight"$'):
        open_it(ear, "vgg16", path)


def clip_archive(path: Path) -> Path:
    """A CLIP of 64 channels and one block as a TorchScript archive, which is how CLIP is published."""
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    torch.manual_seed(0)
    root = nn.Module()
    tensors = {**CLIPVisual(8, 16, 1, 64, 8).state_dict(), "text_projection": torch.zeros(4, 8)}
    for name, tensor in tensors.items():
        *folders, leaf = name.split(".")
        place = root
        for folder in folders:
            if not hasattr(place, folder):
                place.add_module(folder, nn.Module())
            place = getattr(place, folder)
        place.register_parameter(leaf, nn.Parameter(tensor.clone()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated; CLIP is published in it
        torch.jit.save(torch.jit.script(root), path)
    return path


def test_clip_opens_the_published_file_alone(ear: Ear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, path = "clip-vit-b-32", clip_archive(tmp_path / "clip.pt")
    with monkeypatch.context() as m:
        m.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("it was opened"))
        with pytest.raises(SaganError, match=rf"--weights .*clip.pt: sha256 {sha256(path)}, but clip-vit-b-32 is 40d3"):
            open_it(ear, name, path)
    entry = PUBLISHED[name]
    monkeypatch.setitem(PUBLISHED, name, Published(entry.url, sha256(path), entry.files))  # type: ignore[arg-type]
    extractor = open_it(ear, name, path)
    assert (extractor.published, extractor.digest) == (True, sha256(path))
    assert dict(extractor.layers) == dict.fromkeys(("fid", "kid", "prc"), "clip")
    assert "16x16" in extractor.resize
    found = extractor(pictures(2), ("clip",))["clip"]
    assert found.shape == (2, 8)
    assert float(found.std(0).mean()) > 0


def test_clip_offline_does_not_speak_of_inceptions_variable(ear: Ear) -> None:
    with pytest.raises(SaganError, match=r"--weights FILE, FILE being https://.*RN50\.pt") as caught:
        open_it(ear, "clip-rn50", SAGAN_OFFLINE="1")
    assert "SAGAN_FID_WEIGHTS" not in str(caught.value)


class TinyDino(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ self.weight


def test_dinov2_comes_from_torch_hub(
    ear: Ear, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def load(*args: Any, **kwargs: Any) -> nn.Module:
        asked.append(args)
        print("hello from the hub")
        print("a bar\r 3%\r 100%")
        return TinyDino()

    monkeypatch.setattr(torch.hub, "load", load)
    extractor = open_it(ear, "dinov2-vit-s-14")
    assert asked == [("facebookresearch/dinov2", "dinov2_vits14")]
    assert capfd.readouterr() == ("", "")
    assert "github.com/facebookresearch/dinov2" in ear.notes[0]
    assert ear.notes[1:] == ["hello from the hub"]
    assert extractor.published is None
    assert extractor.digest == tensor_digest({"model.weight": torch.eye(3)})
    assert dict(extractor.layers) == dict.fromkeys(("fid", "kid", "prc"), "dinov2")
    assert extractor(pictures(2), ("dinov2",))["dinov2"].shape == (2, 3)


@pytest.mark.parametrize(
    "error",
    [
        URLError("Name or service not known"),
        RuntimeError("It looks like there is no internet connection"),
        TimeoutError(),
    ],
)
def test_dinov2_without_network(error: Exception, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: Any, **kwargs: Any) -> nn.Module:
        raise error

    monkeypatch.setattr(torch.hub, "load", load)
    with pytest.raises(SaganError, match=r"--extractor dinov2-vit-b-14: torch.hub could not .*--extractor classifier"):
        open_it(ear, "dinov2-vit-b-14")


def test_dinov2_offline_and_with_a_file(ear: Ear, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "load", lambda *a, **k: pytest.fail("the network was asked"))
    with pytest.raises(SaganError, match=r"dinov2_vits14_pretrain.pth not on this machine, and SAGAN_OFFLINE is set"):
        open_it(ear, "dinov2-vit-s-14", SAGAN_OFFLINE="yes")
    with pytest.raises(UsageError, match=r"--weights: dinov2-vit-s-14 .* takes no file"):
        open_it(ear, "dinov2-vit-s-14", tmp_path / "x.pth")
