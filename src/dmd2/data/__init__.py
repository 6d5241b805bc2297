"""Data: LightningDataModules and their preparation. They know no model, and no model knows them."""

# Imported eagerly, so that YAML and notebooks can say dmd2.data.Digits. Readers of optional formats
# (Parquet, LMDB, zstd) import their library when they are called.
from dmd2.data.base import DataModule
from dmd2.data.captions import fill_phrasings, read_captions
from dmd2.data.codec import Codec
from dmd2.data.digits import Digits, SlantedDigits, TextDigits
from dmd2.data.images import Images
from dmd2.data.latents import Latents
from dmd2.data.pairs import PairStore, PairWriter
from dmd2.data.prompts import Captioned, Prompts
from dmd2.data.sampler import BatchSampler
from dmd2.data.split import Split, stratified
from dmd2.data.toy import Toy2D, mode_centres

__all__ = [
    "BatchSampler",
    "Captioned",
    "Codec",
    "DataModule",
    "Digits",
    "Images",
    "Latents",
    "PairStore",
    "PairWriter",
    "Prompts",
    "SlantedDigits",
    "Split",
    "TextDigits",
    "Toy2D",
    "fill_phrasings",
    "mode_centres",
    "read_captions",
    "stratified",
]
