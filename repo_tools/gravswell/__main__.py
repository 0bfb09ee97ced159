"""``python -m gravswell`` is the ``gravswell`` command."""

from gravswell.cli import main

main()
