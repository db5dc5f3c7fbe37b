"""`python -m icl.cli`, for machines where the script is not on the path."""

import sys

from .app import main

sys.exit(main())
