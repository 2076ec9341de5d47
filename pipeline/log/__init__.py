"""The log, which is the queue: frames in segments, read through cursors."""
