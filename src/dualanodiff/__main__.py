"""`python -m dualanodiff` is `dualanodiff`."""

from dualanodiff.cli import main

main()
