"""placeholder"""


def load_builtin() -> None: ...
