import argparse
import sys

import grading.hub
from grading.course import Unready
from grading.hub import trial

parser = argparse.ArgumentParser(prog="python -m grading.hub", description=grading.hub.__doc__.splitlines()[0])
parser.add_argument("folder", help="an empty folder, or one that this command made")
parser.add_argument("--assignments", nargs="+", default=["softmax"], metavar="NAME", help="what the course has")
parser.add_argument("--learners", nargs="+", default=["ada", "ben"], metavar="NAME")

try:
    trial.main(parser.parse_args())
except (Unready, OSError) as error:
    print(error, file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    print()
