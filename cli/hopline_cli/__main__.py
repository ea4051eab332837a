"""``python -m hopline_cli`` is the command ``hopline``."""

from hopline_cli.main import main

if __name__ == "__main__":
    main()
