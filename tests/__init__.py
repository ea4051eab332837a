"""Tests of everything."""

import os

# Tests start processes while gRPC's threads run: its handlers of forks would end some of them before they begin.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
