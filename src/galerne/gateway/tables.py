"""What gateways keep in the database while requests are under way: enough to settle them if their process dies."""

from sqlalchemy import BigInteger, CheckConstraint, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from galerne.kernel import Table


class ProgressRow(Table):
    """A streamed request under way, as its gateway wrote it about a second ago; it goes when the request is settled.

    `record` is what a settlement needs besides the counts (`flights.Flight`, JSON); `holder` the gateway process.
    """

    __tablename__ = "gateway_progress"
    __table_args__ = (
        CheckConstraint("input_tokens >= 0 AND cached_tokens >= 0 AND output_tokens >= 0", name="tokens_not_negative"),
        Index(None, "holder"),
    )

    request_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(32))
    record: Mapped[str] = mapped_column(Text)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)


class ProcessRow(Table):
    """A gateway process that runs, or died without saying so; `seen_ms` is when it last said that it lives."""

    __tablename__ = "gateway_processes"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    started_ms: Mapped[int] = mapped_column(BigInteger)
    seen_ms: Mapped[int] = mapped_column(BigInteger)
