from scored import entangled, made_up, searched_cells

__all__ = ["entangled", "made_up", "searched_cells"]
