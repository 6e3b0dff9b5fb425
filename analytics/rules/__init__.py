"""Rules for anomalies, faults and theft (domain 5): a table, pure conditions over (points, slots), one hold machine."""
