"""`python -m foveate`."""

from foveate_command import main

main()
