"""What vLLM imports for the architectures in ``models.STAND_INS``, by name, when it serves one of them.

Each module offers our class, or vLLM's own if ours cannot be made: a release of vLLM that moved what
ours extends then serves as ever, and capture is refused.
"""
