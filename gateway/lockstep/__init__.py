"""A day in virtual time: the same service, without sockets, threads or waiting.

The event loop's time jumps to whatever is due next, storage works in the caller, and the
devices are a child process behind a pipe that steps when it is told to. Nothing depends
on how fast the machine is, so a seed gives the same day every time.
"""
