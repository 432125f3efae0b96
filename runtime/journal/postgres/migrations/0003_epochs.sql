-- The event that opens each epoch of a stream: who took it over, when, and which event
-- is the first that may be the new owner's. It is written by the statement that raises
-- the epoch. It has no number among the stream's own events, so nodes of the version
-- before, which neither write nor read it, go on beside those that do.
CREATE TABLE doorbuster.epochs (
	stream    bytea       NOT NULL,
	epoch     bigint      NOT NULL,
	first     bigint      NOT NULL, -- seq
	opened_by text        NOT NULL,
	opened_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- this server's clock, once the row of the stream is held
	PRIMARY KEY (stream, epoch)
);
