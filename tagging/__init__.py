"""Multi-label audio tagging: the library behind the four scripts and the tools.

The packages are listed in the order in which data flows through them. Each imports only from those before it:
utils -> data -> modeling -> evaluation -> training -> reporting. `make lint` checks this.
"""
