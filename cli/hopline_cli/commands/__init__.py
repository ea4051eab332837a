"""One module per verb or noun of the command line, each imported only when its command is used."""
