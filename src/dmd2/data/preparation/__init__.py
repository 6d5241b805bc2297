"""Preparation of data: archives in, one folder of arrays out, in blocks that processes share."""
