"""A parser's complaints, in words; devices that are not there."""

import pytest
import torch

from lit_cls.cli import main
from lit_cls.commands.parser_errors import describe_parser_error
from lit_cls.commands.train_config import check_device
from lit_cls.errors import UserError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--modle.size", "x"], "there is no option --modle.size"),
        (["--model.rnk", "3"], "there is no option --model.rnk"),
        (["--data.source", "nope"], "data.source must be sms_spam, demo or file, not nope"),
        (["--model.token_position", "middle"], "must be first, last, flexible, mean or mean_flexible, not middle"),
        (["--data.padding", "long"], "context_length, none or a whole number, not long"),
        (["--data.batch_size", "many"], "data.batch_size must be a whole number, not many"),
        (["--data.header", "7"], "data.header must be true or false, not 7"),
        (["--data.split", "[0.5,0.5]"], r"data.split must be ch06, three fractions or three files, not [0.5, 0.5]"),
        (
            ["--model.class_weights", "even"],
            "must be balanced or a number for each label, '{spam: 3, ham: 1}', not even",
        ),
        (
            ["--model.class_weights", "{a: b}"],
            "must be balanced or a number for each label, '{spam: 3, ham: 1}', not b",
        ),
        (["--model.learning_rate", "fast"], "model.learning_rate must be a number, not fast"),
        (["--model.trainable_layers", "most"], "last_two_blocks, all or a whole number, not most"),
        (["--trainer.precision", "8"], "trainer.precision must be auto, 64-true, 32-true"),
        (["--data.path"], "argument --data.path: expected one argument"),
        (["--config", "nowhere.yaml"], "File does not exist"),
        (["--data", "{path: 5}"], "must be text, not 5"),
        (["--model.adapter", "true"], "model.adapter must be LoRA, not True"),
        (["--model.adapter", "lora"], "model.adapter must be LoRA, not lora"),
        (["--model.adapter", "Adapter"], "model.adapter must be LoRA, not Adapter"),
        (["--model.adapter", "LoRA", "--model.adapter.rnk", "3"], "there is no option --model.adapter.rnk"),
        (["--model.adapter", "LoRA", "--model.adapter.rank", "x"], "model.adapter.rank must be a whole number, not x"),
        (["--model.adapter", "LoRA", "--model.adapter.targets", "query"], "adapter.targets must be a list, not query"),
        (["--model.adapter", "LoRA", "--model.adapter.targets", "[ff]"], "mlp_in, mlp_gate or mlp_out, not ff"),
        (
            ["--model.adapter.rank", "3"],
            "model.adapter has options, but not which adapter it is: pass --model.adapter LoRA",
        ),
        (["--model", "{adapter: {rank: 3}}"], "not which adapter it is: pass --model.adapter LoRA"),
        (["--config", "unknown.yaml"], "there is no option --data.sauce"),
    ],
)
def test_a_wrong_option_gets_one_message(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unknown.yaml").write_text("data:\n  sauce: demo\n")
    assert main(["fit", *words]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("lit_cls: error: ")
    assert message in told.err
    assert "lit_cls fit --help lists every option" in told.err
    assert "Traceback" not in told.err
    assert "typing." not in told.err
    assert "<class" not in told.err
    assert [path.name for path in tmp_path.iterdir()] == ["unknown.yaml"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--model.trainable_layers", "lora"],
            "must be last_layer, last_block, last_two_blocks, all or a whole number",
        ),
        (["--model.trainable_layers", "lora", "--model.lora.rank", "4"], "model.trainable_layers must be"),
        (["--model.lora.rank", "4"], "there is no option --model.lora.rank"),
        (["--model.lora", "{rank: 4}"], "there is no option --model.lora"),
        (["--model.lora", "null"], "there is no option --model.lora"),
        (["--model.adapter", "LoRA", "--model.lora.rank", "4"], "there is no option --model.lora.rank"),
        (["--config", "old.yaml"], "not lora"),
        (["--config", "options.yaml"], "there is no option --model.lora.rank"),
    ],
)
def test_the_old_form_of_an_adapter_is_refused_with_the_new_one(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.yaml").write_text("model: {trainable_layers: lora, lora: {rank: 16}}\n")
    (tmp_path / "options.yaml").write_text("model:\n  lora:\n    rank: 16\n")
    assert main(["fit", *words]) == 2
    told = capsys.readouterr().err
    assert problem in told
    hint = "LoRA is an option of its own: --model.adapter LoRA --model.adapter.rank 8 (in YAML, adapter: LoRA)\n"
    assert hint in told
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_explained_is_passed_on() -> None:
    assert describe_parser_error("something new", "fit").startswith("something new\n")
    assert describe_parser_error('Parser key "trainer.callbacks":\n  Given value: foo', "fit").startswith(
        "trainer.callbacks cannot be foo"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("precision", "accelerator", "message"),
    [
        (None, "gpu", "trainer.accelerator gpu: torch .* finds no GPU on this machine; pass --trainer.accelerator cpu"),
        ("32-true", "cuda", "trainer.accelerator cuda: torch"),
        ("16-mixed", "auto", "trainer.precision 16-mixed needs a GPU, and there is none"),
        ("16-true", "cpu", "pass --trainer.precision bf16-mixed or 32-true"),
    ],
)
def test_devices_that_are_not_there(precision: str | None, accelerator: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_device(precision, accelerator)


@pytest.mark.parametrize("precision", [None, "32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_what_a_processor_can_do(precision: str | None) -> None:
    check_device(precision, "cpu")


def test_bfloat16_on_a_gpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU from before Ampere, which cannot be had here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(UserError, match="bf16-mixed: Tesla T4 has no bfloat16; pass --trainer.precision 16-mixed"):
        check_device("bf16-mixed", "auto")
    check_device("16-mixed", "gpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.devices", "1000000"], "trainer.devices 1000000 is more processes than this machine runs"),
        (["--trainer.num_nodes", "1000"], "trainer.num_nodes 1000: nothing says where the other machines are"),
        (["--trainer.num_nodes", "0"], "trainer.num_nodes 0 is less than 1"),
        (["--trainer.val_check_interval", "0"], "trainer.val_check_interval 0 is not more than 0"),
        (["--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch 0 is less than 1"),
        (["--data.num_workers", "1000000"], "data.num_workers 1000000 is not between 0 and"),
        (["--trainer.max_time", "99999999999:00:00:00"], "the trainer cannot be created"),
        (["--trainer.callbacks", "Timer"], "the configuration cannot be saved"),
        (
            ["--trainer.callbacks", '{"class_path": "EarlyStopping", "init_args": {"monitor": "nothing"}}'],
            "EarlyStopping monitors 'nothing', which is not measured: there are train_loss",
        ),
        (["--seed_everything", "false"], "seed_everything False is not between 0 and"),
    ],
)
def test_what_would_hang_or_fail_later_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nano = ["--model.size", "gpt2-nano", "--model.weights", "random", "--data.source", "demo"]
    assert main(["fit", *nano, *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
