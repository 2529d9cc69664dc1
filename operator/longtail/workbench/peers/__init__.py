"""The other autoscalers' decision rules: small pure policies of our own, true to their code, quirks included.

Why not their programs: none of them can be asked "what would you do with this fleet?" without a cluster
around it, and none runs in virtual time. What a peer decides is a few lines of arithmetic; what makes a
comparison fair is that the lines are the right ones. So every module says which files of which commit it was
read from, keeps the quirks that change a number, and is tested on vectors; where the peer's own code could be
run beside ours, the recorded inputs and outputs of that run are tables in the tests.

No module here holds anybody's source text.
"""
