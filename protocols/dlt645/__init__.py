"""DL/T 645-2007 and -1997: frame, data items, requests, load records. Pure; imports protocols/common only."""
