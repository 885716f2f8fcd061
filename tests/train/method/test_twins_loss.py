"""What a step differentiates: each method's loss written out, what has a gradient, and what is
float32 under bf16.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from rrtn.train.config import (
    Config,
    DataConfig,
    HeadConfig,
    ModelConfig,
    ProjectorConfig,
    RuwlConfig,
    terms_of_config,
)
from rrtn.train.method import model
from rrtn.train.method import twins_loss as twins
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.losses import bt_loss, ccc_loss, cross_correlation
from rrtn.train.method.model import TwinsNetwork
from rrtn.train.method.twins_loss import TwinsLoss
from rrtn.train.method.view_batchnorm import BatchNormPerView
from rrtn.train.plan import network_from_config
from rrtn.train.step import HALF, loss_from_config
from torch import Tensor, nn

B, T, M, K, P = 6, 64, 64, 3, 32
METHODS = ("vanilla", "rrtn", "rrtn-ruwl")


@pytest.fixture(autouse=True)
def _without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "dropout", lambda x, *_, **__: x)


def narrow(name: str, *, n_mels: int) -> PannsCnn:
    return PannsCnn(n_mels, channels=(4, 8, 16), pooled_blocks=3)


def config_for(
    method: str,
    *,
    mode: str = "learned",
    precision: str = "fp32",
    compile: str = "off",
    targets: int = K,
    classes: int = 0,
) -> Config:
    names = tuple(f"Type={i}" for i in range(classes))
    labels = DataConfig(
        targets=("Awe", "Fear", "Joy")[:targets], class_targets=("Type",) if classes else (), classes=names
    )
    return Config(
        precision=precision,
        compile=compile,
        data=labels,
        model=ModelConfig(method=method),
        projector=ProjectorConfig() if method == "vanilla" else ProjectorConfig(units=P),
        ruwl=RuwlConfig(mode=mode),
    )


def loss_module(method: str, **settings: Any) -> TwinsLoss:
    """The same weights for all methods that share the architecture, of a narrow encoder."""
    config = config_for(method, **settings)
    with mock.patch.object(model, "encoder_from_name", narrow):
        return loss_from_config(config, network_from_config(config))


def batch(method: str) -> tuple[Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(B, 1, T, M, generator=generator) * 15 - 50
    augmented = clean.clone()
    augmented[:, :, 10:20] = -50
    return clean, None if method == "vanilla" else augmented, torch.rand(B, K, generator=generator)


def double_batch(method: str) -> tuple[Tensor, Tensor | None, Tensor]:
    clean, augmented, ratings = batch(method)
    return clean.double(), None if augmented is None else augmented.double(), ratings.double()


def written_out(module: TwinsLoss, clean: Tensor, augmented: Tensor, ratings: Tensor) -> list[Tensor]:
    """The three terms, from the network's parts."""
    network = module.network
    embedding, embedding_a = network.encoder(clean), network.encoder(augmented)
    scores, scores_a = (
        torch.sigmoid(F.linear(e, network.head.weight, network.head.bias)) for e in (embedding, embedding_a)
    )
    z, z_a = (F.linear(e, network.projector.weight, network.projector.bias) for e in (embedding, embedding_a))
    bt = bt_loss(cross_correlation(z, z_a), off_diagonal=0.001)
    return [ccc_loss(scores, ratings), ccc_loss(scores_a, ratings), bt]


def network_gradients(module: TwinsLoss, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.network.parameters())))


def test_rrtn_is_the_terms_under_the_first_weights_of_the_paper() -> None:
    module, views = loss_module("rrtn").double(), double_batch("rrtn")
    terms, loss = module(*views)
    expected = written_out(module, *views)
    torch.testing.assert_close(terms, torch.stack(expected), rtol=1e-12, atol=0)
    total = expected[0] + expected[1] + 1e-4 * expected[2]
    assert loss.item() == pytest.approx(total.item(), rel=1e-7)  # c is float32
    gradients = network_gradients(module, loss)
    torch.testing.assert_close(gradients, network_gradients(module, total), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("mode", ["learned", "fixed"])
def test_ruwl_adds_the_restraint_and_the_regulariser(mode: str) -> None:
    """Eqs. 5 and 6 at c = (1, 1, 0.01)."""
    module, views = loss_module("rrtn-ruwl", mode=mode).double(), double_batch("rrtn-ruwl")
    terms, loss = module(*views)
    ccc, ccc_a, bt = (term.item() for term in written_out(module, *views))
    c = torch.tensor([1, 1, 0.01], dtype=torch.float64)
    expected = abs(2 - 2.01) + ccc + ccc_a + 1e-4 * bt + torch.log(1 + c**2).sum().item()
    assert terms.tolist() == pytest.approx([ccc, ccc_a, bt], rel=1e-12)
    assert loss.item() == pytest.approx(expected, rel=1e-7)


def test_vanilla_is_the_ccc_of_one_view() -> None:
    module, views = loss_module("vanilla").double(), double_batch("vanilla")
    terms, loss = module(*views)
    assert module.network.encoder.bn0.num_batches_tracked == 1
    scores = torch.sigmoid(
        F.linear(module.network.encoder(views[0]), module.network.head.weight, module.network.head.bias)
    )
    expected = ccc_loss(scores, views[2]).item()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert terms.tolist() == [loss.item(), 0, 0]


def test_batchnorm_sees_each_view_apart() -> None:
    """The running mean moves by a tenth towards the clean view's, then by a tenth towards the
    augmented one's.
    """
    module, views = loss_module("rrtn").double(), double_batch("rrtn")
    module(*views)
    first, second = (view.mean((0, 1, 2)) for view in views[:2])
    torch.testing.assert_close(module.network.encoder.bn0.running_mean, 0.9 * 0.1 * first + 0.1 * second)
    assert module.network.encoder.bn0.num_batches_tracked == 2


@pytest.mark.parametrize("method", METHODS)
def test_terms_are_detached_and_every_weight_has_a_gradient(method: str) -> None:
    module = loss_module(method)
    terms, loss = module(*batch(method))
    loss.backward()
    assert not terms.requires_grad
    assert [
        name for name, p in module.network.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ] == []


def test_c_follows_its_gradient_where_it_is_learned() -> None:
    """d loss / d c = -sign(2 - sum |c|) sign(c) - 2 lambda L / c^3 + 2 c / (1 + c^2), at sum |c| = 2.01."""
    module, views = loss_module("rrtn-ruwl").double(), double_batch("rrtn-ruwl")
    terms, loss = module(*views)
    loss.backward()
    c, lambdas = (torch.tensor(values, dtype=torch.float64) for values in ([1, 1, 0.01], [1, 1, 1e-8]))
    torch.testing.assert_close(
        module.weighting.c.grad, 1 - 2 * lambdas * terms / c**3 + 2 * c / (1 + c**2), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("method", "mode"), [("vanilla", "learned"), ("rrtn", "learned"), ("rrtn-ruwl", "fixed")]
)
def test_c_has_no_gradient_elsewhere(method: str, mode: str) -> None:
    module = loss_module(method, mode=mode)
    module(*batch(method))[1].backward()
    assert not module.weighting.c.requires_grad
    assert module.weighting.c.grad is None


def test_fixed_ruwl_has_the_gradients_of_rrtn() -> None:
    """What it adds is constant; at (1, 1, 0.01) the first step of learned RUWL has them, too."""
    expected = None
    for method, mode in (("rrtn", "learned"), ("rrtn-ruwl", "fixed"), ("rrtn-ruwl", "learned")):
        module = loss_module(method, mode=mode).double()
        gradients = network_gradients(module, module(*double_batch(method))[1])
        expected = expected or gradients
        torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-15)


def noting_dtypes(
    noted: dict[str, torch.dtype], name: str, function: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    def wrapped(x: Tensor, *others: Tensor, **settings: float) -> Tensor:
        noted[name] = x.dtype
        return function(x, *others, **settings)

    return wrapped


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_under_half_precision_the_passes_have_it_and_all_behind_them_float32(precision: str) -> None:
    module, noted = loss_module("rrtn-ruwl", precision=precision), {}
    module.network.encoder.conv_block3.register_forward_hook(
        lambda _, __, out: noted.update(encoder=out.dtype)
    )
    module.network.projector.register_forward_hook(lambda _, __, out: noted.update(projector=out.dtype))
    module.network.head.register_forward_hook(
        lambda _, inputs, out: noted.update(embedding=inputs[0].dtype, scores=out.dtype)
    )
    functions = {"ccc_loss": ccc_loss, "cross_correlation": cross_correlation, "bt_loss": bt_loss}
    wrapped = {
        name: noting_dtypes(noted, f"input of {name}", function) for name, function in functions.items()
    }
    with mock.patch.multiple(twins, **wrapped):
        terms, loss = module(*batch("rrtn-ruwl"))
    loss.backward()
    passes = {noted.pop(name) for name in ("encoder", "projector")}
    assert passes == {HALF.get(precision, torch.float32)}
    assert len(noted) == 5
    assert set(noted.values()) == {torch.float32}
    assert {terms.dtype, loss.dtype, *(p.grad.dtype for p in module.parameters())} == {torch.float32}


@pytest.mark.parametrize("method", METHODS)
def test_bf16_is_near_float32(method: str) -> None:
    """Within 5%: an embedding has 8 bits then, and six clips are few. Not the same: rounded it was."""
    (terms, loss), (half_terms, half_loss) = (
        loss_module(method, precision=precision)(*batch(method)) for precision in ("fp32", "bf16")
    )
    assert half_loss.dtype == torch.float32
    assert half_loss.item() != loss.item()
    assert half_loss.item() == pytest.approx(loss.item(), rel=0.05)
    torch.testing.assert_close(half_terms, terms, rtol=0.05, atol=0)


def test_head_is_sigmoid_or_open() -> None:
    networks = {}
    for activation in ("sigmoid", "linear"):
        config = Config(head=HeadConfig(activation=activation), data=DataConfig(targets=("Awe", "Fear")))
        networks[activation] = network_from_config(config).eval()
    with torch.no_grad():
        scores = {name: network(batch("vanilla")[0])[0] for name, network in networks.items()}
    head = networks["linear"].head
    with torch.no_grad():
        embedding = networks["linear"].encoder(batch("vanilla")[0])
    torch.testing.assert_close(scores["linear"], embedding @ head.weight.T + head.bias)
    torch.testing.assert_close(scores["sigmoid"], 1 / (1 + torch.exp(-scores["linear"])))


@pytest.mark.parametrize(
    ("layers", "units", "parameters"),
    [
        (1, 2048, 512 * 2048 + 2048),  # the paper's: a bias, no BatchNorm
        (1, 10, 512 * 10 + 10),
        (2, 64, 512 * 64 + 2 * 64 + 64 * 64),
        (3, 8192, 512 * 8192 + 2 * (2 * 8192) + 2 * 8192 * 8192),  # as facebookresearch/barlowtwins
    ],
)
def test_projector_has_the_parameters_of_its_layers(layers: int, units: int, parameters: int) -> None:
    with torch.device("meta"):
        network = TwinsNetwork(
            "resnet18", n_mels=M, n_targets=K, projector_layers=layers, projector_units=units
        )
        assert network.project(torch.empty(B, 512)).shape == (B, units)
    assert network.parameter_counts()["projector"] == parameters


def test_projector_layers_have_batchnorm_and_relu_between_them() -> None:
    network = TwinsNetwork("resnet18", n_mels=M, n_targets=K, projector_layers=3, projector_units=16).double()
    embedding = torch.randn(B, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    linears = [child for child in network.projector if isinstance(child, nn.Linear)]
    x = embedding
    for linear in linears[:-1]:
        x = x @ linear.weight.T
        x = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()).clamp(min=0)
    torch.testing.assert_close(network.project(embedding), x @ linears[-1].weight.T)


def test_vanilla_has_no_projector() -> None:
    assert loss_module("vanilla").network.parameter_counts()["projector"] == 0


class TestInOneBatch:
    """Both views as one batch, as a compiled step takes them."""

    @pytest.mark.parametrize("classes", [0, 4])
    def test_terms_gradients_and_statistics_are_those_of_two_passes(self, classes: int) -> None:
        views = with_classes("rrtn-ruwl", K) if classes else double_batch("rrtn-ruwl")
        found = []
        for compile_ in ("off", "default"):
            module = loss_module("rrtn-ruwl", compile=compile_, classes=classes).double()
            terms, loss = module(*views)
            found.append([terms, loss.detach(), *network_gradients(module, loss), *module.network.buffers()])
        assert module.in_one_batch
        for came, expected in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(came, expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.filterwarnings(
        "ignore:.*torch.jit.script_method:DeprecationWarning",
        "ignore:.*should not be instantiated:DeprecationWarning",  # of an autograd function, by dynamo
    )
    @pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
    def test_compiled_gradients_are_the_eager_ones(self, precision: str) -> None:
        found = []
        for is_compiled in (False, True):
            module = loss_module("rrtn-ruwl", compile="default", precision=precision)
            function = torch.compile(module, backend="aot_eager", fullgraph=True) if is_compiled else module
            _, loss = function(*batch("rrtn-ruwl"))
            found.append([loss.detach(), *network_gradients(module, loss)])
        for came, expected in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(
                came, expected, rtol=1e-3, atol=1e-8 + 1e-4 * float(expected.abs().max())
            )

    def test_a_vanilla_model_has_one_view(self) -> None:
        module = loss_module("vanilla", compile="default")
        assert not module.in_one_batch
        assert not any(isinstance(part, BatchNormPerView) for part in module.modules())

    def test_the_tensors_of_a_checkpoint_have_their_names_and_forms(self) -> None:
        forms = [
            {name: value.shape for name, value in loss_module("rrtn", compile=mode).state_dict().items()}
            for mode in ("off", "default")
        ]
        assert list(forms[0].items()) == list(forms[1].items())


def with_classes(method: str, targets: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """The batch with `targets` of its ratings, and the number of one of four classes."""
    clean, augmented, ratings = double_batch(method)
    classes = torch.tensor([0, 3, 1, float("nan"), 2, 1], dtype=torch.float64)
    return clean, augmented, torch.hstack([ratings[:, :targets], classes[:, None]])


@pytest.mark.parametrize("targets", [K, 0])
def test_classes_add_their_cross_entropy_of_both_views_with_a_weight_of_its_own(targets: int) -> None:
    """At c = (1, 1, 0.01, 1), or where there are classes alone (0.01, 1)."""
    module = loss_module("rrtn-ruwl", targets=targets, classes=4).double()
    clean, augmented, labels = with_classes("rrtn-ruwl", targets)
    terms, loss = module(clean, augmented, labels)
    known, network = [0, 1, 2, 4, 5], module.network
    logits = [
        F.linear(network.encoder(x), network.head.weight, network.head.bias)[known, targets:]
        for x in (clean, augmented)
    ]
    ce = sum(F.cross_entropy(part, labels[known, targets].long()) for part in logits).item() / 2
    names = terms_of_config(config_for("rrtn-ruwl", targets=targets, classes=4))
    assert names == ("l_ccc", "l_ccc_a", "l_bt", "l_ce")[0 if targets else 2 :]
    assert dict(zip(names, terms.tolist(), strict=True))["l_ce"] == pytest.approx(ce, rel=1e-9)
    c = torch.tensor([1, 1, 0.01, 1][0 if targets else 2 :], dtype=torch.float64)
    weights = torch.tensor([1, 1, 1e-4, 1][0 if targets else 2 :], dtype=torch.float64)
    expected = (weights * terms).sum() + torch.log(1 + c**2).sum() + abs(len(names) - 1 - c.sum())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("targets", [K, 0])
def test_vanilla_with_classes_is_ccc_and_cross_entropy_of_one_view(targets: int) -> None:
    module = loss_module("vanilla", targets=targets, classes=4).double()
    terms, loss = module(*with_classes("vanilla", targets))
    assert loss.item() == pytest.approx(sum(terms.tolist()), rel=1e-12)
    assert (terms != 0).sum() == (2 if targets else 1)


def test_the_scores_of_a_class_target_are_probabilities_beside_the_ratings() -> None:
    network = loss_module("vanilla", classes=4).network.eval()
    clean = batch("vanilla")[0]
    scores, embedding = network(clean)
    logits = F.linear(embedding, network.head.weight, network.head.bias)
    torch.testing.assert_close(scores[:, :K], torch.sigmoid(logits[:, :K]))
    torch.testing.assert_close(scores[:, K:], logits[:, K:].softmax(1))
