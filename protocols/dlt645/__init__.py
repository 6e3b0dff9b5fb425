"""DL/T 645-2007 and -1997: frame, data items, requests, load records, explanations. Pure; imports protocols/common only."""
