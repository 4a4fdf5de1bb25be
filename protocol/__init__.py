"""What both ends of the wire must agree on: pure functions over bytes and values.

Nothing here opens a socket or a file, reads a clock or imports torch; every test is a plain call.
"""
