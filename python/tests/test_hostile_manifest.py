"""Names of a manifest are looked up only among the model's submodules."""

import random
import re

import pytest

import zklora
from conftest import Q_PROJ
from hostile import SCALE, SCALE_OF_OUTPUT, HostileContributor, nothing_was_sent

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from zklora import _layers  # noqa: E402
from zklora.patching import Patches  # noqa: E402
from zklora.wrapped import ParameterMemory  # noqa: E402

ATTACK = "secret.__class__.__mro__.1.__matmul__"

HOSTILE = [
    "",
    ".",
    "..",
    "__class__",
    "__dict__",
    "__init__.__globals__",
    "_modules",
    "_modules.model",
    "_parameters",
    "config",
    "forward",
    "generation_config",
    "model.",
    ".model",
    "model..layers",
    "model.layers.-1.self_attn.q_proj",
    "model.layers.00.self_attn.q_proj",
    "model.layers.\u0660.self_attn.q_proj",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.q_proj.weight.data",
    "model.layers.0.self_attn.q_proj.forward",
    "model.layers.0.self_attn.q_proj._parameters.weight",
    "model.layers.0.self_attn.q_proj.__class__.forward",
    "model.layers.__class__.__mro__.1.__call__",
    "model.layers.append",
    "lm_head.weight.__class__.__mro__.1.__matmul__",
    ATTACK,
]


class Named(zklora.BaseModelToLoRAComm):
    """A contributor with modules of these names."""

    def __init__(self, *names):
        super().__init__()
        self.names = names

    def init_request(self):
        return list(self.names)

    def lora_forward(self, sub_name, arr):
        raise AssertionError("something was sent")


class Private(nn.Module):
    """A model with a private parameter."""

    def __init__(self, features=128):
        super().__init__()
        self.secret = nn.Parameter(torch.randn(features, features))
        self.first, self.second = nn.Linear(features, features), nn.Linear(features, features)

    def forward(self, x):
        return self.second(self.first(x) @ self.secret)


def classes():
    """The attributes of the classes that a hostile name could reach."""
    return [
        dict(vars(one))
        for one in (torch.Tensor, torch.Tensor.__mro__[1], nn.Module, nn.Linear, nn.ModuleList)
    ]


def tree(model):
    return {name: id(module) for name, module in model.named_modules(remove_duplicate=False)}


@pytest.fixture(autouse=True)
def untouched():
    """Checks that no test changes the classes of torch."""
    before = classes()
    yield
    # (transformers adds a method when it loads the first model.)
    for own, now in zip(before, classes()):
        assert not [name for name, value in own.items() if now.get(name) is not value]


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(*names, **options):
        started.append(HostileContributor(tmp_path / f"hostile-{len(started)}", names, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()
        assert not one.rows()


@pytest.mark.parametrize(
    "name",
    [ATTACK, "_parameters.secret", "first.weight", "first.forward", "first.__class__.forward"],
)
def test_a_pinned_adapter_that_names_an_attribute_gets_nothing(serve, tmp_path, name):
    hostile, model = serve(name), Private()
    before = tree(model)
    with pytest.raises(
        zklora.InputError, match="1 of 1 modules of the adapter are not in the model"
    ):
        with zklora.remote_lora(model, [hostile.contributor], session_dir=tmp_path / "session"):
            model(torch.randn(2, 128))
    assert tree(model) == before and nothing_was_sent(tmp_path / "session")
    model(torch.randn(2, 128))
    assert nothing_was_sent(tmp_path / "session")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_submodule_is_not_found(model, name):
    before = tree(model)
    with pytest.raises(zklora.InputError, match="are not in the model"):
        Patches(model).add(Named(name), "add_delta")
    # A valid name before it changes nothing, either.
    with pytest.raises(
        zklora.InputError, match="1 of 2 modules of the adapter are not in the model"
    ):
        Patches(model).add(Named(Q_PROJ, name), "add_delta")
    assert tree(model) == before


def test_a_name_is_found_exactly_if_named_modules_has_it(model):
    model.tied = model.model.layers[0].self_attn
    names = dict(model.named_modules(remove_duplicate=False))
    assert "tied.q_proj" in names
    for name, module in names.items():
        assert name == "" or _layers.find_slot(model, name).layer is module
    parts = sorted({part for name in names for part in name.split(".")})
    parts += [
        "__class__",
        "__dict__",
        "_modules",
        "_parameters",
        "weight",
        "forward",
        "0",
        "-1",
        "data",
        "",
        "T",
        "__getitem__",
    ]
    draw = random.Random(13)
    for _ in range(3000):
        base = draw.choice(sorted(names)).split(".")
        base[draw.randrange(len(base)) :] = draw.choices(parts, k=draw.randrange(1, 4))
        name = ".".join(base)
        assert (_layers.find_slot(model, name) is not None) == (name in names and name != ""), name


def test_names_that_are_no_text_are_not_found(model):
    for name in [None, 0, b"lm_head", ("lm_head",), 1.5]:
        with pytest.raises(zklora.InputError, match="are not in the model"):
            Patches(model).add(Named(name), "add_delta")


def test_the_old_way_to_navigate_finds_submodules_only(model):
    client = zklora.BaseModelClient.__new__(zklora.BaseModelClient)
    assert client._navigate(model, Q_PROJ.split(".")) is model.get_submodule(Q_PROJ)
    for parts in [["__class__"], ["model", "layers", "-1"], ["lm_head", "weight"]]:
        with pytest.raises(zklora.InputError, match="is not a submodule"):
            client._navigate(model, parts)


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "model.layers",
        "model.layers.0",
        "model.layers.0.self_attn",
        "model.norm",
        "model.layers.0.mlp.act_fn",
    ],
)
def test_what_is_neither_linear_nor_an_embedding_is_not_adapted(serve, model, tmp_path, name):
    hostile, before = serve(name), tree(model)
    with pytest.raises(zklora.InputError, match="adapters are for linear layers, convolutions"):
        with zklora.remote_lora(model, [hostile.contributor], session_dir=tmp_path / "session"):
            model(torch.tensor([[1, 2]]))
    assert tree(model) == before and nothing_was_sent(tmp_path / "session")


def test_a_loss_is_not_adapted(serve, tmp_path):
    hostile, model = serve("loss"), Private()
    model.loss = nn.MSELoss()
    with pytest.raises(zklora.InputError, match="`loss` is a MSELoss"):
        with zklora.remote_lora(model, [hostile.contributor], session_dir=tmp_path / "session"):
            pass


def test_features_have_to_be_those_of_the_layer(serve, model, tmp_path):
    for name, source, why in [
        (Q_PROJ, SCALE, "64 x 64 features"),
        (Q_PROJ, SCALE_OF_OUTPUT, "64 x 64 features"),
        ("model.embed_tokens", SCALE, "features"),
        # With input and output exchanged it would fit.
        ("model.layers.0.mlp.up_proj", SCALE, "128 x 64 features"),
    ]:
        hostile = serve(name, source=source)
        with pytest.raises(zklora.InputError, match=why):
            with zklora.remote_lora(
                model, [hostile.contributor], session_dir=tmp_path / f"session-{name}-{source}"
            ):
                pass


def test_token_ids_are_not_changed(serve, tmp_path):
    model = nn.Sequential(nn.Embedding(128, 8))
    with pytest.raises(zklora.InputError, match="8 x 128 features"):
        with zklora.remote_lora(model, [serve("0").contributor], session_dir=tmp_path / "session"):
            pass


def test_a_parametrization_is_not_adapted(serve, tmp_path):
    hostile, model = serve("first.parametrizations.weight.0"), Private()
    nn.utils.parametrize.register_parametrization(model.first, "weight", nn.Linear(128, 128))
    with pytest.raises(zklora.InputError, match="part of a parametrization"):
        with zklora.remote_lora(model, [hostile.contributor], session_dir=tmp_path / "session"):
            model(torch.randn(2, 128))
    assert nothing_was_sent(tmp_path / "session")


class Adapted(nn.Linear):
    """A layer that calls its inner layers with its parameters, as peft's layers do."""

    def __init__(self, features=128):
        super().__init__(features, features)
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        for inner in (self.lora_A, self.lora_B):
            inner["default"] = nn.Linear(features, features, bias=False)
            nn.init.normal_(inner["default"].weight)

    def forward(self, x):
        norm = self.lora_B["default"](self.lora_A["default"](torch.eye(self.in_features))).norm()
        return super().forward(x) * norm


class Holder(nn.Module):
    """The same for a layer without a known number of features."""

    def __init__(self):
        super().__init__()
        self.base_layer, self.lora_B = nn.Conv1d(128, 128, 1), nn.Linear(128, 128)


@pytest.mark.parametrize(
    "name", ["first.lora_A.default", "first.lora_B.default", "second.lora_B", "second.base_layer"]
)
def test_what_is_inside_of_a_layer_is_not_adapted(serve, tmp_path, name):
    hostile, model = serve(name), Private()
    model.first, model.second = Adapted(), Holder()
    before = tree(model)
    with pytest.raises(
        zklora.InputError, match=r"is inside of layer `(first|second)` \((Adapted|Holder)\)"
    ):
        with zklora.remote_lora(model, [hostile.contributor], session_dir=tmp_path / "session"):
            model.first(torch.randn(2, 128))
    with pytest.raises(zklora.InputError, match=r"is inside of the model itself"):
        with zklora.remote_lora(
            model.first, [serve("lora_B.default").contributor], session_dir=tmp_path / "itself"
        ):
            pass
    assert tree(model) == before and nothing_was_sent(tmp_path)


def test_what_is_inside_of_a_layer_that_is_wrapped_already_is_not_adapted(serve, tmp_path):
    model = Private()
    model.first = Adapted()
    contributors = [serve(name).contributor for name in ("first", "first.lora_B.default")]
    with pytest.raises(zklora.InputError, match="is inside of layer `first`"):
        with zklora.remote_lora(model, contributors, session_dir=tmp_path / "session"):
            pass
    assert type(model.first) is Adapted


def test_what_is_inside_of_a_layer_of_peft_is_not_adapted(serve, model, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=64, use_dora=True, target_modules=["q_proj"], init_lora_weights=False
    )
    model = peft.get_peft_model(model, config).eval()
    for at, inner in enumerate(["lora_A.default", "lora_B.default", "base_layer"]):
        hostile = serve(f"base_model.model.{Q_PROJ}.{inner}", adapter="llama_qv_r4", source=Q_PROJ)
        with pytest.raises(
            zklora.InputError,
            match=r"is inside of layer `base_model.model.{0}` \(Linear\)".format(re.escape(Q_PROJ)),
        ):
            with (
                zklora.remote_lora(
                    model, [hostile.contributor], session_dir=tmp_path / f"session-{at}"
                ),
                torch.no_grad(),
            ):
                model(torch.tensor([[5]]))
        assert nothing_was_sent(tmp_path / f"session-{at}")


@pytest.mark.parametrize(
    "view", [lambda p: p, lambda p: p.data, lambda p: p.detach()[:2], lambda p: p.view(-1, 128)]
)
def test_a_parameter_that_a_layer_is_called_with_is_not_sent(serve, tmp_path, view):
    hostile, model = serve("first"), Private()
    with (
        zklora.remote_lora(model, [hostile.contributor], session_dir=tmp_path / "session"),
        torch.no_grad(),
    ):
        model.to(torch.float64).to(torch.float32)
        with pytest.raises(
            zklora.InputError, match="called with a parameter of the model or a buffer"
        ):
            model.first(view(model.secret))
        assert nothing_was_sent(tmp_path / "session")


class Table(nn.Module):
    """A model whose layer is called with a view of its parameter or buffer."""

    def __init__(self, read):
        super().__init__()
        self.table, self.fc, self.read = (
            nn.Parameter(torch.randn(8, 128)),
            nn.Linear(128, 128),
            read,
        )
        self.register_buffer("bank", torch.randn(4, 128))

    def forward(self):
        return self.fc(self.read(self))


VIEWS = {
    "part": lambda m: m.table[:4],
    "row": lambda m: m.table.data[1:2],
    "buffer": lambda m: m.bank,
    "part of the buffer": lambda m: m.bank[2:],
    "repeated": lambda m: m.table[None].expand(2, 8, 128),
    "numpy": lambda m: torch.from_numpy(m.table.detach().numpy()),
    "the end, by numpy": lambda m: torch.from_numpy(m.table.detach().numpy()[1:]),
    "another type": lambda m: m.table.view(torch.int32).view(torch.float32),
}


def moved(model):
    model.table.data = model.table.data.clone()


CHANGES = {
    "none": lambda model: None,
    "assigned": lambda model: model.load_state_dict(
        {k: v.clone() for k, v in model.state_dict().items()}, assign=True
    ),
    "data": moved,
    "another": lambda model: setattr(model, "table", nn.Parameter(torch.randn(8, 128))),
    "another buffer": lambda model: setattr(model, "bank", torch.randn(4, 128)),
    "to": lambda model: model.to(torch.float64).to(torch.float32),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_view_of_a_parameter_or_buffer_is_sent_whatever_happened_to_it(serve, tmp_path, change):
    hostile, model = serve("fc"), Table(None)
    with (
        zklora.remote_lora(model, [hostile.contributor], session_dir=tmp_path / "session"),
        torch.no_grad(),
    ):
        for name, view in VIEWS.items():
            model.read = view
            for _ in range(2):
                with pytest.raises(
                    zklora.InputError, match="called with a parameter of the model or a buffer"
                ):
                    model()
                CHANGES[change](model)
        assert nothing_was_sent(tmp_path / "session")


def test_an_output_that_is_a_parameter_is_not_sent(serve, tmp_path):
    class Layer(nn.Linear):
        def forward(self, x):
            return self.weight[: x.shape[0]]

    hostile = serve("first", adapter="llama_dora_r4", source=Q_PROJ)
    assert hostile.artifacts.modules[0].reads == ["layer", "base"]
    model = Private(64)
    model.first = Layer(64, 64)
    with (
        zklora.remote_lora(model, [hostile.contributor], session_dir=tmp_path / "session"),
        torch.no_grad(),
    ):
        with pytest.raises(zklora.InputError, match="outputs a parameter of the model or a buffer"):
            model.first(torch.randn(2, 64))
        assert nothing_was_sent(tmp_path / "session")


def test_ids_of_a_buffer_are_what_an_embedding_may_be_called_with():
    model = nn.Module()
    model.register_buffer("position_ids", torch.arange(8)[None])
    model.register_buffer("bank", torch.randn(8))
    own = ParameterMemory(model)
    assert not own.contains(model.position_ids[:, :4]) and own.contains(model.bank[3:])
    # Another tensor beside it in memory is not part of it.
    assert not own.contains(torch.randn(8)) and not own.contains(torch.empty(0))


def test_a_scripted_model_is_refused_and_a_scripted_part_does_no_harm(serve, tmp_path):
    scripted = torch.jit.script(nn.Sequential(nn.Linear(128, 128)))
    with pytest.raises(zklora.InputError, match="are not in the model"):
        with zklora.remote_lora(
            scripted, [serve("0").contributor], session_dir=tmp_path / "session"
        ):
            pass
    model = Private()
    model.part = scripted
    own = ParameterMemory(model)
    assert (
        own.contains(next(scripted.parameters()).data)
        and own.contains(model.secret.data)
        and not own.contains(torch.ones(4))
    )


def test_two_names_of_one_layer_are_refused_and_one_of_them_is_fine(serve, tmp_path):
    model = Private()
    model.alias = model.first
    with pytest.raises(zklora.InputError, match="`first` and `alias` are the same layer"):
        with zklora.remote_lora(
            model, [serve("first", "alias").contributor], session_dir=tmp_path / "both"
        ):
            pass
    first, remote = (
        model.first,
        zklora.remote_lora(model, [serve("alias").contributor], session_dir=tmp_path / "one"),
    )
    with remote:
        assert isinstance(model.alias, zklora.RemoteLoRAWrappedModule) and model.first is first
    assert model.alias is first


def test_a_name_of_a_manifest_forges_no_line(serve):
    name = "first\u202e\u2028Verdict ACCEPTED"
    with pytest.raises(zklora.InputError) as error:
        with zklora.remote_lora(Private(), [serve(name).contributor]):
            pass
    assert str(error.value).isprintable() and "\\u{202e}\\u{2028}Verdict" in str(error.value)


def test_a_layer_of_transformers_and_one_that_has_features_are_adapted():
    import transformers

    assert _layers.features(transformers.pytorch_utils.Conv1D(6, 4)) == (4, 6)
    assert _layers.features(nn.Linear(4, 6)) == (4, 6) and _layers.features(nn.Embedding(4, 6)) == (
        4,
        6,
    )
    assert _layers.features(nn.Conv2d(4, 6, (3, 2))) == (24, 6)
    # Of a norm, only the bias has a delta: see `check_fit`.
    assert _layers.features(nn.LayerNorm(4)) == (4, 4)
    quantised = nn.Module()
    quantised.in_features, quantised.out_features = 4, 6
    assert _layers.features(quantised) == (4, 6)
    for other in [
        nn.ModuleList(),
        nn.Sequential(),
        nn.LayerNorm((4, 4)),
        nn.GroupNorm(2, 4),
        nn.ConvTranspose1d(4, 6, 3),
        nn.Bilinear(4, 4, 4),
        nn.ReLU(),
        nn.Module(),
    ]:
        assert _layers.features(other) is None
