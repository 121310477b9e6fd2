"""`python -m nnopt_cli`."""

import sys

from nnopt_cli.app import main

sys.exit(main())
