-- A job's record without what may be long, for whoever looks at many; none of a job that an older program saved last.
ALTER TABLE jobs ADD COLUMN head TEXT;
