CREATE TABLE deals (
	id    text PRIMARY KEY,
	stock bigint NOT NULL CHECK (stock >= 0),
	seq   bigint NOT NULL DEFAULT 0,
	price bigint NOT NULL,
	most  bigint NOT NULL -- units that one user may have
) WITH (fillfactor = 50); -- room to update a row on its own page

CREATE TABLE bought (
	deal_id  text   NOT NULL,
	user_id  text   NOT NULL,
	quantity bigint NOT NULL,
	most     bigint NOT NULL,
	PRIMARY KEY (deal_id, user_id),
	CONSTRAINT per_user CHECK (quantity <= most)
) WITH (fillfactor = 80);

CREATE TABLE orders (
	deal_id   text   NOT NULL,
	user_id   text   NOT NULL,
	key       text   NOT NULL, -- idempotency key
	seq       bigint NOT NULL,
	quantity  bigint NOT NULL,
	available bigint NOT NULL,
	total     bigint NOT NULL,
	at        bigint NOT NULL, -- Unix ms
	CONSTRAINT once PRIMARY KEY (deal_id, user_id, key)
);
