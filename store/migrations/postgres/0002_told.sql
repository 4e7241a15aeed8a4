-- What each relay on this queue tells the others: which workers it has heard of.
CREATE TABLE told (
    relay TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    told_at BIGINT NOT NULL,
    body TEXT NOT NULL
);
