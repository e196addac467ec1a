"""The registry against plugins of every kind of health, without building any."""

from __future__ import annotations

import inspect
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from support.fake_plugins import install

from sagan_cli import contracts
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.job import settled
from sagan_cli.errors import DataError, PluginError, UsageError
from sagan_cli.plugins import registry
from sagan_cli.plugins.registry import GROUPS

GOOD = "def build(root, *, split, height, width):\n    return (root, split, height, width)\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder on sys.path; `refresh` before and after, and its modules forgotten again."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    registry.refresh()
    yield tmp_path
    for name in set(sys.modules) - known:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]
    registry.refresh()


def test_built_ins_come_first_and_in_order(site: Path):
    assert registry.names("commands") == [
        "train",
        "sample",
        "eval-fid",
        "compare",
        "visualize-attn",
        "export",
        "info",
        "ablate",
        "import",
        "plugins",
    ]
    assert registry.names("architectures") == ["sagan", "sagan-dcgan", "sagan-tutorial", "sagan-cifar", "dcgan"]
    drawn, read = ["quadrupeds", "quadrupeds-alone"], ["cifar10", "fashion-mnist", "mnist", "svhn", "stl10", "celeba"]
    assert registry.names("datasets") == drawn + read
    assert all(e.builtin and e.package == "sagan-cli" for kind in GROUPS for e in registry.entries(kind))


@pytest.mark.parametrize("kind", list(GROUPS))
def test_every_group_takes_plugins_and_imports_none_to_list_them(site: Path, kind: str):
    wanted = getattr(contracts, registry.INSTANCES.get(kind, ""), None)
    source = GOOD
    if wanted is not None:
        values = ", ".join(
            f"{f.name}={{'x': 'lower'}}" if f.name == "better" else f"{f.name}=None"
            for f in fields(wanted)
            if f.default is MISSING and f.default_factory is MISSING
        )
        source = f"from sagan_cli.contracts import {wanted.__name__}\nbuild = {wanted.__name__}({values})\n"
    install(site, "fake", f"[{GROUPS[kind]}]\nextra = fake_{kind}:build\n", **{f"fake_{kind}": source})
    registry.refresh()
    entry = registry.entries(kind)[-1]
    assert (entry.name, entry.package, entry.version, entry.builtin) == ("extra", "fake", "1.0", False)
    assert entry.summary == "fake tests"
    assert f"fake_{kind}" not in sys.modules
    found = registry.load(kind, "extra")
    assert callable(found) if wanted is None else isinstance(found, wanted)
    assert f"fake_{kind}" in sys.modules


def test_the_factory_s_attributes_show_through(site: Path):
    source = GOOD + "build.native_size = 28\n"
    install(site, "fake", "[sagan.datasets]\nextra = fake_attr:build\n", fake_attr=source)
    registry.refresh()
    factory = registry.load("datasets", "extra")
    assert factory.native_size == 28
    assert getattr(factory, "can_download", None) is None
    assert factory(Path("x"), split="train", height=4, width=5) == (Path("x"), "train", 4, 5)


NET = """
from dataclasses import replace

def build(spec):
    return spec

def settled(spec, *, auto):
    if spec.height == 16:
        raise ValueError("no such thing")
    return replace(spec, attn_at=(3,)) if auto and spec.height > 8 else spec if spec.height > 8 else "nowhere"

build.settled = settled
"""


def test_a_plugin_says_where_its_attention_stands(site: Path):
    install(site, "fake", "[sagan.architectures]\nextra = fake_net:build\n", fake_net=NET)
    registry.refresh()
    spec = ModelSpec(32, 32, attn_at=(16,))
    assert settled("extra", spec, auto=True).attn_at == (3,)
    assert settled("extra", spec, auto=False).attn_at == (16,)
    with pytest.raises(PluginError, match=r"architecture 'extra' of fake 1.0 failed: ValueError: no such thing"):
        settled("extra", ModelSpec(16, 16), auto=True)
    with pytest.raises(PluginError, match=r"of fake 1.0: settled\(\) returned str, not a ModelSpec"):
        settled("extra", ModelSpec(8, 8), auto=True)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"--data cifar100: no such dataset \(did you mean 'cifar10'\?\); there are"):
        registry.load("datasets", "cifar100")
    known = "sagan, sagan-dcgan, sagan-tutorial, sagan-cifar, dcgan"
    with pytest.raises(UsageError, match=rf"--arch vit: no such architecture; there are {known}$"):
        registry.load("architectures", "vit")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import no_such_module_at_all\n", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("raise RuntimeError('two\\nlines')\n", "RuntimeError: two lines"),
        ("import sys\nsys.exit('gone')\n", "SystemExit: gone"),
        ("def build(:\n", "SyntaxError"),
        ("pass\n", "AttributeError"),
        ("build = 3\n", "is of type int, not a function"),
    ],
)
def test_a_plugin_that_cannot_be_imported_says_whose_it_is(site: Path, source: str, complaint: str):
    install(site, "fake", "[sagan.architectures]\nextra = fake_bad:build\n", fake_bad=source)
    registry.refresh()
    assert "extra" in registry.names("architectures")
    with pytest.raises(PluginError) as caught:
        registry.load("architectures", "extra")
    message = str(caught.value)
    assert message.startswith("architecture 'extra' of fake 1.0")
    assert complaint in message
    assert "sagan plugins --check" in message
    assert "SAGAN_PLUGINS=" in message
    assert "\n" not in message
    assert callable(registry.load("commands", "plugins")), "the others go on working"


def test_a_factory_that_raises_says_whose_it_is(site: Path):
    install(
        site,
        "fake",
        "[sagan.datasets]\nbroken = fake_call:broken\nempty = fake_call:empty\n",
        fake_call="""
        from sagan_cli.errors import DataError
        def broken(root, **options): raise ZeroDivisionError("by zero")
        def empty(root, **options): raise DataError("no pictures")
        """,
    )
    registry.refresh()
    with pytest.raises(PluginError, match=r"dataset 'broken' of fake 1\.0 failed: ZeroDivisionError: by zero; "):
        registry.load("datasets", "broken")(Path())
    with pytest.raises(DataError, match=r"^no pictures$"):
        registry.load("datasets", "empty")(Path())


def test_two_plugins_with_one_name_are_an_error_when_it_is_used(site: Path):
    install(site, "fake-a", "[sagan.datasets]\nextra = fake_a:build\nfine = fake_a:build\n", fake_a=GOOD)
    install(site, "fake-b", "[sagan.datasets]\nextra = fake_b:build\n", fake_b=GOOD)
    registry.refresh()
    assert registry.names("datasets").count("extra") == 1
    assert callable(registry.load("datasets", "fine"))
    with pytest.raises(PluginError, match=r"'extra' is claimed by fake-. 1\.0 and fake-. 1\.0: uninstall one"):
        registry.load("datasets", "extra")


def test_the_allowlist_settles_a_quarrel(site: Path, monkeypatch: pytest.MonkeyPatch):
    install(site, "fake-a", "[sagan.datasets]\nextra = fake_a2:build\n", fake_a2=GOOD)
    install(site, "fake-b", "[sagan.datasets]\nextra = fake_b2:build\n", fake_b2=GOOD)
    registry.refresh()
    monkeypatch.setenv("SAGAN_PLUGINS", "fake_A")
    assert registry.find("datasets", "extra").package == "fake-a"


def test_a_built_in_cannot_be_shadowed(site: Path):
    install(site, "fake", "[sagan.architectures]\nsagan = fake_shadow:build\n", fake_shadow=GOOD)
    registry.refresh()
    assert registry.find("architectures", "sagan").builtin
    shadow = registry.entries("architectures")[-1]
    assert shadow.problem == "the name 'sagan' belongs to a built-in architecture"
    with pytest.raises(PluginError, match="belongs to a built-in"):
        registry.load_entry(shadow)


@pytest.mark.parametrize(("api", "update"), [("2", "sagan-cli"), ("0", "fake"), ("'1'", "fake")])
def test_a_plugin_for_another_api_is_refused(site: Path, api: str, update: str):
    source = f"SAGAN_PLUGIN_API = {api}\n"  # the factory may well be named differently there
    install(site, "fake", "[sagan.architectures]\nextra = fake_api:build\n", fake_api=source)
    registry.refresh()
    with pytest.raises(PluginError, match=rf"was written for plugin API .*, sagan-cli .* has 1: update {update}$"):
        registry.load("architectures", "extra")


def test_sagan_plugins_chooses_packages(site: Path, monkeypatch: pytest.MonkeyPatch):
    install(site, "fake-a", "[sagan.datasets]\nfirst = fake_a3:build\n", fake_a3=GOOD)
    install(site, "fake.b", "[sagan.datasets]\nsecond = fake_b3:build\n", fake_b3=GOOD)
    registry.refresh()

    def plugins() -> list[str]:
        return [e.name for e in registry.entries("datasets") if not e.builtin]

    assert plugins() == ["first", "second"]
    monkeypatch.setenv("SAGAN_PLUGINS", "")
    assert plugins() == []
    with pytest.raises(UsageError, match="--data first: provided by fake-a, which SAGAN_PLUGINS leaves out"):
        registry.load("datasets", "first")
    monkeypatch.setenv("SAGAN_PLUGINS", " Fake_B , ")
    assert plugins() == ["second"]
    assert registry.faults() == []
    monkeypatch.setenv("SAGAN_PLUGINS", "fake-a,fake-c")
    assert plugins() == ["first"]
    assert registry.faults() == ["SAGAN_PLUGINS names 'fake-c': no plugin package of that name is installed"]


def test_a_distribution_with_damaged_metadata_stops_nobody(site: Path):
    install(site, "fake-a", "[sagan.datasets]\nfirst = fake_a4:build\n", fake_a4=GOOD)
    install(site, "fake-b", "[sagan.datasets]\n")
    (site / "fake_b-1.0.dist-info" / "entry_points.txt").write_bytes(b"[sagan.datasets]\n\xff\xfe = x:y\n")
    registry.refresh()
    assert "first" in registry.names("datasets")
    (fault,) = registry.faults()
    assert "fake_b-1.0.dist-info: plugin metadata cannot be read: UnicodeDecodeError" in fault


def test_the_first_distribution_of_a_name_on_the_path_counts(site: Path, tmp_path_factory, monkeypatch):
    install(site, "fake", "[sagan.datasets]\nextra = fake_old:build\n", fake_old=GOOD)
    nearer = tmp_path_factory.mktemp("nearer")
    install(nearer, "fake", "[sagan.datasets]\nextra = fake_new:build\n", version="2.0", fake_new=GOOD)
    monkeypatch.syspath_prepend(nearer)
    registry.refresh()
    assert registry.find("datasets", "extra").version == "2.0"


def test_refresh_sees_what_was_installed_since(site: Path):
    assert "extra" not in registry.names("datasets")
    install(site, "fake", "[sagan.datasets]\nextra = fake_late:build\n", fake_late=GOOD)
    assert "extra" not in registry.names("datasets")
    registry.refresh()
    assert "extra" in registry.names("datasets")


def test_built_ins_can_all_be_loaded():
    for kind in GROUPS:
        for name in registry.names(kind):
            loaded = registry.load(kind, name)
            wanted = getattr(contracts, registry.INSTANCES.get(kind, ""), None)
            assert callable(loaded) if wanted is None else isinstance(loaded, wanted), name
    assert set(inspect.signature(registry.load("datasets", "quadrupeds")).parameters) >= {"root", "split", "height"}


def test_what_a_plugin_prints_while_it_is_imported_is_no_result(site: Path, capsys: pytest.CaptureFixture[str]):
    source = "print('hello')\ndef build(spec): raise SystemExit\n"
    install(site, "fake", "[sagan.architectures]\nextra = fake_loud:build\n", fake_loud=source)
    registry.refresh()
    factory = registry.load("architectures", "extra")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")
    with pytest.raises(PluginError, match=r"architecture 'extra' of fake 1.0 failed: SystemExit"):
        factory(None)


def test_an_import_that_does_not_end_is_named(site: Path, monkeypatch: pytest.MonkeyPatch):
    source = "import time\ntime.sleep(0.5)\ndef build(spec): pass\n"
    install(site, "fake", "[sagan.architectures]\nextra = fake_slow:build\n", fake_slow=source)
    registry.refresh()
    said: list[str] = []
    monkeypatch.setattr(registry, "SLOW", 0.1)
    monkeypatch.setattr(registry, "on_slow", said.append)
    registry.load("architectures", "extra")
    assert said == [
        "architecture 'extra' of fake 1.0 has been importing for 0 seconds; SAGAN_PLUGINS= runs without plugins"
    ]


def test_any_exception_of_a_plugin_names_it(site: Path):
    source = "class Odd(BaseException): pass\nraise Odd('why')\n"
    install(site, "fake", "[sagan.architectures]\nextra = fake_odd:build\n", fake_odd=source)
    registry.refresh()
    with pytest.raises(PluginError, match=r"architecture 'extra' of fake 1.0 cannot be imported: Odd: why"):
        registry.load("architectures", "extra")
