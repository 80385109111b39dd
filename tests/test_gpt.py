"""GPT-2 against an independent implementation, with random weights made here."""

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from lit_cls.errors import UserError
from lit_cls.model import GPTConfig, GPTModel
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
