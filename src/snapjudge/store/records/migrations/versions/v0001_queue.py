"""Observations, batches, schedules, files, reviews, and calls that are still to be made."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None
branch_labels = depends_on = None


def _text(name: str, *, null: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.String(), nullable=null)


def _number(name: str, *, null: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.Integer(), nullable=null)


def _time(name: str, *, null: bool = False) -> "sa.Column[float]":
    return sa.Column(name, sa.Float(), nullable=null)


def _json(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.JSON(), nullable=null)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "waiting",
        *(_number("seq"), _text("id"), _text("owner"), _text("given_id", null=True), _json("item"), _json("asked"), _time("taken_at")),
        *(_text("lease", null=True), _time("lease_until"), _number("tries")),
        *(sa.PrimaryKeyConstraint("seq"), sa.UniqueConstraint("id"), sa.UniqueConstraint("owner", "given_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("waiting_by_lease", "waiting", ["lease_until", "seq"])
    op.create_table(
        "judged",
        *(_number("seq"), _text("id"), _text("owner"), _text("given_id", null=True), _text("source"), _json("item", null=True), _json("answers")),
        *(_json("error", null=True), _time("taken_at"), _time("judged_at")),
        *(sa.PrimaryKeyConstraint("seq"), sa.UniqueConstraint("id"), sa.UniqueConstraint("owner", "given_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("judged_by_owner", "judged", ["owner", "seq"])
    op.create_index("judged_by_time", "judged", ["judged_at"])
    op.create_table("files", _text("id"), _text("owner"), _text("name"), _number("bytes"), _time("made_at"), sa.PrimaryKeyConstraint("id"))
    op.create_index("files_by_owner", "files", ["owner", "made_at"])
    op.create_table(
        "batches",
        *(_text("id"), _text("owner"), _text("state"), _json("request"), _json("asked"), _text("schedule", null=True), _number("total", null=True)),
        *(_number("done"), _number("abstained"), _number("flagged"), _number("out_bytes"), _json("error", null=True)),
        *(_time("made_at"), _time("begun_at", null=True), _time("ended_at", null=True), _text("lease", null=True), _time("lease_until")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("batches_by_state", "batches", ["state", "made_at"])
    op.create_table(
        "schedules",
        *(_text("id"), _text("owner"), _json("request"), _json("asked"), _time("every_s", null=True), _time("next_at", null=True), _time("made_at")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "calls",
        *(_text("id"), sa.Column("url", sa.Text(), nullable=False), _text("secret_env"), _json("body"), _number("tries"), _time("next_at")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("calls_by_time", "calls", ["next_at"])
    op.create_table(
        "reviews",
        *(_number("seq"), _text("id"), _text("owner"), _text("queue"), _json("reasons"), _text("policy"), _text("stage"), _json("inputs"), _text("source")),
        *(_json("answers"), _time("made_at"), _json("decision", null=True), _text("decided_by", null=True), _time("decided_at", null=True)),
        *(sa.PrimaryKeyConstraint("seq"), sa.UniqueConstraint("id")),
        sqlite_autoincrement=True,
    )
    op.create_index("reviews_by_queue", "reviews", ["queue", "decided_at", "seq"])


def downgrade() -> None:
    """Drop them."""
    for name in ("waiting", "judged", "files", "batches", "schedules", "calls", "reviews"):
        op.drop_table(name)
