"""The wire: frames, their framing, the states of a session. Bytes in, bytes out; no socket is touched here."""
