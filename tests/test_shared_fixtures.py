"""The fixtures that conftest makes once per session."""

import json
from itertools import combinations, product

import torch
from conftest import OncePerOptions, pairwise

import lit_cls


def test_one_checkpoint_per_set_of_options(trained_checkpoint: OncePerOptions) -> None:
    path = trained_checkpoint(limit_train_batches=1)
    assert trained_checkpoint(limit_train_batches=1) == path
    assert trained_checkpoint({"token_position": "first"}, limit_train_batches=1) != path
    assert lit_cls.load(path).predict(["good film"])[0].label in ("no", "yes")


def test_an_altered_head_is_far_from_where_training_begins(altered_checkpoint: OncePerOptions) -> None:
    net = torch.load(altered_checkpoint(), weights_only=True)["state_dict"]
    assert min(t.abs().max() for name, t in net.items() if "out_head" in name) > 0.5


def test_a_finished_run_has_a_report(finished_run: OncePerOptions) -> None:
    report = json.loads((finished_run() / "report" / "report.json").read_text(encoding="utf-8"))
    assert (report["split"], report["pictures"]) == ("test", [])


def test_pairwise_has_every_pair_and_marks_the_rest() -> None:
    axes = ([1, 2, 3], ["a", "b"], [True, False])
    cases = pairwise(*axes)
    assert [case.values for case in cases] == list(product(*axes))
    fast = [case.values for case in cases if not case.marks]
    assert len(fast) < len(cases)
    assert {mark.name for case in cases for mark in case.marks} == {"slow"}
    for one, other in combinations(range(3), 2):
        assert {(case[one], case[other]) for case in fast} == set(product(axes[one], axes[other]))
    assert len([case for case in pairwise(*axes, strength=1) if not case.marks]) == 3
