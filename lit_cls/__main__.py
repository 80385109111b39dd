"""`python -m lit_cls` is the same as `lit_cls`."""

import sys

from lit_cls.cli import main

if __name__ == "__main__":
    sys.exit(main())
