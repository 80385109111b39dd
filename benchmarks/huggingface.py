"""The same task by transformers (and peft), set up as an experienced user would for speed.

`GPT2ForSequenceClassification` with fused attention, the fused tanh-GELU (its default is written out
in single operations), bfloat16 autocast, a fused AdamW over what trains, and, where no pad is read,
batches of similar length padded to their longest text. `tests/test_benchmarks.py` checks that it is
the same network: same logits in float32, same parameters that train.

Two things differ by the library's design: its head has no bias, and with LoRA, query, key and value
share one adapter and the head, trained whole, has none.

Shapes: B batch, T tokens, K classes.
"""

import math
from collections.abc import Iterator

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2ForSequenceClassification, logging

from benchmarks.published import LORA_ALPHA, LORA_RANK
from benchmarks.tasks import Task, Timing, measure
from lit_cls.model.backbones.gpt2 import to_hub_names

PREDICTION_BATCH = 32
_GROUP = 50  # batches among which texts are sorted by length, the most that transformers' own sampler takes


def run(task: Task, max_steps: int | None = None, max_predictions: int | None = None) -> Timing:
    """Trains on `task.train_ids`, then classifies `task.predict_ids`; no evaluation in between.

    Args:
        task: texts, weights and settings.
        max_steps: optimizer steps to time, after two that are not; None times the whole training.
        max_predictions: texts to classify, evenly spaced among all; None for all of them.

    Returns:
        Times in seconds, losses of the timed steps, correct predictions.
    """
    # It would ask for the attention mask that `pad` does without.
    logging.set_verbosity_error()
    model = build(task).to("cuda" if torch.cuda.is_available() else "cpu")
    return measure(
        task,
        training_steps(model, task),
        task.epochs * math.ceil(len(task.train_ids) / task.batch_size),
        lambda texts: predict(model, task, texts),
        max_steps,
        max_predictions,
    )


def build(task: Task) -> nn.Module:
    """The model with the task's weights, frozen but for what the task trains; on the CPU."""
    torch.manual_seed(task.seed)  # for LoRA's A
    config = GPT2Config(
        vocab_size=len(task.state["tok_emb.weight"]),
        n_positions=len(task.state["pos_emb.weight"]),
        n_embd=task.emb_dim,
        n_head=task.n_heads,
        n_layer=task.n_layers,
        num_labels=len(task.state["out_head.weight"]),
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        pad_token_id=task.pad_id,
        bos_token_id=task.pad_id,
        eos_token_id=task.pad_id,
        attn_implementation="sdpa",
    )
    model = GPT2ForSequenceClassification(config)
    if task.token_position == "last":
        # The rightmost id that is not this one is read: one that never occurs, so that pads are read too.
        model.config.pad_token_id = -1
    model.load_state_dict(to_hub_names({n: t for n, t in task.state.items() if n != "out_head.bias"}))

    model.requires_grad_(task.trainable_layers == "all")
    model.score.requires_grad_(True)
    if task.trainable_layers == "last_block":
        model.transformer.h[-1].requires_grad_(True)
        model.transformer.ln_f.requires_grad_(True)
    elif task.trainable_layers == "lora":
        lora = LoraConfig(
            r=LORA_RANK,
            lora_alpha=LORA_ALPHA * LORA_RANK,  # peft divides by the rank
            target_modules=["c_attn", "c_proj", "c_fc"],
            modules_to_save=["score"],
            fan_in_fan_out=True,  # GPT-2's Conv1D stores (in, out)
        )
        return get_peft_model(model, lora)
    return model


def training_batches(task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids (B, T) and labels (B,) of every step, in a new order each epoch, the last batch included."""
    generator = torch.Generator().manual_seed(task.seed)
    n_texts, group = len(task.train_ids), _GROUP * task.batch_size
    lengths = [len(ids) for ids in task.train_ids]
    for _ in range(task.epochs):
        rows: list[int] = torch.randperm(n_texts, generator=generator).tolist()
        if task.token_position == "flexible":
            groups = [sorted(rows[i : i + group], key=lengths.__getitem__) for i in range(0, n_texts, group)]
            rows = [row for group_rows in groups for row in group_rows]
        batches = [rows[i : i + task.batch_size] for i in range(0, n_texts, task.batch_size)]
        for i in torch.randperm(len(batches), generator=generator).tolist():
            yield (
                pad([task.train_ids[r] for r in batches[i]], task),
                torch.tensor([task.train_labels[r] for r in batches[i]]),
            )


def pad(texts: list[list[int]], task: Task) -> Tensor:
    """Right-pads texts, to `task.pad_to` where pads are read, else to the longest: (B, T).

    Neither needs an attention mask: in the first case pads are seen, in the second the causal mask
    hides them, and without one the faster causal attention is used.
    """
    texts = [ids[: task.pad_to] for ids in texts]
    T = task.pad_to if task.token_position == "last" else max(map(len, texts))
    return torch.tensor([ids + [task.pad_id] * (T - len(ids)) for ids in texts])


def training_steps(model: nn.Module, task: Task, autocast: bool = True) -> Iterator[Tensor]:
    """Does one optimizer step for each item asked for; yields its loss."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = trained[0].device
    optimizer = torch.optim.AdamW(trained, lr=task.learning_rate, weight_decay=task.weight_decay, fused=True)
    model.train()
    for ids, labels in training_batches(task):
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = model(input_ids=ids.to(device), labels=labels.to(device)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.detach()


@torch.inference_mode()
def predict(model: nn.Module, task: Task, texts: list[list[int]], autocast: bool = True) -> Tensor:
    """Class ids of texts, (n,), in the order given."""
    device = next(model.parameters()).device
    model.eval()
    rows = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # similar lengths together, for fewer pads
    answers = []
    for start in range(0, len(rows), PREDICTION_BATCH):
        ids = pad([texts[row] for row in rows[start : start + PREDICTION_BATCH]], task)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            answers.append(model(input_ids=ids.to(device)).logits.argmax(dim=-1))  # (B,)
    in_order = torch.empty(len(rows), dtype=torch.int64)
    in_order[rows] = torch.cat(answers).cpu()
    return in_order
