"""`python -m vferry`, for a vferry that starts itself again."""

from vferry.cli import main

main()
