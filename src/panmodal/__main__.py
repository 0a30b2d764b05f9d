"""`python -m panmodal`"""

from panmodal.cli import main

main()
