from scored import entangled, made_up, supernet

__all__ = ["entangled", "made_up", "supernet"]
