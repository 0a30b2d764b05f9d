"""Connectors: from an encoder's features to vectors that a language model reads among its words."""

from panmodal.connectors.projectors import CONNECTORS, MLPConnector, PixelShuffle, make_connector
from panmodal.connectors.tiles import Tiles

__all__ = ["CONNECTORS", "MLPConnector", "PixelShuffle", "Tiles", "make_connector"]
