"""Connectors: from an encoder's features to vectors that a language model reads among its words."""

from panmodal.connectors.projectors import CONNECTORS, LinearConnector, MLPConnector, PixelShuffle, make_connector
from panmodal.connectors.qformer import QFormer
from panmodal.connectors.tiles import Tiles

__all__ = ["CONNECTORS", "LinearConnector", "MLPConnector", "PixelShuffle", "QFormer", "Tiles", "make_connector"]
