-- Nodes that share a database learn what the others change. A change carries the
-- transaction that made it, so that a reader who asks for all from the oldest
-- transaction that was under way at its last look misses none. A notification only
-- says that it is time to look. Nothing of this is written for an order.

SET LOCAL lock_timeout = '5s'; -- everything else would wait behind this script

-- NULL: before this version.
ALTER TABLE doorbuster.streams ADD COLUMN born xid8;
ALTER TABLE doorbuster.streams ALTER COLUMN born SET DEFAULT pg_current_xact_id();
CREATE INDEX streams_born ON doorbuster.streams (born);

-- The last change of each row of the small tables that all nodes keep in memory.
CREATE TABLE doorbuster.changes (
	tbl  bytea NOT NULL,
	key  bytea NOT NULL,
	xact xid8  NOT NULL,
	PRIMARY KEY (tbl, key)
);
CREATE INDEX changes_xact ON doorbuster.changes (xact);

CREATE FUNCTION doorbuster.notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('doorbuster', '');
	RETURN NULL;
END $$;

CREATE FUNCTION doorbuster.row_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r doorbuster.rows := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
	IF r.tbl = 'webhook_raised' THEN -- a queue of each merchant: the merchant will do
		r.key := substring(r.key FROM 1 FOR position('\x00'::bytea IN r.key) - 1);
	END IF;
	INSERT INTO doorbuster.changes AS c (tbl, key, xact) VALUES (r.tbl, r.key, pg_current_xact_id())
	ON CONFLICT (tbl, key) DO UPDATE SET xact = excluded.xact;
	PERFORM pg_notify('doorbuster', '');
	RETURN NULL;
END $$;

CREATE TRIGGER born AFTER INSERT ON doorbuster.streams
	FOR EACH STATEMENT EXECUTE FUNCTION doorbuster.notify();
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON doorbuster.rows
	FOR EACH ROW WHEN (NEW.tbl IN ('rule_rollout', 'keys', 'webhooks', 'webhook_raised')) EXECUTE FUNCTION doorbuster.row_changed();
CREATE TRIGGER deleted AFTER DELETE ON doorbuster.rows
	FOR EACH ROW WHEN (OLD.tbl IN ('rule_rollout', 'keys', 'webhooks')) EXECUTE FUNCTION doorbuster.row_changed();

-- Which of how many servers this one is, and of which journal.
CREATE TABLE doorbuster.shard (
	journal uuid NOT NULL,
	number  int  NOT NULL, -- from 0
	count   int  NOT NULL,
	one     bool PRIMARY KEY DEFAULT true CHECK (one)
);
