"""Clipping of lines to an image."""


def clip_line(x1: float, y1: float, x2: float, y2: float, width: int, height: int):
    """The part of a line inside `[0, width-1] x [0, height-1]`, or None when none is (Liang-Barsky)."""
    dx, dy = x2 - x1, y2 - y1
    low, high = 0.0, 1.0
    for step, room in ((-dx, x1), (dx, width - 1 - x1), (-dy, y1), (dy, height - 1 - y1)):
        if step == 0:
            if room < 0:
                return None
        elif step < 0:
            low = max(low, room / step)
        else:
            high = min(high, room / step)
    if low > high:
        return None
    if low == 0.0 and high == 1.0:
        return x1, y1, x2, y2
    return x1 + low * dx, y1 + low * dy, x1 + high * dx, y1 + high * dy
