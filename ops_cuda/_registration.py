"""The one `torch.library` namespace of these ops: `torch.ops.detectline.*`."""

import torch

LIBRARY = torch.library.Library("detectline", "DEF")
