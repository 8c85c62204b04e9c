"""The end of a process in the middle of its work, as tests play it."""


class Died(BaseException):
    """The process is gone: nothing that it would still do happens.

    Whoever plays the process raises it again at each later step.  No `except` of the code under
    test may catch it, as none would run.
    """
