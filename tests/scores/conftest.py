from scored import made_up, supernet

__all__ = ["made_up", "supernet"]
