-- Names are bytes, as the journal's are: any but 0x00, in any encoding.

CREATE TABLE doorbuster.streams (
	stream       bytea  PRIMARY KEY,
	part         int    NOT NULL, -- yyyymm of its first Open: where its events lie
	epoch        bigint NOT NULL, -- of the newest owner
	seq          bigint NOT NULL, -- of the newest event, 0 = none
	snapshot_seq bigint NOT NULL  -- of the newest snapshot, 0 = none
) WITH (fillfactor = 50); -- every append updates a row in place

-- One row is what one stream got from one group. Deals that began in the same
-- month share a partition, so that old ones are dropped in one go.
CREATE TABLE doorbuster.events (
	part   int    NOT NULL,
	stream bytea  NOT NULL,
	first  bigint NOT NULL, -- seq of the first event
	count  int    NOT NULL CHECK (count > 0),
	epoch  bigint NOT NULL,
	crc    bigint NOT NULL, -- CRC32C of all other fields
	frames bytea  NOT NULL,
	PRIMARY KEY (part, stream, first)
) PARTITION BY LIST (part);

CREATE TABLE doorbuster.snapshots (
	stream bytea  PRIMARY KEY,
	seq    bigint NOT NULL,
	crc    bigint NOT NULL,
	state  bytea  NOT NULL
);

CREATE TABLE doorbuster.rows (
	tbl   bytea NOT NULL,
	key   bytea NOT NULL,
	value bytea NOT NULL,
	PRIMARY KEY (tbl, key)
);

-- Frames are compact, and compressing them costs more than it saves.
ALTER TABLE doorbuster.snapshots ALTER COLUMN state SET STORAGE EXTERNAL;
