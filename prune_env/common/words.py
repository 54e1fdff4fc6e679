"""Numbers with their nouns."""


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless the number is 1.

    Example:
        >>> counted(1, "thread"), counted(1200, "plan")
        ('1 thread', '1,200 plans')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
