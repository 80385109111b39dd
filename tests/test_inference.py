"""A checkpoint in use: `lit_cls.load(path).predict(texts)`."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_fits import data, module, save, trainer

import lit_cls
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import UserError
from lit_cls.model import TextClassifier
from lit_cls.model.settings import ModelSettings
from lit_cls.training.callbacks import CollectPredictions

TOKENIZER = tokenizer_for("gpt2")

TEXTS = ["good film 3", "", "poor film poor film poor film 4", "<|endoftext|>", "word " * 2000, "🙂 naïve\ttab\nline"]


def test_predictions_are_those_of_the_trainer(tmp_path: Path, reviews: str) -> None:
    """The same network through Lightning's test loop and through `load`, text by text."""
    trained, collected = module(), CollectPredictions()
    path = save(tmp_path, trained, data(reviews), max_epochs=3, callbacks=[collected])

    runner = trainer(tmp_path, callbacks=[collected])
    texts = data(reviews)
    runner.test(trained, datamodule=texts, verbose=False)
    predictions = lit_cls.load(path).predict(texts.splits["test"].rows.texts)
    for row, prediction in zip(collected.logits.softmax(1), predictions, strict=True):
        assert list(prediction.probabilities) == ["no", "yes"]
        assert list(prediction.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert prediction.label == ("no", "yes")[int(row.argmax())]
    assert {prediction.label for prediction in predictions} == {"no", "yes"}


@pytest.mark.parametrize("padding", ["longest_in_batch", "longest_in_train", "none", 40])
@pytest.mark.parametrize("position", ["flexible", "last", "mean"])
def test_neither_order_nor_neighbours_matter(
    tmp_path: Path,
    reviews: str,
    position: str,
    padding: str | int,
) -> None:
    options = {"padding": padding, "batch_size": 1 if padding == "none" else 8}
    path = save(tmp_path, module(token_position=position), data(reviews, **options), limit_train_batches=2)
    classifier = lit_cls.load(path)
    together = classifier.predict(TEXTS)
    for text, prediction in zip(TEXTS, together, strict=True):
        [alone] = classifier.predict([text])
        assert alone.label == prediction.label
        assert alone.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)
    cut_to = {"longest_in_batch": 1024, "none": 1024, 40: 40}.get(padding, 0)
    assert [p.truncated for p in together][:2] == [False, False]
    assert together[4].truncated is (cut_to < 2000)
    assert sum(together[0].probabilities.values()) == pytest.approx(1)


def test_frozen_weights_are_found_again_and_checked(tmp_path: Path, reviews: str) -> None:
    base = tmp_path / "base.safetensors"
    save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), base)
    trained = module(weights=str(base), trainable_layers="last_block")
    path = save(tmp_path, trained, data(reviews))
    part = data(reviews).splits["test"]
    for text, ids in zip(part.rows.texts[:4], part.token_ids[:4], strict=True):
        [prediction] = lit_cls.load(path).predict([text])
        with torch.no_grad():
            logits = trained(torch.tensor([ids]), torch.tensor([len(ids)]))
        assert list(prediction.probabilities.values()) == pytest.approx(logits.softmax(1)[0].tolist(), abs=1e-5)

    base.rename(tmp_path / "moved.safetensors")
    with pytest.raises(UserError, match=r"there is no weights file .*base.safetensors"):
        lit_cls.load(path)
    moved = lit_cls.load(path, weights=tmp_path / "moved.safetensors")
    assert moved.predict([text])[0].probabilities == pytest.approx(prediction.probabilities)
    save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), base)
    with pytest.raises(UserError, match="the weights file has the sha256"):
        lit_cls.load(path)


def test_one_string_is_not_a_list_of_texts(tmp_path: Path, reviews: str) -> None:
    classifier = lit_cls.load(save(tmp_path, module(), data(reviews), limit_train_batches=1))
    with pytest.raises(UserError, match=r"a list of texts, not one string: predict\(\[text\]\)"):
        classifier.predict("good film")
    assert classifier.predict([]) == []


def test_the_package_offers_what_it_says() -> None:
    with pytest.raises(AttributeError, match="module 'lit_cls' has no attribute 'nothing'"):
        _ = lit_cls.nothing
    assert lit_cls.Prediction("ham", {"ham": 1.0}, False).label == "ham"


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("trained_in", ["bf16-mixed", "32-true"])
def test_by_default_it_computes_in_what_it_was_trained_in_where_the_device_does(
    trained_in: str, has: bool, tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    options = {"token_position": "mean_flexible", "trainable_layers": "last_block"}
    path = save(tmp_path, module(**options), data(reviews), precision=trained_in)

    def probabilities(precision: str | None) -> list[float]:
        found = lit_cls.load(path, precision=precision).predict(TEXTS)
        return [p for prediction in found for p in prediction.probabilities.values()]

    by_default = probabilities(None)
    in_bfloat16 = has and trained_in == "bf16-mixed"
    assert by_default == probabilities("bf16-mixed" if in_bfloat16 else "32-true")
    assert by_default != probabilities("32-true" if in_bfloat16 else "bf16-mixed")


def test_pads_that_nothing_reads_are_not_computed(
    tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = lit_cls.load(save(tmp_path, module(), data(reviews, padding=60), limit_train_batches=1))
    shapes: list[int] = []
    plain = TextClassifier.forward

    def forward(self: TextClassifier, input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        shapes.append(input_ids.shape[1])
        assert int(lengths.max()) <= input_ids.shape[1]
        return plain(self, input_ids, lengths)

    monkeypatch.setattr(TextClassifier, "forward", forward)
    for text in ("good", "good film 3", "word " * 80):
        classifier.predict([text])
    assert shapes == [len(TOKENIZER.encode(["good"])[0]), len(TOKENIZER.encode(["good film 3"])[0]), 60]
    assert shapes[0] < shapes[1] < shapes[2]


def test_logits_are_what_probabilities_are_made_of(tmp_path: Path, reviews: str) -> None:
    classifier = lit_cls.load(save(tmp_path, module(), data(reviews), limit_train_batches=2))
    logits = classifier.logits(TEXTS)
    assert (logits.shape, logits.dtype) == ((len(TEXTS), 2), torch.float32)
    shares = [list(prediction.probabilities.values()) for prediction in classifier.predict(TEXTS)]
    torch.testing.assert_close(logits.softmax(1), torch.tensor(shares))
    # Something can be fitted to them.
    temperature = torch.ones(1, requires_grad=True)
    (logits / temperature).logsumexp(1).sum().backward()
    assert temperature.grad is not None
    assert classifier.logits([]).shape == (0, 2)
    with pytest.raises(UserError, match=r"logits takes a list of texts, not one string: logits\(\[text\]\)"):
        classifier.logits("good film")


def test_a_checkpoint_that_is_written_over_does_no_harm(tmp_path: Path, reviews: str) -> None:
    """A service goes on with what it has loaded."""
    path = save(tmp_path, module(), data(reviews), limit_train_batches=1)
    classifier = lit_cls.load(path)
    before = classifier.predict(TEXTS)
    path.write_bytes(bytes(path.stat().st_size))
    assert classifier.predict(TEXTS) == before


def test_the_batches_tell_how_far_they_are(tmp_path: Path, reviews: str) -> None:
    classifier = lit_cls.load(save(tmp_path, module(), data(reviews), limit_train_batches=1))
    told: list[int] = []
    classifier.predict(["word " * 900] * 5 + ["short"] * 7, told.append)
    assert (len(told) > 2, sum(told)) == (True, 12)


def test_a_weights_file_that_none_is_needed_of(tmp_path: Path, reviews: str) -> None:
    path = save(tmp_path, module(), data(reviews), limit_train_batches=1)
    with pytest.raises(UserError, match="contains all of its weights: leave --model.weights nope"):
        lit_cls.load(path, weights="nope")
