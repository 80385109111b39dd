"""GPT-2 against an independent implementation, with random weights made here."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from lit_cls.errors import UserError
from lit_cls.model import GPTConfig, GPTModel
from lit_cls.model.layers import AttentionMask, MultiHeadAttention, attention
from lit_cls.model.weights import load_weights

CONFIG = GPTConfig(vocab_size=211, context_length=40, emb_dim=24, n_heads=3, n_layers=4)


def hugging_face_gpt2(config: GPTConfig) -> GPT2LMHeadModel:
    """transformers' GPT-2 of the same shape, every parameter random: its own start has zero biases."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_embd=config.emb_dim,
            n_head=config.n_heads,
            n_layer=config.n_layers,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15 + 0.05)
    return model.eval()


@pytest.fixture
def pair(tmp_path) -> tuple[GPT2LMHeadModel, GPTModel]:
    theirs = hugging_face_gpt2(CONFIG)
    theirs.save_pretrained(tmp_path)
    ours = GPTModel(CONFIG)
    load_weights(ours, tmp_path)
    return theirs, ours.eval()


def some_ids(config: GPTConfig = CONFIG, T: int = 17) -> Tensor:
    return torch.randint(config.vocab_size, (3, T), generator=torch.Generator().manual_seed(1))


def test_logits_equal_transformers(pair: tuple[GPT2LMHeadModel, GPTModel]) -> None:
    theirs, ours = pair
    ids = some_ids(T=CONFIG.context_length)  # the whole position table
    with torch.no_grad():
        expected, got = theirs(ids).logits, ours(ids)
    assert expected.std() > 0.1  # the comparison has something to compare
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


def test_gradients_equal_transformers(pair: tuple[GPT2LMHeadModel, GPTModel]) -> None:
    theirs, ours = pair
    ids = some_ids()
    for logits in (theirs(ids).logits, ours(ids)):
        logits[:, :-1].logsumexp(-1).mean().backward()
    block, their_block = ours.trf_blocks[1], theirs.transformer.h[1]
    stacked = torch.cat([getattr(block.att, name).weight.grad for name in ("W_query", "W_key", "W_value")])
    torch.testing.assert_close(stacked.T, their_block.attn.c_attn.weight.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        block.ff.layers[2].weight.grad.T, their_block.mlp.c_proj.weight.grad, atol=1e-6, rtol=1e-4
    )
    torch.testing.assert_close(block.norm2.scale.grad, their_block.ln_2.weight.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(ours.pos_emb.weight.grad, theirs.transformer.wpe.weight.grad, atol=1e-6, rtol=1e-4)
    # Tied with the output layer in both: one gradient from both uses.
    torch.testing.assert_close(ours.tok_emb.weight.grad, theirs.transformer.wte.weight.grad, atol=1e-6, rtol=1e-4)


def test_no_position_sees_what_comes_after_it() -> None:
    torch.manual_seed(2)
    model = GPTModel(CONFIG).eval()
    ids = some_ids()
    changed = ids.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        before, after = model(ids), model(changed)
    torch.testing.assert_close(after[:, :9], before[:, :9])
    assert not torch.allclose(after[:, 9:], before[:, 9:])


def test_no_mask_in_the_state_dict() -> None:
    model = GPTModel(CONFIG)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_initial_weights_have_gpt2s_deviations() -> None:
    torch.manual_seed(3)
    model = GPTModel(GPTConfig(vocab_size=500, context_length=64, emb_dim=128, n_heads=2, n_layers=8))
    residual = 0.02 / (2 * 8) ** 0.5
    assert model.tok_emb.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.trf_blocks[3].att.W_key.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.trf_blocks[3].att.out_proj.weight.std().item() == pytest.approx(residual, rel=0.03)
    assert model.trf_blocks[3].ff.layers[2].weight.std().item() == pytest.approx(residual, rel=0.03)
    assert model.trf_blocks[3].ff.layers[0].bias.abs().max().item() == 0


def test_dropout_works_in_training_alone() -> None:
    torch.manual_seed(4)
    model = GPTModel(GPTConfig(vocab_size=50, context_length=16, emb_dim=12, n_heads=2, n_layers=2, drop_rate=0.5))
    ids = torch.arange(10)[None]
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    torch.testing.assert_close(model(ids), model(ids), atol=0, rtol=0)


def test_a_text_over_the_context_is_refused_with_both_numbers() -> None:
    model = GPTModel(CONFIG)
    with pytest.raises(UserError, match=r"41 tokens exceeds the model's context length of 40.*data.max_length"):
        model(some_ids(T=41))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"emb_dim": 10, "n_heads": 3}, "emb_dim 10 is not a multiple of n_heads 3"),
        ({"drop_rate": 1.0}, r"drop_rate 1.0 is not in \[0, 1\)"),
    ],
)
def test_impossible_shapes_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GPTConfig(**values)


# One position's attention, without keys and values.


def both_ways(
    causal: bool, masked: bool, qkv_bias: bool = True, autocast: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Output and gradients at one position of each row: of that alone, and picked from all."""
    torch.manual_seed(0)
    layer = MultiHeadAttention(24, 3, qkv_bias, 0.0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.4)  # scores far apart, and no bias zero
    at, lengths = torch.tensor([6, 0, 3, 8]), torch.tensor([7, 1, 5, 9])
    keys = (torch.arange(9) < lengths[:, None])[:, None, None, :] if masked else None
    mask, found = AttentionMask(causal, keys), []
    for alone in (True, False):
        x = torch.randn(4, 9, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            seen = x.bfloat16() if autocast else x  # as the block rounds it, once for every product
            y = layer(seen, mask, at) if alone else layer(seen, mask)[torch.arange(4), at][:, None]
        assert y.shape == (4, 1, 24)
        (y.float() * torch.linspace(-1, 1, 24)).sum().backward()
        gradients = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
        found.append({"y": y.detach().float(), "x": x.grad, **gradients})
    assert found[1]["y"].std() > 0.1
    return found[0], found[1]


# A key mask is for networks without the causal one, see `AttentionMask`.
MASKS = [(True, False), (False, False), (False, True)]


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize(("causal", "masked"), MASKS)
def test_attention_at_one_position_equals_that_of_all_positions(causal: bool, masked: bool, qkv_bias: bool) -> None:
    alone, picked = both_ways(causal, masked, qkv_bias)
    assert alone.keys() == picked.keys()
    assert ("W_key.bias" in alone) is qkv_bias
    for name, tensor in picked.items():
        if name == "W_key.bias":  # it moves every score of a row alike, which softmax takes out
            assert max(tensor.abs().max(), alone[name].abs().max()) < 1e-5
            continue
        assert tensor.abs().max() > 0.01, name
        torch.testing.assert_close(alone[name], tensor, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("causal", "masked"), MASKS)
def test_attention_at_one_position_in_bfloat16(causal: bool, masked: bool) -> None:
    """As near to the float32 figures as the plain way in bfloat16 is, but for a factor."""
    exact, _ = both_ways(causal, masked)
    alone, picked = both_ways(causal, masked, autocast=True)
    assert alone.keys() == picked.keys() == exact.keys()
    for name, tensor in exact.items():
        if name == "W_key.bias":
            assert alone[name].abs().max() < 0.1
            continue
        off = [(found[name] - tensor).norm() / tensor.norm() for found in (alone, picked)]
        assert off[0] < 0.03, name
        assert off[0] < 3 * off[1] + 0.002, name


def test_nothing_hidden_is_seen_at_one_position() -> None:
    torch.manual_seed(0)
    layer = MultiHeadAttention(24, 3, True, 0.0)
    x, at = torch.randn(2, 6, 24), torch.tensor([3, 1])
    keys = (torch.arange(6) < torch.tensor([[4], [2]]))[:, None, None, :]
    for mask in (AttentionMask(True), AttentionMask(False, keys)):
        before = layer(x, mask, at)
        changed = x.clone()
        changed[0, 4:], changed[1, 2:] = 9.0, -9.0
        assert torch.equal(layer(changed, mask, at), before)
        changed[1, 0] += 1
        assert not torch.allclose(layer(changed, mask, at)[1], before[1], atol=1e-3)


# Attention in bfloat16 on a processor, by plain products.


@pytest.mark.parametrize(("causal", "masked"), MASKS)
@pytest.mark.parametrize("T", [1, 9])
def test_plain_products_equal_torchs_attention(T: int, causal: bool, masked: bool) -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([9, 3, 1])
    mask = (torch.arange(T) < lengths[:, None])[:, None, None, :] if masked else None
    exact = [torch.randn(3, 2, T, 8, requires_grad=True) for _ in range(3)]
    rounded = [t.detach().bfloat16().requires_grad_() for t in exact]
    for tensors, reference in ((rounded, F.scaled_dot_product_attention), (exact, None)):
        y = attention(*tensors, mask, causal)
        expected = F.scaled_dot_product_attention(*(t.float() for t in tensors), attn_mask=mask, is_causal=causal)
        close = {"atol": 0.03, "rtol": 0.03} if reference else {"atol": 1e-6, "rtol": 1e-5}
        torch.testing.assert_close(y.float(), expected, **close)
        found = torch.autograd.grad(y.float().square().sum(), tensors)
        for got, wanted in zip(found, torch.autograd.grad(expected.square().sum(), tensors), strict=True):
            torch.testing.assert_close(got.float(), wanted.float(), atol=close["atol"] * 8, rtol=close["rtol"] * 2)


@pytest.mark.parametrize(("dtype", "plain"), [(torch.bfloat16, 512), (torch.float32, 0)])
def test_which_attention_runs(dtype: torch.dtype, plain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain products up to a number of tokens and without dropout; torch's, which keeps no scores, else."""
    calls: list[int] = []
    torchs = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a: calls.append(a[0].shape[2]) or torchs(*a))
    for T in (512, 513):
        attention(*(torch.randn(1, 1, T, 4, dtype=dtype) for _ in range(3)), None, True)
    assert calls == [T for T in (512, 513) if plain < T]
    calls.clear()
    attention(*(torch.randn(1, 1, 7, 4, dtype=dtype) for _ in range(3)), None, True, 0.5)
    assert calls == [7]
