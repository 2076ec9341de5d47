"""From the bytes of a request to records: reading, inflating, splitting, screening, decoding.

Plain functions over bytes, without Django, on the request's thread; nothing here is shared or
locked but the byte gate that a reader is handed.
"""
