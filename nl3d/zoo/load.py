"""Total loading, where the zoo's readers look for it; it stands below, for the networks' own ``from_pretrained``."""

from nl3d.models.fill import fill_model as fill_model
from nl3d.models.fill import new_modules as new_modules
from nl3d.models.fill import on_meta as on_meta
from nl3d.models.fill import read_safetensors as read_safetensors

__all__ = ["fill_model", "new_modules", "on_meta", "read_safetensors"]
