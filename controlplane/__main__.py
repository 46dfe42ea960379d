"""`python -m controlplane COMMAND`: how `up` starts its children where there is no `manage.py`."""

from controlplane.cli import main

main()
