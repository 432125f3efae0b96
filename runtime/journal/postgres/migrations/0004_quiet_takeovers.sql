-- Whoever takes a stream over inserts too, if only a conflict. A trigger of the statement
-- notified of each, and who notifies holds a lock of the whole server until the commit is
-- on disk and at the standby: take-overs went one after the other. Now a new row notifies.

SET LOCAL lock_timeout = '5s'; -- everything else would wait behind this script

CREATE OR REPLACE TRIGGER born AFTER INSERT ON doorbuster.streams
	FOR EACH ROW EXECUTE FUNCTION doorbuster.notify();
