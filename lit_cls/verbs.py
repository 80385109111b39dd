"""fit, validate, test and predict, through LightningCLI."""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.evaluation.metrics import Accuracy, accuracy, majority_class
from lit_cls.evaluation.report import accuracy_table, write_predictions
from lit_cls.inference import load
from lit_cls.model.weights import SIZES
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
        raise UserError(_explain(str(error), words[0])) from error
    except MisconfigurationException as error:
        raise UserError(f"{error}") from error


class Verbs(LightningCLI):
    """LightningCLI with a new folder for each run, and checkpoints that bring their own settings."""

    trainer: Trainer
    model: ClassifierModule
    datamodule: ClassificationData

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
        self.words = args
        self.config = parser.parse_args(args)
        verb = self.config.subcommand
        self.root = Path(self.config[verb].trainer.default_root_dir)
        self.run_name = self._resolve_run_name(verb)
        self.checkpoint_path = self._resolve_checkpoint(verb)
        if self.checkpoint_path is not None:
            self.checkpoint = read_checkpoint(self.checkpoint_path)
            if verb != "fit":
                self._subcommand_parsers[verb].set_defaults(_settings_of(self.checkpoint))
                self.config = parser.parse_args(args)
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
            f"{verb} needs a trained checkpoint: "
            + (f"\n  {self._command(verb)} --ckpt_path {best}" if best else f"train one first\n  {self._command('fit')}")
        )

    def _command(self, verb: str) -> str:
        config = self.config[self.config.subcommand].config
        return f"lit_cls {verb}" + (f" --config {config[0]}" if config else " --config FILE")

    def before_instantiate_classes(self) -> None:
        """Refuses what the device cannot do; Lightning would switch to another precision."""
        trainer = self.config[self.config.subcommand].trainer
        check_precision(trainer.precision, trainer.accelerator)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds what every run has: our checkpoints, our lines, a bar on a terminal."""
        self.console = make_console()
        self.predictions = CollectPredictions()
        self.epoch_log = EpochLog(self.echo)
        self.best: ModelCheckpoint | None = None
        callbacks: list[Callback] = [self.predictions, self.epoch_log]
        config = self._get(self.config_init, "trainer")
        if config["enable_checkpointing"] is not False and not config["fast_dev_run"]:
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
            raise UserError(f"the trainer cannot be set up so: {error}") from error

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
        folder = self._open_run()
        with torch.device("meta"):
            sketch = model.settings.build(len(self.datamodule.label_names))
        if self.best is not None:
            self.best.dirpath = str(folder)
            check_disk(folder, sketch, model.settings.weights != "random", copies=3 if self.best.monitor else 2)
        self.trainer.fit(model, datamodule=self.datamodule, ckpt_path=_text(self.checkpoint_path))
        kept = folder / ("best.ckpt" if self.best is not None and self.best.monitor else "last.ckpt")
        if self.best is None:
            self.echo("no checkpoint was written: the weights at hand are tested")
        self._write_provenance(folder)
        self._evaluate(("test", "validation", "train"), folder, None if self.best is None else kept)
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
            raise UserError(f'nothing to classify: lit_cls predict --ckpt_path {self.checkpoint_path} "a text" "another"')
        assert self.checkpoint_path is not None, "predict without a checkpoint is refused before"
        check_same_network(self.checkpoint, model.settings, (), None)
        classifier = load(self.checkpoint_path, self.trainer.strategy.root_device)
        precision = self.trainer.precision_plugin
        classifier.net = precision.convert_module(classifier.net)
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
        folder = self._open_run()
        self._evaluate((split,), folder, self.checkpoint_path)
        self.echo(f"everything is in {folder}")

    def _show_data(self) -> None:
        summary = self.datamodule.summary
        self.echo(data_tables(summary))
        for note in summary.notes:
            self.echo(f"note: {note}")
        cut = sum(split.cut for split in summary.splits)
        if cut:
            kept = {"head": "their head", "tail": "their tail", "head_tail": "their head and tail"}
            self.echo(
                f"note: {cut:,} texts are longer than {summary.max_length} tokens; {kept[self.datamodule.truncation]} is read"
            )
        if self.model.settings.token_position in ("last", "mean") and self.datamodule.padding == "longest_in_batch":
            self.echo(
                f"note: token_position {self.model.settings.token_position} reads pads, and data.padding longest_in_batch "
                "changes their number from batch to batch: flexible, mean_flexible or longest_in_train do not"
            )

    def _open_run(self) -> Path:
        """A new folder for this run; only one process makes and writes it."""
        folder = self.root / self.run_name
        if self.trainer.is_global_zero:
            folder = new_run_folder(self.root, self.run_name)
        log = CSVLogger(folder.parent, name="", version=folder.name)
        self.trainer.loggers = [log, *self.trainer.loggers]
        return folder

    def _evaluate(self, splits: tuple[SplitName, ...], folder: Path, checkpoint: Path | None) -> None:
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
                    folder / f"predictions_{split}.csv",
                    [part.rows.texts[i] for i in ids],
                    [part.rows.numbers[i] for i in ids],
                    [data.label_names[label] for label in labels],
                    logits.softmax(dim=1).tolist(),
                    data.label_names,
                )
        self._report(rows[::-1], folder)

    @rank_zero_only
    def _report(self, rows: list[Accuracy], folder: Path) -> None:
        content = {
            "accuracy": [row.as_dict() for row in rows],
            "data": self.datamodule.summary.as_dict(),
            "weights_notes": self.model.weights_notes,
            "seconds_training": self.epoch_log.seconds_training,
            "texts_trained": self.epoch_log.texts_trained,
        }
        write_json(folder / "report" / "report.json", content)
        self.echo(accuracy_table(rows))

    @rank_zero_only
    def _write_provenance(self, folder: Path) -> None:
        config = self._parser("fit").dump(self.config["fit"], skip_none=False)
        device = self.trainer.strategy.root_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        content = provenance(
            command=["lit_cls", *map(str, self.words or [])],
            data=self.datamodule.summary.as_dict(),
            weights=self.model.settings.weights,
            weights_sha256=self.model.weights_sha256,
            config=config,
            device=f"{name} x {self.trainer.world_size}",
        )
        write_json(folder / "provenance.json", content)


def check_precision(precision: Any, accelerator: str) -> None:
    """Refuses a precision that the device lacks.

    Raises:
        UserError: half precision without a GPU, or bfloat16 on a GPU that has none.
    """
    wanted = str(precision)
    on_gpu = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    if wanted in ("16", "16-mixed", "16-true") and not on_gpu and accelerator != "mps":
        raise UserError(
            f"trainer.precision {wanted} needs a GPU, and trainer.accelerator {accelerator} has none here: "
            "pass --trainer.precision bf16-mixed or 32-true"
        )
    if wanted.startswith("bf16") and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise UserError(f"trainer.precision {wanted}: {name} has no bfloat16; pass --trainer.precision 16-mixed or 32-true")


def _settings_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings as defaults of the parser."""
    model, data = checkpoint[KEY]["model"], checkpoint[DATA_KEY]["settings"]
    return {f"model.{name}": value for name, value in model.items()} | {
        f"data.{name}": value for name, value in data.items()
    }


def _explain(message: str, verb: str) -> str:
    """jsonargparse's message on one option, with the way to the list of them."""
    return f"{message}\n  lit_cls {verb} --help lists every option and its values"


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
    # The run folder is made by us, empty, just before.
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
