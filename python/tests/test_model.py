"""Hugging Face models with remote adapters: same numbers as peft, and models are restored."""

import copy
import gc
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import zklora
from conftest import ADAPTERS, BASES, Q_PROJ, TEXT, with_peft

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


def loss(model, tokenizer, text=TEXT):
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        return model(ids, labels=ids).loss.item()


def test_the_scripts_of_the_original(contributor, tokenizer, tmp_path, ignore_unchecked):
    client = zklora.BaseModelClient(
        BASES / "tiny-llama",
        contributor.host,
        contributor.port,
        "add_delta",
        expected_adapters=[contributor.adapter_id],
        session_dir=tmp_path,
    )
    base = client.forward_loss(TEXT)
    client.init_and_patch()
    layer = client.model.get_submodule(Q_PROJ)
    assert (
        isinstance(layer, zklora.RemoteLoRAWrappedModule)
        and layer.comm is client.comms[0]
        and layer.sub_name == Q_PROJ
    )
    ours, theirs = client.forward_loss(TEXT), loss(with_peft("llama_qv_r4"), tokenizer)
    assert ours == pytest.approx(theirs, rel=1e-3) and abs(base - theirs) > 0.01
    (report,) = client.end_inference()
    assert report["verified"] and report["pinned"]
    seconds, count = zklora.batch_verify_proofs(
        tmp_path, client.transcript, [contributor.adapter_id]
    )
    assert count == 1 and seconds > 0
    client.unpatch()
    assert client.forward_loss(TEXT) == base


@pytest.mark.parametrize(
    "adapter, base",
    [
        ("llama_all_linear_r8", "tiny-llama"),
        ("llama_dora_r4", "tiny-llama"),
        ("llama_ia3", "tiny-llama"),
        ("llama_lokr_both_r2", "tiny-llama"),
        ("gpt2_c_attn_r4", "tiny-gpt2"),
        ("gpt2_all_r8_rslora_patterns", "tiny-gpt2"),
        ("gpt2_lora_bias", "tiny-gpt2"),
        ("gpt2_wte_embedding_r4", "tiny-gpt2"),
        ("gpt2_dora_r4", "tiny-gpt2"),
    ],
)
def test_logits_are_those_of_peft(adapter, base, tmp_path):
    import transformers

    reference = with_peft(adapter, base)
    model = transformers.AutoModelForCausalLM.from_pretrained(BASES / base).eval()
    ids = torch.tensor([[72, 65, 84, 3, 200, 17, 9, 9]])
    with (
        zklora.LocalContributor(
            ADAPTERS / adapter, BASES / base, tmp_path / "contributor"
        ) as contributor,
        torch.no_grad(),
    ):
        alone = model(ids).logits
        with zklora.remote_lora(model, [contributor], base_folder=BASES / base) as remote:
            adapted = model(ids).logits
        expected = reference(ids).logits
        effect = (expected - alone).norm()
        assert (adapted - expected).norm() < 0.01 * effect
        assert torch.equal(model(ids).logits, alone)
        assert remote.reports[0]["verified"]


def test_generation_with_and_without_a_cache_batches_and_padding(contributor, model, tokenizer):
    reference = with_peft("llama_qv_r4")
    tokenizer.pad_token_id, tokenizer.padding_side = 0, "left"
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    batch = tokenizer(["let x", "fn main() { println"], return_tensors="pt", padding=True)
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    with zklora.remote_lora(model, [contributor]) as remote:
        for use_cache in (True, False):
            ours, theirs = (
                one.generate(**given, **options, use_cache=use_cache) for one in (model, reference)
            )
            assert torch.equal(ours, theirs)
        rows = sum(remote.comms[0].session.trace().rows.values())
        sampled = model.generate(**given, max_new_tokens=3, num_beams=3, pad_token_id=0)
        assert sampled.shape[0] == 2
    assert remote.reports[0]["verified"] and rows > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(contributor, tokenizer, dtype):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        BASES / "tiny-llama", dtype=dtype
    ).eval()
    theirs = loss(with_peft("llama_qv_r4", dtype=dtype), tokenizer)
    with zklora.remote_lora(model, [contributor]):
        ids = tokenizer(TEXT, return_tensors="pt").input_ids
        with torch.no_grad():
            out = model(ids, labels=ids)
        assert out.logits.dtype == dtype
        assert out.loss.item() == pytest.approx(theirs, rel=5e-3)


def test_two_contributors_on_the_same_layers_add_up(
    contributor, other_contributor, model, tokenizer, tmp_path
):
    import peft

    reference = with_peft("llama_qv_r4")
    reference.load_adapter(ADAPTERS / "llama_all_linear_r8", adapter_name="second")
    # Activates both; loading the second one only made it trainable.
    reference.base_model.set_adapter(["default", "second"])
    pins = [contributor.adapter_id, other_contributor.adapter_id]
    parties = [(one.host, one.port) for one in (contributor, other_contributor)]
    with zklora.remote_lora(model, parties, expected_adapters=pins, session_dir=tmp_path) as remote:
        assert loss(model, tokenizer) == pytest.approx(loss(reference, tokenizer), rel=1e-3)
    assert [report["adapter_id"] for report in remote.reports] == pins
    assert zklora.batch_verify_proofs(tmp_path, tmp_path, pins)[1] == 2
    with pytest.raises(zklora.VerificationError, match="which is not pinned"):
        zklora.batch_verify_proofs(tmp_path, tmp_path, pins[:1])
    with pytest.raises(zklora.InputError, match="1 expected adapters for 2"):
        zklora.remote_lora(model, parties, expected_adapters=pins[:1])
    assert peft


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modules_that_read_the_same_tensor_travel_together(
    other_contributor, model, tokenizer, mode
):
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    layers = len(model.model.layers)
    with zklora.remote_lora(model, [other_contributor]) as remote, mode():
        session = remote.comms[0].session
        model(ids)
        # 7 messages for the first layer; for the others q k v, o, gate up, down.
        first = session.statistics()
        assert first["calls"] == 7 + 4 * (layers - 1)
        model(tokenizer("fn main() {}", return_tensors="pt").input_ids)
        assert session.statistics()["calls"] == first["calls"] + 4 * layers
        assert set(session.trace().rows) == {module.name for module in session.manifest.modules}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_place_changes_between_two_calls_are_noticed(contributor, model, mode):
    v_proj = Q_PROJ.replace("q_proj", "v_proj")
    with zklora.remote_lora(model, [contributor]), mode():
        q, v = model.get_submodule(Q_PROJ), model.get_submodule(v_proj)
        x = torch.randn(3, 64)
        q(x), v(x)
        q(x)
        before = v(x)
        q(x)
        x.mul_(2)
        assert torch.allclose(v(x), 2 * before, rtol=1e-3, atol=1e-4)


def test_inference_mode(contributor, model, tokenizer):
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with zklora.remote_lora(model, [contributor]):
        with torch.no_grad():
            expected = model(ids).logits
        with torch.inference_mode():
            assert torch.equal(model(ids).logits, expected)


def test_threads_that_share_a_session_get_their_own_deltas(contributor, model, tokenizer):
    texts = [TEXT, "fn main() {}", "two threads", TEXT]
    each = [tokenizer(text, return_tensors="pt").input_ids for text in texts]
    with zklora.remote_lora(model, [contributor]) as remote:

        def logits(ids):
            with torch.no_grad():
                return model(ids).logits

        with ThreadPoolExecutor(len(each)) as pool:
            together = list(pool.map(logits, each))
        rows = remote.comms[0].session.rows
        for ids, of_thread in zip(each, together):
            assert torch.equal(logits(ids), of_thread)
        assert remote.comms[0].session.rows == rows
    assert remote.reports[0]["verified"]


def test_forward_with_gradients_works_and_backward_says_why_not(contributor, model, tokenizer):
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with zklora.remote_lora(model, [contributor]):
        out = model(ids, labels=ids)
        with pytest.raises(zklora.InputError, match="no gradient"):
            out.loss.backward()


def test_a_patched_model_keeps_its_names_and_can_be_moved(contributor, model):
    names = list(model.state_dict())
    with zklora.remote_lora(model, [contributor]):
        assert list(model.state_dict()) == names
        assert model.get_submodule(Q_PROJ).weight.shape == (64, 64)
        assert model.get_submodule(Q_PROJ).in_features == 64
        model.to(torch.float64).train().eval()
        with torch.no_grad():
            assert model(torch.tensor([[1, 2]])).logits.dtype == torch.float64
        assert "add_delta" in repr(model)
        with pytest.raises(TypeError, match="Session|pickle"):
            copy.deepcopy(model)
    assert list(model.state_dict()) == names
    assert not any(isinstance(layer, zklora.RemoteLoRAWrappedModule) for layer in model.modules())


def test_edits_of_the_patched_model_are_left_alone(contributor, model, caplog):
    q_proj, attention = model.get_submodule(Q_PROJ), model.model.layers[0].self_attn
    with zklora.remote_lora(model, [contributor]):
        with torch.no_grad():
            model.get_submodule(Q_PROJ).weight.zero_()
        mine = attention.v_proj = torch.nn.Linear(64, 32)
        del model.model.layers[1]
        with torch.no_grad():
            model(torch.tensor([[1, 2]]))
    assert attention.q_proj is q_proj and not q_proj.weight.any()
    assert attention.v_proj is mine and "was replaced while it was patched" in caplog.text


def test_a_model_that_the_adapter_does_not_fit_is_left_as_it_was(
    contributor, other_contributor, model
):
    del model.model.layers[0].mlp.down_proj
    for parties, why in [
        ([other_contributor], "1 of .* are not in the model"),
        ([contributor, other_contributor], "down_proj"),
    ]:
        with pytest.raises(zklora.InputError, match=why):
            with zklora.remote_lora(model, parties):
                pass
        assert not any(
            isinstance(layer, zklora.RemoteLoRAWrappedModule) for layer in model.modules()
        )
    model.model.layers[1].self_attn.v_proj = torch.nn.Linear(32, 32)
    with pytest.raises(zklora.InputError, match="32 x 32 features"):
        with zklora.remote_lora(model, [contributor]):
            pass


def test_another_base_model_is_refused(contributor, model, tmp_path):
    model.model.norm.weight.data += 1
    model.save_pretrained(tmp_path)
    with pytest.raises(zklora.InputError, match="fingerprint"):
        with zklora.remote_lora(model, [contributor], base_folder=tmp_path):
            pass
    with zklora.remote_lora(model, [contributor], base_folder=tmp_path, allow_other_base=True):
        pass


def test_a_wrong_device_or_dtype_or_shape_is_an_error_that_names_the_layer(contributor, model):
    with zklora.remote_lora(model, [contributor]):
        layer = model.get_submodule(Q_PROJ)
        for x, why in [
            (torch.zeros(2, 64, device="meta"), "device `meta`"),
            (torch.zeros(2, 64, dtype=torch.int64), "expected floating-point numbers"),
            (torch.zeros(2, 64, dtype=torch.complex64), "torch.complex64"),
            (torch.full((2, 64), float("nan")), "finite"),
            (torch.zeros(2, 63), "expected 64 features"),
            ([1.0], "called with list"),
        ]:
            with pytest.raises(zklora.InputError, match=why) as error, torch.no_grad():
                layer(x)
            assert Q_PROJ in str(error.value)
        with torch.no_grad():
            assert layer(torch.zeros(0, 64)).shape == (0, 64)
            assert layer(torch.ones(64, dtype=torch.float32)).shape == (64,)


def test_an_exception_in_the_middle_of_forward_restores_the_model_and_the_session_stays(
    contributor, model, tokenizer, tmp_path
):
    alone = loss(model, tokenizer)

    def fail(*_):
        raise LookupError("in the middle")

    hook = model.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(LookupError, match="in the middle"):
        with zklora.remote_lora(model, [contributor], session_dir=tmp_path):
            loss(model, tokenizer)
    hook.remove()
    assert loss(model, tokenizer) == alone
    # The record remains: a session in the same folder resumes from it, and all of it is proven.
    with zklora.remote_lora(model, [contributor], session_dir=tmp_path) as remote:
        loss(model, tokenizer)
        assert remote.comms[0].session.statistics()["rows_reused"] > 0
    assert remote.reports[0]["verified"]


def test_a_server_that_goes_away_in_the_middle_of_forward(model, tokenizer, tmp_path):
    alone = loss(model, tokenizer)
    contributor = zklora.LocalContributor(
        ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", tmp_path / "contributor"
    )
    own = zklora.Contributor(contributor.url, contributor.adapter_id, patience=0, timeout=2)
    model.model.layers[0].mlp.register_forward_hook(lambda *_: contributor.close())
    with pytest.raises(zklora.NetworkError):
        with zklora.remote_lora(model, [own]):
            loss(model, tokenizer)
    contributor.close()
    assert loss(model, tokenizer) == alone


def test_model_session_and_server_are_collected_in_any_order(model, tokenizer, tmp_path):
    contributor = zklora.LocalContributor(
        ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", tmp_path / "contributor"
    )
    remote = zklora.remote_lora(model, [contributor])
    remote.__enter__()
    loss(model, tokenizer)
    del remote
    gc.collect()
    loss(model, tokenizer)
    del model
    gc.collect()
    contributor.close()


def test_two_clients_in_threads(contributor, tokenizer, tmp_path):
    import transformers

    theirs, failures = loss(with_peft("llama_qv_r4"), tokenizer), []

    def run(name):
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(BASES / "tiny-llama").eval()
            with zklora.remote_lora(model, [contributor], session_dir=tmp_path / name) as remote:
                for _ in range(5):
                    assert loss(model, tokenizer) == pytest.approx(theirs, rel=1e-3)
            assert remote.reports[0]["verified"]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)


def test_one_model_in_two_threads(contributor, model, tokenizer):
    theirs, failures = loss(with_peft("llama_qv_r4"), tokenizer), []

    def run():
        try:
            for _ in range(5):
                assert loss(model, tokenizer) == pytest.approx(theirs, rel=1e-3)
        except BaseException as error:
            failures.append(error)

    with zklora.remote_lora(model, [contributor]):
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures


def test_arrays_of_torch_and_numpy_are_the_same(contributor, comm):
    x = torch.randn(2, 3, 64, dtype=torch.bfloat16)
    delta = comm.lora_forward(Q_PROJ, x)
    assert delta.shape == (2, 3, 64) and np.array_equal(
        delta, comm.lora_forward(Q_PROJ, x.float().numpy())
    )
    assert np.array_equal(delta, comm.lora_forward(Q_PROJ, x.tolist()))


def test_a_wrong_guess_is_made_once(other_contributor, model):
    attention = model.model.layers[0].self_attn
    with zklora.remote_lora(model, [other_contributor]) as remote, torch.no_grad():
        session = remote.comms[0].session

        def rows(name):
            return session.trace().rows.get(f"model.layers.0.self_attn.{name}", 0)

        x, y, z = torch.randn(3, 3, 64)
        attention.q_proj(x), attention.k_proj(x)
        assert (rows("q_proj"), rows("k_proj")) == (3, 3)
        # Now k is sent with q; it is not used, so it is not sent with q again.
        attention.q_proj(y)
        attention.q_proj(z)
        assert (rows("q_proj"), rows("k_proj")) == (9, 6)
        attention.q_proj(2 * x), attention.k_proj(2 * x)
        attention.q_proj(2 * y)
        assert (rows("q_proj"), rows("k_proj")) == (15, 9)


# Patching twice, out of order, and with interruptions.


def wrapped_layers(model):
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, zklora.RemoteLoRAWrappedModule)
    ]


def test_patching_twice_adds_the_deltas_once(contributor, tokenizer, tmp_path, ignore_unchecked):
    client = zklora.BaseModelClient(
        BASES / "tiny-llama",
        contributors=[contributor],
        combine_mode="add_delta",
        session_dir=tmp_path,
    )
    base = client.forward_loss(TEXT)
    client.init_and_patch()
    once = client.forward_loss(TEXT)
    client.init_and_patch()
    assert client.forward_loss(TEXT) == once != base
    # Another way of patching is refused.
    with pytest.raises(zklora.InputError, match="q_proj` already has the deltas of"):
        zklora.patching.Patches(client.model).add(client.comms[0], "add_delta")
    client.unpatch()
    assert client.forward_loss(TEXT) == base and not wrapped_layers(client.model)
    client.init_and_patch()
    assert client.forward_loss(TEXT) == once
    client.unpatch()
    assert client.end_inference()[0]["verified"]


def test_a_context_is_not_entered_twice_at_once(contributor, model):
    ids = torch.tensor([[1, 2, 3]])
    remote = zklora.remote_lora(model, [contributor])
    with torch.no_grad():
        base = model(ids).logits
        with remote:
            adapted = model(ids).logits
            with pytest.raises(zklora.InputError, match="already entered"):
                remote.__enter__()
            assert torch.equal(model(ids).logits, adapted)
        assert torch.equal(model(ids).logits, base)
    assert remote.reports[0]["verified"]


@pytest.mark.parametrize("failed", [None, ValueError()])
def test_contexts_may_be_left_in_any_order(contributor, other_contributor, model, failed):
    ids = torch.tensor([[1, 2, 3]])
    before = {name: id(module) for name, module in model.named_modules()}
    first, second, third = (
        zklora.remote_lora(model, [one]) for one in (contributor, other_contributor, contributor)
    )
    with torch.no_grad():
        base = model(ids).logits
        with second:
            alone = model(ids).logits
        second = zklora.remote_lora(model, [other_contributor])
        for one in (first, second, third):
            one.__enter__()
        model(ids)
        forgotten = model.get_submodule(Q_PROJ).local_sub.local_sub
        assert forgotten.comm is first.comms[0]
        first.__exit__(type(failed), failed, None)
        third.__exit__(None, None, None)
        assert torch.equal(model(ids).logits, alone)
        second.__exit__(None, None, None)
        assert torch.equal(model(ids).logits, base)
        # A wrapper that other code still refers to sends nothing.
        x = torch.ones(1, 64)
        assert torch.equal(forgotten(x), model.get_submodule(Q_PROJ)(x))
    assert {name: id(module) for name, module in model.named_modules()} == before
    assert second.reports[0]["verified"] and third.reports[0]["verified"]


def test_two_threads_patch_one_model(contributor, model):
    ids, failures = torch.tensor([[1, 2, 3]]), []
    with torch.no_grad():
        base = model(ids).logits

    def work():
        for _ in range(3):
            try:
                with torch.no_grad(), zklora.remote_lora(model, [contributor]) as remote:
                    model(ids)
                assert remote.reports[0]["verified"]
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and not wrapped_layers(model)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, base)


def test_layers_that_were_never_called_are_named(contributor, model, caplog):
    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model.model

        def forward(self, x):
            layer = self.model.layers[0].self_attn.q_proj
            return torch.nn.functional.linear(x, layer.weight) if x.ndim == 3 else layer(x)

    around, x = Around(), torch.ones(2, 64)
    with torch.no_grad():
        with zklora.remote_lora(around, [contributor]):
            around(x[None])
        assert re.search(
            r"(\d+) of \1 adapted layers were never called, such as "
            r"`model.layers.0.self_attn.q_proj`",
            caplog.text,
        )
        caplog.clear()
        with zklora.remote_lora(around, [contributor]):
            around(x)
    assert re.search(
        r"adapted layers were never called, such as `model.layers.0.self_attn.v_proj`", caplog.text
    )


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_model_is_restored_if_patching_was_interrupted(contributor, model, monkeypatch, when):
    from zklora import _layers

    put = _layers.LayerSlot.put

    def interrupted(place, layer):
        wraps = isinstance(layer, zklora.RemoteLoRAWrappedModule)
        if not wraps or when == "after":
            put(place, layer)
        if wraps:
            raise KeyboardInterrupt

    before = {name: id(module) for name, module in model.named_modules()}
    monkeypatch.setattr(_layers.LayerSlot, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        with zklora.remote_lora(model, [contributor]):
            pass
    assert {name: id(module) for name, module in model.named_modules()} == before
