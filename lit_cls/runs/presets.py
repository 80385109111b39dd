"""Named sets of settings, with less precedence than options and --config, and more than the defaults."""

from typing import Any, Literal

Preset = Literal["published"]

PRESETS: dict[Preset, dict[str, Any]] = {
    # The settings that all rows of the published table share (rasbt/LLMs-from-scratch,
    # ch06/02_bonus_additional-experiments). Each value is stated, so that the table stays the same when a default
    # changes; except the precision, which depends on the device (the published figures are in float32).
    "published": {
        "seed_everything": 123,
        "keep": "last",  # nothing is selected: the last epoch is tested
        "data.split": "ch06",  # the published split, row for row
        "data.padding": "longest_in_train",  # 120 tokens
        "data.batch_size": 8,
        "model.size": "gpt2-small",
        "model.weights": "pretrained",
        "model.token_position": "last",  # position 119: for most texts a pad
        "model.trainable_layers": "last_block",
        "model.causal": True,
        "model.drop_rate": 0.0,
        "model.learning_rate": 5e-5,
        "model.weight_decay": 0.1,
        "trainer.max_epochs": 5,
        "trainer.accumulate_grad_batches": 1,
    },
}
