-- Points of other kinds than measuring points: total-sum groups (总加组) and DC analog ports of a terminal. Each kind counts
-- its own numbers, so (device, kind, pn) is the address of a point in service.

ALTER TABLE point ADD COLUMN kind text NOT NULL DEFAULT 'measuring'
    CONSTRAINT point_kind CHECK (kind IN ('measuring', 'group', 'dc'));
