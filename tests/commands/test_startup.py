"""Start and end of the program: what `sagan sample` imports beside PyTorch, how plugins are looked for, how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import typer
from support.cli import TINY, ok
from support.fake_plugins import REPOSITORY, call, install
from support.idx_files import idx_folder
from torch import nn

from sagan_cli.commands.startup import LazyCommand, real_command
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import checkpoint, networks, sample
from sagan_cli.engine.runtime import Runtime
from sagan_cli.model.layers import SNConv2d
from sagan_cli.plugins import registry

CPU = Runtime(torch.device("cpu"), "fp32")
BESIDE_TORCH = """
import sys
import torch
before = set(sys.modules)
from sagan_cli.cli import main
try:
    main(sys.argv[1:])
finally:
    print("IMPORTED", *sorted(set(sys.modules) - before), file=sys.stderr)
"""
AT_THE_END = """
import atexit, pathlib, sys, threading, time
from sagan_cli.commands import startup

class Held:
    def __del__(self, write=pathlib.Path("torn-down").touch):
        write()

held = Held()
atexit.register(pathlib.Path("at-exit").touch)
{first}
print("result")
startup.exit_now(3, [sys.stdout])
sys.exit(4)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one step, and its generator as a file."""
    home = tmp_path_factory.mktemp("home")
    ok("train", "--data", idx_folder(home / "idx"), "--size", 16, *TINY, "--steps", 2, "--out", "run", cwd=home)
    ok("export", "run", "--out", "model.safetensors", cwd=home)
    return home


@pytest.mark.parametrize("model", ["run", "model.safetensors"])
def test_sample_imports_little_beside_torch(home: Path, tmp_path: Path, model: str) -> None:
    done = call("sample", str(home / model), "-n", "3", "--out", str(tmp_path / "grid.png"), code=BESIDE_TORCH)
    assert done.stdout == f"{tmp_path / 'grid.png'}\n", done.stderr
    found = set(done.stderr.split("IMPORTED", 1)[1].split())
    assert "sagan_cli.engine.sample" in found
    # PyTorch's own parts are in without being asked for; its compiler, exporters and remote modules are not.
    assert {name for name in found if name.startswith("torch.")} <= {"torch.utils._device"}
    assert not {name.partition(".")[0] for name in found} & {
        "torchvision", "torch_fidelity", "sympy", "onnx", "scipy", "rich", "pydantic", "_remote_module_non_scriptable",
    }  # fmt: skip


def test_a_network_built_without_numbers_is_the_one_that_was_saved(home: Path) -> None:
    at = sorted((home / "run" / "checkpoints").iterdir())[-1]
    facts = checkpoint.read_facts(at)
    tensors = checkpoint.load_tensors(facts, checkpoint.MODEL, ("ema",))
    long_way, _ = networks.build(facts.arch, facts.spec)
    checkpoint.load_module(long_way, tensors, "ema", at)
    sample.ready(long_way, CPU.device)
    drawn = {}
    for name, hollow in (("short", sample.hollow), ("fallen back", lambda network: True)):
        with mock.patch.object(sample, "hollow", hollow):
            short = sample.load(at, CPU)
        for (key, want), (other, got) in zip(
            long_way.state_dict().items(), short.generator.state_dict().items(), strict=True
        ):
            assert key == other
            assert torch.equal(want, got), (name, key)
        requests = [sample.Request(seed) for seed in range(3)]
        drawn[name] = np.concatenate([x for x, _ in sample.pictures(short.generator, short.spec, requests, CPU)])
    assert np.array_equal(drawn["short"], drawn["fallen back"])


def test_hollow_sees_parameters_buffers_and_plain_attributes() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    assert not sample.hollow(network)
    network[0].register_buffer("scale", torch.empty(1, device="meta"), persistent=False)
    assert sample.hollow(network)
    network = nn.Sequential(nn.Linear(2, 2, device="meta"))
    assert sample.hollow(network)
    network = nn.Sequential(nn.ReLU())
    network[0].table = torch.empty(1, device="meta")
    assert sample.hollow(network)


def test_a_layer_without_numbers_computes_nothing_and_folds() -> None:
    with torch.device("meta"):
        layer = SNConv2d(3, 4, 3)
    assert layer.u is not None
    assert layer.v is not None
    assert (layer.u.shape, layer.v.shape) == ((4,), (27,))
    layer.fold_()
    assert layer.u is None
    assert layer.weight.is_meta


def test_a_folded_layer_keeps_its_resampling_kernel_in_the_layout_of_convolutions() -> None:
    layer = SNConv2d(6, 5, 3).double()
    x = torch.randn(2, 6, 16, 16, dtype=torch.float64)
    want = layer.up(x)
    layer.fold_()
    assert torch.allclose(layer.up(x), want, rtol=0, atol=1e-12)
    assert layer._resampling is not None
    assert layer._resampling.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", [e.name for e in registry.entries("commands") if e.builtin])
def test_the_line_in_the_list_is_the_first_of_the_commands_own_help(name: str) -> None:
    entry = registry.find("commands", name)
    assert entry.summary == real_command(entry).get_short_help_str(200)
    assert LazyCommand(entry).get_short_help_str(200) == entry.summary


def test_the_list_of_commands_imports_none_of_them() -> None:
    done = call(code="import sys; from sagan_cli.cli import run; run(['--help']); print(*sys.modules, file=sys.stderr)")
    assert "Commands:" in done.stdout
    found = {name for name in done.stderr.split() if name.startswith("sagan_cli.commands.")}
    assert found == {"sagan_cli.commands.startup"}


@pytest.mark.parametrize("bounds", [{}, {"min": 2, "max": 9}])
@pytest.mark.parametrize("value", ["5", "007", 5, "1", "10", "5.0", "x", "", "-3", "٣", None, True])
def test_whole_numbers_come_out_as_typer_would_have_them(value: object, bounds: dict[str, int]) -> None:
    def command(n: int | None = typer.Option(None, **bounds)) -> None:  # type: ignore[assignment]
        pass

    outcomes = []
    for quick in (False, True):
        app = typer.Typer(add_completion=False)
        app.command()(command)
        made = typer.main.get_command(app)
        if quick:
            made = real_command_of(command)
        param = next(p for p in made.params if p.name == "n")
        ctx = typer.Context(made)
        if quick:
            made.get_params(ctx)
        try:
            result = param.get_runtime_param().coerce(value, param=param, ctx=ctx)  # type: ignore[attr-defined]
            outcomes.append((type(result), result))
        except typer.BadParameter as e:
            outcomes.append((type(e), str(e.message)))
    assert outcomes[0] == outcomes[1]


def real_command_of(function: object) -> typer.core.TyperCommand:
    from sagan_cli.commands import startup as loading

    return loading._typed("command", function)  # type: ignore[arg-type]


def test_plugins_are_looked_for_only_where_there_may_be_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "absent")])
    assert not registry._plugins_possible()
    install(tmp_path, "other", "[console_scripts]\nsagan = sagan_cli.cli:main\n")
    (tmp_path / "file.egg-info").write_text("Name: file\n")
    (tmp_path / "bare-1.0.dist-info").mkdir()
    assert not registry._plugins_possible()
    install(tmp_path, "fake", "[sagan.commands]\nextra = fake:run\n")
    assert registry._plugins_possible()


@pytest.mark.parametrize("odd", ["a file on the path", "not UTF-8", "a finder"])
def test_what_cannot_be_told_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    if odd == "a file on the path":
        archive = tmp_path / "packed.zip"
        archive.write_bytes(b"PK")
        monkeypatch.setattr(sys, "path", [str(archive)])
    elif odd == "not UTF-8":
        install(tmp_path, "fake", "")
        (tmp_path / "fake-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff")
    else:
        finder = mock.Mock(spec=["find_spec", "find_distributions"])
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    assert registry._plugins_possible()


@pytest.mark.parametrize(
    ("first", "code", "torn_down"),
    [
        ("startup.exit_quickly()", 3, False),
        ("", 4, True),  # nobody said it
        ("startup.exit_quickly(); sys.setprofile(lambda *a: None); atexit.register(sys.setprofile, None)", 4, True),
        ("startup.exit_quickly(); threading.Thread(target=time.sleep, args=(0.2,)).start()", 4, True),
    ],
)
def test_leaving_does_what_was_registered_and_leaves_out_the_rest(
    tmp_path: Path, first: str, code: int, torn_down: bool
) -> None:
    program = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{AT_THE_END.format(first=first)}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"result\n", b"")
    assert (tmp_path / "at-exit").exists()
    assert (tmp_path / "torn-down").exists() == torn_down


def test_sample_as_a_program_leaves_quickly_with_its_work_done(home: Path, tmp_path: Path) -> None:
    code = (
        "import atexit; atexit.register(lambda: print('at exit')); from sagan_cli import cli; cli.main(); print('on')"
    )
    done = call("sample", str(home / "model.safetensors"), "-n", "1", "--out", str(tmp_path / "a.png"), code=code)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'a.png'}\nat exit\n"), done.stderr
    assert (tmp_path / "a.png").stat().st_size > 0


def test_a_program_that_calls_with_arguments_goes_on() -> None:
    code = (
        "import sys; from sagan_cli import cli; from sagan_cli.commands import startup; startup.exit_quickly()\n"
        "try: cli.main(['no-such-command'])\nexcept SystemExit as e: print('goes on after', e.code)\n"
        "sys.argv = ['sagan', 'nor-this']; cli.main(); print('not reached')"
    )
    done = call(code=code)
    assert (done.returncode, done.stdout) == (2, "goes on after 2\n")


@pytest.mark.parametrize(("side", "pictures"), [(8, 64), (16, 64), (28, 32), (32, 32), (64, 8), (128, 8), (256, 8)])
def test_a_cpu_draws_small_pictures_in_larger_groups(side: int, pictures: int) -> None:
    spec = ModelSpec(side, side)
    assert sample.group_of(spec, CPU.device) == sample.group_of(spec, CPU.device, 5) == pictures
    assert sample.group_of(spec, torch.device("cuda"), 5) == 5
