"""Labels and probabilities of texts, from the files beside this one.

pip install numpy onnxruntime tokenizers
python classify.py "a text" "another"
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
BATCH = 8


class Classifier:
    """The network and its tokenizer, ready for texts."""

    def __init__(self, folder: Path = HERE) -> None:
        self.labels: list[str] = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.reading = json.loads((folder / "reading.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])

    def classify(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(N, K) probabilities and (N,) class ids of N texts."""
        if not texts:
            return np.empty((0, len(self.labels)), np.float32), np.empty(0, np.int64)
        # Where pads are read, but no length to pad to is fixed, no text may stand beside a longer one.
        size = 1 if self.reading["one_at_a_time"] else BATCH
        # An empty text is one <|endoftext|>, as in training.
        ids = [self.cut(self.tokenizer.encode(text).ids or [self.reading["pad_id"]]) for text in texts]
        answers = [self.run(ids[i : i + size]) for i in range(0, len(ids), size)]
        return np.concatenate([p for p, _ in answers]), np.concatenate([label for _, label in answers])

    def cut(self, ids: list[int]) -> list[int]:
        """At most `cut_to` tokens, of the head, the tail, or half of each."""
        most = self.reading["cut_to"]
        if len(ids) <= most:
            return ids
        tail = {"head": 0, "tail": most, "head_tail": most // 2}[self.reading["truncation"]]
        return ids[: most - tail] + ids[len(ids) - tail :]

    def run(self, ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """One batch, padded on the right."""
        length = self.reading["pad_to"] or max(len(text) for text in ids)
        input_ids = np.full((len(ids), length), self.reading["pad_id"], np.int64)
        attention_mask = np.zeros_like(input_ids)
        for row, text in enumerate(ids):
            input_ids[row, : len(text)] = text
            attention_mask[row, : len(text)] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        probabilities, label = self.session.run(["probabilities", "label"], inputs)
        return probabilities, label


def main() -> None:
    """Prints a line for each text: its label, then the probability of every label."""
    classifier = Classifier()
    for text, row, label in zip(sys.argv[1:], *classifier.classify(sys.argv[1:]), strict=True):
        shares = "  ".join(f"{name} {share:.4f}" for name, share in zip(classifier.labels, row, strict=True))
        print(f"{classifier.labels[label]}\t{shares}\t{' '.join(text.split())}")


if __name__ == "__main__":
    main()
