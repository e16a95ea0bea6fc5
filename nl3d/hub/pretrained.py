"""``save_pretrained``, ``from_pretrained`` and ``push_to_hub``, in huggingface_hub's manner."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from torch import nn

from nl3d.files import replacing, write_safetensors
from nl3d.hub.fetch import fetch
from nl3d.hub.fill import (
    fill_model,
    new_modules,
    on_meta,
    read_metadata,
    read_safetensors,
    without_other_classifier,
)
from nl3d.layers.shapes import check_range

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_TIMM_KEYS = (
    "tag", "input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "first_conv", "classifier", "license",
    "description", "origin_url", "paper_ids", "notes",
)  # fmt: skip
"""What timm's description of a checkpoint has a place for; the rest, such as ``num_frames``, stands under ``clips``."""

ModelT = TypeVar("ModelT", bound="PretrainedMixin")


class PretrainedMixin(
    PyTorchModelHubMixin, library_name="nl3d", license="other", tags=["nl3d", "person-reid", "video"]
):
    """Gives a network huggingface_hub's three methods; what they write is also what timm reads.

    ``config.json`` holds every argument of the constructor, under timm's keys (``architecture``, ``num_classes``,
    ``num_features``, ``model_args``, ``pretrained_cfg``) once more, so that ``timm.create_model("hf-hub:org/name")``
    builds the same network. ``model.safetensors`` holds the tensors, ``README.md`` the model card.
    """

    _unsaveable: tuple[str, ...] = ()
    _builds_on_meta: ClassVar[bool] = True

    def __new__(cls: type[ModelT], *args: Any, **kwargs: Any) -> ModelT:
        """Remember the arguments, as the base does, and those that it would silently save as their defaults."""
        instance = super().__new__(cls, *args, **kwargs)
        positional = zip(list(cls._hub_mixin_init_parameters)[1:], args, strict=False)
        given = {**dict(positional), **kwargs}
        instance._unsaveable = tuple(key for key, value in given.items() if not cls._is_jsonable(value))
        return instance

    def architecture(self) -> tuple[str, Collection[str]]:
        """Name under which timm knows the network, and the arguments of the constructor that the name implies."""
        raise NotImplementedError

    @classmethod
    def option_names(cls) -> Collection[str]:
        """Arguments of the constructor."""
        return cls._hub_mixin_init_parameters.keys() - {"self"}

    def saved_options(self) -> dict[str, Any]:
        """Arguments of the constructor that rebuild this network, as plain data."""
        return cast(dict[str, Any], self._hub_mixin_config) or {}

    def hub_config(self) -> dict[str, Any]:
        """Everything that rebuilds this network, as plain data.

        Raises:
            ValueError: If an argument of the constructor is no plain data.
        """
        if self._unsaveable:
            raise ValueError(f"{self._unsaveable[0]} must be plain data (numbers, strings, lists, dicts) to be saved")
        network = cast(Any, self)
        options = {**self.saved_options(), "num_classes": network.num_classes}
        name, implied = self.architecture()
        cfg = network.pretrained_cfg
        return {
            **options,
            "architecture": name,
            "num_features": network.num_features,
            "model_args": {key: value for key, value in options.items() if key not in ("num_classes", *implied)},
            "pretrained_cfg": {
                **{key: cfg[key] for key in _TIMM_KEYS if cfg.get(key) is not None},
                "architecture": name,
                "num_classes": network.num_classes,
            },
            "clips": {key: cfg[key] for key in ("num_frames", "frame_step")},
        }

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write config.json, model.safetensors and README.md into a folder; the network is left as it is.

        A folder of an older network can be loaded whenever this is interrupted: as the old network or as the new one.

        Args:
            save_directory: The folder; made if it is not there.
            config: Written to config.json instead of :meth:`hub_config`.
            repo_id: Repository to push to, if not the folder's name.
            push_to_hub: Whether to push the folder to the Hub.
            model_card_kwargs: As for :meth:`huggingface_hub.ModelHubMixin.save_pretrained`.
            push_to_hub_kwargs: As for :meth:`huggingface_hub.ModelHubMixin.push_to_hub`.

        Raises:
            ValueError: If an argument of the constructor is no plain data.
        """
        folder, own = Path(save_directory), self.hub_config()
        folder.mkdir(parents=True, exist_ok=True)
        # Never beside the wrong weights: without config.json, the copy in the weights is read.
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        metadata = {"config": json.dumps(own, sort_keys=True)}
        write_safetensors(folder / WEIGHTS_FILE, cast(nn.Module, self).state_dict(), metadata)
        with replacing(folder / CONFIG_FILE) as unfinished:
            unfinished.write_text(json.dumps(config or own, sort_keys=True, indent=2), encoding="utf-8")
        if not (card := folder / "README.md").exists():
            with replacing(card) as unfinished:
                unfinished.write_text(str(self.generate_model_card(**model_card_kwargs or {})), encoding="utf-8")
        if not push_to_hub:
            return None
        name, card_kwargs = repo_id or folder.name, model_card_kwargs or {}
        return self.push_to_hub(name, config=config or own, model_card_kwargs=card_kwargs, **push_to_hub_kwargs)

    @classmethod
    def from_pretrained(
        cls: type[ModelT],
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> ModelT:
        """Build the network that a folder or a repository of the Hub describes, with its weights, in evaluation mode.

        Nothing is initialised at random only to be overwritten. An option of the constructor that is given here
        overrides the saved one; another ``num_classes`` makes the classifier new.

        Args:
            pretrained_model_name_or_path: Folder that :meth:`save_pretrained` wrote, or ``"org/name"`` on the Hub.
            revision: Branch, tag or commit hash on the Hub.
            cache_dir: The Hub's cache, if not the usual one.
            force_download: Whether to fetch again what is in the cache.
            token: As for :func:`huggingface_hub.hf_hub_download`.
            local_files_only: Whether only to look into the cache.
            options: Arguments of the constructor that shall differ from the saved ones.

        Raises:
            FileNotFoundError: If folder, repository or file do not exist.
            PermissionError: If the repository is not open to you.
            ConnectionError: If the Hub cannot be reached.
            ValueError: If the files are damaged, or describe another kind of network.
        """
        source = str(pretrained_model_name_or_path)
        if Path(source).is_dir():
            config_path, weights_path = Path(source, CONFIG_FILE), Path(source, WEIGHTS_FILE)
        else:
            access: Any = {
                "cache_dir": cache_dir,
                "force_download": force_download,
                "token": token,
                "local_files_only": local_files_only,
            }
            config_path = fetch(source, CONFIG_FILE, revision=revision, **access)
            commit = config_path.parent.name  # both files from the same commit, whatever happens in between
            weights_path = fetch(source, WEIGHTS_FILE, revision=commit, **access)
        config = read_config(config_path)
        known = cls.option_names()
        with on_meta() if cls._builds_on_meta else nullcontext():
            model = cls(**{**{key: value for key, value in config.items() if key in known}, **options})
        network = cast(Any, model)
        saved = read_safetensors(weights_path, copy=Path(source).is_dir())
        tensors = without_other_classifier(saved, network.num_classes)
        fill_model(network, tensors, new=[name for name in new_modules(network) if name.endswith(".classifier")])
        network.pretrained_cfg.update(clip_description(config))
        if (device := torch.get_default_device()).type != "cpu":
            network.to(device)
        return network.eval()

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Model card: what the network is, what clips it expects, where its weights come from and their licence."""
        network = cast(Any, self)
        cfg, name = network.pretrained_cfg, self.architecture()[0]
        data = ModelCardData(
            **{**self._hub_mixin_info.model_card_data.to_dict(), "license": str(cfg.get("license", "other")).lower()}
        )
        _, height, width = cfg["input_size"]
        return ModelCard(
            f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n"
            f"A {type(self).__name__} for video person re-identification, written by "
            "nl3d.\n\n"
            f"- Clips: {cfg['num_frames']} RGB frames, {cfg['frame_step']} frame(s) apart, {height}x{width} pixels, "
            f"values in [0, 1] less the mean {tuple(cfg['mean'])} over the deviation {tuple(cfg['std'])}\n"
            f"- Embedding: {network.embedding_dim} numbers; classes: {network.num_classes}\n"
            f"- Weights start from: {cfg.get('description', 'not recorded')}\n"
            f"- Licence: {cfg.get('license', 'not recorded')}\n\n"
            "```python\nimport nl3d\n\n"
            'model = nl3d.from_pretrained("hf-hub:ORG/NAME")\n```\n'
        )


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json, or the copy in the weights beside it if a save was interrupted before it was written."""
    weights = path.with_name(WEIGHTS_FILE)
    text = path.read_text(encoding="utf-8") if path.is_file() else read_metadata(weights).get("config")
    if text is None:
        raise FileNotFoundError(f"{CONFIG_FILE} must stand beside the weights, but there is no {str(path)!r}")
    return parse_config(text, path)


def parse_config(text: str, path: str | Path) -> dict[str, Any]:
    """Parse the description of a network, which stood in ``path``."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{CONFIG_FILE} must be JSON, but that of {str(path)!r} is not: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG_FILE} must be a JSON object, but that of {str(path)!r} is a {type(config).__name__}")
    return config


def clip_description(config: dict[str, Any]) -> dict[str, Any]:
    """Clips and origin of the weights in a saved config; an image network's ``input_size`` is not that of the clips."""
    own = "clips" in config
    described, clips = config.get("pretrained_cfg", {}), config.get("clips", {})
    for name, part in (("pretrained_cfg", described), ("clips", clips)):
        if not isinstance(part, dict):
            raise ValueError(f"{name} of {CONFIG_FILE} must be a JSON object, got {part!r}")
    kept = {
        key: described[key] for key in _TIMM_KEYS if described.get(key) is not None and (own or key != "input_size")
    }
    said = {key: tuple(value) if isinstance(value, list) else value for key, value in {**kept, **clips}.items()}
    for key in ("num_frames", "frame_step"):
        if key in said:
            check_range(said[key], 1, 100_000, name=f"{key} of {CONFIG_FILE}")
    for key, kind in (("input_size", int), ("mean", (int, float)), ("std", (int, float))):
        values = said.get(key)
        if key in said and not (isinstance(values, tuple) and values and all(isinstance(v, kind) for v in values)):
            raise ValueError(f"{key} of {CONFIG_FILE} must be a list of numbers, got {values!r}")
    for size in said.get("input_size", ()):
        check_range(size, 1, 100_000, name=f"input_size of {CONFIG_FILE}")
    return said
