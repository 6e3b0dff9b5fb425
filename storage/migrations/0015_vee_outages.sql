-- A confirmed outage that is registered, ended or withdrawn marks the judged days it reaches in its own transaction.
DROP TRIGGER IF EXISTS outage_marks_dirty ON exemption;
CREATE TRIGGER outage_marks_dirty AFTER INSERT OR UPDATE ON exemption
    FOR EACH ROW EXECUTE FUNCTION outage_marks_dirty();
