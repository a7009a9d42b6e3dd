"""The catalogue of compressors, one a file."""

from telegrad.compressors.base import Compressor
from telegrad.compressors.bucketed_importance import BucketedImportance
from telegrad.compressors.choice import Policy, Warmup
from telegrad.compressors.chunk_topk import ChunkTopK
from telegrad.compressors.comp import Comp
from telegrad.compressors.compose import Compose
from telegrad.compressors.dct import DCT
from telegrad.compressors.dithering import Dithering
from telegrad.compressors.ecdq import ECDQ
from telegrad.compressors.ecuq import ECUQ
from telegrad.compressors.eden import Eden
from telegrad.compressors.fixed_point import FixedPoint
from telegrad.compressors.floating_point import FloatingPoint
from telegrad.compressors.head_tail import HeadTail
from telegrad.compressors.identity import Identity
from telegrad.compressors.importance import Importance
from telegrad.compressors.induced import Induced
from telegrad.compressors.mix import Mix
from telegrad.compressors.natural import Natural
from telegrad.compressors.natural_dithering import NaturalDithering
from telegrad.compressors.permk import PermK
from telegrad.compressors.powersgd import PowerSGD
from telegrad.compressors.qsgd import QSGD
from telegrad.compressors.randk import RandK
from telegrad.compressors.rtn import RTN
from telegrad.compressors.scaled import Scaled
from telegrad.compressors.sign import Sign
from telegrad.compressors.srht import SRHT
from telegrad.compressors.stopk import SegmentedTopK
from telegrad.compressors.subsample import Subsample
from telegrad.compressors.terngrad import TernGrad
from telegrad.compressors.topk import TopK

__all__ = [
    "DCT",
    "ECDQ",
    "ECUQ",
    "QSGD",
    "RTN",
    "SRHT",
    "BucketedImportance",
    "ChunkTopK",
    "Comp",
    "Compose",
    "Compressor",
    "Dithering",
    "Eden",
    "FixedPoint",
    "FloatingPoint",
    "HeadTail",
    "Identity",
    "Importance",
    "Induced",
    "Mix",
    "Natural",
    "NaturalDithering",
    "PermK",
    "Policy",
    "PowerSGD",
    "RandK",
    "Scaled",
    "SegmentedTopK",
    "Sign",
    "Subsample",
    "TernGrad",
    "TopK",
    "Warmup",
]
