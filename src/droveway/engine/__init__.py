"""The corridor: request in, admit, plan, hold, dispatch, stream out, settle, journal."""
