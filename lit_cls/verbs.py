"""fit, validate, test and predict, through LightningCLI."""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.evaluation.metrics import Accuracy, accuracy, majority_class
from lit_cls.evaluation.report import accuracy_table, write_predictions
from lit_cls.inference import load
from lit_cls.model.weights import SIZES, match_weights
from lit_cls.options import check_device, explain
from lit_cls.training.callbacks import CollectPredictions, EpochLog, data_tables, make_console
from lit_cls.training.checkpoints import DATA_KEY, KEY, AtomicCheckpointIO, check_same_network, read_checkpoint
from lit_cls.training.module import ClassifierModule
from lit_cls.training.run_folder import check_disk, find_checkpoint, new_run_folder, provenance, write_json

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "checkpoints",
    "devices": 1,  # more devices make larger steps: a choice, not a default
    "max_epochs": 5,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,  # what it would find, the checks before training do
    "enable_model_summary": False,  # EpochLog prints its own
    "logger": False,  # the run folder's metrics.csv is always written; this adds others
    "use_distributed_sampler": False,  # it repeats rows (Lightning-AI/pytorch-lightning#7929)
}


def run_verb(words: list[str]) -> None:
    """Runs one of the verbs.

    Args:
        words: the verb, then its options.

    Raises:
        UserError: a mistake in the options, the files or the data.
    """
    _quiet_lightning()
    try:
        Verbs(
            ClassifierModule,
            ClassificationData,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=123,
            parser_kwargs={"exit_on_error": False, **{verb: {"exit_on_error": False} for verb in Verbs.subcommands()}},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=words,
        )
    except ArgumentError as error:
        raise UserError(explain(str(error), words[0])) from error
    except MisconfigurationException as error:
        raise UserError(f"{error}") from error


class Verbs(LightningCLI):
    """LightningCLI with a new folder for each run, and checkpoints that bring their own settings."""

    trainer: Trainer
    model: ClassifierModule
    datamodule: ClassificationData

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verbs, and which arguments of the Trainer's methods are no options of ours."""
        ours = {"datamodule", "dataloaders", "model", "train_dataloaders", "val_dataloaders"}
        fixed = {"verbose", "return_predictions", "weights_only"}  # nothing is ever unpickled but tensors
        return dict.fromkeys(("fit", "validate", "test", "predict"), ours | fixed)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside those of the model, the data and the trainer."""
        parser.add_argument(
            "--run_name",
            type=str | None,
            default=None,
            help="Folder of this run below trainer.default_root_dir; by default the name of the --config file.",
        )
        parser.add_argument(
            "--keep",
            type=Literal["best", "last"],
            default="best",
            help="Which checkpoint fit tests: that of the lowest val_loss, or the last (no selection).",
        )
        parser.link_arguments("model.size", "data.context_length", compute_fn=lambda size: SIZES[size].context_length)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # LightningCLI has no public place for an argument of one verb alone.
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument("texts", type=str, nargs="*", help="The texts to classify.")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses; a checkpoint's settings take the place of the defaults, below --config and options."""
        self.words = cast("list[str]", args)
        self.config = parser.parse_args(self.words)
        verb = self.config.subcommand
        self.root = Path(self.config[verb].trainer.default_root_dir)
        self.run_name = self._resolve_run_name(verb)
        self.checkpoint_path = self._resolve_checkpoint(verb)
        if self.checkpoint_path is not None:
            self.checkpoint = read_checkpoint(self.checkpoint_path)
            if verb != "fit":
                self._subcommand_parsers[verb].set_defaults(_settings_of(self.checkpoint))
                self.config = parser.parse_args(self.words)
        self.config[verb].run_name = self.run_name

    def _parse_ckpt_path(self) -> None:
        # LightningCLI would let the checkpoint's hyperparameters override the command line in silence.
        pass

    def _resolve_run_name(self, verb: str) -> str:
        config = self.config[verb]
        name = config.run_name or (Path(str(config.config[0])).stem if config.config else verb)
        if name in (".", "..") or "/" in name or "\\" in name:
            raise UserError(f"run_name {name!r} is not a plain folder name")
        return name

    def _resolve_checkpoint(self, verb: str) -> Path | None:
        given = self.config[verb].ckpt_path
        if given in ("best", "last"):
            found = find_checkpoint(self.root, self.run_name, given)
            if found is None:
                raise UserError(
                    f"no run of {self.run_name!r} below {self.root} has a {given}.ckpt: train one first\n"
                    f"  {self._command('fit')}"
                )
            return found
        if given is not None:
            return Path(str(given)).expanduser()
        if verb == "fit":
            return None
        best = find_checkpoint(self.root, self.run_name, "best")
        raise UserError(
            f"{verb} needs a trained checkpoint"
            + (
                f":\n  {self._command(verb)} --ckpt_path {best}"
                if best
                else f": train one first\n  {self._command('fit')}"
            )
        )

    def _command(self, verb: str) -> str:
        config = self.config[self.config.subcommand].config
        return f"lit_cls {verb}" + (f" --config {config[0]}" if config else " --config FILE")

    def before_instantiate_classes(self) -> None:
        """Refuses what the device cannot do; Lightning would switch to another precision."""
        trainer = self.config[self.config.subcommand].trainer
        check_device(trainer.precision, trainer.accelerator)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds what every run has: our checkpoints, our lines, a bar on a terminal."""
        self.console = make_console()
        self.predictions = CollectPredictions()
        self.epoch_log = EpochLog(self.echo)
        self.best: ModelCheckpoint | None = None
        record = LambdaCallback(
            **{f"on_{stage}_start": self._write_provenance for stage in ("fit", "validation", "test")}
        )
        callbacks: list[Callback] = [self.predictions, self.epoch_log, record]
        config = self._get(self.config_init, "trainer")
        if self.subcommand == "fit" and config["enable_checkpointing"] is not False and not config["fast_dev_run"]:
            callbacks.append(self._make_checkpointing(config))
        show_bar = self.console.is_terminal and config["enable_progress_bar"] is not False
        if show_bar:
            callbacks.append(RichProgressBar())
        kwargs = {
            **kwargs,
            "callbacks": [*_as_list(config["callbacks"]), *callbacks],
            "plugins": [*_as_list(config["plugins"]), AtomicCheckpointIO()],
            "enable_progress_bar": show_bar,
        }
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, RuntimeError) as error:
            raise UserError(f"the trainer cannot be set up like this: {error}") from error

    def _make_checkpointing(self, trainer_config: dict[str, Any]) -> ModelCheckpoint:
        keep = self._get(self.config_init, "keep")
        if keep == "best" and trainer_config["limit_val_batches"] == 0:
            raise UserError("keep best compares val_loss, but trainer.limit_val_batches is 0: pass --keep last")
        self.best = ModelCheckpoint(
            filename="best",
            monitor="val_loss" if keep == "best" else None,
            save_top_k=1 if keep == "best" else 0,
            save_last=True,
            enable_version_counter=False,
        )
        return self.best

    @rank_zero_only
    def echo(self, *things: Any) -> None:
        """Prints for a person, once for all processes."""
        self.console.print(*things, markup=False)

    def fit(self, model: ClassifierModule, **kwargs: Any) -> None:
        """Trains, then tests the kept checkpoint and shows what came out."""
        self._show_data()
        if self.checkpoint_path is not None:
            self._check_checkpoint()
        with torch.device("meta"):
            sketch = model.settings.build(len(self.datamodule.label_names))
        weights = model.settings.weights_path()
        if weights is not None:
            match_weights(sketch, weights)
        self._open_run()
        if self.best is not None:
            self.best.dirpath = str(self.folder)
            if self.trainer.is_global_zero:
                check_disk(self.folder, sketch, weights is not None, copies=3 if self.best.monitor else 2)
        self.trainer.fit(model, datamodule=self.datamodule, ckpt_path=_text(self.checkpoint_path))
        folder = Path(self.trainer.strategy.broadcast(str(self.folder)))  # the first process made it
        kept = folder / ("best.ckpt" if self.best is not None and self.best.monitor else "last.ckpt")
        if self.best is None:
            self.echo("no checkpoint was written: the weights at hand are tested")
        self._evaluate(("test", "validation", "train"), None if self.best is None else kept)
        log = self.epoch_log
        if log.seconds_training:
            speed = log.texts_trained / log.seconds_training
            self.echo(f"trained in {log.seconds_training:.1f} s, {speed:.1f} texts/s; everything is in {folder}")
        if self.best is not None:
            self.echo(f'classify texts with: lit_cls predict --ckpt_path {kept} "a text"')

    def validate(self, model: ClassifierModule, **kwargs: Any) -> None:
        """Accuracy of a checkpoint on the validation split."""
        self._evaluate_checkpoint("validation")

    def test(self, model: ClassifierModule, **kwargs: Any) -> None:
        """Accuracy of a checkpoint on the test split."""
        self._evaluate_checkpoint("test")

    def predict(self, model: ClassifierModule, **kwargs: Any) -> None:
        """Label and probabilities of each text, one line a text, to standard output."""
        texts = self.config_init["predict"]["texts"]
        if not texts:
            raise UserError(
                f'nothing to classify: lit_cls predict --ckpt_path {self.checkpoint_path} "a text" "another"'
            )
        assert self.checkpoint_path is not None, "predict without a checkpoint is refused before"
        check_same_network(self.checkpoint, model.settings, (), None)
        classifier = load(self.checkpoint_path, self.trainer.strategy.root_device)
        precision = self.trainer.precision_plugin
        precision.convert_module(classifier.net)
        with precision.forward_context():
            predictions = classifier.predict(texts)
        for text, prediction in zip(texts, predictions, strict=True):
            shares = "  ".join(f"{label} {share:.4f}" for label, share in prediction.probabilities.items())
            cut = "  (cut: longer than the classifier reads)" if prediction.truncated else ""
            print(f"{prediction.label}\t{shares}\t{' '.join(text.split())}{cut}")

    def _check_checkpoint(self) -> None:
        check_same_network(self.checkpoint, self.model.settings, self.datamodule.label_names, None)
        self.datamodule.load_state_dict(self.checkpoint[DATA_KEY])

    def _evaluate_checkpoint(self, split: SplitName) -> None:
        self._check_checkpoint()
        self._show_data()
        self._open_run()
        self._evaluate((split,), self.checkpoint_path)
        self.echo(f"everything is in {self.folder}")

    def _show_data(self) -> None:
        summary = self.datamodule.summary
        self.echo(data_tables(summary))
        for note in summary.notes:
            self.echo(f"note: {note}")
        cut = sum(split.cut for split in summary.splits)
        if cut:
            kept = {"head": "their head", "tail": "their tail", "head_tail": "their head and tail"}
            self.echo(
                f"note: {cut:,} texts are longer than {summary.max_length} tokens: "
                f"{kept[self.datamodule.truncation]} is read (data.truncation, data.max_length)"
            )
        position = self.model.settings.token_position
        if position in ("last", "mean") and self.datamodule.padding == "longest_in_batch":
            self.echo(
                f"note: token_position {position} reads pads, and data.padding longest_in_batch changes their number "
                "from batch to batch: token_position flexible or mean_flexible, or padding longest_in_train, do not"
            )

    def _open_run(self) -> None:
        """A new folder for this run; only one process makes it and writes to it."""
        self.folder = self.root / self.run_name
        if self.trainer.is_global_zero:
            self.folder = new_run_folder(self.root, self.run_name)
        log = CSVLogger(self.folder.parent, name="", version=self.folder.name)
        self.trainer.loggers = [log, *self.trainer.loggers]

    def _evaluate(self, splits: tuple[SplitName, ...], checkpoint: Path | None) -> None:
        """Evaluates the network, from a file when one is given, and shows and stores what came out.

        Each split goes through the Trainer's own verb, so that its options (limits, precision,
        devices) hold; the train split, which has none, through predict.
        """
        data, rows = self.datamodule, []
        majority = majority_class(data.part("train").label_ids)
        for split in splits:
            run = {"test": self.trainer.test, "validation": self.trainer.validate, "train": self.trainer.predict}[split]
            quiet = {"return_predictions": False} if split == "train" else {"verbose": False}
            run(self.model, datamodule=data, ckpt_path=_text(checkpoint), **quiet)  # type: ignore[operator]
            checkpoint = None  # its weights are in place now
            part = data.part(split)
            ids, logits = self.predictions.row_ids.tolist(), self.predictions.logits
            labels = [part.label_ids[i] for i in ids]
            rows.append(accuracy(split, labels, logits.argmax(dim=1).tolist(), majority))
            if self.trainer.is_global_zero:
                write_predictions(
                    self.folder / f"predictions_{split}.csv",
                    [part.rows.texts[i] for i in ids],
                    [part.rows.numbers[i] for i in ids],
                    [data.label_names[label] for label in labels],
                    logits.softmax(dim=1).tolist(),
                    data.label_names,
                )
        self._report(rows[::-1])

    @rank_zero_only
    def _report(self, rows: list[Accuracy]) -> None:
        content = {
            "accuracy": [row.as_dict() for row in rows],
            "data": self.datamodule.summary.as_dict(),
            "weights_notes": self.model.weights_notes,
            "seconds_training": self.epoch_log.seconds_training,
            "texts_trained": self.epoch_log.texts_trained,
        }
        write_json(self.folder / "report" / "report.json", content)
        self.echo(accuracy_table(rows))

    @rank_zero_only
    def _write_provenance(self, trainer: Trainer, module: ClassifierModule) -> None:
        """Where the run's figures come from, written before there are any."""
        path = self.folder / "provenance.json"
        if path.exists():
            return
        device = trainer.strategy.root_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        content = provenance(
            command=["lit_cls", *self.words],
            data=self.datamodule.summary.as_dict(),
            weights=module.settings.weights,
            weights_sha256=module.weights_sha256,
            config=self.folder / "config.yaml",
            device=f"{name} x {trainer.world_size}",
        )
        write_json(path, content)


def _settings_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings as defaults of the parser."""
    model, data = checkpoint[KEY]["model"], checkpoint[DATA_KEY]["settings"]
    return {f"model.{name}": value for name, value in model.items()} | {
        f"data.{name}": value for name, value in data.items()
    }


def _quiet_lightning() -> None:
    """Leaves out Lightning's advertisements and hints that do not apply here; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Texts are tokenised once, in memory: workers would have nothing to do.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Lightning's own use of a torch function.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # Asked for: with num_sanity_val_steps 0 and few batches, every step may be logged.
    warnings.filterwarnings("ignore", message=".*number of training batches .* is smaller than the logging interval.*")
    # fit's callbacks, which test and validate do not need.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    # The run folder is made by us, empty, just before.
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
