"""Connectors: from an encoder's features to vectors that a language model reads among its words."""

from panmodal.connectors.projectors import CONNECTORS, MLPConnector, PixelShuffle, make_connector

__all__ = ["CONNECTORS", "MLPConnector", "PixelShuffle", "make_connector"]
