"""The configuration file: read, compared with SQL, applied, exported. It is here because it uses both apps."""

from controlplane.config.apply import apply
from controlplane.config.change import Change, summary
from controlplane.config.document import ConfigInvalid, Mistake
from controlplane.config.export import export

__all__ = ["Change", "ConfigInvalid", "Mistake", "apply", "export", "summary"]
