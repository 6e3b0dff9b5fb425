"""Vocabulary of the whole product: quantities, qualities, readings, devices, times. No I/O, no clock, no SQL.

Ring 0: everything above `protocols/common` may import it, it imports nothing of the product.
"""
