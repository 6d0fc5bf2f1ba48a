"""A server for the built site."""

from tools.server import GzipHandler, QuietHandler, serving

__all__ = ["GzipHandler", "QuietHandler", "serving"]
