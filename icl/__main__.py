"""`python -m icl`, for machines where the script is not on the path."""

import sys

from .cli import main

sys.exit(main())
