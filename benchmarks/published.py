"""The published algorithm, as plainly as it was published: the contender to be compared with.

It follows rasbt/LLMs-from-scratch, ch06/02_bonus_additional-experiments, in code of our own: explicit
attention behind a stored mask, layer norm and GELU by hand, whole padded sequences through every block,
the head on every position, of which one is picked afterwards; float32 and torch's default AdamW.
`tests/test_benchmarks.py` compares it with `lit_cls`: same logits, same losses step by step.

Shapes: B batch, T tokens, C emb_dim, H heads, D head dim (C = H * D), K classes.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.tasks import Task, Timing, measure

LORA_RANK = 16
LORA_ALPHA = 16  # as published: the factor itself, not divided by the rank
DROP_RATE = 0.0  # the modules are there and do nothing, as published


def run(task: Task, max_steps: int | None = None, max_predictions: int | None = None) -> Timing:
    """Trains on `task.train_ids`, then classifies `task.predict_ids`.

    Only optimizer steps are timed: the published evaluations, every 50 steps and after each epoch, are
    no part of the training and are left out.

    Args:
        task: texts, weights and settings.
        max_steps: optimizer steps to time, after two that are not; None times the whole training.
        max_predictions: texts to classify, evenly spaced among all; None for all of them.

    Returns:
        Times in seconds, losses of the timed steps, correct predictions.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build(task).to(device)
    return measure(
        task,
        training_steps(network, task),
        task.epochs * (len(task.train_ids) // task.batch_size),
        lambda texts: predict(network, task, texts),
        max_steps,
        max_predictions,
    )


class LayerNorm(nn.Module):
    """Normalises the last dimension by its mean and biased variance."""

    def __init__(self, emb_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * (centred / torch.sqrt(variance + 1e-5)) + self.shift


class GELU(nn.Module):
    """GELU by its tanh approximation (Hendrycks and Gimpel, 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class Attention(nn.Module):
    """Causal self-attention in which the scores of all pairs of positions are stored."""

    hidden: Tensor

    def __init__(self, emb_dim: int, n_heads: int, context_length: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.W_query = nn.Linear(emb_dim, emb_dim)
        self.W_key = nn.Linear(emb_dim, emb_dim)
        self.W_value = nn.Linear(emb_dim, emb_dim)
        self.out_proj = nn.Linear(emb_dim, emb_dim)
        self.dropout = nn.Dropout(DROP_RATE)
        above_diagonal = torch.triu(torch.ones(context_length, context_length, dtype=torch.bool), diagonal=1)
        self.register_buffer("hidden", above_diagonal, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        B, T, C = x.shape
        queries, keys, values = (
            projection(x).view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2)  # (B, H, T, D)
            for projection in (self.W_query, self.W_key, self.W_value)
        )
        scores = queries @ keys.transpose(2, 3)  # (B, H, T, T)
        scores.masked_fill_(self.hidden[:T, :T], -torch.inf)
        weights = self.dropout(torch.softmax(scores / math.sqrt(C // self.n_heads), dim=-1))
        context = (weights @ values).transpose(1, 2).reshape(B, T, C)
        return self.out_proj(context)


class FeedForward(nn.Module):
    """Two linear layers around a GELU, four times as wide inside."""

    def __init__(self, emb_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(emb_dim, 4 * emb_dim), GELU(), nn.Linear(4 * emb_dim, emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.layers(x)


class Block(nn.Module):
    """Attention, then the feed-forward network, each after a norm and added to its input."""

    def __init__(self, emb_dim: int, n_heads: int, context_length: int) -> None:
        super().__init__()
        self.att = Attention(emb_dim, n_heads, context_length)
        self.ff = FeedForward(emb_dim)
        self.norm1 = LayerNorm(emb_dim)
        self.norm2 = LayerNorm(emb_dim)
        self.dropout = nn.Dropout(DROP_RATE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.dropout(self.att(self.norm1(x)))
        return x + self.dropout(self.ff(self.norm2(x)))


class Network(nn.Module):
    """GPT-2 with a classification head on every position; parameters are named as in `Task.state`."""

    def __init__(
        self, vocab_size: int, context_length: int, emb_dim: int, n_heads: int, n_layers: int, num_classes: int
    ) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(vocab_size, emb_dim)
        self.pos_emb = nn.Embedding(context_length, emb_dim)
        self.dropout = nn.Dropout(DROP_RATE)
        self.trf_blocks = nn.Sequential(*(Block(emb_dim, n_heads, context_length) for _ in range(n_layers)))
        self.final_norm = LayerNorm(emb_dim)
        self.out_head = nn.Linear(emb_dim, num_classes)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) int64 to (B, T, K) logits."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.dropout(self.tok_emb(input_ids) + self.pos_emb(positions))  # (B, T, C)
        return self.out_head(self.final_norm(self.trf_blocks(x)))


class LinearWithLoRA(nn.Module):
    """A linear layer plus alpha times a product of two thin matrices.

    A is (in, rank), and torch takes the second dimension for the fan-in: its published start is
    uniform within 1/sqrt(rank), wider than that of peft or of `lit_cls`, which is 1/sqrt(in).
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.A = nn.Parameter(torch.empty(linear.in_features, LORA_RANK))
        self.B = nn.Parameter(torch.zeros(LORA_RANK, linear.out_features))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self.linear(x) + LORA_ALPHA * (x @ self.A @ self.B)


def build(task: Task) -> Network:
    """The network with the task's weights, frozen but for what the task trains; on the CPU."""
    torch.manual_seed(task.seed)  # for LoRA's A
    vocab_size, context_length = len(task.state["tok_emb.weight"]), len(task.state["pos_emb.weight"])
    num_classes = len(task.state["out_head.weight"])
    network = Network(vocab_size, context_length, task.emb_dim, task.n_heads, task.n_layers, num_classes)
    network.load_state_dict(task.state)

    network.requires_grad_(task.trainable_layers == "all")
    network.out_head.requires_grad_(True)  # new, and therefore trained whatever else is
    if task.trainable_layers == "last_block":
        network.trf_blocks[-1].requires_grad_(True)
        network.final_norm.requires_grad_(True)
    elif task.trainable_layers == "lora":
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, LinearWithLoRA(child))
    return network


class PaddedTexts(Dataset[tuple[Tensor, Tensor]]):
    """The training texts, all padded to one length beforehand."""

    def __init__(self, task: Task) -> None:
        self.ids = pad(task.train_ids, task)
        self.labels = task.train_labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.ids[row]), torch.tensor(self.labels[row])


def pad(texts: list[list[int]], task: Task) -> list[list[int]]:
    """Cuts or right-pads each text to `task.pad_to` tokens."""
    return [ids[: task.pad_to] + [task.pad_id] * (task.pad_to - len(ids)) for ids in texts]


def training_batches(task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids (B, T) and labels (B,) of every step, shuffled anew each epoch, whole batches only."""
    order = torch.Generator().manual_seed(task.seed)
    loader = DataLoader(PaddedTexts(task), task.batch_size, shuffle=True, drop_last=True, generator=order)
    for _ in range(task.epochs):
        yield from loader


def training_steps(network: Network, task: Task) -> Iterator[Tensor]:
    """Does one optimizer step for each item asked for; yields its loss."""
    device = network.tok_emb.weight.device
    optimizer = torch.optim.AdamW(network.parameters(), lr=task.learning_rate, weight_decay=task.weight_decay)
    network.train()
    for ids, labels in training_batches(task):
        loss = F.cross_entropy(class_logits(network, ids.to(device), task), labels.to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.detach()


def class_logits(network: Network, input_ids: Tensor, task: Task) -> Tensor:
    """(B, T) to (B, K): the head's answer at the position that is read.

    `flexible` counts the ids that are not the pad's, as published: a text that contains the pad's
    id is read too early.
    """
    logits = network(input_ids)  # (B, T, K)
    if task.token_position == "last":
        return logits[:, -1, :]
    last_real = (input_ids != task.pad_id).sum(dim=1) - 1  # (B,)
    return logits[torch.arange(len(logits), device=logits.device), last_real]


@torch.no_grad()
def predict(network: Network, task: Task, texts: list[list[int]]) -> Tensor:
    """Class ids of texts, (n,), in the order given."""
    device = network.tok_emb.weight.device
    network.eval()
    answers = []
    for start in range(0, len(texts), task.batch_size):
        ids = torch.tensor(pad(texts[start : start + task.batch_size], task), device=device)
        answers.append(class_logits(network, ids, task).argmax(dim=-1))
    return torch.cat(answers).cpu()
