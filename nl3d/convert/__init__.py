"""Other projects' checkpoints: read them, infer the project, rename the keys; families are added by registration."""

from nl3d.convert.families.table import families as families
from nl3d.convert.families.table import register_family as register_family
from nl3d.convert.family import Family as Family
from nl3d.convert.family import resnet_rules as resnet_rules
