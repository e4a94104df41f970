"""Numbers of bytes as text."""

GIB, MIB = 2**30, 2**20


def byte_unit(count: float) -> tuple[int, str]:
    """The unit for a number of bytes, and its name: GiB, or MiB for less than one.

    >>> byte_unit(3 * 2**30), byte_unit(5000)
    ((1073741824, 'GiB'), (1048576, 'MiB'))
    """
    return (GIB, "GiB") if count >= GIB else (MIB, "MiB")


def bytes_text(count: float) -> str:
    """A number of bytes with its unit.

    >>> bytes_text(11.8 * 2**30), bytes_text(2_000_000)
    ('11.8 GiB', '1.91 MiB')
    """
    unit, name = byte_unit(count)
    return f"{count / unit:.3g} {name}"
