"""Convolutions, layers that were trained whole and biases of norms: outputs are those of peft."""

import copy

import pytest

import zklora
from conftest import ROOT

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
nn = torch.nn

CASES = ROOT / "fixtures" / "peft"
INPUTS = {
    "embed_tokens": lambda: torch.randint(0, 31, (2, 3)),
    "conv1": lambda: torch.randn(2, 16, 4),
    "conv2": lambda: torch.randn(2, 4, 6, 5),
    "pointwise": lambda: torch.randn(1, 6, 2, 2),
    "grouped": lambda: torch.randn(2, 12, 4),
    "q": lambda: torch.randn(3, 16),
    "norm": lambda: torch.randn(3, 12),
    "head": lambda: torch.randn(3, 12),
}


class Toy(nn.Module):
    """The model of fixtures/make/peft_layers.py."""

    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(31, 16)
        self.conv1 = nn.Conv1d(16, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.pointwise = nn.Conv2d(6, 8, 1)
        self.grouped = nn.Conv1d(12, 9, 3, padding=1, groups=3)
        self.q = nn.Linear(16, 12)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 7)

    def forward(self, inputs):
        return {name: self.get_submodule(name)(x) for name, x in inputs.items()}


def toy(case):
    from safetensors.torch import load_file

    model = Toy().eval()
    model.load_state_dict(load_file(CASES / case / "base" / "model.safetensors"))
    return model


@pytest.mark.parametrize(
    "case",
    [
        "convolutions_lora",
        "convolutions_dora",
        "convolutions_loha",
        "convolutions_lokr",
        "bias_all",
    ],
)
def test_outputs_are_those_of_peft(case, tmp_path):
    import peft

    base = toy(case)
    reference = peft.PeftModel.from_pretrained(copy.deepcopy(base), CASES / case).eval()
    inputs = {name: x() for name, x in INPUTS.items()}
    with (
        zklora.LocalContributor(
            CASES / case, CASES / case / "base", tmp_path / "contributor"
        ) as contributor,
        torch.no_grad(),
    ):
        expected, alone = reference.base_model.model(inputs), base(inputs)
        with zklora.remote_lora(base, [contributor], base_folder=CASES / case / "base") as remote:
            ours = base(inputs)
    assert all(report["verified"] for report in remote.reports)
    changed = 0
    for name, value in expected.items():
        assert ours[name].shape == value.shape
        difference = (value - alone[name]).abs().max()
        changed += bool(difference > 0)
        assert (ours[name] - value).abs().max() <= 2e-3 * max(difference, 1e-9), name
    assert changed == len(remote.reports[0]["rows"])


def test_patches_are_those_of_unfold():
    for layer, x in [
        (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0)), torch.randn(2, 3, 7, 5)),
        (nn.Conv2d(3, 4, 3, padding="same"), torch.randn(2, 3, 7, 5)),
        (nn.Conv2d(4, 4, 2, padding="same", groups=2), torch.randn(2, 4, 3, 5)),
    ]:
        rows = zklora.layer_rows(layer, x)
        weight = torch.zeros(4, x.shape[1], *layer.kernel_size)
        own = layer.in_channels // layer.groups
        for out in range(4):
            first = out // (4 // layer.groups) * own
            weight[out, first : first + own] = layer.weight[out]
        output = (rows @ weight.flatten(1).T + layer.bias).movedim(-1, 1)
        assert torch.allclose(output, layer(x), atol=1e-5)
        assert torch.equal(zklora.layer_rows(layer, x[0]), rows[0])
    with pytest.raises(zklora.InputError, match="dimensions"):
        zklora.layer_rows(nn.Conv2d(3, 4, 1), torch.randn(3))
    with pytest.raises(zklora.InputError, match="the layer is a Conv1d with dilation"):
        zklora.layer_rows(nn.Conv1d(3, 4, 2, dilation=2), torch.randn(3, 9))
    x = torch.randn(2, 3)
    assert zklora.layer_rows(nn.Linear(3, 4), x) is x


def test_a_convolution_whose_patches_are_not_known_is_refused(tmp_path):
    case = "convolutions_lora"
    with zklora.LocalContributor(CASES / case, CASES / case / "base", tmp_path) as contributor:
        for change in [{"dilation": 2, "padding": 2}, {"padding_mode": "circular", "padding": 1}]:
            base = toy(case)
            base.conv1 = nn.Conv1d(16, 12, 3, **change)
            with pytest.raises(zklora.InputError, match="`conv1` is a Conv1d with dilation"):
                zklora.remote_lora(base, [contributor], allow_other_base=True).__enter__()


@pytest.mark.filterwarnings("ignore:left out")
def test_what_is_left_out_is_in_manifest_and_verdict(tmp_path):
    case = CASES / "modules_to_save"
    with pytest.warns(UserWarning, match="left out.*head.weight"):
        names = zklora.export_adapter(case, tmp_path / "onnx")
    assert names == ["q"]
    artifacts = zklora.compile(tmp_path / "onnx", tmp_path / "artifacts")
    manifest = zklora.Manifest.load(tmp_path / "artifacts" / "public")
    whole = ["embed_tokens.weight", "head.bias", "head.weight", "norm.bias", "norm.weight"]
    assert manifest.left_out == whole
    rows = {"q": torch.randn(2, 16)}
    trace = zklora.record(artifacts, rows)
    verdict = zklora.verify(
        manifest, trace, zklora.prove(artifacts, trace), artifacts.adapter_id, activations=rows
    )
    assert verdict.left_out == tuple(whole)
    base = case / "base"
    assert zklora.export_adapter(case, tmp_path / "both", base, lora_only=True) == names
    with pytest.warns(UserWarning, match="norm.weight"):
        assert len(zklora.export_adapter(case, tmp_path / "all", base)) == 4


@pytest.mark.filterwarnings("ignore:left out")
def test_new_tokens_change_a_tied_output_layer_too(tmp_path):
    import peft
    import transformers

    case = CASES / "tied_tokens"
    base = transformers.AutoModelForCausalLM.from_pretrained(case / "base").eval()
    reference = peft.PeftModel.from_pretrained(copy.deepcopy(base), case).eval()
    ids = torch.tensor([[1, 5, 2, 30, 7]])
    with (
        zklora.LocalContributor(case, case / "base", tmp_path) as contributor,
        torch.no_grad(),
    ):
        expected, alone = reference(ids).logits, base(ids).logits
        with zklora.remote_lora(base, [contributor], base_folder=case / "base"):
            ours = base(ids).logits
    difference = (expected - alone).abs().max()
    assert (ours - expected).abs().max() <= 2e-3 * difference


@pytest.mark.parametrize("reads", [["layer"], ["layer", "base"]])
def test_the_input_of_a_norm_is_not_sent(reads):
    from types import SimpleNamespace

    from zklora import _layers

    slot = SimpleNamespace(name="norm")
    module = SimpleNamespace(
        reads=reads, inputs=[(of, 12) for of in reads], d_out=12, applies_to="output"
    )
    with pytest.raises(zklora.InputError, match="adapters are for linear layers, convolutions"):
        _layers.check_fit(slot, nn.LayerNorm(12), module)
    module.reads, module.inputs = ["base"], [("base", 12)]
    _layers.check_fit(slot, nn.LayerNorm(12), module)
