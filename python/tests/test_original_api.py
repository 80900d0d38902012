"""Code that was written for the original ZKLoRA, with doubles in place of a contributor."""

import types
from unittest.mock import Mock, patch

import pytest

import zklora
from zklora.base_model_user_mpi import BaseModelClient, BaseModelToLoRAComm
from zklora.lora_contributor_mpi import AServerTCP, LoRAServer, LoRAServerSocket
from zklora.zk_proof_generator import batch_verify_proofs

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


class Doubled(torch.nn.Module):
    def forward(self, x):
        return x * 2


class SmallModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = Doubled(), Doubled()

    def forward(self, input_ids, labels=None):
        return types.SimpleNamespace(loss=torch.tensor(0.5))


class PlusOne(BaseModelToLoRAComm):
    def __init__(self, name):
        super().__init__("127.0.0.1", 0)
        self.name, self.ended = name, False

    def init_request(self):
        return [self.name]

    def lora_forward(self, sub_name, arr):
        return arr + 1

    def end_inference(self):
        self.ended = True
        return {"ok": True}


@pytest.fixture
def client():
    with patch("transformers.AutoModelForCausalLM.from_pretrained", return_value=SmallModel()):
        with patch(
            "transformers.AutoTokenizer.from_pretrained",
            return_value=lambda text, return_tensors: {"input_ids": torch.tensor([[1]])},
        ):
            return BaseModelClient("any", contributors=[("h1", 1), ("h2", 2)])


def test_modules_names_and_defaults():
    from zklora.base_model_user_mpi import RemoteLoRAWrappedModule

    assert RemoteLoRAWrappedModule is zklora.RemoteLoRAWrappedModule
    assert (
        LoRAServerSocket is AServerTCP
        and zklora.LoRAServer is LoRAServer
        and zklora.batch_verify_proofs is batch_verify_proofs
    )
    comm = BaseModelToLoRAComm()
    assert (comm.host_a, comm.port_a) == ("127.0.0.1", 30000)
    server, stop = Mock(), Mock()
    thread = LoRAServerSocket("127.0.0.1", 30000, server, stop)
    assert (thread.host, thread.port, thread.lora_server, thread.stop_event) == (
        "127.0.0.1",
        30000,
        server,
        stop,
    )


def test_contributors_are_patched_each_with_its_comm(client):
    assert [(comm.host_a, comm.port_a) for comm in client.comms] == [("h1", 1), ("h2", 2)]
    assert client.combine_mode == "replace"
    client.comms = [PlusOne("one"), PlusOne("two")]
    client.init_and_patch()
    assert client.model.one.comm is client.comms[0] and client.model.two.comm is client.comms[1]
    assert torch.equal(client.model.one(torch.ones(1, 3)), 2 * torch.ones(1, 3))
    assert client.forward_loss("text") == 0.5
    client.end_inference()
    assert all(comm.ended for comm in client.comms)


@pytest.mark.parametrize("mode, expected", [("replace", 2.0), ("add_delta", 4.0)])
def test_modes(mode, expected):
    layer = zklora.RemoteLoRAWrappedModule("one", Doubled(), PlusOne("one"), mode)
    assert torch.equal(layer(torch.ones(2, 3)), torch.full((2, 3), expected))


def test_a_mode_that_is_none_and_a_contributor_without_an_answer():
    with pytest.raises(zklora.InputError, match="combine_mode"):
        zklora.RemoteLoRAWrappedModule("one", Doubled(), PlusOne("one"), "add")
    silent = Mock()
    silent.lora_forward.return_value = None
    with pytest.raises(RuntimeError, match="no output from A"):
        zklora.RemoteLoRAWrappedModule("one", Doubled(), silent)(torch.ones(2))


def test_a_contributor_that_also_gets_what_the_layer_puts_out():
    comm = Mock()
    comm.lora_forward_with_base.side_effect = lambda name, arr, base: (arr + base).tolist()
    layer = zklora.RemoteLoRAWrappedModule("one", Doubled(), comm, "add_delta", True)
    assert torch.equal(layer(torch.ones(2, 3)), torch.full((2, 3), 5.0))
    comm.lora_forward.assert_not_called()


def test_a_module_that_is_not_in_the_model(client):
    client.comms = [PlusOne("three.four")]
    with pytest.raises(zklora.InputError, match="three.four"):
        client.init_and_patch()
