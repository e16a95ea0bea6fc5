"""Pictures of rankings and of attention."""

from nl3d.viz.attention_map import Attention as Attention
from nl3d.viz.attention_map import attention as attention
