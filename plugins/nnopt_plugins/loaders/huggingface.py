"""`--arch hf:FOLDER`: a network of the transformers library, as a folder's config.json describes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli import Loader, NnoptError, UsageError, option
from nnopt_plugins.loaders.packages import need

if TYPE_CHECKING:
    from torch import nn


class HuggingFace(Loader):
    """A transformers network, described by a folder's config.json; nothing is downloaded."""

    name = "hf"

    folder: str = option(help="The folder that holds config.json.", metavar="FOLDER")

    def build(self, **arguments: Any) -> nn.Module:
        """The network that `architectures` names there, without a cache; arguments change the config.

        Code that lies in the folder is not run.
        """
        spec = f"hf:{self.folder}"
        folder = Path(self.folder).expanduser()
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"--arch {spec}: {folder / 'config.json'} does not exist", "Name a model's folder."
            )
        transformers = need("transformers", spec)
        try:
            config = transformers.AutoConfig.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                **{"use_cache": False, **arguments},
            )
        except (OSError, ValueError, TypeError) as error:
            raise _unknown(spec, error) from error
        if getattr(config, "use_pretrained_backbone", False):
            config.use_pretrained_backbone = False  # it would be downloaded
        return _network(transformers, config, spec)


def _network(transformers: Any, config: Any, spec: str) -> nn.Module:
    names = list(getattr(config, "architectures", None) or ())
    if not names:
        network: nn.Module = transformers.AutoModel.from_config(config, trust_remote_code=False)
        return network
    made = getattr(transformers, str(names[0]), None)
    if not (isinstance(made, type) and issubclass(made, transformers.PreTrainedModel)):
        raise NnoptError(
            f"--arch {spec}: transformers {transformers.__version__} has no network called {names[0]!r}",
            "Code in a model's folder is not run. Build it by code of your own: --arch PATH.py:NAME.",
        )
    built: nn.Module = made(config)
    return built


def _unknown(spec: str, error: Exception) -> NnoptError:
    said = " ".join(str(error).split())
    return NnoptError(
        f"--arch {spec}: transformers cannot read its config.json: {said[:200]}",
        "Code that lies in a model's folder is not run; a newer transformers may know the model.",
    )
