"""The networks this version knows, each a table, and the spec string that names one.

A spec is `<family>:` and comma-separated values in fixed order: `width`, then `stem` where the family has one, `input`,
`classes`, and then what differs from the usual: `norm=group` and `codes=nested`. For example
`resnet18:width=0.25,stem=3x3,input=1x32x32,classes=10`.
"""

from protocol.networks.binary import binary18
from protocol.networks.plain import cnn4, fedzip_cnn, vgg_small
from protocol.networks.resnet import resnet18
from protocol.networks.separable import mobile
from protocol.networks.spec import FAMILIES, parse

__all__ = ["FAMILIES", "binary18", "cnn4", "fedzip_cnn", "mobile", "parse", "resnet18", "vgg_small"]
