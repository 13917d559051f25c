"""The tables. A change of them is a new file in `migrations/versions`; a test sees that both say the same."""

from sqlalchemy import JSON, Column, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

waiting = Table(  # observations that were taken in and are not judged yet
    "waiting",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False),
    Column("given_id", String),  # the caller's own, by which a repeated call is known
    Column("item", JSON, nullable=False),
    Column("asked", JSON, nullable=False),
    Column("taken_at", Float, nullable=False),
    Column("lease", String),  # who judges it just now
    Column("lease_until", Float, nullable=False, default=0.0),
    Column("tries", Integer, nullable=False, default=0),
    UniqueConstraint("owner", "given_id"),
    sqlite_autoincrement=True,  # a number is never given twice, whatever was deleted
)
Index("waiting_by_lease", waiting.c.lease_until, waiting.c.seq)

judged = Table(  # the record: one row for each observation, for ever one
    "judged",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False),
    Column("given_id", String),
    Column("source", String, nullable=False),
    Column("item", JSON),  # where texts are kept
    Column("answers", JSON, nullable=False),
    Column("error", JSON),
    Column("taken_at", Float, nullable=False),
    Column("judged_at", Float, nullable=False),
    UniqueConstraint("owner", "given_id"),
    sqlite_autoincrement=True,  # a number is never given twice, whatever was deleted
)
Index("judged_by_owner", judged.c.owner, judged.c.seq)
Index("judged_by_time", judged.c.judged_at)

files = Table(
    "files",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("name", String, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("made_at", Float, nullable=False),
)
Index("files_by_owner", files.c.owner, files.c.made_at)

batches = Table(
    "batches",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("state", String, nullable=False),
    Column("request", JSON, nullable=False),
    Column("asked", JSON, nullable=False),
    Column("schedule", String),  # the schedule that made it
    Column("total", Integer),  # records, once they are counted
    Column("done", Integer, nullable=False, default=0),
    Column("abstained", Integer, nullable=False, default=0),
    Column("flagged", Integer, nullable=False, default=0),
    Column("out_bytes", Integer, nullable=False, default=0),  # of its results that count
    Column("error", JSON),
    Column("made_at", Float, nullable=False),
    Column("begun_at", Float),
    Column("ended_at", Float),
    Column("lease", String),
    Column("lease_until", Float, nullable=False, default=0.0),
)
Index("batches_by_state", batches.c.state, batches.c.made_at)

schedules = Table(
    "schedules",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("request", JSON, nullable=False),
    Column("asked", JSON, nullable=False),
    Column("every_s", Float),
    Column("next_at", Float),
    Column("made_at", Float, nullable=False),
)

calls = Table(  # webhooks that are still to be called
    "calls",
    metadata,
    Column("id", String, primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret_env", String, nullable=False),
    Column("body", JSON, nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("next_at", Float, nullable=False),
)
Index("calls_by_time", calls.c.next_at)

reviews = Table(  # what people are to look at
    "reviews",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False),
    Column("queue", String, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("policy", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("source", String, nullable=False),
    Column("answers", JSON, nullable=False),
    Column("made_at", Float, nullable=False),
    Column("decision", JSON),
    Column("decided_by", String),
    Column("decided_at", Float),
    sqlite_autoincrement=True,
)
Index("reviews_by_queue", reviews.c.queue, reviews.c.decided_at, reviews.c.seq)
