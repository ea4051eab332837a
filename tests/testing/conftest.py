"""The fixture of the plug-in."""

from hopline_engine.pytest_plugin import engine as engine  # where Hopline is run from its sources
