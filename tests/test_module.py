"""The training step's arithmetic, the metrics, and what a checkpoint keeps of the network."""

import copy
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import pairwise
from lightning.pytorch import seed_everything
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, SingleDeviceStrategy
from safetensors.torch import save_file
from small_fits import data, module, save, trainer

import lit_cls
from lit_cls.data.batches import EvaluationBatches, TrainingBatches
from lit_cls.errors import UserError
from lit_cls.model import TextClassifier
from lit_cls.model.adapters import LoRA
from lit_cls.model.decision import Decision
from lit_cls.model.settings import ModelSettings
from lit_cls.training.callbacks import CollectPredictions
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import DECISION_KEY, read_checkpoint


def train(
    tmp_path: Path, reviews: str, batch_size: int, fast: bool = True, **options: object
) -> dict[str, torch.Tensor]:
    seed_everything(7, verbose=False)
    trained = module(fast=fast)
    fit = trainer(tmp_path, **options)
    fit.fit(trained, datamodule=data(reviews, batch_size=batch_size, padding="longest_in_train"))
    return dict(trained.net.state_dict())


def assert_same_weights(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        # A key's bias moves every score of a row alike, which softmax ignores: its gradient is
        # rounding, and Adam makes a whole step of it, in either direction.
        if not name.endswith("W_key.bias"):
            torch.testing.assert_close(got[name], tensor, atol=5e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (1, 8), (2, 4)])
def test_accumulation_equals_the_larger_batch(tmp_path: Path, reviews: str, batch_size: int, accumulate: int) -> None:
    """Every example weighs the same, in the last incomplete window too: 76 = 9 * 8 + 4."""
    whole = train(tmp_path, reviews, 8)
    parts = train(tmp_path, reviews, batch_size, accumulate_grad_batches=accumulate)
    assert_same_weights(parts, whole)


LOSS = {"class_weights": {"yes": 3.0}, "label_smoothing": 0.1, "focal_gamma": 1.5}


def skewed(tmp_path: Path) -> str:
    """Two labels, one of them rare: 54 texts train, steps of 8 have 0 to 3 of the rare one, the last step 6 texts."""
    rows = [f"{'poor' if i % 7 else 'good'} film {i},{'no' if i % 7 else 'yes'}" for i in range(77)]
    (tmp_path / "skewed.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return str(tmp_path / "skewed.csv")


def gradient_of_a_step(tmp_path: Path, step: int, batch_size: int, accumulate: int, processes: int) -> torch.Tensor:
    """Of the head's weights, over all batches and processes of one optimizer step."""
    seed_everything(7, verbose=False)
    texts = data(skewed(tmp_path), padding="longest_in_train")
    trained, part = module(**LOSS), texts.splits["train"]
    trained.trainer = trainer(tmp_path, accumulate_grad_batches=accumulate)
    trained.take_labels(texts.label_names)
    trained.weigh_classes(part.label_ids)
    trained.configure_model()
    trained.log = lambda *_, **__: None  # outside of a loop there is nowhere to log to
    dataset, lengths = texts._dataset(part), [len(ids) for ids in part.token_ids]
    for rank in range(processes):
        batches = TrainingBatches(lengths, batch_size, 7, accumulate=accumulate, rank=rank, world_size=processes)
        for planned in list(batches)[step * accumulate : (step + 1) * accumulate]:
            # What Lightning divides by; DDP's mean over processes and the step's own factor cancel.
            (trained.training_step(dataset[planned], 0) / accumulate).backward()
    gradient = trained.net.out_head.weight.grad
    assert gradient is not None
    return gradient


@pytest.mark.parametrize("step", [0, 6])
def test_a_weighted_steps_gradient_does_not_depend_on_how_it_is_cut(tmp_path: Path, step: int) -> None:
    """In the last, incomplete step too; with torch's weighted mean of each batch it would."""
    whole = gradient_of_a_step(tmp_path, step, 8, 1, 1)
    assert whole.abs().max() > 1e-3
    for batch_size, accumulate, processes in ((4, 2, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2)):
        found = gradient_of_a_step(tmp_path, step, batch_size, accumulate, processes)
        torch.testing.assert_close(found, whole, atol=1e-6, rtol=1e-4)


def test_a_weighted_step_is_the_weighted_mean_over_its_examples(tmp_path: Path) -> None:
    """A plain loop again; weights of 3 to 1, that are 1 on average over the 54 texts, 8 of them rare."""
    seed_everything(7, verbose=False)
    path, trained = skewed(tmp_path), module(class_weights={"yes": 3.0}, fast=False)
    fit = trainer(tmp_path)
    fit.fit(trained, datamodule=data(path, batch_size=8, padding="longest_in_train"))
    seed_everything(7, verbose=False)
    texts = data(path, batch_size=8, padding="longest_in_train")
    n_rare, n = sum(texts.splits["train"].label_ids), len(texts.splits["train"].label_ids)
    assert (n_rare, n) == (8, 54)
    weights = torch.tensor([1.0, 3.0]) * n / (n - n_rare + 3 * n_rare)
    net = ModelSettings("gpt2-nano", "random", "flexible", "all").build(2)
    net.fast = False
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.1)
    total = 0.0
    for batch in texts.train_dataloader():
        each = F.cross_entropy(net(batch["input_ids"], batch["lengths"]), batch["labels"], reduction="none")
        loss = (weights[batch["labels"]] * each).sum() / len(each)
        total += loss.item() * len(each)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(trained.net.state_dict()[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    assert fit.callback_metrics["train_loss"].item() == pytest.approx(total / n, rel=1e-4)


def test_the_validation_loss_is_plain_whatever_is_trained(tmp_path: Path, reviews: str) -> None:
    trained, collected = module(**LOSS), CollectPredictions()
    runner = trainer(tmp_path, callbacks=[collected], limit_train_batches=2)
    runner.fit(trained, datamodule=data(reviews))
    [metrics] = runner.validate(trained, datamodule=data(reviews), verbose=False)
    labels = torch.tensor(data(reviews).splits["validation"].label_ids)
    assert metrics["val_loss"] == pytest.approx(F.cross_entropy(collected.logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_weights_of_what_is_no_label_stop_a_training_alone(tmp_path: Path, reviews: str, verb: str) -> None:
    wrong, runner = module(class_weights={"maybe": 2.0}), trainer(tmp_path)
    if verb == "fit":
        with pytest.raises(UserError, match=r"'maybe' is not a label of the data. The labels are 'no', 'yes'"):
            runner.fit(wrong, datamodule=data(reviews))
    else:
        runner.validate(wrong, datamodule=data(reviews), verbose=False)


def test_a_checkpoints_tuning_is_in_the_metrics_and_goes_with_it(tmp_path: Path, reviews: str) -> None:
    """Loss at its temperature, accuracy of its answers; a checkpoint without tuning ends that."""
    trained, collected = module(), CollectPredictions()
    plain = save(tmp_path, trained, data(reviews), limit_train_batches=3)
    decision = Decision(2.0, 1, 0.51, "a test")
    content = {**read_checkpoint(plain), DECISION_KEY: asdict(decision)}
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "tuned.ckpt")
    runner = trainer(tmp_path, callbacks=[collected])
    labels = torch.tensor(data(reviews).splits["test"].label_ids)
    for path, expected in ((tmp_path / "tuned.ckpt", decision), (plain, Decision())):
        [metrics] = runner.test(trained, datamodule=data(reviews), ckpt_path=str(path), verbose=False)
        assert trained.decision == expected
        shares = expected.probabilities(collected.logits)
        assert metrics["test_loss"] == pytest.approx(F.nll_loss(shares.log(), labels).item(), rel=1e-5)
        assert metrics["test_acc"] == pytest.approx((expected.labels(shares) == labels).float().mean().item())


def test_accumulation_with_a_limit_equals_the_larger_batch(tmp_path: Path, reviews: str) -> None:
    whole = train(tmp_path, reviews, 6, limit_train_batches=1)
    parts = train(tmp_path, reviews, 2, limit_train_batches=3, accumulate_grad_batches=8)
    assert_same_weights(parts, whole)


@pytest.mark.parametrize("fast", [False, True])
def test_a_fit_equals_a_plain_loop(tmp_path: Path, reviews: str, fast: bool) -> None:
    """Lightning and our batches do what ten lines of torch do; the fast paths do it but for rounding."""
    fitted = train(tmp_path, reviews, 8, fast)
    seed_everything(7, verbose=False)
    texts = data(reviews, batch_size=8, padding="longest_in_train")
    net = ModelSettings("gpt2-nano", "random", "flexible", "all").build(2)
    net.fast = False
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.1)
    for batch in texts.train_dataloader():
        loss = F.cross_entropy(net(batch["input_ids"], batch["lengths"]), batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if fast:
        assert_same_weights(fitted, net.state_dict())
        return
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(fitted[name], tensor, atol=1e-5, rtol=1e-4, msg=name)


def test_metrics_are_those_of_the_whole_split(tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not means over batches, which differ in size."""
    monkeypatch.setattr(EvaluationBatches, "_TOKENS", 50)  # several batches of these few texts
    seed_everything(7, verbose=False)
    trained, texts, collected = module(), data(reviews, batch_size=8), CollectPredictions()
    runner = trainer(tmp_path, callbacks=[collected])
    runner.fit(trained, datamodule=texts)
    for stage, split, run in (("test", "test", runner.test), ("val", "validation", runner.validate)):
        [metrics] = run(trained, datamodule=texts, verbose=False)
        part = texts.splits[split]  # type: ignore[arg-type]
        labels = torch.tensor(part.label_ids)
        batches = texts._evaluation_dataloader(split).sampler  # type: ignore[arg-type]
        assert len({len(planned.rows) for planned in batches}) > 2
        assert collected.row_ids.tolist() == list(range(len(labels)))
        loss = F.cross_entropy(collected.logits, labels).item()
        assert metrics[f"{stage}_loss"] == pytest.approx(loss, rel=1e-5)
        assert metrics[f"{stage}_acc"] == pytest.approx((collected.logits.argmax(1) == labels).float().mean().item())
        for row, ids in enumerate(part.token_ids[:5]):  # each row's logits are its own
            with torch.no_grad():
                alone = trained(torch.tensor([ids]), torch.tensor([len(ids)]))[0]
            torch.testing.assert_close(collected.logits[row], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true"])
def test_precisions_train(tmp_path: Path, reviews: str, precision: str) -> None:
    seed_everything(7, verbose=False)
    trained = module(adapter=LoRA(), token_position="mean")
    runner = trainer(tmp_path, precision=precision, max_epochs=6)
    runner.fit(trained, datamodule=data(reviews))
    assert trained.net is not None
    expected = torch.bfloat16 if precision == "bf16-true" else torch.float32
    dtypes = {name: p.dtype for name, p in trained.net.named_parameters()}
    if precision == "bf16-mixed":  # frozen matrices are held as autocast would round them in every step
        held = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
        assert held
        assert all(isinstance(trained.net.get_submodule(name.rpartition(".")[0]), torch.nn.Linear) for name in held)
        assert not any(trained.net.get_parameter(name).requires_grad for name in held)
        dtypes = {name: dtype for name, dtype in dtypes.items() if name not in held}
    assert set(dtypes.values()) == {expected}
    [metrics] = runner.test(trained, datamodule=data(reviews), verbose=False)
    assert trained.metrics["test"]["loss"].mean_value.dtype == torch.float32  # a sum in bfloat16 would stall
    assert metrics["test_acc"] > 0.6  # the first word of a text is its label; even LoRA on random weights sees that


def test_a_checkpoint_of_random_weights_holds_all_of_them(tmp_path: Path, reviews: str) -> None:
    trained = module(trainable_layers="last_block")
    checkpoint = read_checkpoint(save(tmp_path, trained, data(reviews)))
    assert {name.removeprefix("net.") for name in checkpoint["state_dict"]} == set(trained.net.state_dict())
    assert checkpoint["lit_cls"]["label_names"] == ["no", "yes"]
    assert checkpoint["lit_cls"]["weights_sha256"] is None


@pytest.mark.parametrize("adapter", [None, LoRA(2, targets=("mlp_in", "mlp_out", "head"), train_head=False)])
def test_a_checkpoint_names_frozen_weights_instead_of_copying_them(
    tmp_path: Path, reviews: str, adapter: LoRA | None
) -> None:
    base = tmp_path / "base.safetensors"
    save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), base)
    options = {"weights": str(base), "trainable_layers": "last_layer" if adapter else "last_block", "adapter": adapter}
    trained = module(**options)
    path = save(tmp_path, trained, data(reviews))
    kept = {name.removeprefix("net.") for name in read_checkpoint(path)["state_dict"]}
    assert "backbone.tok_emb.weight" not in kept
    assert {name for name, p in trained.net.named_parameters() if p.requires_grad} <= kept
    assert {"out_head.weight", "out_head.bias"} <= kept
    assert path.stat().st_size < base.stat().st_size / 4

    again = module(**options)
    runner = trainer(tmp_path)
    runner.test(again, datamodule=data(reviews), ckpt_path=str(path), verbose=False)
    for name, tensor in trained.net.state_dict().items():
        torch.testing.assert_close(again.net.state_dict()[name], tensor, atol=0, rtol=0, msg=name)

    other = ModelSettings("gpt2-nano", "random").build(2).state_dict()
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"the weights file has the sha256 .* the checkpoint was trained on"):
        trainer(tmp_path).test(
            module(**{**options, "weights": str(tmp_path / "other.safetensors")}),
            datamodule=data(reviews),
            ckpt_path=str(path),
            verbose=False,
        )


def test_training_goes_on_from_a_checkpoint(tmp_path: Path, reviews: str) -> None:
    """Two epochs in one go, and one epoch twice: the order of texts follows from the epoch's number."""
    seed_everything(7, verbose=False)
    straight = module()
    trainer(tmp_path, max_epochs=2).fit(straight, datamodule=data(reviews))
    seed_everything(7, verbose=False)
    path = save(tmp_path, module(), data(reviews))
    seed_everything(7, verbose=False)
    resumed = module()
    trainer(tmp_path, max_epochs=2).fit(resumed, datamodule=data(reviews), ckpt_path=str(path))
    for name, tensor in straight.net.state_dict().items():
        torch.testing.assert_close(resumed.net.state_dict()[name], tensor, atol=0, rtol=0, msg=name)


def test_a_resumed_optimizer_takes_the_options_of_its_run(tmp_path: Path, reviews: str) -> None:
    path = save(tmp_path, module(), data(reviews))
    resumed = trainer(tmp_path, max_epochs=2)
    resumed.fit(module(learning_rate=1e-5, weight_decay=0.2), datamodule=data(reviews), ckpt_path=str(path))
    [group] = resumed.optimizers[0].param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-5, 0.2)
    assert {int(state["step"]) for state in resumed.optimizers[0].state.values()} == {20}  # of both epochs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_rate": 2.0}, r"drop_rate 2.0 is not in \[0, 1\)"),
        ({"learning_rate": -1.0}, r"model.learning_rate -1.0 is not in \[0, 1\]"),
        ({"weight_decay": 2.0}, r"model.weight_decay 2.0 is not in \[0, 1\]"),
        ({"trainable_layers": 4}, "trainable_layers 4 is not between 1 and the model's 3 blocks"),
        ({"adapter": LoRA(0)}, "model.adapter.rank 0 is less than 1"),
        ({"cache_gb": -0.5}, "model.cache_gb -0.5 is less than 0"),
        (
            {"cache_dir": "x", "drop_rate": 0.1},
            "model.cache_dir keeps outputs of frozen layers, but model.drop_rate 0.1 draws anew in them in every step: "
            "leave one of the two out",
        ),
        (
            {"cache_dir": "x", "fast": False},
            "model.cache_dir keeps outputs that model.fast false never uses: leave one of the two out",
        ),
    ],
)
def test_wrong_options_are_refused_before_anything_is_built(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        module(**options)


def test_an_option_that_there_is_not_is_named() -> None:
    with pytest.raises(TypeError, match="ClassifierModule has no options lora, speed"):
        module(lora=None, speed=1)


@pytest.mark.parametrize(
    ("label_names", "ignore_index"),
    [(("ham", "spam"), 0), (("ham", "spam"), 1), (("ads", "letters", "news"), 2)],
)
def test_a_label_that_is_left_out_is_no_class(label_names: tuple[str, ...], ignore_index: int) -> None:
    message = f"model.ignore_index {ignore_index} is the class '{label_names[ignore_index]}': its texts would count"
    trained = module(ignore_index=ignore_index)
    with pytest.raises(UserError, match=message):
        trained.take_labels(label_names)
    assert trained.label_names == ()


@pytest.mark.parametrize("ignore_index", [-100, -1, 2, 50256])
def test_a_label_that_is_left_out_may_be_any_other_number(ignore_index: int) -> None:
    trained = module(ignore_index=ignore_index)
    trained.take_labels(("ham", "spam"))
    assert trained.label_names == ("ham", "spam")


def test_a_label_that_is_a_class_is_refused_before_training(tmp_path: Path, reviews: str) -> None:
    with pytest.raises(UserError, match=r"model\.ignore_index 1 is the class 'yes'"):
        trainer(tmp_path).fit(module(ignore_index=1), datamodule=data(reviews))


def test_a_label_that_never_occurs_changes_nothing(tmp_path: Path, reviews: str) -> None:
    """Row 18 of the published table; and the option does reach the loss: a class would change it."""

    def loss_and_weights(ignore_index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seed_everything(7, verbose=False)
        trained, fit = module(), trainer(tmp_path, limit_train_batches=3)
        trained.take_labels(("no", "yes"))
        trained.options = replace(
            trained.options, ignore_index=ignore_index
        )  # after the check, which would refuse a class
        fit.fit(trained, datamodule=data(reviews))
        return fit.callback_metrics["train_loss"], dict(trained.net.state_dict())

    loss, weights = loss_and_weights(-100)
    same_loss, same_weights = loss_and_weights(50256)
    assert torch.equal(same_loss, loss)
    for name, tensor in weights.items():
        torch.testing.assert_close(same_weights[name], tensor, atol=0, rtol=0, msg=name)
    less, _ = loss_and_weights(1)
    assert less < 0.9 * loss


def test_the_fused_optimizer_takes_the_plain_ones_steps(tmp_path: Path) -> None:
    trained = module(trainable_layers="last_block")
    trained.take_labels(("no", "yes"))
    trained.trainer = trainer(tmp_path)
    trained.configure_model()
    before = copy.deepcopy(trained.net)
    plain = copy.deepcopy(trained.net)
    fused = trained.configure_optimizers()
    assert [group["fused"] for group in fused.param_groups] == [True]
    theirs = [p for p in plain.parameters() if p.requires_grad]
    expected = torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.1, fused=False)
    ours = [p for p in trained.net.parameters() if p.requires_grad]
    random = torch.Generator().manual_seed(3)
    for _ in range(10):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=random) * 0.1
            b.grad = a.grad.clone()
        fused.step()
        expected.step()
    for name, parameter in trained.net.named_parameters():
        torch.testing.assert_close(parameter, plain.get_parameter(name), atol=1e-6, rtol=0, msg=name)
        moved = not torch.equal(parameter, before.get_parameter(name))
        assert moved is parameter.requires_grad, name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_can_be_clipped(precision: str, tmp_path: Path, reviews: str) -> None:
    """Which the fused optimizer refuses under mixed precision."""
    runner = trainer(tmp_path, precision=precision, gradient_clip_val=1e-3, limit_train_batches=2)
    runner.fit(module(), datamodule=data(reviews))
    assert runner.global_step == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::Warning:torch")
def test_compiled_blocks_take_the_same_steps(tmp_path: Path, reviews: str) -> None:
    """And every tensor keeps its name (Lightning-AI/pytorch-lightning#20233)."""
    plain = train(tmp_path, reviews, 8, limit_train_batches=3)
    seed_everything(7, verbose=False)
    trained = module(compile=True)
    fit = trainer(tmp_path, limit_train_batches=3)
    fit.fit(trained, datamodule=data(reviews, batch_size=8, padding="longest_in_train"))
    assert trained.net.backbone.trf_blocks[0]._compiled_call_impl is not None
    assert_same_weights(dict(trained.net.state_dict()), plain)


def test_compiling_needs_the_compiler_that_torch_would_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/cc")
    with pytest.raises(UserError, match=r"model.compile needs a C\+\+ compiler, and there is no /nowhere/cc: install"):
        module(compile=True)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"there is no (clang|g)\+\+: "):
        module(compile=True)


# Frozen matrices in bfloat16.


@pytest.mark.parametrize(
    ("layers", "weights"), pairwise(["last_layer", "last_block", "lora"], ["file", "random"], strength=1)
)
def test_a_checkpoint_of_mixed_precision_loads_again(tmp_path: Path, reviews: str, layers: str, weights: str) -> None:
    """Its trained tensors are float32; its frozen ones, in the precision it was trained in, give the same logits."""
    options = {"weights": weights, "trainable_layers": layers}
    if weights == "file":
        options["weights"] = str(tmp_path / "base.safetensors")
        save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), options["weights"])
    trained, collected = module(**options), CollectPredictions()
    path = save(tmp_path, trained, data(reviews), precision="bf16-mixed")
    held = {name for name, p in trained.net.named_parameters() if p.dtype == torch.bfloat16}
    names = {name for name, p in trained.net.named_parameters() if p.requires_grad}
    assert held
    assert not held & names
    saved = read_checkpoint(path)["state_dict"]
    assert all(saved[f"net.{name}"].dtype == torch.float32 for name in names)
    assert any(name.removeprefix("net.") in held for name in saved) is (weights == "random")

    logits = []
    for again in (trained, module(**options)):
        runner = trainer(tmp_path, precision="bf16-mixed", callbacks=[collected])
        runner.test(again, datamodule=data(reviews), ckpt_path=str(path), verbose=False)
        logits.append(collected.logits)
    assert torch.equal(*logits)
    assert logits[0].std(dim=0).min() > 1e-3
    part = data(reviews).splits["test"]
    for precision, bound in ((None, 0.01), ("bf16-mixed", 0.005), ("32-true", 0.02)):
        predictions = lit_cls.load(path, precision=precision).predict(part.rows.texts)
        found = torch.tensor([list(prediction.probabilities.values()) for prediction in predictions])
        torch.testing.assert_close(found, logits[0].softmax(1), atol=bound, rtol=0)


@pytest.mark.parametrize("layers", ["last_layer", "last_block", 2, "lora", "all"])
def test_mixed_precision_trains_as_it_would_with_float32_matrices(
    tmp_path: Path, reviews: str, layers: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for held in (True, False):
        if not held:
            monkeypatch.setattr(TextClassifier, "hold_frozen", lambda self, dtype: None)
        seed_everything(7, verbose=False)
        trained = module(trainable_layers=layers)
        trainer(tmp_path, precision="bf16-mixed").fit(trained, datamodule=data(reviews))
        assert {p.dtype for p in trained.net.parameters() if p.requires_grad} == {torch.float32}
        assert ({p.dtype for p in trained.net.parameters()} == {torch.float32}) is (not held or layers == "all")
        found.append({name: p for name, p in trained.net.named_parameters() if p.requires_grad})
    for name, tensor in found[1].items():
        torch.testing.assert_close(found[0][name], tensor, atol=0, rtol=0, msg=name)


# Gradient checkpointing.


@pytest.mark.parametrize(("layers", "drop_rate"), pairwise(["all", "lora", "last_block"], [0.2, 0.0], strength=1))
def test_gradient_checkpointing_changes_nothing(tmp_path: Path, reviews: str, layers: str, drop_rate: float) -> None:
    found = []
    for recompute in (False, True):
        seed_everything(7, verbose=False)
        options = {"token_position": "mean_flexible", "trainable_layers": layers, "drop_rate": drop_rate}
        trained, calls = module(**options, gradient_checkpointing=recompute), []
        trained.take_labels(("no", "yes"))
        trained.trainer = trainer(tmp_path)
        trained.configure_model()
        trained.net.backbone.trf_blocks[2].ff.register_forward_pre_hook(
            lambda *_, calls=calls: calls.append(torch.is_grad_enabled())
        )
        fit = trainer(tmp_path, limit_train_batches=3, limit_val_batches=0)
        fit.fit(trained, datamodule=data(reviews))
        assert len(calls) == (6 if recompute else 3)
        found.append(dict(trained.net.state_dict()))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=1e-6, rtol=1e-5, msg=name)


# The probe.


@pytest.mark.parametrize(
    ("strategy", "is_whole"),
    [(SingleDeviceStrategy, True), (DDPStrategy, True), (DeepSpeedStrategy, False), (FSDPStrategy, False)],
)
def test_a_strategy_that_keeps_weights_in_parts_is_known(tmp_path: Path, strategy: type, is_whole: bool) -> None:
    """DeepSpeed's is a kind of DDP's to Python, and keeps each tensor in parts all the same."""
    asked = module()
    asked.trainer = trainer(tmp_path)
    # Without what it runs on: DeepSpeed need not be installed to ask.
    asked.trainer._accelerator_connector.strategy = strategy.__new__(strategy)
    assert asked.is_whole is is_whole


def test_a_tensor_that_gets_no_gradient_stops_the_training(tmp_path: Path, reviews: str) -> None:
    """It would stay as it is in silence: AdamW leaves out what has no gradient."""
    trained = module(trainable_layers="last_block")
    trained.take_labels(("no", "yes"))
    trained.trainer = trainer(tmp_path)
    trained.configure_model()
    trained.net.forgotten = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(RuntimeError, match=r"1 tensors are to train and got no gradient: net\.forgotten"):
        trainer(tmp_path).fit(trained, datamodule=data(reviews))


def test_what_is_frozen_needs_no_gradient_and_one_look_is_enough(tmp_path: Path, reviews: str) -> None:
    trained = module(trainable_layers="last_layer")
    trainer(tmp_path, limit_train_batches=1).fit(trained, datamodule=data(reviews))
    trained.net.forgotten = torch.nn.Parameter(torch.ones(3))
    trained.on_after_backward()  # the first has been
    assert trained.net.forgotten.grad is None
    assert all(p.grad is None for p in trained.net.backbone.trf_blocks.parameters())


@pytest.mark.parametrize(
    ("layers", "position"),
    pairwise(
        ["last_layer", "last_block", "all", "lora"],
        ["first", "last", "flexible", "mean", "mean_flexible"],
        strength=1,
    ),
)
def test_everything_that_trains_gets_a_gradient(layers: str, position: str, tmp_path: Path, reviews: str) -> None:
    runner = trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    texts = data(reviews, batch_size=2, padding=12)
    runner.fit(module(trainable_layers=layers, token_position=position), datamodule=texts)
    assert runner.global_step == 1
