"""The conformance kit against sound and spoilt architectures."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError
from sagan_cli.testing import check_architecture


class G(nn.Module):
    """A sound generator without attention: linear maps, labels by an embedding."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.shape = (spec.channels, spec.height, spec.width)
        self.linear = nn.Linear(spec.latent, spec.channels * spec.height * spec.width)
        self.embed = nn.Embedding(spec.num_classes, spec.latent) if spec.num_classes else None

    def forward(self, z, y):
        z = z if self.embed is None else z + self.embed(y)
        return torch.tanh(self.linear(z)).unflatten(1, self.shape)


class D(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.channels * spec.height * spec.width, 1)
        self.embed = nn.Embedding(spec.num_classes, 1) if spec.num_classes else None

    def forward(self, x, y):
        out = self.linear(x.flatten(1)).squeeze(1)
        return out if self.embed is None else out + self.embed(y).squeeze(1)


def builds(generator=G, discriminator=D, *, attention: bool = False, options: bool = False):
    def factory(spec: ModelSpec):
        if spec.options and not options:
            raise UsageError("no options")
        if spec.attn_at and not attention:
            raise UsageError("no attention")
        return generator(spec), discriminator(spec)

    return factory


def test_a_sound_pair_without_attention_passes():
    check_architecture(builds())


class Loud(G):
    def forward(self, z, y):
        return 2 * super().forward(z, y)


class Wide(G):
    def forward(self, z, y):
        return super().forward(z, y).transpose(2, 3)


class Blind(G):
    def forward(self, z, y):
        return super().forward(z, None if y is None else y * 0)


class Idle(G):
    def __init__(self, spec):
        super().__init__(spec)
        self.spare = nn.Parameter(torch.zeros(3))


class Social(G):
    def forward(self, z, y):
        return torch.tanh(super().forward(z, y) + z.mean())


class Forgetful(G):
    def __init__(self, spec):
        super().__init__(spec)
        self.secret = torch.randn(())

    def forward(self, z, y):
        return super().forward(z, y) * self.secret.sigmoid()


class Unseeded(G):
    def __init__(self, spec):
        super().__init__(spec)
        with torch.no_grad():
            self.linear.bias.copy_(torch.from_numpy(np.random.default_rng().normal(size=self.linear.bias.shape)))


class Column(D):
    def forward(self, x, y):
        return super().forward(x, y)[:, None]


class Seeing(G):
    def attention_layers(self):
        return {"16": self.linear}


class Fixed(G):
    """Writes its device down, so that it cannot be built on the meta device."""

    def forward(self, z, y):
        return super().forward(z.to("cpu"), y)


class Breaks(D):
    def forward(self, x, y):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (builds(options=True), "an unknown name in spec.options must be refused"),
        (
            builds(Loud),
            r"32x32x3, no classes, attn_at \(\): the generator's images must be finite and in \[-1, 1\]",
        ),
        (builds(Wide), "the generator returns torch.float32 of shape .* floats of shape"),
        (builds(Blind), "the generator ignores the class labels"),
        (builds(Idle), "no gradient reaches the parameter generator.spare"),
        (builds(Social), "in evaluation, an image depends on the rest of the batch"),
        (builds(Forgetful), "a generator with loaded weights generates other images"),
        (builds(Unseeded), "the generator's first weights must be a function of torch's seed"),
        (builds(G, Column), "the discriminator returns torch.float32 of shape"),
        (builds(Seeing), "the generator lists attention_layers though attn_at is empty"),
        (builds(G, Breaks), r"32x32x3, .*: raised RuntimeError: shapes do not match"),
        (builds(Fixed), r"under torch.device\('meta'\): raised NotImplementedError"),
        (lambda spec: builds()(spec)[:1], r"the factory must return \(generator, discriminator\)"),
    ],
)
def test_the_kit_finds_what_is_wrong_with_an_architecture(factory, message: str):
    with pytest.raises(AssertionError, match=message):
        check_architecture(factory)


def settles(answer, **own):
    """A sound factory that attends without showing it, with an answer to `--attn-at`."""
    factory = builds(attention=True, **own)
    factory.settled = answer
    return factory


def test_a_factory_may_say_where_attention_stands():
    check_architecture(settles(lambda spec, *, auto: replace(spec, attn_at=()) if auto else spec))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda spec, *, auto: (16,), r"settled\(32x32x3, .*, auto=True\): must return a ModelSpec, not tuple"),
        (lambda spec, *, auto: replace(spec, height=64), "auto=True.*: changes the images"),
        (
            lambda spec, *, auto: replace(spec, attn_at=(16,)),
            r"auto=False.*: returns attn_at \(16,\) for \(\)",
        ),
        (lambda spec, *, auto: replace(spec, options={"no": 1}), "auto=True.*: raised UsageError: no options"),
        (lambda spec, *, auto, once=[]: once.append(1) or replace(spec, attn_at=(len(once),)), "when called again"),
        (lambda spec: spec, "auto=True.*: raised TypeError"),
    ],
)
def test_the_kit_finds_a_wrong_place(answer, message: str):
    with pytest.raises(AssertionError, match=message):
        check_architecture(settles(answer))


def test_a_parameter_may_be_meant_to_get_no_gradient():
    check_architecture(builds(Idle), gradient_free=("generator.spare",))


def test_attention_layers_is_optional_and_must_be_the_network_s_own():
    check_architecture(builds(attention=True))  # takes attn_at and offers nothing to look at

    class Foreign(G):
        def __init__(self, spec):
            super().__init__(spec)
            self.attends = bool(spec.attn_at)

        def attention_layers(self):
            return {"16": copy.deepcopy(self.linear)} if self.attends else {}

    with pytest.raises(AssertionError, match="must be a dict of text -> module of that network"):
        check_architecture(builds(Foreign, attention=True))

    class Nothing(G):
        def attention_layers(self):
            return {}

    with pytest.raises(AssertionError, match="the generator's attention_layers are none"):
        check_architecture(builds(Nothing, attention=True))
